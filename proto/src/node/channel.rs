//! The public channel at a home: a post goes into the log, once that is on disk to those of this server's users whom it is for, and
//! to those who come back for it.
//!
//! A post is for those who are online when it comes, a moment's break of their streams included. It gets its position when it is
//! given out to be written. Only when the disk has it is it handed to streams, and only then is its sender told. A stream that
//! comes back is given from the disk what it has not, and from there on each post as it comes: so nothing is missed, and nothing
//! comes twice.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use prost::bytes::Bytes;

pub use super::channel_log::ChannelRoom;
use super::channel_log::{ChannelLog, Dropped};
use super::{Node, inbox::Taken, repeat::Known, sizes::Sizes};
use crate::{
    channel::{self, Audience, Entry, KeyName, Stored},
    id::{KeyFingerprint, TokenHash},
    inbox::Cursor,
    input::{AttachmentId, CallId, WriteId},
    limits::{ID_REMEMBERED_MS, WRITES_BYTES_MAX, WRITES_MAX},
    message::{Address, Post, Wrap},
    mutation::{Mutation, is_on},
    name::UserName,
    output::{Answer, Output, Record},
    rejection::Rejection,
    statement::invalid,
    v1::{AttachResponse, ChannelGap, GetChannelKeyRequest, OutcomeKind, Reason, attach_response::Event},
};

/// The place before the first post, in text form: an empty cursor is of a device that wants what comes from now on.
const BEGINNING: &str = "0";

/// The log, and what is on its way into it.
#[derive(Debug, Default)]
pub(super) struct Channel {
    log: ChannelLog,
    /// Oldest first.
    writing: VecDeque<(WriteId, Arc<Entry>)>,
    writing_bytes: usize,
    /// Whether times of what was loaded are on the monotonic clock by now.
    is_begun: bool,
}

impl Channel {
    pub(super) fn new(log: channel::Log) -> Self {
        Self { log: ChannelLog::new(log), ..Self::default() }
    }

    pub(super) fn sizes(&self, sizes: &mut Sizes) {
        sizes.note("posts in the channel's log", self.log.len() - self.writing.len());
        sizes.note("posts that wait for the disk", self.writing.len());
        sizes.note("bytes of posts that wait for the disk", self.writing_bytes);
    }

    /// Posts in the log, and their bytes with audiences and keys.
    pub(super) fn depths(&self) -> (usize, u64) {
        (self.log.len(), self.log.bytes())
    }

    /// The place of the last post that a device may know of, in text form.
    pub(super) fn newest(&self) -> String {
        let newest = self.log.cursor(self.log.on_disk).unwrap_or_default();
        if newest.position == 0 { BEGINNING.to_string() } else { newest.to_string() }
    }

    /// Where a device with this cursor goes on, and how many posts it can never read. Rejects: CURSOR_UNKNOWN.
    pub(super) fn find(&self, cursor: &str) -> Result<(u64, u64), Rejection> {
        let unknown = || {
            let rejection =
                Rejection::new(Reason::CursorUnknown, "no post of this server has this cursor; attach without it");
            rejection.with("field", "channel_cursor")
        };
        let dropped = self.log.dropped.position;
        let cursor = match cursor {
            "" => return Ok((self.log.on_disk, 0)),
            BEGINNING => Cursor::default(),
            cursor => Cursor::parse(cursor).ok_or_else(unknown)?,
        };
        if cursor.position < dropped {
            return Ok((dropped, dropped - cursor.position));
        }
        let is_here = cursor.position <= self.log.on_disk && self.log.cursor(cursor.position) == Some(cursor);
        if is_here { Ok((cursor.position, 0)) } else { Err(unknown()) }
    }

    fn is_writing(&self, write: WriteId) -> bool {
        self.writing.iter().any(|(other, _)| *other == write)
    }
}

