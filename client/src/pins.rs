//! Other people's keys as first seen: pinned, followed forward along their chain, and never replaced in silence.
//!
//! The file is a log of JSON lines, one for each pin; the highest number of a user counts, and of two lines with one
//! number the first. So several processes may add to it at once.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use socp::{
    id::{KeyFingerprint, ServerId, StatementHash},
    message::Address,
    name::UserName,
    statement::KeyStatement,
};

use crate::{failure::Failure, log_file::LogFile};

/// What is known for sure of a user's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Number of the statement in the user's chain.
    pub number: u64,
    /// The key.
    pub fingerprint: KeyFingerprint,
    /// The signed statement.
    pub statement: StatementHash,
}

impl Pin {
    /// What a statement would pin.
    pub fn of(statement: &KeyStatement) -> Self {
        Self { number: statement.number, fingerprint: statement.key.fingerprint(), statement: statement.hash() }
    }

    /// Whether this is the same key in the same place, be it in another signed statement.
    pub fn has_key_of(&self, other: &Self) -> bool {
        (self.number, self.fingerprint) == (other.number, other.fingerprint)
    }
}

/// How a statement compares with the pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Nothing is pinned.
    New,
    /// It is the pinned one.
    Same,
    /// It is another statement for the pinned key, as after a home lost its records: good once its signature is checked.
    SameKey,
    /// It has a higher number: the chain from the pin on decides.
    Newer,
    /// It has a lower number, or the same and another key. Never acceptable.
    Contradicts,
}

/// The pins of one profile.
pub struct Pins {
    log: LogFile,
    pins: BTreeMap<Address, Pin>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    user: String,
    home_id: String,
    number: u64,
    fingerprint: String,
    statement: String,
}

impl Pins {
    /// Opens the log; absent is empty.
    pub fn open(path: PathBuf) -> Result<Self, Failure> {
        let mut pins = Self { log: LogFile::new(path, "the keys that you trust"), pins: BTreeMap::new() };
        pins.refresh()?;
        Ok(pins)
    }

    /// Reads what other processes added.
    fn refresh(&mut self) -> Result<(), Failure> {
        let Self { log, pins } = self;
        log.read_new(|line| {
            let (address, pin) = parse(&line)?;
            let known = pins.entry(address).or_insert(pin);
            if pin.number > known.number {
                *known = pin;
            }
            Some(())
        })
    }

    /// What is pinned of a user.
    pub fn find(&self, user: &Address) -> Option<Pin> {
        self.pins.get(user).copied()
    }

    /// The only pinned user with this name, at that home or, if none is said, at any.
    pub fn only_one(&self, name: &UserName, home: Option<ServerId>) -> Option<Address> {
        let is_it = |user: &&Address| user.user == *name && home.is_none_or(|home| user.home == home);
        let mut found = self.pins.keys().filter(is_it);
        found.next().filter(|_| found.next().is_none()).cloned()
    }

    /// Compares a statement with the pin.
    pub fn compare(&self, user: &Address, seen: &Pin) -> Comparison {
        match self.pins.get(user) {
            None => Comparison::New,
            Some(pin) if pin == seen => Comparison::Same,
            Some(pin) if pin.has_key_of(seen) => Comparison::SameKey,
            Some(pin) if seen.number > pin.number => Comparison::Newer,
            Some(_) => Comparison::Contradicts,
        }
    }

    /// Pins a statement that was verified and follows what was pinned; tells what is pinned afterwards, which is
    /// another process's pin if that was first.
    pub fn pin(&mut self, user: &Address, pin: Pin) -> Result<Pin, Failure> {
        self.refresh()?;
        let known = self.pins.get(user).copied();
        if let Some(known) = known.filter(|known| known.number >= pin.number) {
            return Ok(known);
        }
        let line = Line {
            user: user.user.to_string(),
            home_id: user.home.to_string(),
            number: pin.number,
            fingerprint: pin.fingerprint.to_string(),
            statement: pin.statement.to_string(),
        };
        self.log.append(&line)?;
        self.refresh()?;
        self.find(user)
            .ok_or_else(|| Failure::failed(format!("`{}` does not keep what is written", self.log.path().display())))
    }
}

fn parse(line: &Line) -> Option<(Address, Pin)> {
    let address = Address { home: ServerId::parse(&line.home_id)?, user: UserName::parse(&line.user).ok()? };
    let pin = Pin {
        number: line.number,
        fingerprint: KeyFingerprint::parse(&line.fingerprint)?,
        statement: StatementHash::parse(&line.statement)?,
    };
    Some((address, pin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_file;

    fn pin(number: u64, seed: u8) -> Pin {
        Pin {
            number,
            fingerprint: KeyFingerprint::of_spki(&[seed]),
            statement: StatementHash::from_bytes(&[seed; 32]).unwrap(),
        }
    }

    fn alice() -> Address {
        Address { home: ServerId::of_key(&[1; 32]), user: UserName::parse("alice").unwrap() }
    }

    #[test]
    fn pins_outlive_the_process_and_only_higher_numbers_replace_them() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Pins::open(folder.path().join("pins.jsonl")).unwrap();
        let mut pins = open();
        assert_eq!(pins.compare(&alice(), &pin(1, 1)), Comparison::New);
        assert_eq!(pins.pin(&alice(), pin(2, 2)).unwrap(), pin(2, 2));
        let pins = open();
        assert_eq!(pins.compare(&alice(), &pin(2, 2)), Comparison::Same);
        assert_eq!(pins.compare(&alice(), &pin(3, 3)), Comparison::Newer);
        assert_eq!(pins.compare(&alice(), &pin(2, 3)), Comparison::Contradicts, "another key under one number");
        assert_eq!(pins.compare(&alice(), &pin(1, 2)), Comparison::Contradicts, "a lower number");
    }

    #[test]
    fn of_two_processes_the_first_to_pin_a_number_wins() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Pins::open(folder.path().join("pins.jsonl")).unwrap();
        let (mut one, mut other) = (open(), open());
        assert_eq!(one.pin(&alice(), pin(1, 1)).unwrap(), pin(1, 1));
        assert_eq!(other.pin(&alice(), pin(1, 9)).unwrap(), pin(1, 1));
        assert_eq!(other.pin(&alice(), pin(2, 2)).unwrap(), pin(2, 2));
        assert_eq!(open().find(&alice()), Some(pin(2, 2)));
    }

    #[test]
    fn a_damaged_log_is_refused_and_not_taken_for_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pins.jsonl");
        private_file::write(&path, b"{}\n").unwrap();
        assert!(Pins::open(path).err().unwrap().message.contains("is damaged at byte 0"));
    }
}
