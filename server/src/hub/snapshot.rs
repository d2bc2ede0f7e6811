//! The present state as encoded messages, shared by all watchers that join at the same revision.
//!
//! A snapshot is of exactly one revision and is never given to a watcher that joins at a later one, so nobody who left
//! is ever in it. What slow joiners still read is bounded in bytes over all snapshots: the oldest is given up, and its
//! readers are told to start over. So a reader that stalls in the middle keeps nothing alive for ever.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use prost::bytes::Bytes;
use socp::digest::Digest;

use super::{
    filter::{Detail, Filter},
    wire::{self, Happening, Shown},
};
use crate::limits::CHANGES_PER_MESSAGE_MAX;

/// All entries of one revision, cut into messages. Encoded when first read.
#[derive(Debug)]
struct Content {
    entries: Vec<Arc<Shown>>,
    statement: Vec<OnceLock<Bytes>>,
    fingerprint: Vec<OnceLock<Bytes>>,
}

/// The present state at one revision.
#[derive(Debug)]
pub struct Snapshot {
    /// The revision.
    pub revision: u64,
    /// Digest of all entries.
    pub digest: Digest,
    content: Mutex<Option<Arc<Content>>>,
}

/// One step of reading a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// So many entries as one message without a token; nothing to be sent if there are none.
    Entries(Bytes, u64),
    /// There is no more.
    End,
    /// The snapshot was given up.
    GivenUp,
}

impl Snapshot {
    fn new(revision: u64, digest: Digest, entries: Vec<Arc<Shown>>) -> Self {
        let parts = entries.len().div_ceil(CHANGES_PER_MESSAGE_MAX);
        let unmade = || (0..parts).map(|_| OnceLock::new()).collect();
        let content = Content { statement: unmade(), fingerprint: unmade(), entries };
        Self { revision, digest, content: Mutex::new(Some(Arc::new(content))) }
    }

    /// The part with this index.
    pub fn part(&self, index: usize, detail: Detail, filter: Option<&Filter>) -> Part {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(content) = content else {
            return Part::GivenUp;
        };
        let Some(entries) = content.entries.chunks(CHANGES_PER_MESSAGE_MAX).nth(index) else {
            return Part::End;
        };
        let encode = |filter: Option<&Filter>| {
            let mut message = Vec::new();
            let passing = entries.iter().filter(|shown| filter.is_none_or(|filter| filter.passes(&shown.entry)));
            let count = passing
                .map(|shown| wire::put_change(&mut message, self.revision, Happening::Added, &shown.body(detail)))
                .count();
            (wire::framed(&message), count as u64)
        };
        let shared = match (filter, detail) {
            (Some(_), _) => {
                let (message, count) = encode(filter);
                return Part::Entries(message, count);
            }
            (None, Detail::Statement) => &content.statement[index],
            (None, Detail::Fingerprint) => &content.fingerprint[index],
        };
        Part::Entries(shared.get_or_init(|| encode(None).0).clone(), entries.len() as u64)
    }