impl Node {
    /// Puts a post into the log for everybody who is online here, except its sender; gives what became of it if that is known
    /// already. Else the sender is told once it is on disk.
    pub(super) fn keep_post(&mut self, post: Post, wraps: &[Wrap]) -> Result<Option<Taken>, Rejection> {
        match self.repeats.recall(&post.authorship)? {
            Some(Known::Taken(taken)) => return Ok(Some(taken)),
            Some(Known::Writing(write)) if self.channel.is_writing(write) => return Ok(None),
            // Ids of messages and posts are of one kind, and a message with the same bytes is none.
            Some(Known::Writing(_)) => return Err(invalid("message_id")),
            None => {}
        }
        let sender = &post.authorship.sender;
        let mut users = self.sessions.online();
        if sender.home == self.id {
            users.remove(&sender.user);
        }
        if users.is_empty() {
            let taken = Taken { kind: OutcomeKind::HandedOver, recipients: 0 };
            self.repeats.remember(&post.authorship, Known::Taken(taken), self.now.monotonic_ms);
            return Ok(Some(taken));
        }
        let wraps = self.own_wraps(wraps);
        let of = |user: &UserName| {
            let key = self.accounts.find(user)?.statement().key.fingerprint();
            Some((user.clone(), (*wraps.get(&(user, key))?).clone()))
        };
        let wraps: Vec<(UserName, Bytes)> = users.iter().filter_map(of).collect();
        let bytes = entry_bytes(&post, wraps.len());
        if self.channel.writing.len() >= WRITES_MAX || self.channel.writing_bytes + bytes > WRITES_BYTES_MAX {
            let rejection = Rejection::new(Reason::TooMany, "too many posts wait for the disk; try again");
            return Err(rejection.with("limit", WRITES_MAX.to_string()));
        }
        let (audience, audience_since) = self.channel.log.audience(Audience::of(&users));
        let entry = Arc::new(Entry {
            position: self.channel.log.last() + 1,
            received_unix_ms: self.now.unix_ms,
            post: Box::new(post),
            audience,
            audience_since,
            wraps,
            id_until_unix_ms: self.now.unix_ms + ID_REMEMBERED_MS,
        });
        self.channel.log.push(&entry, self.now_ms());
        let write = self.write(Record::Post(Arc::clone(&entry)));
        self.shrink_channel();
        self.repeats.remember(&entry.post.authorship, Known::Writing(write), self.now.monotonic_ms);
        self.channel.writing_bytes += bytes;
        self.channel.writing.push_back((write, entry));
        if is_on(Mutation::PostToldBeforeWritten) {
            self.posts_written(write);
        }
        Ok(None)
    }

