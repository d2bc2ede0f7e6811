//! What the driver has in hand at one moment, for metrics.

use socp::node;

/// What the driver and its node have in hand.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// What the node has.
    pub node: node::Gauges,
    /// Attached streams.
    pub attached: usize,
    /// Calls and streams that wait for the node's answer.
    pub waiting: usize,
}
