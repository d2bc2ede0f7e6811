//! The last revisions, kept for watchers who are behind or come back; bounded by count and by bytes.
//!
//! Invariant: the revisions kept are consecutive and end with the present one, so a cursor inside them misses nothing,
//! and one outside of them is known to be. Who reads is not known here, so a slow reader costs nothing.

use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use prost::bytes::Bytes;
use socp::{
    directory::Destination,
    v1::{RemovalReason, SignedMove},
};

use super::{
    Age,
    filter::{Detail, Filter},
    resume::Tokens,
    wire::{self, Happening, Shown},
};
use crate::limits::CHANGES_PER_MESSAGE_MAX;
use tokio::time::Instant;

/// One change, with what is needed to tell it to those whom only a part of the directory concerns.
#[derive(Debug)]
pub enum Item {
    /// The user came online.
    Added(Arc<Shown>),
    /// The user stays online with another content.
    Updated {
        /// As shown before.
        old: Arc<Shown>,
        /// As shown from now on.
        new: Arc<Shown>,
    },
    /// The user is not shown any more.
    Removed {
        /// As shown last.
        old: Arc<Shown>,
        /// Why.
        reason: RemovalReason,
    },
    /// The user is not shown any more, and moved to another home.
    Moved {
        /// As shown last.
        old: Arc<Shown>,
        /// Where to.
        destination: Arc<Destination>,
    },
}

impl Item {
    fn cost(&self) -> usize {
        match self {
            Self::Added(new) | Self::Updated { new, .. } => new.cost(),
            Self::Removed { .. } => 512,
            Self::Moved { destination, .. } => {
                let SignedMove { statement, signature } = &destination.moved.signed;
                1024 + statement.len() + signature.len()
            }
        }
    }

    /// Appends what a watch with this filter sees of the change; false if that is nothing.
    fn put(&self, message: &mut Vec<u8>, revision: u64, detail: Detail, filter: Option<&Filter>) -> bool {
        let passes = |shown: &Shown| filter.is_none_or(|filter| filter.passes(&shown.entry));
        let removed = |old: &Shown, reason| (Happening::Removed, wire::removal(&old.entry, reason).into());
        let (happening, body) = match self {
            Self::Added(new) if passes(new) => (Happening::Added, new.body(detail)),
            // The shown name of a home can change under its users, so an update may pass on one side only.
            Self::Updated { old, new } => match (passes(old), passes(new)) {
                (true, true) => (Happening::Updated, new.body(detail)),
                (false, true) => (Happening::Added, new.body(detail)),
                (true, false) => removed(old, RemovalReason::Moved),
                (false, false) => return false,
            },
            Self::Removed { old, reason } if passes(old) => removed(old, *reason),
            Self::Moved { old, destination } if passes(old) => {
                (Happening::Removed, wire::departure(&old.entry, destination).into())
            }
            Self::Added(_) | Self::Removed { .. } | Self::Moved { .. } => return false,
        };
        wire::put_change(message, revision, happening, &body);
        true
    }
}

/// One revision.
#[derive(Debug)]
pub struct Slot {
    /// The revision that the changes lead to.
    pub revision: u64,
    items: Vec<Item>,
    cost: usize,
    /// When it was published here, and how old what it shows was then.
    pub published: Instant,
    /// None where that is not known.
    pub age: Option<Age>,
    statement: OnceLock<Vec<Bytes>>,
    fingerprint: OnceLock<Vec<Bytes>>,
}

impl Slot {
    /// Keeps the changes of a revision.
    pub fn new(revision: u64, items: Vec<Item>) -> Self {
        let cost = items.iter().map(Item::cost).sum();
        let (statement, fingerprint) = (OnceLock::new(), OnceLock::new());
        Self { revision, items, cost, published: Instant::now(), age: None, statement, fingerprint }
    }

    /// The same with the age of what it shows.
    pub fn aged(self, age: Option<Age>) -> Self {
        Self { age, ..self }
    }

