//! The inboxes on a simulated disk: what was written and is there, and what was written and is not there yet.

use std::collections::{BTreeMap, VecDeque};

use socp::{
    id::{MessageId, ServerId},
    inbox::{Content, Cursor, Entry, Inbox, Kept, Mail, Reader, Remembered, Stored},
    input::WriteId,
    message::Authorship,
    name::UserName,
    outbox::Queued,
    output::Record,
};

use crate::channel_disk::ChannelDisk;

/// What a stream is to be given.
#[derive(Debug)]
pub enum Wanted {
    Entries { after: u64 },
    Posts { positions: Vec<u64> },
}

/// One inbox.
#[derive(Clone, Default)]
struct Log {
    dropped: Cursor,
    readers: Vec<Reader>,
    entries: VecDeque<(Stored, Kept)>,
}

/// All inboxes of one server.
#[derive(Clone, Default)]
pub struct MailDisk {
    logs: BTreeMap<UserName, Log>,
    remembered: BTreeMap<(ServerId, UserName, MessageId), Remembered>,
    queued: BTreeMap<u64, Queued>,
    pub channel: ChannelDisk,
    /// Given out to be written, in order, and when each is on disk; a crash loses it.
    writing: VecDeque<(WriteId, u64, Record)>,
    /// When the last of that is on disk.
    pub written_ms: u64,
    /// When the server is told so.
    pub reported_ms: u64,
}

impl MailDisk {
    /// Takes a record that will be on disk at `written_ms`.
    pub fn write(&mut self, write: WriteId, record: Record) {
        self.writing.push_back((write, self.written_ms, record));
    }

    /// Everything is on disk that was to be by now, whether or not the server was told: who reads now finds it.
    pub fn settle(&mut self, now_ms: u64) {
        self.store_while(|_, at_ms| at_ms <= now_ms);
    }

    /// Stores what was given out first, as long as this is so of its number and of when it is on disk.
    fn store_while(&mut self, is_there: impl Fn(WriteId, u64) -> bool) {
        while self.writing.front().is_some_and(|(write, at_ms, _)| is_there(*write, *at_ms)) {
            let (_, _, record) = self.writing.pop_front().expect("it was just there");
            self.store(&record);
        }
    }

    /// Everything up to this reaches the disk.
    pub fn reach(&mut self, up_to: WriteId) {
        self.store_while(|write, _| write <= up_to);
    }

    /// The power goes: so many of the writes that nobody was told of are on disk all the same, and the others are lost.
    pub fn lose(&mut self, all_but: usize) -> usize {
        let writing = std::mem::take(&mut self.writing);
        let lost = writing.len().saturating_sub(all_but);
        writing.into_iter().take(all_but).for_each(|(_, _, record)| self.store(&record));
        (self.written_ms, self.reported_ms) = (0, 0);
        lost
    }

    /// How many messages are queued.
    pub fn queued(&self) -> usize {
        self.queued.len()
    }

    /// How many writes are on their way.
    pub fn under_way(&self) -> usize {
        self.writing.len()
    }

    fn store(&mut self, record: &Record) {
        match record {
            Record::Entry(entry) => self.insert(entry),
            Record::Post(entry) => {
                self.channel.insert(entry);
                let recipients = entry.audience.count() as u32;
                self.remember(&entry.post.authorship, recipients, entry.id_until_unix_ms);
            }
            Record::PostsDropped { up_to, keys } => self.channel.drop_up_to(*up_to, keys),
            Record::Queued(queued) => {
                let before = self.queued.insert(queued.number, (**queued).clone());
                assert!(before.is_none(), "a number is given out once");
            }
            Record::Unqueued { number } => {
                self.queued.remove(number).expect("what is queued no more was queued");
            }
            Record::Dropped { user, up_to } => {
                let log = self.logs.get_mut(user).expect("an inbox from which something goes is there");
                while log.entries.front().is_some_and(|(stored, _)| stored.position <= up_to.position) {
                    log.entries.pop_front();
                }
                log.dropped = *up_to;
            }
            Record::Readers { user, readers } => {
                self.logs.entry(user.clone()).or_default().readers.clone_from(readers);
            }
            Record::IdsForgotten { before_unix_ms } => {
                self.remembered.retain(|_, remembered| remembered.until_unix_ms >= *before_unix_ms);
            }
            _ => unreachable!("only mail is written with others"),
        }
    }

    fn insert(&mut self, entry: &Entry) {
        let Entry { user, position, received_unix_ms, content } = entry;
        let log = self.logs.entry(user.clone()).or_default();
        let last = log.entries.back().map_or(log.dropped.position, |(stored, _)| stored.position);
        assert_eq!(*position, last + 1, "positions are given out without gap or repeat");
        let stored = Stored { position: *position, event: entry.event() };
        let kept = Kept {
            hash: entry.hash(),
            bytes: entry.bytes(),
            sender: entry.sender().cloned(),
            received_unix_ms: *received_unix_ms,
        };
        log.entries.push_back((stored, kept));
        let (message, id_until_unix_ms) = match content {
            Content::Message { message, id_until_unix_ms } => (message, id_until_unix_ms),
            Content::Outcome(settled) => {
                return drop(self.queued.remove(&settled.number).expect("what is settled was queued"));
            }
        };
        self.remember(&message.authorship, 1, *id_until_unix_ms);
    }

    fn remember(&mut self, authorship: &Authorship, recipients: u32, until_unix_ms: u64) {
        let remembered = Remembered {
            home: authorship.sender.home,
            sender: authorship.sender.user.clone(),
            id: authorship.id,
            hash: authorship.hash,
            recipients,
            until_unix_ms,
        };
        self.remembered.insert((remembered.home, remembered.sender.clone(), remembered.id), remembered);
    }

    /// What a node is given at its start.
    pub fn mail(&self) -> Mail {
        let inbox = |(user, log): (&UserName, &Log)| Inbox {
            user: user.clone(),
            dropped: log.dropped,
            readers: log.readers.clone(),
            kept: log.entries.iter().map(|(_, kept)| kept.clone()).collect(),
        };
        let mut remembered: Vec<Remembered> = self.remembered.values().cloned().collect();
        remembered.sort_by_key(|remembered| remembered.until_unix_ms);
        let queued = self.queued.values().cloned().collect();
        let inboxes = self.logs.iter().map(inbox).collect();
        Mail { inboxes, remembered, queued, channel: self.channel.log() }
    }

    /// The last position that was dropped from an inbox.
    pub fn dropped(&self, user: &UserName) -> u64 {
        self.logs.get(user).map_or(0, |log| log.dropped.position)
    }

    /// At most so many messages of an inbox after a position.
    pub fn page(&self, user: &UserName, after: u64, entries_max: usize) -> Vec<Stored> {
        let entries = self.logs.get(user).into_iter().flat_map(|log| &log.entries);
        entries.map(|(stored, _)| stored).filter(|stored| stored.position > after).take(entries_max).cloned().collect()
    }
}
