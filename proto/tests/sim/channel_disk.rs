//! The log of the public channel on a simulated disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::bytes::Bytes;
use socp::{
    channel::{self, Entry, Kept, KeyName, Log, Stored},
    inbox::Cursor,
    name::UserName,
};

/// The log of one server.
#[derive(Clone, Default)]
pub struct ChannelDisk {
    dropped: Cursor,
    posts: VecDeque<(SharedEntry, Kept)>,
    wrapped: BTreeMap<KeyName, BTreeMap<UserName, Bytes>>,
}

type SharedEntry = std::sync::Arc<Entry>;

impl ChannelDisk {
    pub fn insert(&mut self, entry: &SharedEntry) {
        let last = self.posts.back().map_or(self.dropped.position, |(entry, _)| entry.position);
        assert_eq!(entry.position, last + 1, "positions are given out without gap or repeat");
        match self.posts.back() {
            Some((_, last)) if entry.audience_since != entry.position => {
                assert_eq!((&last.audience, last.audience_since), (&entry.audience, entry.audience_since));
            }
            _ => assert_eq!(entry.audience_since, entry.position, "an audience is there before it is shared"),
        }
        let key = KeyName::of(&entry.post);
        self.wrapped.entry(key.clone()).or_default().extend(entry.wraps.iter().cloned());
        let kept = Kept {
            hash: entry.post.authorship.hash,
            bytes: channel::bytes(&entry.post.sealed),
            received_unix_ms: entry.received_unix_ms,
            audience: entry.audience.clone(),
            audience_since: entry.audience_since,
            key,
        };
        self.posts.push_back((entry.clone(), kept));
    }

    pub fn drop_up_to(&mut self, up_to: Cursor, keys: &[KeyName]) {
        while self.posts.front().is_some_and(|(entry, _)| entry.position <= up_to.position) {
            let (entry, kept) = self.posts.pop_front().expect("it was just there");
            if entry.position == up_to.position {
                assert_eq!(up_to, Cursor::of(entry.position, &kept.hash));
            }
        }
        self.dropped = up_to;
        for key in keys {
            self.wrapped.remove(key).expect("a key that goes was there");
        }
        let used: BTreeSet<&KeyName> = self.posts.iter().map(|(_, kept)| &kept.key).collect();
        assert!(self.wrapped.keys().eq(used), "keys are there as long as posts under them");
    }

    /// What a node is given at its start.
    pub fn log(&self) -> Log {
        Log {
            dropped: self.dropped,
            kept: self.posts.iter().map(|(_, kept)| kept.clone()).collect(),
            wrapped: self.wrapped.iter().map(|(key, users)| (key.clone(), users.len() as u64)).collect(),
        }
    }

    /// How many posts are in it.
    pub fn count(&self) -> usize {
        self.posts.len()
    }

    /// A key as it came for a user last.
    pub fn key(&self, user: &UserName, key: &KeyName) -> Option<&Bytes> {
        self.wrapped.get(key)?.get(user)
    }

    /// Those of these posts that are there, for a user.
    pub fn posts(&self, user: &UserName, positions: &[u64]) -> Vec<Stored> {
        let wanted = self.posts.iter().filter(|(entry, _)| positions.contains(&entry.position));
        wanted.map(|(entry, kept)| entry.stored(self.key(user, &kept.key).cloned().unwrap_or_default())).collect()
    }
}
