//! What the operator sees of the node and its links: log lines, and counters for metrics.
//!
//! A peer can make the node note something with every frame, so what peers cause is logged once in
//! [`REFUSAL_LOG_MS`] per peer and kind, with the number of those not shown. Never in a line: tokens, nonces,
//! envelopes. Nothing is decided here.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use socp::{
    directory::{Change, Delta},
    id::ServerId,
    output::{Note, Refusal},
    rejection::Rejection,
    v1::Reason,
};

use crate::{limits::REFUSAL_LOG_MS, metrics::histogram::Histogram, status::Parting};

/// What the driver has counted since its start, for metrics.
#[derive(Debug)]
pub struct Counters {
    /// Inputs that the node took.
    pub inputs: AtomicU64,
    /// Nanoseconds that they and what followed from them took.
    pub busy_ns: AtomicU64,
    /// Times of commits to the disk.
    pub commits: Histogram,
    /// Records in them.
    pub records: AtomicU64,
    /// Calls of clients that are under way now.
    pub calls: AtomicU64,
    /// Revisions published.
    pub revisions: AtomicU64,
    /// Links that came into use.
    pub peers_joined: AtomicU64,
    /// Peers that have no link any more.
    pub peers_lost: AtomicU64,
    /// Frames that were refused, by [`REFUSALS`].
    pub frames_refused: [AtomicU64; REFUSALS.len()],
    /// Frames of unknown kinds that were ignored.
    pub frames_ignored: AtomicU64,
    /// Origins that were found to contradict themselves.
    pub contradictions: AtomicU64,
    /// Times a peer had other entries of an origin than this server.
    pub digests_differing: AtomicU64,
    /// Times a peer knew a higher epoch of this server.
    pub epochs_behind: AtomicU64,
    /// Dials that came to nothing.
    pub dials_failed: AtomicU64,
    /// Links closed because too much waited to be sent.
    pub links_overflowed: AtomicU64,
    /// Attached streams ended because too much was left unread.
    pub attachments_overflowed: AtomicU64,
}

/// Upper bounds for times of commits, in microseconds: from a fast disk's flush to one that is about to fail.
const COMMIT_BOUNDS_US: &[u64] =
    &[500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000];

impl Default for Counters {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            inputs: zero(),
            busy_ns: zero(),
            commits: Histogram::new(COMMIT_BOUNDS_US),
            records: zero(),
            calls: zero(),
            revisions: zero(),
            peers_joined: zero(),
            peers_lost: zero(),
            frames_refused: Default::default(),
            frames_ignored: zero(),
            contradictions: zero(),
            digests_differing: zero(),
            epochs_behind: zero(),
            dials_failed: zero(),
            links_overflowed: zero(),
            attachments_overflowed: zero(),
        }
    }
}

/// What frames are refused for, in words for metrics.
pub const REFUSALS: [&str; 9] = [
    "malformed",
    "bad_signature",
    "foreign_origin",
    "old_epoch",
    "too_many",
    "digest_mismatch",
    "missing_statement",
    "out_of_turn",
    "misrouted",
];

/// The place of `malformed` among them.
const MALFORMED: usize = 0;

