//! Names that people type: users and servers.

use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
};
use core::{borrow::Borrow, fmt, str::FromStr};

use crate::{id::ServerId, limits::NAME_BYTES_MAX, rejection::Rejection, v1::Reason};

/// A user's bare name: 1 to 64 of `a-z 0-9 . _ -`. Unique on its home only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Arc<str>);

/// A server's name, of the same alphabet: a label, bound to a server id by a pin or an admission. Of two servers of one name
/// the second is shown as `name#` and digits of its id, which is a name that nobody can claim.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName(Arc<str>);

fn check(text: &str) -> Result<Arc<str>, Rejection> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.into())
    } else {
        let shown: String = text.chars().take(NAME_BYTES_MAX).collect();
        Err(Rejection::new(Reason::NameInvalid, "a name is 1 to 64 characters of `a-z 0-9 . _ -`").with("name", shown))
    }
}

macro_rules! name {
    ($name:ident) => {
        impl $name {
            /// Checks length and alphabet. Rejects: NAME_INVALID.
            pub fn parse(text: &str) -> Result<Self, Rejection> {
                check(text).map(Self)
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Rejection;

            fn from_str(text: &str) -> Result<Self, Rejection> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name!(UserName);
name!(ServerName);

impl ServerName {
    /// Reads a name as it is shown: also one with digits of an id behind it. Rejects: NAME_INVALID.
    pub fn parse_shown(text: &str) -> Result<Self, Rejection> {
        match text.split_once('#') {
            None => Self::parse(text),
            Some((name, digits)) => {
                let is_hex = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
                if matches!(digits.len(), 8 | 64) && digits.bytes().all(is_hex) {
                    check(name).map(|_| Self(text.into()))
                } else {
                    check(text).map(Self)
                }
            }
        }
    }

    /// The name with the first so many digits of a server's id behind it, 8 or 64.
    pub fn with_id(&self, server: &ServerId, digits: usize) -> Self {
        let name = self.0.split('#').next().unwrap_or_default();
        Self(format!("{name}#{}", &server.to_string()[..digits]).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_with_8_or_64_digits_behind_it_and_claimed_with_none() {
        let server = ServerId::of_key(&[1; 32]);
        let name = ServerName::parse("server-b").unwrap();
        for digits in [8, 64] {
            let shown = name.with_id(&server, digits);
            assert_eq!(shown.as_str(), format!("server-b#{}", &server.to_string()[..digits]));
            assert_eq!(ServerName::parse_shown(shown.as_str()).unwrap(), shown);
            assert_eq!(ServerName::parse(shown.as_str()).unwrap_err().reason, Reason::NameInvalid);
            assert_eq!(shown.with_id(&server, digits), shown);
        }
        assert_eq!(ServerName::parse_shown("server-b").unwrap(), name);
        for bad in ["#00112233", "b#", "b#0011223", "b#0011223G", "b#00112233#00112233", "B#00112233"] {
            assert_eq!(ServerName::parse_shown(bad).unwrap_err().reason, Reason::NameInvalid, "{bad}");
        }
    }

    #[test]
    fn a_name_is_1_to_64_of_its_alphabet() {
        let longest = "x".repeat(64);
        for good in ["a", "alice", "a.b_c-9", &longest] {
            assert_eq!(UserName::parse(good).unwrap().as_str(), good);
        }
        let too_long = "x".repeat(65);
        for bad in ["", "Alice", "a b", "a@b", "é", "a\n", &too_long] {
            assert_eq!(UserName::parse(bad).unwrap_err().reason, Reason::NameInvalid, "{bad:?}");
        }
    }
}