    /// The messages of this revision in their frames, in order; the last one bears the resume token. For unfiltered watches they are made
    /// once and shared. None at all if nothing passes the filter.
    pub fn messages(&self, detail: Detail, filter: Option<&Filter>, tokens: &Tokens) -> Cow<'_, [Bytes]> {
        match (filter, detail) {
            (Some(_), _) => self.encode(detail, filter, tokens).into(),
            (None, Detail::Statement) => self.statement.get_or_init(|| self.encode(detail, None, tokens)).into(),
            (None, Detail::Fingerprint) => self.fingerprint.get_or_init(|| self.encode(detail, None, tokens)).into(),
        }
    }

    fn encode(&self, detail: Detail, filter: Option<&Filter>, tokens: &Tokens) -> Vec<Bytes> {
        let mut messages = Vec::new();
        let mut message = Vec::new();
        let mut count = 0;
        for item in &self.items {
            if count == CHANGES_PER_MESSAGE_MAX {
                messages.push(std::mem::take(&mut message));
                count = 0;
            }
            count += usize::from(item.put(&mut message, self.revision, detail, filter));
        }
        if !message.is_empty() {
            messages.push(message);
        }
        if let Some(last) = messages.last_mut() {
            wire::put_token(last, tokens.at(self.revision));
        }
        messages.iter().map(|message| wire::framed(message)).collect()
    }
}

/// The revisions kept.
#[derive(Debug)]
pub struct Ring {
    slots: VecDeque<Arc<Slot>>,
    latest: u64,
    bytes: usize,
    revisions_max: usize,
    bytes_max: usize,
}

impl Ring {
    /// Makes a ring at revision 0.
    pub fn new(revisions_max: usize, bytes_max: usize) -> Self {
        Self { slots: VecDeque::new(), latest: 0, bytes: 0, revisions_max, bytes_max }
    }

    /// The present revision.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// The newest revision that was published before then.
    pub fn published_before(&self, then: Instant) -> u64 {
        let later = self.slots.len() - self.slots.partition_point(|slot| slot.published < then);
        self.latest - later as u64
    }

    /// How many revisions are kept.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the next revision and lets go of the oldest that are too many. The new one is kept in any case.
    pub fn push(&mut self, slot: Slot) {
        assert_eq!(slot.revision, self.latest + 1, "the node publishes consecutive revisions");
        self.latest = slot.revision;
        self.bytes += slot.cost;
        self.slots.push_back(Arc::new(slot));
        while self.slots.len() > 1 && (self.slots.len() > self.revisions_max || self.bytes > self.bytes_max) {
            let oldest = self.slots.pop_front().expect("there are at least two");
            self.bytes -= oldest.cost;
        }
    }

    /// Up to `count` revisions after `revision`; `None` if some of those are no longer kept, or `revision` never was.
    pub fn after(&self, revision: u64, count: usize) -> Option<impl Iterator<Item = &Arc<Slot>>> {
        let behind = usize::try_from(self.latest.checked_sub(revision)?).ok()?;
        let first = self.slots.len().checked_sub(behind)?;
        Some(self.slots.range(first..).take(count))
    }
}

#[cfg(test)]
mod tests {
    use socp::{
        id::StartId,
        message::Address,
        moves::Move,
        v1::{DirectoryChange, DirectoryFilter, RemovedEntry, directory_change},
    };

    use super::*;
    use crate::hub::testing::{changes, entry, home};

    fn slot(revision: u64, users: usize) -> Slot {
        let added = |user| Item::Added(Shown::new(Arc::new(entry(&format!("user-{user}"), 1))));
        Slot::new(revision, (0..users).map(added).collect())
    }

    fn kept(ring: &Ring) -> Vec<u64> {
        let oldest = (0..=ring.latest()).find(|revision| ring.after(*revision, 1).is_some()).unwrap();
        ring.after(oldest, usize::MAX).unwrap().map(|slot| slot.revision).collect()
    }

