//! Digests: one short value that two servers, or a server and a watcher, compare to know that they see the same.
//!
//! A digest covers a set of entries and is kept incrementally: adding or removing one entry costs the same however
//! many there are. It is a homomorphic hash, LtHash (Bellare and Micciancio 1997; Lewi, Kim, Maykov and Weis,
//! "Securing Update Propagation with Homomorphic Hashing", 2019): each entry is expanded to 1024 words of 16 bits,
//! and the sum, word by word modulo 2^16, stands for the set. Sums of plain hashes (or XOR) would let a hostile
//! origin choose entries that cancel out; finding such a set here is a short-vector problem in a lattice of
//! dimension 1024, at the 200-bit level by the authors' estimate. The expansion is SHA-256 in counter mode, which
//! every language has at hand.
//!
//! As the sums add up, the digest of the whole directory follows from the origins' by adding, and a watcher in any
//! language can keep its own.

use alloc::boxed::Box;
use core::fmt;

use sha2::{Digest as _, Sha256};

use crate::{
    id::{ServerId, StatementHash, sha256},
    name::UserName,
};

const WORDS: usize = 1024;
const ENTRY_LABEL: &[u8] = b"socp.v1.DigestEntry\0";
const DIGEST_LABEL: &[u8] = b"socp.v1.Digest\0";

/// The digest of a set: 32 bytes, SHA-256 over a label and the words of its [`SetHash`], little endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Takes 32 bytes as received.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a digest covers of one user who is online. Batch numbers are not in it, but for the one that began this time online.
#[derive(Clone, Copy, Debug)]
pub struct DigestEntry<'a> {
    /// The home.
    pub origin: ServerId,
    /// The home's epoch.
    pub epoch: u64,
    /// The bare name.
    pub user: &'a UserName,
    /// Display name.
    pub display_name: &'a str,
    /// Status text.
    pub status: &'a str,
    /// The key statement in force.
    pub key_statement: StatementHash,
    /// Batch with which this time online began.
    pub online_since: u64,
    /// Attached sessions.
    pub sessions: u32,
}

impl DigestEntry<'_> {
    /// SHA-256 over the label `socp.v1.DigestEntry`, a zero byte, and the fields in the order above: ids and hashes
    /// raw, numbers as 8 bytes big endian, texts behind their length as 8 bytes big endian.
    fn seed(&self) -> [u8; 32] {
        let length = |text: &str| (text.len() as u64).to_be_bytes();
        sha256(&[
            ENTRY_LABEL,
            self.origin.as_bytes(),
            &self.epoch.to_be_bytes(),
            &length(self.user.as_str()),
            self.user.as_str().as_bytes(),
            &length(self.display_name),
            self.display_name.as_bytes(),
            &length(self.status),
            self.status.as_bytes(),
            self.key_statement.as_bytes(),
            &self.online_since.to_be_bytes(),
            &u64::from(self.sessions).to_be_bytes(),
        ])
    }
}

/// The homomorphic hash of a set of entries: 2 KiB.
#[derive(Clone, PartialEq, Eq)]
pub struct SetHash(Box<[u16; WORDS]>);

impl Default for SetHash {
    /// The hash of the empty set.
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl SetHash {
    /// Adds an entry that is not in the set.
    pub fn insert(&mut self, entry: &DigestEntry<'_>) {
        expand(entry, |index, word| self.0[index] = self.0[index].wrapping_add(word));
    }

    /// Takes out an entry that is in the set.
    pub fn remove(&mut self, entry: &DigestEntry<'_>) {
        expand(entry, |index, word| self.0[index] = self.0[index].wrapping_sub(word));
    }

    /// Adds all entries of a disjoint set.
    pub fn add(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(other.0.iter()) {
            *word = word.wrapping_add(*other);
        }
    }

    /// Takes out all entries of a subset.
    pub fn subtract(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(other.0.iter()) {
            *word = word.wrapping_sub(*other);
        }
    }

    /// The digest of the set.
    pub fn digest(&self) -> Digest {
        let mut hasher = Sha256::new();
        hasher.update(DIGEST_LABEL);
        for word in self.0.iter() {
            hasher.update(word.to_le_bytes());
        }
        Digest(hasher.finalize().into())
    }
}

impl fmt::Debug for SetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digest().fmt(f)
    }
}

/// Calls `word` with each of the 1024 words of an entry: block `i` is SHA-256 of the seed and `i` as 4 bytes big
/// endian, read as 16 words little endian.
fn expand(entry: &DigestEntry<'_>, mut word: impl FnMut(usize, u16)) {
    let seed = entry.seed();
    for block in 0..64_u32 {
        let bytes = sha256(&[&seed, &block.to_be_bytes()]);
        for (place, pair) in bytes.chunks_exact(2).enumerate() {
            word(block as usize * 16 + place, u16::from_le_bytes([pair[0], pair[1]]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(user: &'a UserName, online_since: u64) -> DigestEntry<'a> {
        DigestEntry {
            origin: ServerId::of_key(&[1; 32]),
            epoch: 1,
            user,
            display_name: "",
            status: "",
            key_statement: StatementHash::from_bytes(&[2; 32]).unwrap(),
            online_since,
            sessions: 1,
        }
    }

    #[test]
    fn a_digest_does_not_depend_on_the_order_or_on_what_came_and_went() {
        let [a, b, c] = ["a", "b", "c"].map(|name| UserName::parse(name).unwrap());
        let mut one = SetHash::default();
        one.insert(&entry(&a, 1));
        one.insert(&entry(&b, 2));
        let mut other = SetHash::default();
        other.insert(&entry(&b, 2));
        other.insert(&entry(&c, 3));
        other.insert(&entry(&a, 1));
        other.remove(&entry(&c, 3));
        assert_eq!(one.digest(), other.digest());
        other.subtract(&one);
        assert_eq!(other.digest(), SetHash::default().digest());
    }

    #[test]
    fn every_field_counts() {
        let [a, b] = ["a", "b"].map(|name| UserName::parse(name).unwrap());
        let digest = |entry: DigestEntry<'_>| {
            let mut set = SetHash::default();
            set.insert(&entry);
            set.digest()
        };
        let base = entry(&a, 1);
        let others = [
            DigestEntry { user: &b, ..base },
            DigestEntry { epoch: 2, ..base },
            DigestEntry { online_since: 2, ..base },
            DigestEntry { sessions: 2, ..base },
            DigestEntry { display_name: "x", ..base },
            DigestEntry { status: "x", ..base },
            DigestEntry { origin: ServerId::of_key(&[2; 32]), ..base },
            DigestEntry { key_statement: StatementHash::from_bytes(&[3; 32]).unwrap(), ..base },
        ];
        for other in others {
            assert_ne!(digest(base), digest(other), "{other:?}");
        }
    }
}
