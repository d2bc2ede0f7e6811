//! Which users' keys a person has compared over another way: marks beside the pins, each for one key of one user.
//!
//! A mark holds as long as the pinned key is the one it was made for. Any other key drops it, also one that the user's old key
//! vouches for, and that shows: somebody may have stolen that key. The file is a log of JSON lines, of which the last about a
//! key counts; several processes may add to it at once.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Write as _},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use socp::{
    id::{KeyFingerprint, ServerId},
    message::Address,
    name::UserName,
};

use crate::{failure::Failure, private_file};

/// What a person has found out about a user's pinned key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nothing was compared.
    #[default]
    Unverified,
    /// It is the one that was compared.
    Verified,
    /// Another one was compared.
    Lapsed,
}

/// The marks of one profile.
pub struct Marks {
    path: PathBuf,
    marks: BTreeMap<Address, BTreeMap<KeyFingerprint, bool>>,
    read_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    user: String,
    home_id: String,
    fingerprint: String,
    verified: bool,
}

impl Marks {
    /// Opens the log; absent is empty.
    pub fn open(path: PathBuf) -> Result<Self, Failure> {
        let mut marks = Self { path, marks: BTreeMap::new(), read_bytes: 0 };
        marks.refresh()?;
        Ok(marks)
    }

    /// Reads what other processes added: the whole file, which holds what people did by hand.
    fn refresh(&mut self) -> Result<(), Failure> {
        let text = match fs::metadata(&self.path) {
            Ok(file) if file.len() == self.read_bytes => return Ok(()),
            Ok(_) => fs::read_to_string(&self.path).map_err(|error| Failure::file("read", &self.path, &error))?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Failure::file("read", &self.path, &error)),
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]); // Another process may be writing the last.
        for line in whole.lines() {
            let (user, fingerprint, verified) = parse(line).ok_or_else(|| {
                Failure::failed(format!("`{}` is damaged", self.path.display()))
                    .hint("it holds which keys you have compared: restore it from a backup, or mend the line by hand")
            })?;
            self.marks.entry(user).or_default().insert(fingerprint, verified);
        }
        self.read_bytes = whole.len() as u64;
        Ok(())
    }

    /// What was found out about this key of a user.
    pub fn standing(&mut self, user: &Address, pinned: KeyFingerprint) -> Result<Standing, Failure> {
        self.refresh()?;
        let Some(marks) = self.marks.get(user) else { return Ok(Standing::Unverified) };
        Ok(match marks.get(&pinned) {
            Some(true) => Standing::Verified,
            Some(false) => Standing::Unverified,
            None if marks.values().any(|verified| *verified) => Standing::Lapsed,
            None => Standing::Unverified,
        })
    }

    /// Notes that a person compared this key of a user and found it right, or takes that back.
    pub fn mark(&mut self, user: &Address, fingerprint: KeyFingerprint, verified: bool) -> Result<(), Failure> {
        let line = Line {
            user: user.user.to_string(),
            home_id: user.home.to_string(),
            fingerprint: fingerprint.to_string(),
            verified,
        };
        let mut text = serde_json::to_string(&line).map_err(|error| Failure::failed(error.to_string()))?;
        text.push('\n');
        private_file::options()
            .append(true)
            .create(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| Failure::file("write", &self.path, &error))?;
        self.refresh()
    }
}

fn parse(line: &str) -> Option<(Address, KeyFingerprint, bool)> {
    let line: Line = serde_json::from_str(line).ok()?;
    let user = Address { home: ServerId::parse(&line.home_id)?, user: UserName::parse(&line.user).ok()? };
    Some((user, KeyFingerprint::parse(&line.fingerprint)?, line.verified))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Address {
        Address { home: ServerId::of_key(&[1; 32]), user: UserName::parse(name).unwrap() }
    }

    #[test]
    fn a_mark_holds_for_the_very_key_of_the_very_user_and_any_other_key_drops_it_visibly() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Marks::open(folder.path().join("verified.jsonl")).unwrap();
        let (alice, bob) = (user("alice"), user("bob"));
        let [key, other] = [b"one", b"two"].map(|key| KeyFingerprint::of_spki(key));
        let mut marks = open();
        let mut elsewhere = open();
        assert_eq!(marks.standing(&alice, key).unwrap(), Standing::Unverified);
        marks.mark(&alice, key, true).unwrap();
        for marks in [&mut marks, &mut elsewhere, &mut open()] {
            assert_eq!(marks.standing(&alice, key).unwrap(), Standing::Verified);
            assert_eq!(marks.standing(&alice, other).unwrap(), Standing::Lapsed);
            assert_eq!(marks.standing(&bob, key).unwrap(), Standing::Unverified, "the same key under another name");
        }
        elsewhere.mark(&alice, key, false).unwrap();
        assert_eq!(marks.standing(&alice, key).unwrap(), Standing::Unverified, "taken back");
        assert_eq!(marks.standing(&alice, other).unwrap(), Standing::Unverified);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("verified.jsonl");
        private_file::write(&path, b"nothing\n").unwrap();
        assert!(Marks::open(path).err().unwrap().message.contains("verified.jsonl` is damaged"));
    }
}
