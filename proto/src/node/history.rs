//! What became of users lately, for the operator: a bounded ring of the changes that were published, each with its cause.
//!
//! Nothing is decided by it. The oldest changes go first, whoever they are about, and it knows that some are gone.

use alloc::collections::{BTreeSet, VecDeque};

use crate::{
    batch::Epoch,
    directory::{Change, Delta},
    id::ServerId,
    limits::HISTORY_MAX,
    message::Address,
    v1::RemovalReason,
};

/// Why a revision was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A batch of this number, which a neighbour sent or this server signed itself.
    Batch { number: u64, from: Option<ServerId> },
    /// A snapshot as of this position, which a neighbour sent.
    Snapshot { position: u64, from: Option<ServerId> },
    /// There was no way to the home for longer than the grace.
    Unreachable,
    /// The home said goodbye; a neighbour brought it.
    Goodbye { from: Option<ServerId> },
    /// The home started anew.
    NewEpoch,
    /// The home is admitted no more.
    NotAdmitted,
    /// There was a way to the home, at first or again, and everything had come.
    Reached,
    /// The home restarted, and the user did not come back while those of its last epoch were held.
    NotBack,
    /// The home signed two batches of this number; a neighbour brought the proof, or one of the two.
    Contradiction { number: u64, from: Option<ServerId> },
}

impl Cause {
    /// What watchers are told if this removes somebody.
    pub(super) fn removal(self) -> RemovalReason {
        match self {
            Self::Batch { .. } | Self::Snapshot { .. } | Self::NotBack => RemovalReason::Left,
            Self::Unreachable
            | Self::Goodbye { .. }
            | Self::NewEpoch
            | Self::NotAdmitted
            | Self::Reached
            | Self::Contradiction { .. } => RemovalReason::Unreachable,
        }
    }
}

/// What happened to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Added,
    Updated,
    Removed,
    Moved,
}

/// One change.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) at_ms: u64,
    pub(super) address: Address,
    pub(super) what: What,
    /// The home's epoch that was in force; of a new one the one that ended.
    pub(super) epoch: Epoch,
    pub(super) cause: Cause,
}

/// The latest changes.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Oldest first.
    changes: VecDeque<Past>,
    /// When the latest change was made that had to go.
    forgotten_ms: Option<u64>,
}

impl History {
    /// Keeps what was published.
    pub(super) fn keep(&mut self, at_ms: u64, epoch: Epoch, delta: &Delta, cause: Cause) {
        for change in &delta.changes {
            let (entry, what) = match change {
                Change::Added(entry) => (entry, What::Added),
                Change::Updated(entry) => (entry, What::Updated),
                Change::Removed(entry, _) => (entry, What::Removed),
                Change::Moved(entry, _) => (entry, What::Moved),
            };
            self.push(Past { at_ms, address: entry.address.clone(), what, epoch, cause });
        }
    }

    fn push(&mut self, past: Past) {
        if self.changes.len() >= HISTORY_MAX {
            self.forgotten_ms = self.changes.pop_front().map(|oldest| oldest.at_ms);
        }
        self.changes.push_back(past);
    }

    /// How many changes are remembered.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// What became of a user, the latest first.
    pub(super) fn of<'a>(&'a self, address: &'a Address) -> impl Iterator<Item = &'a Past> {
        self.changes.iter().rev().filter(move |past| past.address == *address)
    }

    /// The homes of the users of this bare name of whom anything is remembered.
    pub(super) fn homes_of(&self, name: &str) -> BTreeSet<ServerId> {
        let named = self.changes.iter().filter(|past| past.address.user.as_str() == name);
        named.map(|past| past.address.home).collect()
    }

    /// When the latest change was made that is forgotten; `None` while nothing is.
    pub(super) fn forgotten_ms(&self) -> Option<u64> {
        self.forgotten_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::StartId, name::UserName};

    fn past(number: u64) -> Past {
        Past {
            at_ms: number,
            address: Address { home: ServerId::of_key(&[1; 32]), user: UserName::parse(&number.to_string()).unwrap() },
            what: What::Added,
            epoch: Epoch { number: 1, start: StartId::from_bytes(&[1; 16]).unwrap() },
            cause: Cause::Batch { number, from: None },
        }
    }

    #[test]
    fn the_history_is_whole_at_its_limit_and_one_past_it_the_oldest_change_is_gone_and_that_is_known() {
        let mut history = History::default();
        let limit = u64::try_from(HISTORY_MAX).unwrap();
        (1..=limit).for_each(|number| history.push(past(number)));
        let first = past(1).address;
        assert_eq!((history.of(&first).count(), history.forgotten_ms()), (1, None));
        history.push(past(limit + 1));
        assert_eq!((history.of(&first).count(), history.forgotten_ms()), (0, Some(1)));
        assert_eq!(history.changes.len(), HISTORY_MAX);
        assert_eq!(history.of(&past(2).address).count(), 1);
    }
}
