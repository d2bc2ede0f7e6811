//! Posts: each user's streams are handed the same ones at the same places, in order, each once, and none is left out that the user
//! had before; and as many users have a post as its home said it has it for.
//!
//! A home's log is known here by what streams were handed. In the end a new device of everybody reads all of it.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use socp::{
    id::{ContentHash, ServerId},
    inbox::Cursor,
    input::AttachmentId,
    message::Address,
    v1::{OutcomeKind, OutcomeStatement, PostToChannelResponse, SealedPost},
};

use crate::world::World;

/// The place before the first post.
pub const BEGINNING: &str = "0";

/// All that was handed to streams, and all that was taken.
#[derive(Debug, Default)]
pub struct Posts {
    /// What users have, by how often the home had lost its disk.
    logs: BTreeMap<(Address, u64), BTreeMap<u64, ContentHash>>,
    /// The place up to which each stream has all; of one that wants what is new, as of the first that came.
    read: BTreeMap<AttachmentId, Option<u64>>,
    /// For how many users a home said that it has a post.
    taken: BTreeMap<(ServerId, ContentHash), u32>,
    missed: Vec<u64>,
}

impl Posts {
    /// A stream begins after the post of this cursor; without one, with the next.
    pub fn attached(&mut self, attachment: AttachmentId, cursor: &str) {
        let place = match cursor {
            "" => None,
            BEGINNING => Some(0),
            cursor => Some(Cursor::parse(cursor).expect("devices have cursors that they were given").position),
        };
        self.read.insert(attachment, place);
    }

    /// A stream was told that it missed so many posts at most.
    pub fn gap(&mut self, attachment: AttachmentId, missed: u64) {
        let read = self.read.get_mut(&attachment).and_then(Option::as_mut).expect("it reads from a place");
        *read += missed;
        self.missed.push(missed);
    }

    pub fn handed(
        &mut self,
        to: &Address,
        disks_lost: u64,
        attachment: AttachmentId,
        cursor: &str,
        sealed: &SealedPost,
    ) {
        let hash = ContentHash::of(&sealed.statement);
        let cursor = Cursor::parse(cursor).expect("a post comes with its cursor");
        assert_eq!(cursor, Cursor::of(cursor.position, &hash));
        let log = self.logs.entry((to.clone(), disks_lost)).or_default();
        let there = log.insert(cursor.position, hash);
        assert!(there.is_none_or(|there| there == hash), "{to:?} sees two posts at {}", cursor.position);
        assert_eq!(log.values().filter(|other| **other == hash).count(), 1, "{to:?} has {hash:?} at two places");
        let read = self.read.get_mut(&attachment).expect("the stream is attached");
        if let Some(read) = *read {
            assert!(read < cursor.position, "{to:?} was handed {} after {read}", cursor.position);
            let left_out = log.range(read + 1..cursor.position).next();
            assert_eq!(left_out, None, "{to:?} had it before, and the stream goes on after it");
        }
        *read = Some(cursor.position);
    }

    /// The sender was told what became of a post.
    pub fn confirm(&mut self, sealed: &SealedPost, posted: &PostToChannelResponse) {
        let of = ContentHash::of(&sealed.statement);
        for signed in &posted.outcomes {
            let statement = OutcomeStatement::decode(&signed.statement[..]).expect("a home signs what can be read");
            let home = ServerId::parse(&statement.home_id).expect("a home names itself");
            let [outcome] = &statement.outcomes[..] else { panic!("one outcome for one post") };
            assert_eq!(ContentHash::from_bytes(&outcome.statement_sha256), Some(of));
            if matches!(outcome.kind(), OutcomeKind::HandedOver | OutcomeKind::Stored) {
                self.taken.insert((home, of), outcome.recipients);
            }
        }
    }

    /// Whether anything was taken at a home.
    pub fn is_awaited(&self, home: ServerId) -> bool {
        self.taken.keys().any(|(at, _)| *at == home)
    }

    /// The posts that a user has, in order.
    pub fn log(&self, user: &Address) -> Vec<ContentHash> {
        self.logs.get(&(user.clone(), 0)).map(|log| log.values().copied().collect()).unwrap_or_default()
    }

    /// What streams were told to have missed.
    pub fn missed(&self) -> &[u64] {
        &self.missed
    }
}

/// Every stream that is open has read all that its user has; and as many users of a home have a post as it said. Nobody can say what
/// was lost with a disk, and who moved has no device at the old home any more.
pub fn at_rest(world: &World) {
    let Posts { logs, read, taken, .. } = &world.posts;
    for server in &world.servers {
        for (attachment, user) in &server.streams {
            let to = Address { home: server.id, user: user.clone() };
            let (Some(log), Some(Some(read))) = (logs.get(&(to, server.disks_lost)), read.get(attachment)) else {
                continue;
            };
            assert_eq!(log.range(read + 1..).next(), None, "a stream of {user} at {} has not read it", server.name);
        }
    }
    let mut users: BTreeMap<(ServerId, ContentHash), BTreeSet<&Address>> = BTreeMap::new();
    for ((user, _), log) in logs {
        for hash in log.values() {
            users.entry((user.home, *hash)).or_default().insert(user);
        }
    }
    for ((home, hash), recipients) in taken {
        let server = world.servers.iter().find(|server| server.id == *home);
        if server.is_some_and(|server| server.disks_lost == 0) && !world.has_anybody_moved_from(*home) {
            let have = users.get(&(*home, *hash)).map_or(0, BTreeSet::len);
            assert!(
                have >= *recipients as usize,
                "{have} users have {hash:?}, and its sender was told of {recipients}"
            );
        }
    }
}
