//! How much a node has in hand at one moment, for the operator's metrics. Nothing is decided by it.
//!
//! All of it is kept anyway, or counted in passing, so to ask costs the same however many users and messages there are.

use super::Node;

/// What a node has in hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Users registered here.
    pub accounts: usize,
    /// Sessions of them, attached or not.
    pub sessions: usize,
    /// Signature checks under way.
    pub checks: usize,
    /// Messages in all inboxes.
    pub inbox_messages: usize,
    /// Messages in the largest inbox, as of the last sweep.
    pub inbox_messages_largest: usize,
    /// Messages that one inbox may hold.
    pub inbox_messages_max: usize,
    /// Messages that wait for the disk.
    pub writes: usize,
    /// Messages on their way to other homes.
    pub outbox_messages: usize,
    /// Bytes of them.
    pub outbox_bytes: usize,
}

impl Node {
    /// How much there is now.
    pub fn gauges(&self) -> Gauges {
        let (inbox_messages, inbox_messages_largest, writes) = self.inboxes.depths();
        let (outbox_messages, outbox_bytes) = self.outbox.depths();
        Gauges {
            accounts: self.accounts.count(),
            sessions: self.sessions.count(),
            checks: self.checks.under_way(),
            inbox_messages,
            inbox_messages_largest,
            inbox_messages_max: self.settings.inbox.entries_max,
            writes,
            outbox_messages,
            outbox_bytes,
        }
    }
}