    /// The wrapped keys for this server's users, by user and key; of several alike the first.
    fn own_wraps<'a>(&self, wraps: &'a [Wrap]) -> BTreeMap<(&'a UserName, KeyFingerprint), &'a Bytes> {
        let own = wraps.iter().rev().filter(|wrap| wrap.recipient.home == self.id);
        own.map(|wrap| ((&wrap.recipient.user, wrap.recipient_key), &wrap.wrap.wrapped_key)).collect()
    }

    /// All posts up to this are on disk.
    pub(super) fn posts_written(&mut self, up_to: WriteId) {
        while self.channel.writing.front().is_some_and(|(write, _)| *write <= up_to) {
            let (_, entry) = self.channel.writing.pop_front().expect("it was just there");
            self.channel.writing_bytes -= entry_bytes(&entry.post, entry.wraps.len());
            let taken = Taken { kind: OutcomeKind::HandedOver, recipients: self.hand_over_post(&entry) };
            let authorship = &entry.post.authorship;
            self.repeats.settle(authorship, taken);
            if authorship.sender.home == self.id {
                self.own_outcome(authorship.hash, taken);
            } else {
                self.send_outcome(authorship, Ok(taken));
            }
        }
    }

    /// Hands a post that is on disk now to the streams that have all before it. Gives the number of users.
    fn hand_over_post(&mut self, entry: &Entry) -> u32 {
        self.channel.log.on_disk = entry.position;
        let plain = entry.stored(Bytes::new()).response();
        let wraps: BTreeMap<&str, &Bytes> = entry.wraps.iter().map(|(user, key)| (user.as_str(), key)).collect();
        let mut recipients = 0;
        for user in entry.audience.names() {
            let event = wraps.get(user).map(|key| entry.stored((*key).clone()).response());
            for attachment in self.sessions.live_for_post(user, entry.position) {
                let event = event.as_ref().unwrap_or(&plain).clone();
                self.output(Output::Deliver { attachment, event });
            }
            recipients += u32::from(self.sessions.is_attached(user));
        }
        recipients
    }

    /// Begins to give an attached stream the posts that its device has not.
    pub(super) fn begin_replaying_posts(&mut self, user: &UserName, attachment: AttachmentId, after: u64, missed: u64) {
        self.tell_channel_gap(attachment, missed);
        self.go_on_replaying_posts(user, attachment, after);
    }

    fn go_on_replaying_posts(&mut self, user: &UserName, attachment: AttachmentId, after: u64) {
        let positions = self.channel.log.to_read(user, after);
        let is_live = positions.is_empty() || is_on(Mutation::PostsNotReplayed);
        let after = if is_live { self.channel.log.on_disk } else { after };
        self.sessions.set_posts(attachment, after, is_live);
        if !is_live {
            self.output(Output::ReplayPosts { attachment, user: user.clone(), positions });
        }
    }

    /// Hands posts from the disk to the stream they were read for.
    pub(super) fn posts_replayed(&mut self, attachment: AttachmentId, page: Vec<Stored>) {
        let Some((user, mut after)) = self.sessions.replaying_posts(attachment) else { return };
        // What was still to be read may have been dropped meanwhile.
        let dropped = self.channel.log.dropped.position;
        if page.is_empty() && after >= dropped {
            return; // Nothing that is there came: the shell is at fault, and the device reads on when it attaches again.
        }
        if after < dropped {
            self.tell_channel_gap(attachment, dropped - after);
            after = dropped;
        }
        for stored in page.into_iter().filter(|stored| stored.position > after).collect::<Vec<_>>() {
            after = stored.position;
            self.output(Output::Deliver { attachment, event: stored.response() });
        }
        self.go_on_replaying_posts(&user, attachment, after);
    }

    fn tell_channel_gap(&mut self, attachment: AttachmentId, missed: u64) {
        if missed > 0 {
            let event = Some(Event::ChannelGap(ChannelGap { missed }));
            self.output(Output::Deliver { attachment, event: AttachResponse { event, ..AttachResponse::default() } });
        }
    }

    /// Tells which channel key a device asks for.
    pub(super) fn find_channel_key(&mut self, call: CallId, token: TokenHash, wanted: &GetChannelKeyRequest) {
        let GetChannelKeyRequest { sender, sender_home_id, key_id } = wanted;
        let result = self.authorize(token).and_then(|user| {
            let sender = Address::parse(sender, sender_home_id, "sender_home_id")?;
            let id = key_id[..].try_into().map_err(|_| invalid("key_id"))?;
            Ok(Answer::ChannelKey { user, key: KeyName { sender, id } })
        });
        self.answer(call, result);
    }

    /// Drops posts that are too old or too many.
    pub(super) fn sweep_channel(&mut self) {
        if !self.channel.is_begun {
            self.channel.is_begun = true;
            self.channel.log.begin(self.now_ms(), self.unix_ms());
        }
        self.shrink_channel();
    }

    fn shrink_channel(&mut self) {
        let now_ms = self.now_ms();
        if let Some(Dropped { up_to, keys }) = self.channel.log.make_room(&self.settings.channel, now_ms) {
            self.write(Record::PostsDropped { up_to, keys });
        }
    }
}

/// What a post on its way to disk takes in memory, without its audience, which the log has anyway.
fn entry_bytes(post: &Post, wraps: usize) -> usize {
    channel::bytes(&post.sealed) as usize + wraps * crate::limits::RSA_BYTES
}
