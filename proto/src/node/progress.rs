//! How far one neighbour is with every origin, and what it was sent and asked of each.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{serving::Serving, sizes::Sizes};
use crate::{
    batch::Epoch,
    id::{ServerId, StatementHash},
    limits::PENDING_STATEMENTS_MAX,
    mutation::{Mutation, is_on},
    statement::KeyStatement,
};

/// A neighbour is shown the same proof no sooner than so long after the last time: a proof has half a megabyte at most.
const PROOFS_APART_MS: u64 = 10_000;

/// A neighbour is asked for the batch behind another digest no sooner than so long after the last time: a batch has a quarter of
/// a megabyte at most.
const DOUBTS_APART_MS: u64 = 5_000;

/// A snapshot that a neighbour has not asked more of for so long is dropped.
const SERVING_MS: u64 = 30_000;

/// How far one neighbour is, and what it was sent.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// How far it says that it is.
    pub(super) positions: BTreeMap<ServerId, (Epoch, u64)>,
    /// When it was last shown that an origin contradicted itself.
    proofs_ms: BTreeMap<ServerId, u64>,
    /// Batches that it was asked for because what it has differs, and when.
    doubted: BTreeMap<ServerId, (Epoch, u64, u64)>,
    pub(super) sent_statements: BTreeSet<StatementHash>,
    /// Snapshots that it was sent a part of.
    pub(super) serving: BTreeMap<ServerId, Serving>,
    /// Statements from it that no signed batch has named yet: their hashes are nobody's word before that.
    pending: BTreeMap<StatementHash, Arc<KeyStatement>>,
    pending_order: VecDeque<StatementHash>,
}

impl Progress {
    pub(super) fn sizes(&self, sizes: &mut Sizes) {
        sizes.note("origins told on a link", self.positions.len());
        sizes.note("origins doubted on a link", self.doubted.len());
        sizes.note("proofs shown on a link", self.proofs_ms.len());
        sizes.note("snapshots sent on a link", self.serving.len());
        sizes.note("statements sent on a link", self.sent_statements.len());
        sizes.note("statements that no batch names", self.pending.len().max(self.pending_order.len()));
    }

    /// Keeps a statement until a batch names it; the oldest goes when there are too many.
    pub(super) fn keep(&mut self, statement: KeyStatement) {
        let hash = statement.hash();
        if self.pending.insert(hash, Arc::new(statement)).is_none() {
            self.pending_order.push_back(hash);
        }
        if self.pending_order.len() > PENDING_STATEMENTS_MAX
            && !is_on(Mutation::StatementsWithoutLimit)
            && let Some(oldest) = self.pending_order.pop_front()
        {
            self.pending.remove(&oldest);
        }
    }

    /// How far the neighbour says that it is with this epoch of an origin.
    pub(super) fn told(&self, id: &ServerId, epoch: Epoch) -> Option<u64> {
        self.positions.get(id).filter(|(at, _)| *at == epoch).map(|(_, number)| *number)
    }

    /// Notes that it is shown a proof about an origin; tells whether it was not lately.
    pub(super) fn shows_proof(&mut self, id: ServerId, now_ms: u64) -> bool {
        let is_due = self.proofs_ms.get(&id).is_none_or(|shown_ms| shown_ms + PROOFS_APART_MS <= now_ms);
        if is_due {
            self.proofs_ms.insert(id, now_ms);
        }
        is_due
    }

    /// Drops snapshots that it has not asked more of for long.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.serving.retain(|_, serving| serving.asked_ms + SERVING_MS > now_ms);
    }

    /// Notes that what it has of an origin differs at this number; tells whether that is new, or was noted long ago.
    pub(super) fn doubts(&mut self, id: ServerId, epoch: Epoch, number: u64, now_ms: u64) -> bool {
        let is_same = |doubted: &&(Epoch, u64, u64)| (doubted.0, doubted.1) == (epoch, number);
        let asked_ms = self.doubted.get(&id).filter(is_same).map(|doubted| doubted.2);
        let is_due = asked_ms.is_none_or(|asked_ms| asked_ms + DOUBTS_APART_MS <= now_ms);
        if is_due {
            self.doubted.insert(id, (epoch, number, now_ms));
        }
        is_due
    }

    /// A statement that a signed batch names.
    pub(super) fn statement(&self, hash: StatementHash) -> Option<&Arc<KeyStatement>> {
        self.pending.get(&hash)
    }
}
