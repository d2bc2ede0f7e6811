//! Messages: what was accepted is in its recipient's inbox, once, and each device reads that in order, without gap or repeat.
//!
//! An inbox is known here by what streams were handed. All devices of a user must see the same message at the same position,
//! and each one the next after the last it had; a home that lost its disk begins anew. In the end a new device of everybody
//! reads everything, and what was accepted must be there.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use socp::{
    id::ContentHash,
    inbox::Cursor,
    input::AttachmentId,
    message::{Address, Message, Post},
    name::UserName,
    v1::{OutcomeKind, OutcomeStatement, SealedMessage, SealedPost, SignedOutcome},
};

use crate::world::World;

/// All that was handed to streams, and all that was accepted.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// Inboxes, by user and by how often the home had lost its disk.
    logs: BTreeMap<(Address, u64), BTreeMap<u64, ContentHash>>,
    /// The last position that each stream has.
    read: BTreeMap<AttachmentId, u64>,
    handed: BTreeMap<(Address, ContentHash), Vec<AttachmentId>>,
    accepted: BTreeSet<(Address, ContentHash)>,
    missed: Vec<u64>,
}

impl Deliveries {
    /// A stream begins after the message of this cursor; without one, after the last that was dropped.
    pub fn attached(&mut self, attachment: AttachmentId, cursor: &str, dropped: u64) {
        let cursor = Cursor::parse(cursor).expect("devices have cursors that they were given");
        self.read.insert(attachment, if cursor.position == 0 { dropped } else { cursor.position });
    }

    /// A device was told that its cursor is of no message of its inbox.
    pub fn refused(&self, name: &UserName, disks_lost: u64) {
        assert!(disks_lost > 0, "a device of {name} has a message that is gone");
    }

    /// A stream was told that it missed so many messages.
    pub fn gap(&mut self, attachment: AttachmentId, missed: u64) {
        *self.read.entry(attachment).or_default() += missed;
        self.missed.push(missed);
    }

    pub fn message(
        &mut self,
        to: &Address,
        disks_lost: u64,
        attachment: AttachmentId,
        cursor: &str,
        sealed: &SealedMessage,
    ) {
        let message = Message::parse(sealed).expect("only well-formed messages are delivered");
        assert_eq!(message.recipient, *to, "a message is handed to its recipient only");
        let hash = message.authorship.hash;
        let cursor = Cursor::parse(cursor).expect("a message comes with its cursor");
        assert_eq!(cursor, Cursor::of(cursor.position, &hash));
        let read = self.read.get_mut(&attachment).expect("the stream is attached");
        assert_eq!(cursor.position, *read + 1, "{to:?} reads without gap or repeat");
        *read = cursor.position;
        let log = self.logs.entry((to.clone(), disks_lost)).or_default();
        let there = log.insert(cursor.position, hash);
        assert!(there.is_none_or(|there| there == hash), "{to:?} sees two messages at {}", cursor.position);
        assert_eq!(log.values().filter(|other| **other == hash).count(), 1, "{to:?} got {hash:?} twice");
        self.handed.entry((to.clone(), hash)).or_default().push(attachment);
    }

    pub fn post(&mut self, to: &Address, attachment: AttachmentId, sealed: &SealedPost) {
        let post = Post::parse(sealed).expect("only well-formed posts are delivered");
        assert_ne!(post.authorship.sender, *to, "a post never comes back to its sender");
        let hash = post.authorship.hash;
        let handed = self.handed.entry((to.clone(), hash)).or_default();
        assert!(!handed.contains(&attachment), "{to:?} got {hash:?} twice");
        handed.push(attachment);
    }

    /// The sender was told that this message is in the inbox of its recipient.
    pub fn confirm(&mut self, sealed: &SealedMessage, outcome: &SignedOutcome) -> OutcomeKind {
        let message = Message::parse(sealed).expect("only well-formed messages are confirmed");
        let hash = message.authorship.hash;
        let statement = OutcomeStatement::decode(&outcome.statement[..]).expect("a home signs what can be read");
        let [outcome] = &statement.outcomes[..] else { panic!("one outcome for one message") };
        assert_eq!(outcome.statement_sha256[..], hash.as_bytes()[..]);
        assert_eq!(outcome.recipients, 1);
        self.accepted.insert((message.recipient, hash));
        outcome.kind()
    }

    /// What a user was handed, in the order of the inbox.
    pub fn log(&self, user: &Address) -> Vec<ContentHash> {
        self.logs.get(&(user.clone(), 0)).map(|log| log.values().copied().collect()).unwrap_or_default()
    }

    /// What streams were told to have missed.
    pub fn missed(&self) -> &[u64] {
        &self.missed
    }

    /// Whether anything was accepted for a user.
    pub fn is_awaited(&self, user: &Address) -> bool {
        self.accepted.iter().any(|(to, _)| to == user)
    }

    /// How often a message or post was handed to a user.
    pub fn count(&self, to: &Address, hash: ContentHash) -> usize {
        self.handed.get(&(to.clone(), hash)).map_or(0, Vec::len)
    }

    /// How many deliveries a user got.
    pub fn of(&self, to: &Address) -> usize {
        self.handed.iter().filter(|((address, _), _)| address == to).map(|(_, all)| all.len()).sum()
    }
}

/// Everything that was accepted was read by a new device of its recipient. Nobody can say what was lost with a disk, and who
/// moved has no device at the old home any more.
pub fn at_rest(world: &World) {
    let safe = world.servers.iter().filter(|server| server.disks_lost == 0);
    let safe: BTreeSet<_> = safe.map(|server| server.id).collect();
    let is_read = |to: &Address| safe.contains(&to.home) && !world.has_moved(to);
    for (to, hash) in world.deliveries.accepted.iter().filter(|(to, _)| is_read(to)) {
        let log = world.deliveries.logs.get(&(to.clone(), 0));
        let count = log.into_iter().flat_map(|log| log.values()).filter(|other| *other == hash).count();
        assert_eq!(count, 1, "{to:?} was sent {hash:?}, and its sender was told that it is there");
    }
}
