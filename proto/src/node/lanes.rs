//! What is in the outbox: for each home a line of messages, and in it lanes, of one sender to one recipient, that stay in order.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::ToString,
    vec::Vec,
};

use super::sizes::Sizes;
use crate::{
    id::{ContentHash, MessageId, ServerId},
    inbox,
    input::{CallId, WriteId},
    limits::{OUTBOX_BYTES_MAX, QUEUED_MS, WAITING_MAX},
    message::Message,
    name::UserName,
    outbox::Queued,
    rejection::Rejection,
    v1::Reason,
};

/// How far a message is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It was sent, and the home's word is awaited until then.
    Direct { until_ms: u64 },
    /// It is on its way to disk.
    Writing,
    /// It is on disk, its sender knows, and this server tries until then.
    Queued { until_ms: u64 },
}

/// One message.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) message: Message,
    /// Who waits for what becomes of it.
    pub(super) calls: Vec<CallId>,
    pub(super) state: State,
    /// Whether it was sent, of one that is queued: since the home could be reached, or the last try began.
    pub(super) is_sent: bool,
}

/// A lane: sender and recipient.
pub(super) type Lane = (UserName, UserName);

/// What is for one home.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) items: BTreeMap<u64, Item>,
    /// What must stay in order.
    pub(super) lanes: BTreeMap<Lane, BTreeSet<u64>>,
    /// Queued, and to be sent.
    pub(super) unsent: BTreeSet<u64>,
    /// Queued, sent, and without a word.
    pub(super) in_flight: usize,
    pub(super) tries: u32,
    /// When to send those again.
    pub(super) retry_ms: u64,
}

/// What is one sender's in the queue.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

/// All that is on its way or waits.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// By the recipient's home.
    pub(super) lines: BTreeMap<ServerId, Line>,
    pub(super) places: BTreeMap<ContentHash, (ServerId, u64)>,
    pub(super) ids: BTreeMap<(UserName, MessageId), ContentHash>,
    /// Of what is queued, or on its way to be.
    pub(super) shares: BTreeMap<UserName, Share>,
    /// On its way to disk, oldest first.
    pub(super) writing: VecDeque<(WriteId, ServerId, u64)>,
    last: u64,
    pub(super) bytes: usize,
    /// Whether times of what was loaded are on the monotonic clock by now.
    pub(super) is_begun: bool,
}

/// The lane of a message.
pub(super) fn lane(message: &Message) -> Lane {
    (message.authorship.sender.user.clone(), message.recipient.user.clone())
}

impl Item {
    pub(super) fn bytes(&self) -> usize {
        inbox::bytes(&self.message.sealed) as usize
    }

    pub(super) fn is_direct(&self) -> bool {
        matches!(self.state, State::Direct { .. })
    }
}

impl Line {
    /// A queued message is sent.
    pub(super) fn note_sent(&mut self, number: u64) {
        if self.unsent.remove(&number)
            && let Some(item) = self.items.get_mut(&number)
        {
            item.is_sent = true;
            self.in_flight += 1;
        }
    }

    /// All that was sent without a word is to be sent again.
    pub(super) fn send_again(&mut self) {
        for (number, item) in self.items.iter_mut().filter(|(_, item)| item.is_sent) {
            item.is_sent = false;
            self.unsent.insert(*number);
        }
        self.in_flight = 0;
    }
}

impl Outbox {
    /// As it was on disk; its times are Unix milliseconds until [`Self::begin`].
    pub(super) fn new(queued: Vec<Queued>) -> Self {
        let mut outbox = Self::default();
        for Queued { number, received_unix_ms, message } in queued {
            let until_ms = received_unix_ms.saturating_add(QUEUED_MS);
            outbox.last = number - 1;
            let state = State::Queued { until_ms };
            let (home, number) = outbox.push(Item { message, calls: Vec::new(), state, is_sent: false });
            outbox.share(home, number);
            outbox.line(home).unsent.insert(number);
        }
        outbox
    }

    /// Puts the times of what was loaded on the monotonic clock, once it is known what time it is.
    pub(super) fn begin(&mut self, now_ms: u64, unix_ms: u64) {
        self.is_begun = true;
        for item in self.lines.values_mut().flat_map(|line| line.items.values_mut()) {
            if let State::Queued { until_ms } = &mut item.state {
                *until_ms = now_ms + until_ms.saturating_sub(unix_ms).min(QUEUED_MS);
            }
        }
    }

