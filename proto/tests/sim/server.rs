//! One server of a run: its node, if it runs, and what is true of it, whatever the node believes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use socp::{
    id::ServerId,
    input::{AttachmentId, CallId},
    name::{ServerName, UserName},
    node::Node,
    output::{Answer, Note},
    rejection::Rejection,
};

use crate::{checks::watches::Watch, disk::Disk, keys::SimIdentity};

/// One server, running or not.
pub struct Server {
    pub id: ServerId,
    pub name: ServerName,
    pub identity: SimIdentity,
    pub node: Option<Node>,
    pub epoch: u64,
    /// How often it started.
    pub starts: u64,
    /// What a watcher on this server has seen since its start.
    pub watch: Watch,
    /// Attached streams that are open, by user: what is true, whatever the node believes.
    pub streams: BTreeMap<AttachmentId, UserName>,
    pub answers: BTreeMap<CallId, Result<Answer, Rejection>>,
    pub refusals: Vec<Note>,
    /// When each start of it ended, by epoch.
    pub ended_ms: BTreeMap<u64, u64>,
    /// The starts that it ended by a goodbye.
    pub said_goodbye: BTreeSet<u64>,
    /// What was said loudly of names.
    pub names_noted: Vec<Note>,
    /// Whom the node lets through the handshake.
    pub admitted: Arc<BTreeSet<ServerId>>,
    /// Batches of others are not passed on before this time.
    pub hides_until_ms: u64,
    /// Until when its links take longer, and by how much.
    pub slow: (u64, u64),
    pub disk: Disk,
    /// How often it lost its disk or went back to an older one.
    pub disks_lost: u64,
    pub backup: Option<Disk>,
    pub paused_until_ms: u64,
    pub tick_ms: Option<u64>,
    /// How far its clock is ahead of the true time.
    pub clock_ahead_ms: i64,
}

impl Server {
    /// The epoch that its node is in: it may have gone on above the one of its start.
    pub fn present_epoch(&self) -> u64 {
        let own = self.node.as_ref().and_then(|node| node.origin(&self.id));
        own.map_or(self.epoch, |own| own.epoch().number)
    }

    pub fn new(seed: u64, index: usize) -> Self {
        use socp::identity::Identity as _;
        let identity = SimIdentity::new(seed * 1_000 + index as u64);
        let label = match u8::try_from(index).ok().filter(|index| *index < 26) {
            Some(letter) => char::from(b'a' + letter).to_string(),
            None => index.to_string(),
        };
        Self {
            id: ServerId::of_key(&identity.public_key()),
            name: ServerName::parse(&format!("server-{label}")).expect("a good name"),
            identity,
            node: None,
            epoch: 0,
            starts: 0,
            watch: Watch::default(),
            streams: BTreeMap::new(),
            answers: BTreeMap::new(),
            refusals: Vec::new(),
            ended_ms: BTreeMap::new(),
            said_goodbye: BTreeSet::new(),
            names_noted: Vec::new(),
            admitted: Arc::default(),
            hides_until_ms: 0,
            slow: (0, 0),
            disk: Disk::default(),
            disks_lost: 0,
            backup: None,
            paused_until_ms: 0,
            tick_ms: None,
            clock_ahead_ms: 0,
        }
    }
}
