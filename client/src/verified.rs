//! Which users' keys a person has compared over another way: marks beside the pins, each for one key of one user.
//!
//! A mark holds as long as the pinned key is the one it was made for. Any other key drops it, also one that the user's old key
//! vouches for, and that shows: somebody may have stolen that key. The file is a log of JSON lines, of which the last about a
//! key counts; several processes may add to it at once.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use socp::{
    id::{KeyFingerprint, ServerId},
    message::Address,
    name::UserName,
};

use crate::{failure::Failure, log_file::LogFile};

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
    log: LogFile,
    marks: BTreeMap<Address, BTreeMap<KeyFingerprint, bool>>,
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
        let mut marks = Self { log: LogFile::new(path, "which keys you have compared"), marks: BTreeMap::new() };
        marks.refresh()?;
        Ok(marks)
    }

    /// Reads what other processes added.
    fn refresh(&mut self) -> Result<(), Failure> {
        let Self { log, marks } = self;
        log.read_new(|line| {
            let (user, fingerprint, verified) = parse(&line)?;
            marks.entry(user).or_default().insert(fingerprint, verified);
            Some(())
        })
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
        self.log.append(&line)?;
        self.refresh()
    }
}

fn parse(line: &Line) -> Option<(Address, KeyFingerprint, bool)> {
    let user = Address { home: ServerId::parse(&line.home_id)?, user: UserName::parse(&line.user).ok()? };
    Some((user, KeyFingerprint::parse(&line.fingerprint)?, line.verified))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_file;

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
