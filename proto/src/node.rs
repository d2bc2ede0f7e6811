//! scratch
use crate::{
    account::Account,
    id::{ServerId, StartId},
    identity::Identity,
    input::{Input, Now},
    name::ServerName,
    output::Output,
    v1::RegistrationPolicy,
};
use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

/// A peer that this server was told of by its operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its id; nothing else is believed.
    pub id: ServerId,
    /// The name it is shown under, and must introduce itself by.
    pub name: ServerName,
}

/// What a node is told at its start. Durations are in milliseconds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This server's own name.
    pub name: ServerName,
    /// The pinned peers.
    pub peers: Vec<Pin>,
    /// Who may register.
    pub registration: RegistrationPolicy,
    /// How long a broken attached stream keeps its user online. Default 2 s: longer hides longer blips, and shows the dead for longer.
    pub attach_grace_ms: u64,
    /// How long a broken link keeps the peer's users shown. Default 0.5 s.
    pub link_grace_ms: u64,
    /// How often a link is told that this side lives. Default 0.5 s.
    pub keep_alive_ms: u64,
    /// A link without a keep-alive for so long is dead. Default 2.5 s.
    pub link_dead_ms: u64,
    /// The longest delay between dials of a peer that is away. Default 1 s.
    pub redial_ms_max: u64,
}

impl Settings {
    /// Default settings under this name, with no peers and open registration.
    pub fn new(name: ServerName) -> Self {
        Self {
            name,
            peers: Vec::new(),
            registration: RegistrationPolicy::Open,
            attach_grace_ms: 2_000,
            link_grace_ms: 500,
            keep_alive_ms: 500,
            link_dead_ms: 2_500,
            redial_ms_max: 1_000,
        }
    }
}

/// What a node needs at its start besides its settings.
pub struct Start {
    /// Signs as this server.
    pub identity: Box<dyn Identity + Send>,
    /// This start's number: [`next_epoch`] of the one on disk, and on disk before the node is made.
    pub epoch: u64,
    /// Random, with the epoch.
    pub start_id: StartId,
    /// Random; spreads dials.
    pub seed: u64,
    /// All accounts on disk.
    pub accounts: Vec<Account>,
    /// Hashes of all unused invites on disk.
    pub invites: Vec<[u8; 32]>,
}

/// The epoch that follows the one on disk (0 if there is none): greater than it, and the Unix time in milliseconds
/// where that is greater still, so that a lost or restored disk does not lead back.
pub fn next_epoch(stored: u64, unix_ms: u64) -> u64 {
    unix_ms.max(stored + 1)
}

/// The state machine of one server.
pub struct Node {}

impl Node {
    /// Starts a node; its first deadline is at once.
    pub fn new(settings: Settings, start: Start) -> Self {
        let _ = (settings, start, Arc::new(String::new()));
        Self {}
    }
    /// Takes one input and tells what must be done about it, in order.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        let _ = (now, input);
        Vec::new()
    }
    /// When the node next wants a [`Input::Tick`], on the monotonic clock, in milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        None
    }
}