    fn give_up(&self) {
        self.content.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The snapshots that somebody still reads.
#[derive(Debug)]
pub struct Shelf {
    /// Of the present revision, if one was made.
    present: Option<Arc<Snapshot>>,
    /// All that live, oldest first, with what they cost.
    live: Vec<(Weak<Snapshot>, usize)>,
    bytes_max: usize,
}

impl Shelf {
    /// Makes an empty shelf.
    pub fn new(bytes_max: usize) -> Self {
        Self { present: None, live: Vec::new(), bytes_max }
    }

    /// Tells the shelf that the revision has changed.
    pub fn outdate(&mut self) {
        self.present = None;
    }

    /// Bytes of all that somebody reads, or may.
    pub fn bytes(&self) -> usize {
        self.live.iter().filter(|(snapshot, _)| snapshot.strong_count() > 0).map(|(_, cost)| cost).sum()
    }

    /// The snapshot of the present revision, made of `entries` if there is none yet.
    pub fn present(
        &mut self,
        revision: u64,
        digest: Digest,
        entries: impl Iterator<Item = Arc<Shown>>,
    ) -> Arc<Snapshot> {
        if let Some(present) = &self.present {
            return Arc::clone(present);
        }
        let entries: Vec<_> = entries.collect();
        let cost = entries.iter().map(|shown| shown.cost()).sum();
        let snapshot = Arc::new(Snapshot::new(revision, digest, entries));
        self.live.retain(|(snapshot, _)| snapshot.strong_count() > 0);
        self.live.push((Arc::downgrade(&snapshot), cost));
        let mut bytes: usize = self.live.iter().map(|(_, cost)| cost).sum();
        while bytes > self.bytes_max && self.live.len() > 1 {
            let (oldest, cost) = self.live.remove(0);
            bytes -= cost;
            if let Some(oldest) = oldest.upgrade() {
                oldest.give_up();
            }
        }
        self.present = Some(Arc::clone(&snapshot));
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use socp::digest::SetHash;

    use super::*;
    use crate::{
        hub::testing::{changes, largest_entry, shown},
        limits::WATCH_MESSAGE_BYTES_MAX,
    };

    fn present(shelf: &mut Shelf, revision: u64, users: usize) -> Arc<Snapshot> {
        shelf.outdate();
        shelf.present(revision, SetHash::default().digest(), (0..users).map(|user| shown(&format!("user-{user}"), 1)))
    }

    #[test]
    fn all_who_join_at_the_same_revision_share_one_snapshot_and_its_bytes() {
        let mut shelf = Shelf::new(usize::MAX);
        let snapshot = present(&mut shelf, 1, 250);
        let again = shelf.present(1, snapshot.digest, std::iter::empty());
        assert!(Arc::ptr_eq(&snapshot, &again));
        let part = |snapshot: &Snapshot, index| match snapshot.part(index, Detail::Statement, None) {
            Part::Entries(message, count) => (message, count),
            other => panic!("{other:?}"),
        };
        let (one, other) = (part(&snapshot, 0).0, part(&again, 0).0);
        assert_eq!(one.as_ptr(), other.as_ptr());
        assert_eq!([0, 1, 2].map(|index| part(&snapshot, index).1), [100, 100, 50]);
        assert_eq!(snapshot.part(3, Detail::Statement, None), Part::End);
        assert!(changes(&one).changes.iter().all(|change| change.revision == 1));
    }

    #[test]
    fn the_oldest_snapshot_is_given_up_when_all_are_too_many_bytes() {
        let cost = 10 * shown("user-0", 1).cost();
        let mut shelf = Shelf::new(2 * cost);
        let first = present(&mut shelf, 1, 10);
        let second = present(&mut shelf, 2, 10);
        assert!(matches!(first.part(0, Detail::Statement, None), Part::Entries(_, 10)));
        let third = present(&mut shelf, 3, 10);
        assert_eq!(first.part(0, Detail::Statement, None), Part::GivenUp);
        assert!(matches!(second.part(0, Detail::Statement, None), Part::Entries(_, 10)));
        drop((second, third));
        let large = present(&mut shelf, 4, 1_000);
        assert!(matches!(large.part(9, Detail::Statement, None), Part::Entries(_, 100)), "the latest is kept");
    }

    #[test]
    fn a_message_of_the_largest_entries_is_under_its_limit() {
        let mut shelf = Shelf::new(usize::MAX);
        let entries = (0..CHANGES_PER_MESSAGE_MAX).map(|_| Shown::new(Arc::new(largest_entry())));
        let snapshot = shelf.present(u64::MAX, SetHash::default().digest(), entries);
        let Part::Entries(message, _) = snapshot.part(0, Detail::Statement, None) else { panic!() };
        assert!((800_000..WATCH_MESSAGE_BYTES_MAX).contains(&message.len()), "{}", message.len());
    }
}
