//! Safety numbers: what two people compare over another way, to know that each sees the other's key as it is.
//!
//! Both compute the same, whoever is first: it depends on both users' names, homes and keys, and on nothing that a server
//! says beside those. Whoever wants another key to pass for a user's has to find one of which 30 digits (99 bits) are alike.

use alloc::string::String;
use core::fmt::Write as _;

use crate::{
    id::{KeyFingerprint, sha256},
    message::Address,
};

/// Digits of a safety number.
pub const DIGITS: usize = 60;

/// The number of two users and their keys: 60 decimal digits.
pub fn safety_number(one: (&Address, KeyFingerprint), other: (&Address, KeyFingerprint)) -> String {
    let mut halves = [half(one), half(other)];
    halves.sort_unstable();
    let mut number = String::with_capacity(DIGITS);
    for group in halves.iter().flat_map(|half| half[..30].chunks_exact(5)) {
        let group = group.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        write!(number, "{:05}", group % 100_000).expect("a text takes any");
    }
    number
}

fn half((user, key): (&Address, KeyFingerprint)) -> [u8; 32] {
    let name = user.user.as_str().as_bytes();
    let length = u32::try_from(name.len()).expect("a name is short").to_be_bytes();
    sha256(&[b"socp.v1.SafetyNumber\0", &length, name, user.home.as_bytes(), key.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::ServerId, name::UserName};

    fn user(name: &str, home: u8) -> Address {
        Address { home: ServerId::of_key(&[home; 32]), user: UserName::parse(name).unwrap() }
    }

    #[test]
    fn both_sides_compute_the_same_number_and_any_other_name_home_or_key_changes_it() {
        let [alice, bob] = [user("alice", 1), user("bob", 2)];
        let [key, other] = [b"one", b"two"].map(|key| KeyFingerprint::of_spki(key));
        let number = safety_number((&alice, key), (&bob, other));
        assert_eq!(number, safety_number((&bob, other), (&alice, key)));
        assert!(number.len() == DIGITS && number.bytes().all(|digit| digit.is_ascii_digit()));
        for changed in [
            safety_number((&alice, other), (&bob, other)),
            safety_number((&alice, key), (&bob, key)),
            safety_number((&alice, other), (&bob, key)),
            safety_number((&user("alice", 2), key), (&bob, other)),
            safety_number((&user("alic", 1), key), (&bob, other)),
        ] {
            assert_ne!(changed, number);
        }
    }

    #[test]
    fn a_group_of_digits_keeps_its_zeros() {
        let number = (0..200).map(|home| {
            let (one, other) = (user("a", home), user("b", home));
            safety_number((&one, KeyFingerprint::of_spki(b"a")), (&other, KeyFingerprint::of_spki(b"b")))
        });
        let numbers: alloc::vec::Vec<String> = number.collect();
        assert!(numbers.iter().all(|number| number.len() == DIGITS));
        assert!(numbers.iter().any(|number| number.as_bytes().chunks(5).any(|group| group[0] == b'0')));
    }
}
