//! What a line typed into the chat asks for.

/// What `/help` prints.
pub const HELP: &str = "\
/list             who is online
/tell USER TEXT   sends an encrypted message to one user
/all TEXT         posts to everybody who is online
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
            "/tell" => match rest.split_once(char::is_whitespace) {
                Some((user, text)) => Ok(Self::Tell { user: user.into(), text: text.trim().into() }),
                None => Err("write `/tell USER TEXT`".into()),
            },
            unknown if unknown.starts_with('/') => Err(format!("there is no command `{unknown}`; `/help` lists them")),
            _ => Ok(Self::Say { text: line.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_begin_with_a_slash_and_anything_else_is_said() {
        let tell = Line::Tell { user: "bob@server-b".into(), text: "hello  there".into() };
        assert_eq!(Line::parse("  /tell bob@server-b   hello  there \n"), Ok(tell));
        assert_eq!(Line::parse("/all hi"), Ok(Line::All { text: "hi".into() }));
        assert_eq!(Line::parse("/who bob"), Ok(Line::Who { user: "bob".into() }));
        assert_eq!(Line::parse("/list"), Ok(Line::List));
        assert_eq!(Line::parse("/quit"), Ok(Line::Quit));
        assert_eq!(Line::parse("hi there"), Ok(Line::Say { text: "hi there".into() }));
        assert_eq!(Line::parse(" \t"), Ok(Line::Empty));
    }

    #[test]
    fn a_command_that_lacks_something_says_how_it_is_written() {
        for (line, hint) in
            [("/tell bob", "/tell USER TEXT"), ("/all", "/all TEXT"), ("/who ", "/who USER"), ("/x", "`/x`")]
        {
            assert!(Line::parse(line).unwrap_err().contains(hint), "{line}");
        }
    }
}
