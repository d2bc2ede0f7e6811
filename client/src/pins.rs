//! Other people's keys as first seen: pinned, followed forward along their chain, and never replaced in silence.
//!
//! The file is a log of JSON lines, one for each pin; the highest number of a user counts, and of two lines with one
//! number the first. So several processes may add to it at once.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use socp::{
    id::{KeyFingerprint, ServerId, StatementHash},
    message::Address,
    name::UserName,
    statement::KeyStatement,
};

use crate::{failure::Failure, private_file};

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
    path: PathBuf,
    pins: BTreeMap<Address, Pin>,
    read_bytes: u64,
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
        let mut pins = Self { path, pins: BTreeMap::new(), read_bytes: 0 };
        pins.refresh()?;
        Ok(pins)
    }

    /// Reads what other processes added.
    fn refresh(&mut self) -> Result<(), Failure> {
        let failed = |error| Failure::file("read", &self.path, &error);
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if file.metadata().map_err(failed)?.len() == self.read_bytes {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.read_bytes)).map_err(failed)?;
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        loop {
            line.clear();
            let bytes = reader.read_line(&mut line).map_err(failed)?;
            if bytes == 0 || !line.ends_with('\n') {
                return Ok(()); // The end, or a line that another process is writing.
            }
            let (address, pin) = parse(&line).ok_or_else(|| {
                Failure::failed(format!("`{}` is damaged at byte {}", self.path.display(), self.read_bytes))
                    .hint("it holds the keys that you trust: restore it from a backup, or mend the line by hand")
            })?;
            self.read_bytes += bytes as u64;
            let known = self.pins.entry(address).or_insert(pin);
            if pin.number > known.number {
                *known = pin;
            }
        }
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
        let mut text = serde_json::to_string(&line).map_err(|error| Failure::failed(error.to_string()))?;
        text.push('\n');
        private_file::options()
            .append(true)
            .create(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| Failure::file("write", &self.path, &error))?;
        self.refresh()?;
        self.find(user)
            .ok_or_else(|| Failure::failed(format!("`{}` does not keep what is written", self.path.display())))
    }
}

fn parse(line: &str) -> Option<(Address, Pin)> {
    let line: Line = serde_json::from_str(line).ok()?;
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
