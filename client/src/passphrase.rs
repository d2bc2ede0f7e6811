//! Where a passphrase comes from: a file, the environment, or the terminal, in this order.

use std::{
    env,
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use zeroize::Zeroizing;

use crate::{failure::Failure, private_file};

/// The environment variable that holds the passphrase.
pub const VARIABLE: &str = "SOCP_PASSPHRASE";

/// Where to read the passphrase.
#[derive(Clone)]
pub enum Source {
    /// The first line of a file.
    File(PathBuf),
    /// Known already.
    Given(Zeroizing<String>),
    /// The terminal, without echo.
    Prompt,
    /// There is no way to ask.
    Nowhere,
}

impl Source {
    /// Chooses by what was said on the command line and in the environment.
    pub fn choose(file: Option<PathBuf>) -> Self {
        match (file, env::var(VARIABLE)) {
            (Some(file), _) => Self::File(file),
            (None, Ok(given)) => Self::Given(given.into()),
            (None, Err(_)) if io::stdin().is_terminal() => Self::Prompt,
            (None, Err(_)) => Self::Nowhere,
        }
    }

    /// Reads the passphrase of a key that exists.
    pub fn read(&self, prompt: &str) -> Result<Zeroizing<String>, Failure> {
        match self {
            Self::Given(passphrase) => Ok(passphrase.clone()),
            Self::Prompt => ask(prompt),
            Self::Nowhere => {
                Err(Failure::failed("the key is encrypted, and there is no terminal to ask for its passphrase")
                    .hint(format!("set `{VARIABLE}` or pass `--passphrase-file FILE`")))
            }
            Self::File(path) => {
                let text = private_file::read(path)?
                    .map(Zeroizing::new)
                    .ok_or_else(|| Failure::failed(format!("there is no passphrase file `{}`", path.display())))?;
                Ok(text.lines().next().unwrap_or_default().to_owned().into())
            }
        }
    }

    /// Reads a passphrase for a new key: twice at a terminal, and never an empty one.
    pub fn choose_new(&self) -> Result<Zeroizing<String>, Failure> {
        let passphrase = self.read("Choose a passphrase for the new key: ").map_err(|failure| match self {
            Self::Nowhere => Failure::failed("a new key wants a passphrase, and there is no terminal to ask for one")
                .hint(format!("set `{VARIABLE}`, pass `--passphrase-file FILE`, or say `--no-passphrase`")),
            _ => failure,
        })?;
        if passphrase.is_empty() {
            return Err(Failure::failed("the passphrase is empty").hint("say `--no-passphrase` if none is wanted"));
        }
        if matches!(self, Self::Prompt) && ask("The same passphrase again: ")? != passphrase {
            return Err(Failure::failed("the two passphrases differ").hint("try again"));
        }
        Ok(passphrase)
    }
}

fn ask(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|error| Failure::failed(format!("cannot read the passphrase from the terminal: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pass");
        private_file::write(&path, b"open sesame\nsecond line\n").unwrap();
        assert_eq!(*Source::File(path).read("").unwrap(), "open sesame");
        assert!(Source::File(folder.path().join("absent")).read("").is_err());
    }

    #[test]
    fn a_new_key_takes_no_empty_passphrase() {
        assert!(Source::Given(String::new().into()).choose_new().is_err());
        assert!(Source::Nowhere.choose_new().unwrap_err().hint.unwrap().contains("--no-passphrase"));
    }
}
