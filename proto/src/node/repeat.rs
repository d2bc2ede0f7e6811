//! What was taken before, so that a message that comes again is known.
//!
//! Ids are remembered for longer than signed times are taken, those of messages over a restart, too. Each sender's home has a share of its own; when that is
//! full the oldest of it is forgotten, so that a home which floods makes its own users' messages repeatable, and
//! nobody else's.

use alloc::{
    collections::{BTreeMap, VecDeque},
    string::ToString,
    vec::Vec,
};

use super::{Node, inbox::Taken, sizes::Sizes};
use crate::{
    id::{ContentHash, MessageId, ServerId},
    inbox::Remembered,
    input::WriteId,
    limits::{ID_REMEMBERED_MS, IDS_PER_HOME_MAX, REFUSAL_REMEMBERED_MS, REFUSALS_MAX},
    message::{Address, Authorship},
    mutation::{Mutation, is_on},
    name::UserName,
    output::Record,
    rejection::Rejection,
    v1::{OutcomeKind, Reason},
};

/// Everything remembered, by the sender's home.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    homes: BTreeMap<ServerId, Share>,
    refusals: Refusals,
    /// When it was what time at the start, once that is known: monotonic and Unix milliseconds.
    begun: Option<(u64, u64)>,
    /// When the disk may forget what is too old.
    disk_forgets_ms: u64,
}

/// How often the disk forgets ids: each time costs a search, and nothing depends on it but room.
const DISK_FORGETS_MS: u64 = 3_600_000;

#[derive(Debug, Default)]
struct Share {
    known: BTreeMap<(UserName, MessageId), (ContentHash, Known)>,
    /// When to forget, oldest first.
    forgetting: VecDeque<(u64, UserName, MessageId)>,
}

/// What is known of a message or post that was here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// On its way to disk.
    Writing(WriteId),
    /// On disk, or a post that was handed over.
    Taken(Taken),
}

/// Messages from elsewhere that were refused a moment ago. One that comes twice, since the first copy was slow, is refused twice:
/// or its sender could be told last what was true first.
#[derive(Debug, Default)]
struct Refusals {
    known: BTreeMap<ContentHash, Reason>,
    /// When to forget, oldest first.
    forgetting: VecDeque<(u64, ContentHash)>,
}

impl Refusals {
    fn remember(&mut self, hash: ContentHash, reason: Reason, now_ms: u64) {
        if self.known.len() >= REFUSALS_MAX {
            self.forget_oldest();
        }
        if self.known.insert(hash, reason).is_none() {
            self.forgetting.push_back((now_ms + REFUSAL_REMEMBERED_MS, hash));
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, hash)) = self.forgetting.pop_front() {
            self.known.remove(&hash);
        }
    }

    fn sweep(&mut self, now_ms: u64) {
        while self.forgetting.front().is_some_and(|(until_ms, _)| *until_ms <= now_ms) {
            self.forget_oldest();
        }
    }
}

impl Share {
    fn forget_oldest(&mut self) {
        if let Some((_, user, id)) = self.forgetting.pop_front() {
            self.known.remove(&(user, id));
        }
    }
}

impl Repeats {
    pub(super) fn sizes(&self, sizes: &mut Sizes) {
        let shares = self.homes.values();
        shares.for_each(|share| sizes.note("ids of a home", share.known.len().max(share.forgetting.len())));
        sizes.note("refusals", self.refusals.forgetting.len());
    }

    /// As it was on disk.
    pub(super) fn new(remembered: Vec<Remembered>) -> Self {
        let mut repeats = Self::default();
        // Whether it was handed over as well is not known any more.
        for Remembered { home, sender, id, hash, recipients, until_unix_ms } in remembered {
            let taken = Known::Taken(Taken { kind: OutcomeKind::Stored, recipients });
            repeats.insert(home, &sender, id, (hash, taken), until_unix_ms);
        }
        repeats
    }

    /// What became of the same message before, if it was here. Rejects: ID_REUSED.
    pub(super) fn recall(&self, authorship: &Authorship) -> Result<Option<Known>, Rejection> {
        let key = (authorship.sender.user.clone(), authorship.id);
        match self.homes.get(&authorship.sender.home).and_then(|share| share.known.get(&key)) {
            None => Ok(None),
            Some(_) if is_on(Mutation::RepeatHandedOver) => Ok(None),
            Some((hash, known)) if *hash == authorship.hash => Ok(Some(*known)),
            Some(_) => Err(id_reused(authorship)),
        }
    }

    /// Whether a message with this id was taken of a sender.
    pub(super) fn knows(&self, sender: &Address, id: MessageId) -> bool {
        self.homes.get(&sender.home).is_some_and(|share| share.known.contains_key(&(sender.user.clone(), id)))
    }

    /// Why the same message was refused a moment ago, if it was.
    pub(super) fn recall_refusal(&self, hash: &ContentHash) -> Option<Reason> {
        self.refusals.known.get(hash).copied()
    }

    /// Remembers for a moment that a message was refused. What is refused for want of room comes again.
    pub(super) fn remember_refusal(&mut self, hash: ContentHash, reason: Reason, now_ms: u64) {
        if reason != Reason::TooMany && !is_on(Mutation::RefusalForgotten) {
            self.refusals.remember(hash, reason, now_ms);
        }
    }

    /// Remembers what is known of a message or post.
    pub(super) fn remember(&mut self, authorship: &Authorship, known: Known, now_ms: u64) {
        let Authorship { sender, id, hash, .. } = authorship;
        self.insert(sender.home, &sender.user, *id, (*hash, known), now_ms + ID_REMEMBERED_MS);
    }

