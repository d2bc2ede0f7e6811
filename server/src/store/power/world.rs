//! What is written, drawn from a seed, and what must be there after so many steps. Knows nothing of the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fastrand::Rng;
use prost::bytes::Bytes;
use socp::{
    account::Account,
    channel::{self, KeyName, Log},
    id::{ContentHash, DeviceId, MessageId, ServerId},
    inbox::{Cursor, Entry, Inbox, Mail, Reader, Remembered, Stored},
    name::UserName,
    node::Trust,
    outbox::Queued,
    output::Record,
};

use crate::store::{
    Loaded,
    channel::tests as posts,
    inbox::tests::{entry, kept, message, outcome, stored},
    tests::{account, new_account},
};

const USERS_MAX: usize = 5;
const RECORDS_MAX: usize = 12;

/// Something to do that is reported once it is done.
pub enum Step {
    /// Closes the store, opens it again and begins an epoch at this time.
    Restart(u64),
    /// Makes changes in one commit.
    Apply(Vec<Record>),
}

/// All that was asked for so far.
#[derive(Clone)]
pub struct World {
    rng: Rng,
    epoch: u64,
    invites: Vec<[u8; 32]>,
    users: Vec<User>,
    remembered: BTreeMap<(ServerId, UserName, MessageId), (ContentHash, u32, u64)>,
    queued: BTreeMap<u64, Queued>,
    /// Messages that were queued, ever.
    queues: u64,
    channel: Channel,
}

/// The public channel.
#[derive(Clone, Default)]
struct Channel {
    dropped: Cursor,
    posts: Vec<Arc<channel::Entry>>,
    /// Who has which key, of keys under which there is a post.
    wrapped: BTreeMap<KeyName, BTreeSet<UserName>>,
}

#[derive(Clone)]
struct User {
    account: Arc<Account>,
    dropped: Cursor,
    entries: Vec<Arc<Entry>>,
    readers: Vec<Reader>,
}

impl User {
    fn last(&self) -> u64 {
        self.dropped.position + self.entries.len() as u64
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        let (remembered, queued) = (BTreeMap::new(), BTreeMap::new());
        let (invites, users, channel) = (Vec::new(), Vec::new(), Channel::default());
        Self { rng, epoch: 0, invites, users, remembered, queued, queues: 0, channel }
    }

    /// Draws a step, which is asked for with that.
    pub fn step(&mut self) -> Step {
        if self.epoch == 0 || self.rng.u8(..25) == 0 {
            self.epoch += self.rng.u64(1..1_000);
            return Step::Restart(self.epoch);
        }
        let count = self.rng.usize(1..=RECORDS_MAX);
        Step::Apply((0..count).map(|_| self.record()).collect())
    }

    fn record(&mut self) -> Record {
        let kind = self.rng.u8(..20);
        if self.users.is_empty() || (kind == 0 && self.users.len() < USERS_MAX) {
            return self.new_user();
        }
        let place = self.rng.usize(..self.users.len());
        match kind {
            1 => {
                let hash = [u8::try_from(self.invites.len()).unwrap_or(u8::MAX); 32];
                if self.invites.contains(&hash) {
                    return self.message(place);
                }
                self.invites.push(hash);
                Record::NewInvite(hash)
            }
            2 => {
                let account = &mut self.users[place].account;
                *account = Arc::new(Account { disabled: !account.disabled, ..(**account).clone() });
                Record::Disabled { account: account.clone() }
            }
            3 => self.readers(place),
            4 if !self.users[place].entries.is_empty() => self.drop_oldest(place),
            5 => {
                let before_unix_ms = self.rng.u64(100..200);
                self.remembered.retain(|_, (_, _, until)| *until >= before_unix_ms);
                Record::IdsForgotten { before_unix_ms }
            }
            6 | 7 => self.queue(),
            8 => self.settle(place),
            9 => match self.queued.pop_first() {
                Some((number, _)) => Record::Unqueued { number },
                None => self.queue(),
            },
            10..13 => self.post(),
            13 if !self.channel.posts.is_empty() => self.drop_posts(),
            _ => self.message(place),
        }
    }

    fn queue(&mut self) -> Record {
        self.queues += 1;
        let message = message(&entry("carol", self.queues, self.rng.usize(1..2_000))).0.clone();
        let queued = Queued { number: self.queues, received_unix_ms: self.rng.u64(..1_000), message };
        self.queued.insert(queued.number, queued.clone());
        Record::Queued(Arc::new(queued))
    }

    /// What became of a queued message, in one commit with its going.
    fn settle(&mut self, place: usize) -> Record {
        let Some((number, _)) = self.queued.pop_first() else { return self.queue() };
        let user = &mut self.users[place];
        let entry = outcome(user.account.user.as_str(), user.last() + 1, number);
        user.entries.push(entry.clone());
        Record::Entry(entry)
    }

    fn new_user(&mut self) -> Record {
        let account = account(&format!("user-{}", self.users.len()), self.rng.u64(1..=3));
        let invite = self.invites.pop();
        let user = User { account, dropped: Cursor::default(), entries: Vec::new(), readers: Vec::new() };
        let record = new_account(&user.account, invite);
        self.users.push(user);
        record
    }

    fn message(&mut self, place: usize) -> Record {
        let bytes = match self.rng.u8(..20) {
            0 => 60_000,
            1..5 => self.rng.usize(2_000..10_000),
            _ => self.rng.usize(1..2_000),
        };
        let user = &mut self.users[place];
        let entry = entry(user.account.user.as_str(), user.last() + 1, bytes);
        let (of, id_until_unix_ms) = message(&entry);
        let authorship = &of.authorship;
        let key = (authorship.sender.home, authorship.sender.user.clone(), authorship.id);
        self.remembered.insert(key, (authorship.hash, 1, id_until_unix_ms));
        user.entries.push(entry.clone());
        Record::Entry(entry)
    }