/// Which of [`REFUSALS`] it is.
fn kind(refusal: Refusal) -> usize {
    match refusal {
        Refusal::Malformed(_) => MALFORMED,
        Refusal::BadSignature => 1,
        Refusal::ForeignOrigin => 2,
        Refusal::OldEpoch => 3,
        Refusal::TooMany(_) => 4,
        Refusal::DigestMismatch => 5,
        Refusal::MissingStatement => 6,
        Refusal::OutOfTurn => 7,
        Refusal::Misrouted => 8,
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Kinds of lines that a peer can cause at will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Refused,
    Ignored,
    Differs,
    Dial,
    Closed,
    Ended,
}

/// Lets one of many alike through.
#[derive(Debug, Default)]
struct Throttle {
    /// When the last one was let through, and how many were not since.
    last: BTreeMap<(ServerId, Kind), (Instant, u64)>,
}

impl Throttle {
    /// Whether to log now, with how many were not logged since the last. One entry per admitted server and kind.
    fn pass(&mut self, peer: ServerId, kind: Kind, now: Instant) -> Option<u64> {
        let interval = Duration::from_millis(REFUSAL_LOG_MS);
        match self.last.get_mut(&(peer, kind)) {
            Some((last, hidden)) if now.duration_since(*last) < interval => {
                *hidden += 1;
                None
            }
            Some((last, hidden)) => {
                *last = now;
                Some(std::mem::take(hidden))
            }
            None => {
                self.last.insert((peer, kind), (now, 0));
                Some(0)
            }
        }
    }
}

impl Throttle {
    /// Forgets a server that is out, so that those who come and go fill nothing.
    fn forget(&mut self, peer: ServerId) {
        self.last.retain(|(other, _), _| *other != peer);
    }
}

/// The driver's log.
pub(super) struct Log {
    counters: Arc<Counters>,
    throttle: Throttle,
}

impl Log {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { counters, throttle: Throttle::default() }
    }

    /// Some inputs, one of which led to the others, that took so long.
    pub(super) fn inputs(&self, inputs: u64, took: Duration) {
        self.counters.inputs.fetch_add(inputs, Ordering::Relaxed);
        self.counters.busy_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn published(&self, delta: &Delta) {
        count(&self.counters.revisions);
        for change in &delta.changes {
            let (entry, what) = match change {
                Change::Added(entry) => (entry, "added"),
                Change::Updated(entry) => (entry, "updated"),
                Change::Removed(entry, _) => (entry, "removed"),
                Change::Moved(entry, _) => (entry, "moved"),
            };
            tracing::debug!(
                revision = delta.revision,
                user = %entry.address.user,
                origin = %entry.address.home,
                epoch = entry.epoch,
                sequence = entry.online_since,
                "user {what}"
            );
        }
    }

    pub(super) fn note(&mut self, note: &Note) {
        match note {
            Note::PeerJoined { peer, epoch } => {
                count(&self.counters.peers_joined);
                tracing::info!(origin = %peer, epoch, "peer joined");
            }
            Note::PeerLost { peer } => {
                count(&self.counters.peers_lost);
                tracing::warn!(origin = %peer, "peer lost");
            }
            Note::FrameRefused { peer, refusal } => {
                count(&self.counters.frames_refused[kind(*refusal)]);
                if let Some(hidden) = self.throttle.pass(*peer, Kind::Refused, Instant::now()) {
                    tracing::warn!(origin = %peer, ?refusal, hidden, "frame refused");
                }
            }
            Note::FrameIgnored { peer } => {
                count(&self.counters.frames_ignored);
                if let Some(hidden) = self.throttle.pass(*peer, Kind::Ignored, Instant::now()) {
                    tracing::info!(
                        origin = %peer,
                        hidden,
                        "frame ignored: of an unknown kind, about a server that is not admitted, or of an epoch that is over"
                    );
                }
            }
            Note::Admitted { server, name, by } => tracing::info!(origin = %server, %name, %by, "server admitted"),
            Note::Dismissed { server } => {
                self.throttle.forget(*server);
                tracing::warn!(origin = %server, "server not admitted any more: it is blocked, or nobody whose word counts vouches for it");
            }
            Note::NameTaken { name, server, bearer } => {
                tracing::warn!(origin = %server, %name, %bearer, "a server is called by the name of another; it is shown under a label");
            }
            Note::NameMoved { name, from, to } => {
                tracing::warn!(%name, %from, %to, "a name that was known for one server is another's now, as the configuration has it");
            }
            Note::Contradiction { origin, number } => {
                count(&self.counters.contradictions);
                tracing::error!(
                    %origin,
                    number,
                    "a server signed two batches of one number, so it tells different servers different things: its users are shown nowhere until it starts anew; if it is this server, somebody else has its identity key"
                );
            }
            Note::DigestDiffers { peer, origin, number } => {
                count(&self.counters.digests_differing);
                if let Some(hidden) = self.throttle.pass(*peer, Kind::Differs, Instant::now()) {
                    tracing::warn!(%peer, %origin, number, hidden, "a peer has other entries of an origin as of the same batch; asked it for that batch");
                }
            }
            Note::EpochBehind { peer, epoch } => {
                count(&self.counters.epochs_behind);
                tracing::error!(
                    origin = %peer,
                    epoch,
                    "a peer has a word of this server's from a higher epoch: an old copy of the data folder is in use; going on above it"
                );
            }
        }
    }

    pub(super) fn dial_failed(&mut self, peer: ServerId, cause: &str) {
        count(&self.counters.dials_failed);
        if let Some(hidden) = self.throttle.pass(peer, Kind::Dial, Instant::now()) {
            tracing::info!(origin = %peer, cause, hidden, "peer cannot be reached; dialling goes on");
        }
    }

    /// A link that this side closes.
    pub(super) fn link_closed(&mut self, peer: ServerId, rejection: &Rejection) {
        match rejection.reason {
            Reason::Replaced | Reason::Draining => {
                tracing::debug!(origin = %peer, reason = rejection.name(), "link closed");
            }
            _ => {
                if let Some(hidden) = self.throttle.pass(peer, Kind::Closed, Instant::now()) {
                    let metadata = tracing::field::debug(&rejection.metadata);
                    tracing::warn!(origin = %peer, reason = rejection.name(), metadata, hidden, "link closed: {}", rejection.message);
                }
            }
        }
    }

    /// A link that this side has closed, since what came on it is no frame.
    pub(super) fn unreadable(&mut self, peer: ServerId, rejection: &Rejection) {
        count(&self.counters.frames_refused[MALFORMED]);
        self.link_closed(peer, rejection);
    }

    /// A link that has ended, whoever ended it, with the peer's word on it.
    pub(super) fn link_ended(&mut self, peer: ServerId, parting: &Parting) {
        match parting.reason {
            None | Some(Reason::Replaced | Reason::Draining) => {
                tracing::debug!(origin = %peer, said = parting.text, "link ended");
            }
            Some(_) => {
                if let Some(hidden) = self.throttle.pass(peer, Kind::Ended, Instant::now()) {
                    tracing::warn!(origin = %peer, said = parting.text, hidden, "the peer closed the link");
                }
            }
        }
    }

    pub(super) fn link_overflowed(&self) {
        count(&self.counters.links_overflowed);
    }

    pub(super) fn attachment_overflowed(&self) {
        count(&self.counters.attachments_overflowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_lines_alike_one_is_logged_and_the_others_are_counted() {
        let mut throttle = Throttle::default();
        let peers = [1, 2].map(|number| ServerId::of_key(&[number; 32]));
        let start = Instant::now();
        assert_eq!(throttle.pass(peers[0], Kind::Refused, start), Some(0));
        for _ in 0..1_000 {
            assert_eq!(throttle.pass(peers[0], Kind::Refused, start), None);
        }
        assert_eq!(throttle.pass(peers[0], Kind::Dial, start), Some(0));
        assert_eq!(throttle.pass(peers[1], Kind::Refused, start), Some(0));
        let later = start + Duration::from_millis(REFUSAL_LOG_MS);
        assert_eq!(throttle.pass(peers[0], Kind::Refused, later), Some(1_000));
        assert_eq!(throttle.pass(peers[0], Kind::Refused, later), None);
        throttle.forget(peers[0]);
        assert_eq!(throttle.last.keys().collect::<Vec<_>>(), [&(peers[1], Kind::Refused)]);
    }
}
