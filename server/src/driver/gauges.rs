//! What the driver has in hand at one moment, for metrics.

use std::time::Duration;

use socp::{id::ServerId, node};

use super::tally::Passed;

/// What the driver and its node have in hand.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// What the node has.
    pub node: node::Gauges,
    /// Attached streams.
    pub attached: usize,
    /// Calls and streams that wait for the node's answer.
    pub waiting: usize,
    /// Peers that have, or had, a link.
    pub links: Vec<LinkGauges>,
}

/// The links of one peer.
#[derive(Clone, Debug)]
pub struct LinkGauges {
    /// Whose.
    pub peer: ServerId,
    /// What came.
    pub received: Passed,
    /// What was handed to the link.
    pub sent: Passed,
    /// How many microseconds the peer's clock is ahead, if that is known.
    pub clock_ahead_us: Option<i64>,
    /// Of the newest link there is.
    pub open: Option<OpenLink>,
}

/// A link that is open.
#[derive(Clone, Copy, Debug)]
pub struct OpenLink {
    /// Frames that wait to be sent.
    pub queued_frames: usize,
    /// Bytes of them.
    pub queued_bytes: usize,
    /// The round-trip time of its connection.
    pub round_trip: Option<Duration>,
}
