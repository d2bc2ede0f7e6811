//! What passed on the links to each peer since the start, and the peer's clock. Nothing is decided by it.

use std::{collections::BTreeMap, time::Duration};

use socp::{
    federation::v1::{advertise_frame, remove_frame},
    id::ServerId,
    input::Frame,
};

use super::clock::Clock;

/// What passed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Frames of all kinds.
    pub frames: u64,
    /// Batches among them; those in snapshots do not count.
    pub batches: u64,
}

impl Passed {
    fn count(&mut self, frame: &Frame) {
        self.frames += 1;
        let is_batch = match frame {
            Frame::Advertise(frame) => matches!(frame.kind, Some(advertise_frame::Kind::Batch(_))),
            Frame::Remove(frame) => matches!(frame.kind, Some(remove_frame::Kind::Batch(_))),
            Frame::Deliver(_) => false,
        };
        self.batches += u64::from(is_batch);
    }
}

/// One peer.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) received: Passed,
    pub(super) sent: Passed,
    pub(super) clock: Clock,
}

/// All peers that had a link, as long as they are admitted.
#[derive(Debug, Default)]
pub(super) struct Tallies(BTreeMap<ServerId, Tally>);

impl Tallies {
    pub(super) fn of(&self, peer: &ServerId) -> Option<&Tally> {
        self.0.get(peer)
    }

    pub(super) fn sent(&mut self, peer: ServerId, frame: &Frame) {
        self.0.entry(peer).or_default().sent.count(frame);
    }

    /// Counts a frame that came; a keep-alive sets the clock, if the time that it took can be told.
    pub(super) fn received(&mut self, peer: ServerId, frame: &Frame, round_trip: Option<Duration>) {
        let tally = self.0.entry(peer).or_default();
        tally.received.count(frame);
        if let Frame::Remove(frame) = frame
            && let Some(remove_frame::Kind::KeepAlive(keep_alive)) = &frame.kind
            && let Some(round_trip) = round_trip
        {
            tally.clock.heard(keep_alive.time_unix_ms, unix_us(), round_trip);
        }
    }

    /// Forgets a server that is out, so that those who come and go fill nothing.
    pub(super) fn forget(&mut self, peer: &ServerId) {
        self.0.remove(peer);
    }
}

/// Microseconds since 1970 by this machine's clock.
pub(super) fn unix_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
