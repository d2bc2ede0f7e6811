//! The log of the public channel in memory: what is known of each post, and what goes when it is full.
//!
//! Nobody acknowledges posts, and nobody is refused one for want of room: the oldest go. So whoever floods the channel can make
//! others' posts go early, of which those are told who come back for them.

use alloc::{collections::BTreeMap, collections::VecDeque, sync::Arc, vec::Vec};

use crate::{
    channel::{self, Audience, Entry, Kept, KeyName},
    id::ContentHash,
    inbox::Cursor,
    limits::{CHANNEL_BYTES_MAX, CHANNEL_MS, CHANNEL_POSTS_MAX, REPLAY_BYTES, REPLAY_ENTRIES_MAX, RSA_BYTES},
    name::UserName,
};

/// How much the log may hold, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelRoom {
    /// Posts. Default [`CHANNEL_POSTS_MAX`].
    pub posts_max: usize,
    /// Bytes of posts, audiences and keys. Default [`CHANNEL_BYTES_MAX`].
    pub bytes_max: u64,
    /// After how many milliseconds a post goes. Default [`CHANNEL_MS`].
    pub kept_ms: u64,
}

impl Default for ChannelRoom {
    fn default() -> Self {
        Self { posts_max: CHANNEL_POSTS_MAX, bytes_max: CHANNEL_BYTES_MAX, kept_ms: CHANNEL_MS }
    }
}

/// What is known of a post.
#[derive(Debug)]
struct Meta {
    hash: ContentHash,
    bytes: u32,
    audience: Audience,
    audience_since: u64,
    key: Arc<KeyName>,
    /// On the monotonic clock, so that one which jumps drops nothing.
    received_ms: i64,
}

/// What is known of a channel key.
#[derive(Debug, Default)]
struct Wrapped {
    /// Posts under it.
    posts: usize,
    /// Bytes of it on disk, for all whom it came for.
    bytes: u64,
}

/// What goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    /// The last post that goes.
    pub(super) up_to: Cursor,
    /// Keys under which no post is left.
    pub(super) keys: Vec<KeyName>,
}

/// The log of one home.
#[derive(Debug, Default)]
pub(super) struct ChannelLog {
    /// The last post that was dropped.
    pub(super) dropped: Cursor,
    /// All after that, those on their way to disk at the end.
    metas: VecDeque<Meta>,
    /// The last position on disk.
    pub(super) on_disk: u64,
    keys: BTreeMap<Arc<KeyName>, Wrapped>,
    /// Of posts, audiences and keys.
    bytes: u64,
}

impl ChannelLog {
    /// As it was on disk; its times are Unix milliseconds until [`Self::begin`].
    pub(super) fn new(log: channel::Log) -> Self {
        let mut new = Self { dropped: log.dropped, on_disk: log.dropped.position, ..Self::default() };
        for (key, users) in log.wrapped {
            let bytes = users * RSA_BYTES as u64;
            new.bytes += bytes;
            new.keys.insert(Arc::new(key), Wrapped { posts: 0, bytes });
        }
        for Kept { hash, bytes, received_unix_ms, audience, audience_since, key } in log.kept {
            let received_ms = i64::try_from(received_unix_ms).unwrap_or(i64::MAX);
            new.push_meta(Meta { hash, bytes, audience, audience_since, key: Arc::new(key), received_ms });
        }
        new.on_disk = new.last();
        new
    }

