//! Messages: what was accepted is in its recipient's inbox, once, and each device reads that in order, without gap or repeat.
//!
//! An inbox is known here by what streams were handed. All devices of a user must see the same message at the same position,
//! and each one the next after the last it had; a home that lost its disk begins anew. In the end a new device of everybody
//! reads everything, and what was accepted must be there. What was queued has a final outcome in its sender's inbox by then.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use socp::{
    id::{ContentHash, TokenHash},
    inbox::Cursor,
    input::AttachmentId,
    message::{Address, Message, Post},
    name::UserName,
    v1::{OutcomeKind, OutcomeStatement, Reason, ReceivedOutcome, SealedMessage, SealedPost, SignedOutcome},
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
    refused: BTreeMap<(Address, ContentHash), Reason>,
    /// Sender and recipient of everything that was sent.
    sent: BTreeMap<ContentHash, (Address, Address)>,
    /// Of which the sender was told that it is queued.
    queued: BTreeSet<ContentHash>,
    /// What became of that, by how often the sender's home had lost its disk.
    settled: BTreeMap<(ContentHash, u64), (u64, OutcomeKind)>,
    /// What each session sent to each user, in order, once.
    lanes: BTreeMap<(TokenHash, Address), Vec<ContentHash>>,
    repeated: BTreeSet<ContentHash>,
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
        self.entry(to, disks_lost, attachment, cursor, hash);
        self.handed.entry((to.clone(), hash)).or_default().push(attachment);
    }

    /// A sender's device is told what became of a message that was queued.
    pub fn outcome(
        &mut self,
        to: &Address,
        disks_lost: u64,
        attachment: AttachmentId,
        cursor: &str,
        received: &ReceivedOutcome,
    ) {
        let signed = received.outcome.as_ref().expect("an outcome was received");
        let position = self.entry(to, disks_lost, attachment, cursor, ContentHash::of(&signed.statement));
        let (hash, kind) = outcome_of(signed);
        let (sender, recipient) = self.sent.get(&hash).expect("an outcome comes of what was sent only");
        assert_eq!(sender, to, "an outcome is told to the sender only");
        assert_eq!(received.recipient, recipient.user.as_str());
        assert_eq!(received.recipient_home_id, recipient.home.to_string());
        let there = self.settled.entry((hash, disks_lost)).or_insert((position, kind));
        assert_eq!(*there, (position, kind), "{to:?} is told twice what became of {hash:?}");
    }

    /// Notes an entry of an inbox. Gives its position.
    fn entry(
        &mut self,
        to: &Address,
        disks_lost: u64,
        attachment: AttachmentId,
        cursor: &str,
        hash: ContentHash,
    ) -> u64 {
        let cursor = Cursor::parse(cursor).expect("an entry comes with its cursor");
        assert_eq!(cursor, Cursor::of(cursor.position, &hash));
        let read = self.read.get_mut(&attachment).expect("the stream is attached");
        assert_eq!(cursor.position, *read + 1, "{to:?} reads without gap or repeat");
        *read = cursor.position;
        let log = self.logs.entry((to.clone(), disks_lost)).or_default();
        let there = log.insert(cursor.position, hash);
        assert!(there.is_none_or(|there| there == hash), "{to:?} sees two messages at {}", cursor.position);
        assert_eq!(log.values().filter(|other| **other == hash).count(), 1, "{to:?} got {hash:?} twice");
        cursor.position
    }

    /// A session sends a message.
    pub fn sent(&mut self, session: TokenHash, sealed: &SealedMessage) {
        // What is badly formed is refused.
        let Ok(message) = Message::parse(sealed) else { return };
        let hash = message.authorship.hash;
        let between = (message.authorship.sender, message.recipient.clone());
        if self.sent.insert(hash, between).is_some() {
            self.repeated.insert(hash);
        }
        // What is for the present only goes at once.
        if !message.requires_online {
            self.lanes.entry((session, message.recipient)).or_default().push(hash);
        }
    }

    pub fn post(&mut self, to: &Address, attachment: AttachmentId, sealed: &SealedPost) {
        let post = Post::parse(sealed).expect("only well-formed posts are delivered");
        assert_ne!(post.authorship.sender, *to, "a post never comes back to its sender");
        let hash = post.authorship.hash;
        let handed = self.handed.entry((to.clone(), hash)).or_default();
        assert!(!handed.contains(&attachment), "{to:?} got {hash:?} twice");
        handed.push(attachment);
    }

    /// The sender was told that this message is refused.
    pub fn refuse(&mut self, sealed: &SealedMessage, reason: Reason) {
        if let Ok(message) = Message::parse(sealed) {
            self.refused.insert((message.recipient, message.authorship.hash), reason);
        }
    }

    /// The sender was told that this message is in the inbox of its recipient, or queued.
    pub fn confirm(&mut self, sealed: &SealedMessage, outcome: &SignedOutcome) -> OutcomeKind {
        let message = Message::parse(sealed).expect("only well-formed messages are confirmed");
        let hash = message.authorship.hash;
        let (of, kind) = outcome_of(outcome);
        assert_eq!(of, hash);
        if kind == OutcomeKind::Queued {
            self.queued.insert(hash);
        } else {
            self.accepted.insert((message.recipient, hash));
        }
        kind
    }

    /// What a user was handed, in the order of the inbox.
    pub fn log(&self, user: &Address) -> Vec<ContentHash> {
        self.logs.get(&(user.clone(), 0)).map(|log| log.values().copied().collect()).unwrap_or_default()
    }

    /// What streams were told to have missed.
    pub fn missed(&self) -> &[u64] {
        &self.missed
    }

    /// Whether anything was accepted for a user, or queued from them.
    pub fn is_awaited(&self, user: &Address) -> bool {
        self.accepted.iter().any(|(to, _)| to == user)
            || self.queued.iter().map(|hash| &self.sent[hash]).any(|(sender, to)| sender == user || to == user)
    }

    /// What a user was told of messages that were queued.
    pub fn settled(&self, hash: ContentHash) -> Option<OutcomeKind> {
        self.settled.get(&(hash, 0)).map(|(_, kind)| *kind)
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

/// What an outcome is about, and what it says.
fn outcome_of(signed: &SignedOutcome) -> (ContentHash, OutcomeKind) {
    let statement = OutcomeStatement::decode(&signed.statement[..]).expect("a home signs what can be read");
    let [outcome] = &statement.outcomes[..] else { panic!("one outcome for one message") };
    assert_eq!(outcome.recipients, u32::from(!matches!(outcome.kind(), OutcomeKind::Rejected | OutcomeKind::Expired)));
    (ContentHash::from_bytes(&outcome.statement_sha256).expect("a hash"), outcome.kind())
}

/// Everything that was accepted was read by a new device of its recipient, in order, and nothing that was refused; and the
/// sender of what was queued was told what became of it. Nobody can say what was lost with a disk, and who moved has no device
/// at the old home any more.
pub fn at_rest(world: &World) {
    let safe = world.servers.iter().filter(|server| server.disks_lost == 0);
    let safe: BTreeSet<_> = safe.map(|server| server.id).collect();
    let is_read = |to: &Address| safe.contains(&to.home) && !world.has_moved(to);
    let Deliveries { logs, accepted, refused, sent, queued, lanes, repeated, .. } = &world.deliveries;
    let position = |to: &Address, hash: &ContentHash| {
        let log = logs.get(&(to.clone(), 0)).into_iter().flatten();
        log.filter(|(_, other)| *other == hash).map(|(position, _)| *position).next()
    };
    let mut is_there = accepted.clone();
    let mut is_absent = refused.clone();
    let queued = queued.iter().map(|hash| (hash, &sent[hash]));
    for (hash, (sender, recipient)) in queued.filter(|(_, (sender, _))| is_read(sender)) {
        let of = (recipient.clone(), *hash);
        match world.deliveries.settled(*hash) {
            None => {
                let home = world.find(sender.home).expect("a home");
                let left = world.servers[home].disk.mail.queued();
                panic!("{sender:?} was never told what became of {hash:?} to {recipient:?}; {left} are queued there")
            }
            Some(OutcomeKind::Rejected) => drop(is_absent.insert(of, Reason::Unspecified)),
            Some(OutcomeKind::Expired) => {}
            Some(_) => drop(is_there.insert(of)),
        }
    }
    for (to, hash) in is_there.iter().filter(|(to, _)| is_read(to)) {
        assert!(position(to, hash).is_some(), "{to:?} was sent {hash:?}, and its sender was told that it is there");
    }
    let is_absent = is_absent.iter().filter(|(of, _)| is_read(&of.0) && !is_there.contains(of));
    for ((to, hash), reason) in is_absent {
        assert!(position(to, hash).is_none(), "{to:?} has {hash:?}, and its sender was told {reason:?}");
    }
    for ((_, to), sent) in lanes.iter().filter(|((_, to), _)| is_read(to)) {
        let once = sent.iter().filter(|hash| !repeated.contains(*hash));
        let places: Vec<u64> = once.filter_map(|hash| position(to, hash)).collect();
        assert!(places.is_sorted(), "{to:?} has the messages of one session in another order: {places:?}");
    }
}