    pub(super) fn sizes(&self, sizes: &mut Sizes) {
        sizes.note("messages in the outbox", self.places.len());
        sizes.note("bytes in the outbox", self.bytes);
        let items = self.lines.values().flat_map(|line| line.items.values());
        items.for_each(|item| sizes.note("calls that wait for one message", item.calls.len()));
        self.shares.values().for_each(|share| sizes.note("queued messages of a user", share.entries));
        self.lines.values().for_each(|line| sizes.note("queued messages in flight to a home", line.in_flight));
    }

    /// Messages, and bytes of them.
    pub(super) fn depths(&self) -> (usize, usize) {
        (self.places.len(), self.bytes)
    }

    /// Takes the calls that wait for a word, to answer them otherwise.
    pub(super) fn take_calls(&mut self) -> Vec<CallId> {
        let items = self.lines.values_mut().flat_map(|line| line.items.values_mut());
        items.flat_map(|item| core::mem::take(&mut item.calls)).collect()
    }

    pub(super) fn line(&mut self, home: ServerId) -> &mut Line {
        self.lines.entry(home).or_default()
    }

    pub(super) fn item(&mut self, home: &ServerId, number: u64) -> Option<&mut Item> {
        self.lines.get_mut(home)?.items.get_mut(&number)
    }

    pub(super) fn push(&mut self, item: Item) -> (ServerId, u64) {
        self.last += 1;
        let number = self.last;
        let Message { authorship, recipient, .. } = &item.message;
        let home = recipient.home;
        self.places.insert(authorship.hash, (home, number));
        self.ids.insert((authorship.sender.user.clone(), authorship.id), authorship.hash);
        self.bytes += item.bytes();
        let line = self.lines.entry(home).or_default();
        if !item.message.requires_online {
            line.lanes.entry(lane(&item.message)).or_default().insert(number);
        }
        line.items.insert(number, item);
        (home, number)
    }

    /// Counts a message to its sender's part of the queue.
    pub(super) fn share(&mut self, home: ServerId, number: u64) {
        let item = self.lines.get(&home).and_then(|line| line.items.get(&number)).expect("it was just put in");
        let share = self.shares.entry(item.message.authorship.sender.user.clone()).or_default();
        share.entries += 1;
        share.bytes += item.bytes();
    }

    /// Takes a message out.
    pub(super) fn remove(&mut self, home: ServerId, number: u64) -> Option<Item> {
        let line = self.lines.get_mut(&home)?;
        let item = line.items.remove(&number)?;
        let lane = lane(&item.message);
        if let Some(numbers) = line.lanes.get_mut(&lane) {
            numbers.remove(&number);
            if numbers.is_empty() {
                line.lanes.remove(&lane);
            }
        }
        line.unsent.remove(&number);
        line.in_flight -= usize::from(item.is_sent);
        if line.items.is_empty() {
            self.lines.remove(&home);
        }
        let authorship = &item.message.authorship;
        self.places.remove(&authorship.hash);
        self.ids.remove(&(authorship.sender.user.clone(), authorship.id));
        self.bytes -= item.bytes();
        if !item.is_direct()
            && let Some(share) = self.shares.get_mut(&authorship.sender.user)
        {
            share.entries -= 1;
            share.bytes -= item.bytes();
            if share.entries == 0 {
                self.shares.remove(&authorship.sender.user);
            }
        }
        Some(item)
    }

    /// Checks that there is room for one more message. Rejects: TOO_MANY.
    pub(super) fn check_room(&self, message: &Message) -> Result<(), Rejection> {
        let (limit, is_full) = match inbox::bytes(&message.sealed) as usize + self.bytes > OUTBOX_BYTES_MAX {
            true => (OUTBOX_BYTES_MAX, true),
            false => (WAITING_MAX, self.places.len() >= WAITING_MAX),
        };
        if is_full {
            let rejection = Rejection::new(Reason::TooMany, "too many messages wait for other servers; try again");
            return Err(rejection.with("limit", limit.to_string()));
        }
        Ok(())
    }

    /// The last message of a lane that has no outcome yet.
    pub(super) fn last_of_lane(&self, message: &Message) -> Option<&Item> {
        let line = self.lines.get(&message.recipient.home)?;
        line.items.get(line.lanes.get(&lane(message))?.last()?)
    }

    /// The message before this one in its lane that has no outcome yet.
    pub(super) fn before(&self, home: &ServerId, number: u64) -> Option<&Item> {
        let line = self.lines.get(home)?;
        let item = line.items.get(&number)?;
        if item.message.requires_online {
            return None;
        }
        let before = line.lanes.get(&lane(&item.message))?.range(..number).next_back()?;
        line.items.get(before)
    }
}
