//! What a line typed into the chat asks for.

use crate::history::MESSAGES_MAX;

/// What `/help` prints.
pub const HELP: &str = "\
/list             who is online
/tell USER TEXT   sends an encrypted message to one user
/all TEXT         posts to everybody who is online
/file USER PATH   sends a file, encrypted, to one user
/history [USER] [N]  what was received before, of everybody or of one user; what you sent is not kept
/who USER         fingerprint and presence of one user
/help             this
/quit             goes offline and ends
TEXT              sends to the user told last";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Shows who is online.
    List,
    /// Sends to one user.
    Tell {
        /// Whole or bare name.
        user: String,
        /// The text.
        text: String,
    },
    /// Posts to all.
    All {
        /// The text.
        text: String,
    },
    /// Shows what was received before.
    History {
        /// Whole or bare name; everybody if there is none.
        user: Option<String>,
        /// How many.
        messages: Option<usize>,
    },
    /// Sends a file to one user.
    File {
        /// Whole or bare name.
        user: String,
        /// Where it is.
        path: String,
    },
    /// Shows one user.
    Who {
        /// Whole or bare name.
        user: String,
    },
    /// Sends to the user told last.
    Say {
        /// The text.
        text: String,
    },
    /// Shows the commands.
    Help,
    /// Ends.
    Quit,
    /// Nothing.
    Empty,
}

impl Line {
    /// Reads a line; the error says how the command is written.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "" => Ok(Self::Empty),
            "/list" => Ok(Self::List),
            "/help" => Ok(Self::Help),
            "/quit" => Ok(Self::Quit),
            "/all" if !rest.is_empty() => Ok(Self::All { text: rest.into() }),
            "/all" => Err("write `/all TEXT`".into()),
            "/who" if !rest.is_empty() => Ok(Self::Who { user: rest.into() }),
            "/who" => Err("write `/who USER`".into()),
            "/history" => history(rest),
            "/tell" => match rest.split_once(char::is_whitespace) {
                Some((user, text)) => Ok(Self::Tell { user: user.into(), text: text.trim().into() }),
                None => Err("write `/tell USER TEXT`".into()),
            },
            "/file" => match rest.split_once(char::is_whitespace) {
                Some((user, path)) => Ok(Self::File { user: user.into(), path: path.trim().into() }),
                None => Err("write `/file USER PATH`".into()),
            },
            unknown if unknown.starts_with('/') => Err(format!("there is no command `{unknown}`; `/help` lists them")),
            _ => Ok(Self::Say { text: line.into() }),
        }
    }
}

fn history(rest: &str) -> Result<Line, String> {
    let wrong = || "write `/history [USER] [N]`".to_owned();
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (user, messages) = match words[..] {
        [] => (None, None),
        [word] if word.bytes().all(|digit| digit.is_ascii_digit()) => (None, Some(word)),
        [user] => (Some(user), None),
        [user, messages] => (Some(user), Some(messages)),
        _ => return Err(wrong()),
    };
    let messages = messages.map(str::parse).transpose().map_err(|_| wrong())?;
    if messages.is_some_and(|messages| !(1..=MESSAGES_MAX).contains(&messages)) {
        return Err(format!("`/history` shows 1 to {MESSAGES_MAX} messages"));
    }
    Ok(Line::History { user: user.map(str::to_owned), messages })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_begin_with_a_slash_and_anything_else_is_said() {
        let tell = Line::Tell { user: "bob@server-b".into(), text: "hello  there".into() };
        assert_eq!(Line::parse("  /tell bob@server-b   hello  there \n"), Ok(tell));
        let file = Line::File { user: "bob".into(), path: "My Files/a.txt".into() };
        assert_eq!(Line::parse("/file bob  My Files/a.txt"), Ok(file));
        assert_eq!(Line::parse("/all hi"), Ok(Line::All { text: "hi".into() }));
        assert_eq!(Line::parse("/who bob"), Ok(Line::Who { user: "bob".into() }));
        let history = |user: Option<&str>, messages| Ok(Line::History { user: user.map(str::to_owned), messages });
        assert_eq!(Line::parse("/history"), history(None, None));
        assert_eq!(Line::parse("/history 7"), history(None, Some(7)));
        assert_eq!(Line::parse("/history bob@server-b"), history(Some("bob@server-b"), None));
        assert_eq!(Line::parse("/history bob  10000"), history(Some("bob"), Some(10_000)));
        assert_eq!(Line::parse("/list"), Ok(Line::List));
        assert_eq!(Line::parse("/quit"), Ok(Line::Quit));
        assert_eq!(Line::parse("hi there"), Ok(Line::Say { text: "hi there".into() }));
        assert_eq!(Line::parse(" \t"), Ok(Line::Empty));
    }

    #[test]
    fn a_command_that_lacks_something_says_how_it_is_written() {
        for (line, hint) in [
            ("/tell bob", "/tell USER TEXT"),
            ("/file bob", "/file USER PATH"),
            ("/all", "/all TEXT"),
            ("/who ", "/who USER"),
            ("/x", "`/x`"),
        ]
        .into_iter()
        .chain([
            ("/history bob x", "/history [USER] [N]"),
            ("/history a 1 2", "/history [USER] [N]"),
            ("/history 0", "1 to 10000"),
            ("/history 10001", "1 to 10000"),
        ]) {
            assert!(Line::parse(line).unwrap_err().contains(hint), "{line}");
        }
    }
}
