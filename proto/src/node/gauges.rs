//! How much a node has in hand at one moment, for the operator's metrics. Nothing is decided by it.
//!
//! All of it is kept anyway, or counted in passing, so to ask costs the same however many users and messages there are.

use alloc::{string::String, vec::Vec};

use super::{Node, link::Peer};
use crate::{id::ServerId, operator::v1::Reach};

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
    /// Posts in the log of the public channel.
    pub channel_posts: usize,
    /// Bytes of them, of their audiences and of their keys.
    pub channel_bytes: usize,
    /// Messages that wait for the disk.
    pub writes: usize,
    /// Messages on their way to other homes.
    pub outbox_messages: usize,
    /// Bytes of them.
    pub outbox_bytes: usize,
    /// All admitted servers, which are bounded.
    pub peers: Vec<PeerGauges>,
}

/// How another server stands to this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerGauges {
    /// Which.
    pub id: ServerId,
    /// The name under which it is shown, which no other has.
    pub name: String,
    /// Whether this server dials it.
    pub is_dialled: bool,
    /// Whether there is a link.
    pub is_linked: bool,
    /// Whether there is a way to it.
    pub is_reachable: bool,
    /// Batches that it told of and that have not come.
    pub lag: u64,
}

impl Node {
    /// How much there is now.
    pub fn gauges(&self) -> Gauges {
        let (inbox_messages, inbox_messages_largest, writes) = self.inboxes.depths();
        let (channel_posts, channel_bytes) = self.channel.depths();
        let (outbox_messages, outbox_bytes) = self.outbox.depths();
        Gauges {
            accounts: self.accounts.count(),
            sessions: self.sessions.count(),
            checks: self.checks.under_way(),
            inbox_messages,
            inbox_messages_largest,
            inbox_messages_max: self.settings.inbox.entries_max,
            channel_posts,
            channel_bytes: usize::try_from(channel_bytes).unwrap_or(usize::MAX),
            writes,
            outbox_messages,
            outbox_bytes,
            peers: self.links.peers.iter().map(|(id, peer)| self.peer_gauges(*id, peer)).collect(),
        }
    }

    fn peer_gauges(&self, id: ServerId, peer: &Peer) -> PeerGauges {
        let (_, position, told) = self.progress_of(&id);
        PeerGauges {
            id,
            name: self.name_of(&id),
            is_dialled: peer.is_dialled,
            is_linked: peer.link.is_some(),
            is_reachable: self.reach(&id).0 != Reach::Unreachable,
            lag: told.saturating_sub(position),
        }
    }
}
