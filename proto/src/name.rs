//! Names that people type: users and servers.

use alloc::{string::String, sync::Arc};
use core::{fmt, str::FromStr};

use crate::{limits::NAME_BYTES_MAX, rejection::Rejection, v1::Reason};

/// A user's bare name: 1 to 64 of `a-z 0-9 . _ -`. Unique on its home only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Arc<str>);

/// A server's name, of the same alphabet: a label, bound to a server id by a pin.
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

#[cfg(test)]
mod tests {
    use super::*;

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