    fn readers(&mut self, place: usize) -> Record {
        let user = &mut self.users[place];
        let reader = |device: u8| Reader {
            device: DeviceId::from_bytes(&[device; 16]),
            read: self.rng.u64(..=user.last()),
            seen_unix_ms: self.rng.u64(..1_000),
        };
        user.readers = (1..=3).map(reader).collect();
        Record::Readers { user: user.account.user.clone(), readers: user.readers.clone() }
    }

    fn drop_oldest(&mut self, place: usize) -> Record {
        let user = &mut self.users[place];
        let count = self.rng.usize(1..=user.entries.len());
        user.dropped = user.entries.drain(..count).next_back().expect("at least one").cursor();
        Record::Dropped { user: user.account.user.clone(), up_to: user.dropped }
    }

    /// A post for some of the users, often for those whom the one before it is for.
    fn post(&mut self) -> Record {
        let Channel { dropped, posts, wrapped } = &mut self.channel;
        let names = self.users.iter().map(|user| user.account.user.as_str());
        let mut audience: Vec<&str> = names.filter(|_| self.rng.bool()).collect();
        audience.sort_unstable();
        let position = dropped.position + posts.len() as u64 + 1;
        let mut since = position;
        match posts.last() {
            Some(last) if audience.is_empty() || self.rng.bool() => {
                audience = last.audience.names().collect();
                since = last.audience_since;
            }
            _ if audience.is_empty() => audience = vec![self.users[0].account.user.as_str()],
            _ => {}
        }
        let wraps: Vec<&str> = audience.iter().copied().filter(|_| self.rng.u8(..4) == 0).collect();
        let entry = posts::entry(position, self.rng.u8(..3), (&audience, since), &wraps);
        wrapped.entry(KeyName::of(&entry.post)).or_default().extend(entry.wraps.iter().map(|(user, _)| user.clone()));
        let of = &entry.post.authorship;
        let recipients = u32::try_from(audience.len()).expect("a few");
        let remembered = (of.hash, recipients, entry.id_until_unix_ms);
        self.remembered.insert((of.sender.home, of.sender.user.clone(), of.id), remembered);
        posts.push(entry.clone());
        Record::Post(entry)
    }

    fn drop_posts(&mut self) -> Record {
        let Channel { dropped, posts, wrapped } = &mut self.channel;
        let count = self.rng.usize(1..=posts.len());
        let last = posts.drain(..count).next_back().expect("at least one");
        *dropped = Cursor::of(last.position, &last.post.authorship.hash);
        let used: BTreeSet<KeyName> = posts.iter().map(|entry| KeyName::of(&entry.post)).collect();
        let keys: Vec<KeyName> = wrapped.keys().filter(|key| !used.contains(*key)).cloned().collect();
        wrapped.retain(|key, _| used.contains(key));
        Record::PostsDropped { up_to: *dropped, keys }
    }

    /// What a store must find.
    pub fn loaded(&self) -> Loaded {
        let inbox = |user: &User| Inbox {
            user: user.account.user.clone(),
            dropped: user.dropped,
            kept: user.entries.iter().map(|entry| kept(entry)).collect(),
            readers: user.readers.clone(),
        };
        let has_inbox = |user: &&User| user.last() > 0 || !user.readers.is_empty();
        let remembered = self.remembered.iter().map(|((home, sender, id), remembered)| Remembered {
            home: *home,
            sender: sender.clone(),
            id: *id,
            hash: remembered.0,
            recipients: remembered.1,
            until_unix_ms: remembered.2,
        });
        let inboxes = self.users.iter().filter(has_inbox).map(inbox).collect();
        let Channel { dropped, posts, wrapped } = &self.channel;
        let users = |(key, users): (&KeyName, &BTreeSet<UserName>)| (key.clone(), users.len() as u64);
        let channel = Log {
            dropped: *dropped,
            kept: posts.iter().map(|entry| posts::kept(entry)).collect(),
            wrapped: wrapped.iter().filter(|(_, users)| !users.is_empty()).map(users).collect(),
        };
        let queued = self.queued.values().cloned().collect();
        let loaded = Loaded {
            accounts: self.users.iter().map(|user| (*user.account).clone()).collect(),
            invites: self.invites.clone(),
            epoch: self.epoch,
            trust: Trust::default(),
            mail: Mail { inboxes, remembered: remembered.collect(), queued, channel },
        };
        in_order(loaded)
    }

    /// All posts of the channel's log, as they are without keys.
    pub fn posts(&self) -> Vec<channel::Stored> {
        self.channel.posts.iter().map(|entry| entry.stored(Bytes::new())).collect()
    }

    /// All entries of all inboxes.
    pub fn messages(&self) -> impl Iterator<Item = (&UserName, Vec<Stored>)> {
        let messages = |user: &User| user.entries.iter().map(|entry| stored(entry)).collect();
        self.users.iter().map(move |user| (&user.account.user, messages(user)))
    }
}

/// Puts in order what a store gives in any.
pub fn in_order(mut loaded: Loaded) -> Loaded {
    let key = |remembered: &Remembered| (remembered.home, remembered.sender.clone(), remembered.id);
    loaded.mail.remembered.sort_by_key(key);
    loaded.invites.sort_unstable();
    loaded.mail.channel.wrapped.sort_unstable();
    loaded
}