    /// Puts the times of what was loaded on the monotonic clock; nothing is from the future.
    pub(super) fn begin(&mut self, now_ms: i64, unix_ms: i64) {
        for meta in &mut self.metas {
            meta.received_ms = now_ms.saturating_sub(unix_ms.saturating_sub(meta.received_ms).max(0));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.metas.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The last position that was given out.
    pub(super) fn last(&self) -> u64 {
        self.dropped.position + self.metas.len() as u64
    }

    fn meta(&self, position: u64) -> Option<&Meta> {
        let index = position.checked_sub(self.dropped.position + 1)?;
        self.metas.get(usize::try_from(index).ok()?)
    }

    /// The place at a position that is in the log, or the last that was.
    pub(super) fn cursor(&self, position: u64) -> Option<Cursor> {
        if position == self.dropped.position {
            return Some(self.dropped);
        }
        Some(Cursor::of(position, &self.meta(position)?.hash))
    }

    /// The audience of the next post if these users are it: with that of the post before it, if they are the same.
    pub(super) fn audience(&self, audience: Audience) -> (Audience, u64) {
        match self.metas.back() {
            Some(last) if last.audience == audience => (last.audience.clone(), last.audience_since),
            _ => (audience, self.last() + 1),
        }
    }

    pub(super) fn push(&mut self, entry: &Entry, received_ms: i64) {
        let key = KeyName::of(&entry.post);
        let key = self.keys.get_key_value(&key).map_or_else(|| Arc::new(key), |(known, _)| Arc::clone(known));
        let wrapped = (entry.wraps.len() * RSA_BYTES) as u64;
        self.bytes += wrapped;
        self.keys.entry(Arc::clone(&key)).or_default().bytes += wrapped;
        self.push_meta(Meta {
            hash: entry.post.authorship.hash,
            bytes: channel::bytes(&entry.post.sealed),
            audience: entry.audience.clone(),
            audience_since: entry.audience_since,
            key,
            received_ms,
        });
    }

    fn push_meta(&mut self, mut meta: Meta) {
        self.bytes += u64::from(meta.bytes);
        match self.metas.back() {
            Some(last) if last.audience_since == meta.audience_since => meta.audience = last.audience.clone(),
            _ => self.bytes += meta.audience.as_str().len() as u64,
        }
        if let Some((known, _)) = self.keys.get_key_value(&meta.key) {
            meta.key = Arc::clone(known);
        }
        self.keys.entry(Arc::clone(&meta.key)).or_default().posts += 1;
        self.metas.push_back(meta);
    }

    /// Drops the oldest posts that are too old, or more than there is room for. What is not on disk yet stays.
    pub(super) fn make_room(&mut self, room: &ChannelRoom, now_ms: i64) -> Option<Dropped> {
        let (before, mut keys) = (self.dropped.position, Vec::new());
        let kept_ms = i64::try_from(room.kept_ms).unwrap_or(i64::MAX);
        while self.dropped.position < self.on_disk
            && let Some(oldest) = self.metas.front()
            && (self.metas.len() > room.posts_max
                || self.bytes > room.bytes_max
                || now_ms.saturating_sub(oldest.received_ms) >= kept_ms)
        {
            keys.extend(self.drop_oldest());
        }
        (self.dropped.position > before).then_some(Dropped { up_to: self.dropped, keys })
    }

    /// Gives the key of the oldest post if no other is under it.
    fn drop_oldest(&mut self) -> Option<KeyName> {
        let oldest = self.metas.pop_front()?;
        self.dropped = Cursor::of(self.dropped.position + 1, &oldest.hash);
        self.bytes -= u64::from(oldest.bytes);
        if self.metas.front().is_none_or(|next| next.audience_since != oldest.audience_since) {
            self.bytes -= oldest.audience.as_str().len() as u64;
        }
        let wrapped = self.keys.get_mut(&oldest.key)?;
        wrapped.posts -= 1;
        if wrapped.posts > 0 {
            return None;
        }
        self.bytes -= wrapped.bytes;
        self.keys.remove(&oldest.key);
        Some((*oldest.key).clone())
    }

    /// Positions on disk after this one of posts for a user: as many as are read at once.
    pub(super) fn to_read(&self, user: &UserName, after: u64) -> Vec<u64> {
        let (mut positions, mut bytes, mut known) = (Vec::new(), 0, None);
        for position in after.max(self.dropped.position) + 1..=self.on_disk {
            let Some(meta) = self.meta(position) else { break };
            let is_for_user = match known {
                Some((since, is_in)) if since == meta.audience_since => is_in,
                _ => meta.audience.contains(user),
            };
            known = Some((meta.audience_since, is_for_user));
            if is_for_user {
                positions.push(position);
                bytes += meta.bytes as usize;
            }
            if positions.len() >= REPLAY_ENTRIES_MAX || bytes >= REPLAY_BYTES {
                break;
            }
        }
        positions
    }
}