    #[test]
    fn a_ring_at_its_limit_keeps_all_and_one_past_it_lets_go_of_the_oldest() {
        let mut ring = Ring::new(3, usize::MAX);
        (1..=3).for_each(|revision| ring.push(slot(revision, 1)));
        assert_eq!(kept(&ring), [1, 2, 3]);
        ring.push(slot(4, 1));
        assert_eq!(kept(&ring), [2, 3, 4]);
        assert!(ring.after(0, 9).is_none() && ring.after(5, 9).is_none());
        assert_eq!(ring.after(4, 9).unwrap().count(), 0);
    }

    #[test]
    fn a_ring_is_bounded_by_bytes_and_keeps_the_latest_whatever_its_size() {
        let one = slot(1, 1).cost;
        let mut ring = Ring::new(100, 2 * one);
        (1..=3).for_each(|revision| ring.push(slot(revision, 1)));
        assert_eq!(kept(&ring), [2, 3]);
        ring.push(slot(4, 50));
        assert_eq!(kept(&ring), [4]);
    }

    #[test]
    fn who_watches_a_user_who_moves_is_told_where_to_by_the_users_own_word_and_nobody_else_is() {
        let mover = entry("bob", 1);
        let to = Address { home: home(3), user: mover.address.user.clone() };
        let word = Move::encode(&mover.address, mover.statement.hash(), &to, 7).into();
        let signed = SignedMove { statement: word, signature: Bytes::from_static(&[9; 512]) };
        let moved = Arc::new(Move::parse(&signed).unwrap());
        let destination = Arc::new(Destination { moved, label: "bob@server-3".to_owned() });
        let slot = Slot::new(1, vec![Item::Moved { old: Shown::new(Arc::new(mover)), destination }]);
        let tokens = Tokens::new(&StartId::from_bytes(&[1; 16]).unwrap(), [0; 8]);
        let expected = RemovedEntry {
            user: "bob@server-1".to_owned(),
            name: "bob".to_owned(),
            server_id: home(1).to_string(),
            reason: RemovalReason::Moved.into(),
            moved: Some(signed),
            moved_to: "bob@server-3".to_owned(),
        };
        let of = |user: &str| DirectoryFilter { users: vec![user.to_owned()], ..DirectoryFilter::default() };
        for (filter, is_told) in [(None, true), (Some(of("bob")), true), (Some(of("carol")), false)] {
            let filter = Filter::parse(filter.as_ref()).unwrap();
            let messages = slot.messages(Detail::Statement, filter.as_ref(), &tokens);
            let told: Vec<_> = messages.iter().flat_map(|message| changes(message).changes).collect();
            let removed = directory_change::Change::Removed(expected.clone());
            let change = DirectoryChange { revision: 1, change: Some(removed) };
            assert_eq!(told, if is_told { vec![change] } else { Vec::new() });
            assert!(messages.iter().all(|message| message.len() <= slot.cost), "what it costs covers what is sent");
        }
    }

    #[test]
    fn a_large_revision_is_cut_into_messages_and_its_token_is_in_the_last() {
        let tokens = Tokens::new(&StartId::from_bytes(&[1; 16]).unwrap(), [0; 8]);
        for (users, parts) in [(1, 1), (CHANGES_PER_MESSAGE_MAX, 1), (CHANGES_PER_MESSAGE_MAX + 1, 2)] {
            let slot = slot(1, users);
            let messages = slot.messages(Detail::Statement, None, &tokens);
            assert_eq!(messages.len(), parts);
            let read: Vec<_> = messages.iter().map(changes).collect();
            assert_eq!(read.iter().map(|message| message.changes.len()).sum::<usize>(), users);
            let (last, others) = read.split_last().unwrap();
            assert!(others.iter().all(|message| message.resume_token.is_empty()));
            assert_eq!(last.resume_token, tokens.at(1));
        }
    }
}
