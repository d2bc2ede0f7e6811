//! What was handed over before, so that a message that comes again is known.
//!
//! Ids are remembered for longer than signed times are taken. Each sender's home has a share of its own; when that is
//! full the oldest of it is forgotten, so that a home which floods makes its own users' messages repeatable, and
//! nobody else's.

use alloc::{
    collections::{BTreeMap, VecDeque},
    string::ToString,
};

use super::sizes::Sizes;
use crate::{
    id::{ContentHash, MessageId, ServerId},
    limits::{ID_REMEMBERED_MS, IDS_PER_HOME_MAX},
    message::Authorship,
    mutation::{Mutation, is_on},
    name::UserName,
    rejection::Rejection,
    v1::Reason,
};

/// Everything remembered, by the sender's home.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    homes: BTreeMap<ServerId, Share>,
}

#[derive(Debug, Default)]
struct Share {
    handed: BTreeMap<(UserName, MessageId), Handed>,
    /// When to forget, oldest first.
    forgetting: VecDeque<(u64, UserName, MessageId)>,
}

/// A message or post that was handed over.
#[derive(Debug)]
struct Handed {
    hash: ContentHash,
    recipients: u32,
}

impl Share {
    fn forget_oldest(&mut self) {
        if let Some((_, user, id)) = self.forgetting.pop_front() {
            self.handed.remove(&(user, id));
        }
    }
}

impl Repeats {
    pub(super) fn sizes(&self, sizes: &mut Sizes) {
        let shares = self.homes.values();
        shares.for_each(|share| sizes.note("ids of a home", share.handed.len().max(share.forgetting.len())));
    }

    /// What became of the same message before, if it was here: the number of recipients. Rejects: ID_REUSED.
    pub(super) fn recall(&self, authorship: &Authorship) -> Result<Option<u32>, Rejection> {
        let key = (authorship.sender.user.clone(), authorship.id);
        match self.homes.get(&authorship.sender.home).and_then(|share| share.handed.get(&key)) {
            None => Ok(None),
            Some(_) if is_on(Mutation::RepeatHandedOver) => Ok(None),
            Some(handed) if handed.hash == authorship.hash => Ok(Some(handed.recipients)),
            Some(_) => {
                let message = "this message id was used before with other content";
                Err(Rejection::new(Reason::IdReused, message).with("message_id", authorship.id.to_string()))
            }
        }
    }

    /// Remembers that a message was handed to so many recipients.
    pub(super) fn remember(&mut self, authorship: &Authorship, recipients: u32, now_ms: u64) {
        let share = self.homes.entry(authorship.sender.home).or_default();
        if share.handed.len() >= IDS_PER_HOME_MAX {
            share.forget_oldest();
        }
        let user = &authorship.sender.user;
        share.handed.insert((user.clone(), authorship.id), Handed { hash: authorship.hash, recipients });
        share.forgetting.push_back((now_ms + ID_REMEMBERED_MS, user.clone(), authorship.id));
    }

    /// Forgets what is too old.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        for share in self.homes.values_mut() {
            while share.forgetting.front().is_some_and(|(until_ms, ..)| *until_ms <= now_ms) {
                share.forget_oldest();
            }
        }
        self.homes.retain(|_, share| !share.handed.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::KeyFingerprint, message::Address};

    fn authorship(home: u8, number: usize) -> Authorship {
        let sender = Address { home: ServerId::of_key(&[home; 32]), user: UserName::parse("alice").unwrap() };
        let id = MessageId::parse(&alloc::format!("01890a5d-ac96-774b-bcce-{number:012x}")).unwrap();
        let sender_key = KeyFingerprint::of_spki(&[]);
        Authorship { sender, sender_key, id, hash: ContentHash::of(&number.to_be_bytes()), time_unix_ms: 0 }
    }

    #[test]
    fn a_home_that_fills_its_share_forgets_its_own_oldest_and_nobody_elses() {
        let mut repeats = Repeats::default();
        repeats.remember(&authorship(2, 0), 1, 0);
        for number in 0..IDS_PER_HOME_MAX {
            repeats.remember(&authorship(1, number), 1, 0);
        }
        assert_eq!(repeats.recall(&authorship(1, 0)), Ok(Some(1)), "at the limit all are remembered");
        repeats.remember(&authorship(1, IDS_PER_HOME_MAX), 1, 0);
        assert_eq!(repeats.recall(&authorship(1, 0)), Ok(None));
        assert_eq!(repeats.recall(&authorship(1, 1)), Ok(Some(1)));
        assert_eq!(repeats.recall(&authorship(2, 0)), Ok(Some(1)));
    }

    #[test]
    fn an_id_is_remembered_for_eight_days() {
        let mut repeats = Repeats::default();
        repeats.remember(&authorship(1, 0), 3, 10);
        repeats.sweep(10 + ID_REMEMBERED_MS - 1);
        assert_eq!(repeats.recall(&authorship(1, 0)), Ok(Some(3)));
        repeats.sweep(10 + ID_REMEMBERED_MS);
        assert_eq!(repeats.recall(&authorship(1, 0)), Ok(None));
    }
}