    fn insert(&mut self, home: ServerId, user: &UserName, id: MessageId, known: (ContentHash, Known), until_ms: u64) {
        let share = self.homes.entry(home).or_default();
        if share.known.len() >= IDS_PER_HOME_MAX {
            share.forget_oldest();
        }
        share.known.insert((user.clone(), id), known);
        share.forgetting.push_back((until_ms, user.clone(), id));
    }

    /// Notes what became of a message that was on its way to disk.
    pub(super) fn settle(&mut self, authorship: &Authorship, taken: Taken) {
        let key = (authorship.sender.user.clone(), authorship.id);
        let share = self.homes.get_mut(&authorship.sender.home);
        if let Some((hash, known)) = share.and_then(|share| share.known.get_mut(&key))
            && *hash == authorship.hash
        {
            *known = Known::Taken(taken);
        }
    }

    /// Puts the times of what was loaded on the monotonic clock, once it is known what time it is.
    fn begin(&mut self, now_ms: u64, unix_ms: u64) {
        let forgetting = self.homes.values_mut().flat_map(|share| &mut share.forgetting);
        for (until_ms, ..) in forgetting {
            *until_ms = now_ms + until_ms.saturating_sub(unix_ms).min(ID_REMEMBERED_MS);
        }
        self.begun = Some((now_ms, unix_ms));
    }

    /// Forgets what is too old.
    fn sweep(&mut self, now_ms: u64) {
        for share in self.homes.values_mut() {
            while share.forgetting.front().is_some_and(|(until_ms, ..)| *until_ms <= now_ms) {
                share.forget_oldest();
            }
        }
        self.homes.retain(|_, share| !share.known.is_empty());
        self.refusals.sweep(now_ms);
    }
}

/// Why something is refused that has the id of something else.
pub(super) fn id_reused(authorship: &Authorship) -> Rejection {
    let message = "this message id was used before with other content";
    Rejection::new(Reason::IdReused, message).with("message_id", authorship.id.to_string())
}

impl Node {
    /// Forgets ids that are too old.
    pub(super) fn sweep_ids(&mut self) {
        let now = self.now;
        if self.repeats.begun.is_none() {
            self.repeats.begin(now.monotonic_ms, now.unix_ms);
        }
        self.repeats.sweep(now.monotonic_ms);
        let (begun_ms, begun_unix_ms) = self.repeats.begun.unwrap_or_default();
        if self.repeats.disk_forgets_ms <= now.monotonic_ms {
            self.repeats.disk_forgets_ms = now.monotonic_ms + DISK_FORGETS_MS;
            // By a clock that did not jump since the start.
            let before_unix_ms = begun_unix_ms + (now.monotonic_ms - begun_ms);
            self.write(Record::IdsForgotten { before_unix_ms });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::KeyFingerprint;

    fn authorship(home: u8, number: usize) -> Authorship {
        let sender = Address { home: ServerId::of_key(&[home; 32]), user: UserName::parse("alice").unwrap() };
        let id = MessageId::parse(&alloc::format!("01890a5d-ac96-774b-bcce-{number:012x}")).unwrap();
        let sender_key = KeyFingerprint::of_spki(&[]);
        Authorship { sender, sender_key, id, hash: ContentHash::of(&number.to_be_bytes()), time_unix_ms: 0 }
    }

    const TAKEN: Known = Known::Taken(Taken { kind: OutcomeKind::HandedOver, recipients: 1 });

    #[test]
    fn a_home_that_fills_its_share_forgets_its_own_oldest_and_nobody_elses() {
        let mut repeats = Repeats::default();
        repeats.remember(&authorship(2, 0), TAKEN, 0);
        for number in 0..IDS_PER_HOME_MAX {
            repeats.remember(&authorship(1, number), TAKEN, 0);
        }
        assert_eq!(repeats.recall(&authorship(1, 0)), Ok(Some(TAKEN)), "at the limit all are remembered");
        repeats.remember(&authorship(1, IDS_PER_HOME_MAX), TAKEN, 0);
        assert_eq!(repeats.recall(&authorship(1, 0)), Ok(None));
        assert_eq!(repeats.recall(&authorship(1, 1)), Ok(Some(TAKEN)));
        assert_eq!(repeats.recall(&authorship(2, 0)), Ok(Some(TAKEN)));
    }

    #[test]
    fn an_id_is_remembered_for_eight_days() {
        let mut repeats = Repeats::default();
        repeats.remember(&authorship(1, 0), TAKEN, 10);
        repeats.sweep(10 + ID_REMEMBERED_MS - 1);
        assert_eq!(repeats.recall(&authorship(1, 0)), Ok(Some(TAKEN)));
        repeats.sweep(10 + ID_REMEMBERED_MS);
        assert_eq!(repeats.recall(&authorship(1, 0)), Ok(None));
    }

    #[test]
    fn an_id_from_disk_is_remembered_for_what_is_left_of_its_time_whatever_the_clock_says() {
        let known = authorship(1, 0);
        for (until_unix_ms, left_ms) in [(5_000, 4_000), (500, 0), (u64::MAX, ID_REMEMBERED_MS)] {
            let remembered = Remembered {
                home: known.sender.home,
                sender: known.sender.user.clone(),
                id: known.id,
                hash: known.hash,
                recipients: 1,
                until_unix_ms,
            };
            let mut repeats = Repeats::new(Vec::from([remembered]));
            repeats.begin(70, 1_000);
            if left_ms > 0 {
                repeats.sweep(70 + left_ms - 1);
                assert!(matches!(repeats.recall(&known), Ok(Some(Known::Taken(_)))));
            }
            repeats.sweep(70 + left_ms);
            assert_eq!(repeats.recall(&known), Ok(None));
        }
    }
}
