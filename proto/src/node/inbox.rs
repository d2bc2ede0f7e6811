//! Inboxes of this server's users: what goes in, once it is on disk who is told, and how devices catch up.
//!
//! An entry, a message or what became of one that was queued, gets its position when it is given out to be written. Only when
//! the disk has it is it handed to streams, and only then is its sender told. A stream that has not all of its inbox is given pages from the disk until it has, and from
//! there on each entry as it comes: so nothing is missed, and nothing comes twice.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    format,
    string::ToString,
    sync::Arc,
    vec::Vec,
};

use super::{Node, repeat::Known, room::Inbox, sizes::Sizes};
use crate::{
    id::{DeviceId, TokenHash},
    inbox::{self, Content, Cursor, Entry, Settled, Stored},
    input::{AttachmentId, CallId, WriteId},
    limits::{ENTRIES_MAX, ID_REMEMBERED_MS, SENDS_PER_SESSION_MAX, WRITES_BYTES_MAX, WRITES_MAX},
    message::{Authorship, Message},
    mutation::{Mutation, is_on},
    name::UserName,
    output::{Answer, Output, Record},
    rejection::Rejection,
    v1::{AttachResponse, InboxGap, OutcomeKind, Reason, SendMessageResponse, attach_response::Event},
};

/// Inboxes of which the disk is told at once that something is gone or was read: others wait for the next time, so that no
/// message waits long behind them.
const SWEPT_MAX: usize = 1_000;

/// Who is to be told what became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// A session of this server.
    Call(CallId),
    /// Another home.
    Home,
}

/// What became of a message or post that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) kind: OutcomeKind,
    pub(super) recipients: u32,
}

/// An entry on its way to disk.
#[derive(Debug)]
struct Writing {
    write: WriteId,
    entry: Arc<Entry>,
    senders: Vec<Sender>,
}

/// All inboxes.
#[derive(Debug, Default)]
pub(super) struct Inboxes {
    by_user: BTreeMap<UserName, Inbox>,
    /// Messages in all of them.
    entries: usize,
    /// Messages in the largest, as of the last sweep.
    largest: usize,
    /// Oldest first.
    writing: VecDeque<Writing>,
    writing_bytes: usize,
    writes: u64,
    /// Whether times of what was loaded are on the monotonic clock by now.
    is_begun: bool,
}

impl Inboxes {
    pub(super) fn new(inboxes: Vec<inbox::Inbox>) -> Self {
        let mut all = Self::default();
        for inbox in inboxes {
            all.entries += inbox.kept.len();
            all.by_user.insert(inbox.user.clone(), Inbox::new(inbox));
        }
        all
    }

    pub(super) fn sizes(&self, sizes: &mut Sizes) {
        sizes.note("messages in all inboxes", self.entries);
        sizes.note("messages that wait for the disk", self.writing.len());
        sizes.note("bytes that wait for the disk", self.writing_bytes);
        self.by_user.values().for_each(|inbox| sizes.note("messages in an inbox", inbox.len()));
        self.by_user.values().for_each(|inbox| sizes.note("devices of a user", inbox.devices()));
        self.writing.iter().for_each(|writing| sizes.note("calls that wait for one message", writing.senders.len()));
    }

    /// Messages in all inboxes, in the largest as of the last sweep, and on their way to disk.
    pub(super) fn depths(&self) -> (usize, usize, usize) {
        (self.entries, self.largest, self.writing.len())
    }

    /// Takes the calls that wait for the disk, to answer them otherwise.
    pub(super) fn take_calls(&mut self) -> Vec<CallId> {
        let senders = self.writing.iter_mut().flat_map(|writing| core::mem::take(&mut writing.senders));
        senders.filter_map(|sender| if let Sender::Call(call) = sender { Some(call) } else { None }).collect()
    }

    /// Outcomes in a user's inbox that not every live device has read, with those on their way into it.
    pub(super) fn unread_outcomes(&self, user: &UserName) -> usize {
        self.by_user.get(user).map_or(0, Inbox::unread_outcomes)
    }

    /// The place of the last entry that a device may know of.
    pub(super) fn newest(&self, user: &UserName) -> Cursor {
        self.by_user.get(user).and_then(|inbox| inbox.cursor(inbox.on_disk)).unwrap_or_default()
    }

    /// What is known of a user's inbox; nothing before the first message.
    pub(super) fn find_inbox(&self, user: &UserName) -> Option<&Inbox> {
        self.by_user.get(user)
    }

    fn on_disk(&self, user: &UserName) -> u64 {
        self.by_user.get(user).map_or(0, |inbox| inbox.on_disk)
    }

    /// Where a device with this cursor goes on, and how many entries it can never read. Rejects: CURSOR_UNKNOWN.
    pub(super) fn find(&self, user: &UserName, cursor: &str) -> Result<(u64, u64), Rejection> {
        let unknown =
            || Rejection::new(Reason::CursorUnknown, "no message of this inbox has this cursor; read it anew");
        let cursor = Cursor::parse(cursor).ok_or_else(unknown)?;
        let dropped = self.by_user.get(user).map_or(0, |inbox| inbox.dropped.position);
        if cursor.position == 0 {
            return Ok((dropped, 0));
        }
        if cursor.position < dropped {
            return Ok((dropped, dropped - cursor.position));
        }
        let found = self.by_user.get(user).filter(|inbox| cursor.position <= inbox.on_disk);
        let is_here = found.and_then(|inbox| inbox.cursor(cursor.position)) == Some(cursor);
        if is_here || found.is_some() && is_on(Mutation::CursorNotChecked) {
            Ok((cursor.position, 0))
        } else {
            Err(unknown())
        }
    }
}

impl Node {
    /// Puts a message to a user of this server into the inbox, unless it is there; the sender is told once it is on disk.
    pub(super) fn keep(&mut self, message: Message, sender: Sender) {
        match self.repeats.recall(&message.authorship) {
            Err(rejection) => self.tell_sender(sender, &message.authorship, Err(rejection)),
            Ok(Some(Known::Taken(taken))) => self.tell_sender(sender, &message.authorship, Ok(taken)),
            Ok(Some(Known::Writing(write))) => self.wait_for(write, &message.authorship, sender),
            Ok(None) => match self.check_recipient(&message).and_then(|()| self.make_room(&message)) {
                Ok(()) => self.write_message(message, sender),
                Err(rejection) => self.refuse_message(sender, &message, rejection),
            },
        }
    }

    pub(super) fn refuse_message(&mut self, sender: Sender, message: &Message, rejection: Rejection) {
        // Another copy of it may be on its way yet.
        if sender == Sender::Home {
            self.repeats.remember_refusal(message.authorship.hash, rejection.reason, self.now.monotonic_ms);
        }
        self.tell_sender(sender, &message.authorship, Err(rejection));
    }

    /// The same message is on its way to disk: whoever sent it again waits, too.
    fn wait_for(&mut self, write: WriteId, authorship: &Authorship, sender: Sender) {
        let found = self.inboxes.writing.iter_mut().find(|writing| writing.write == write);
        match found {
            Some(writing) if writing.senders.contains(&sender) => {}
            Some(writing) if writing.senders.len() < SENDS_PER_SESSION_MAX => writing.senders.push(sender),
            _ => {
                self.tell_sender(sender, authorship, Err(too_many_wait()));
            }
        }
    }

    fn check_recipient(&self, message: &Message) -> Result<(), Rejection> {
        let user = &message.recipient.user;
        let account = self.accounts.find(user).ok_or_else(|| super::user::not_found(user.as_str()))?;
        self.check_still_here(account)?;
        let label = || self.own_label(user);
        if account.statement().key.fingerprint() != message.recipient_key {
            let changed = format!("`{user}` has another key now; look the user up again");
            return Err(Rejection::new(Reason::RecipientKeyChanged, changed).with("user", label()));
        }
        if account.disabled || message.requires_online && !self.sessions.is_attached(user.as_str()) {
            let offline = format!("`{user}` is not online; nothing was kept");
            return Err(Rejection::new(Reason::RecipientOffline, offline).with("user", label()));
        }
        let bytes = inbox::bytes(&message.sealed);
        let (writes, held) = (self.inboxes.writing.len(), self.inboxes.writing_bytes);
        if writes >= WRITES_MAX || held + bytes as usize > WRITES_BYTES_MAX {
            let rejection = Rejection::new(Reason::TooMany, "too many messages wait for the disk; try again");
            return Err(rejection.with("limit", WRITES_MAX.to_string()));
        }
        if self.inboxes.entries >= ENTRIES_MAX {
            let rejection = Rejection::new(Reason::InboxFull, "the recipient's server has no room for more messages");
            return Err(rejection.with("user", label()).with("limit", ENTRIES_MAX.to_string()));
        }
        Ok(())
    }

    /// Makes room in the recipient's inbox. Rejects: INBOX_FULL.
    fn make_room(&mut self, message: &Message) -> Result<(), Rejection> {
        let user = &message.recipient.user;
        let (room, now_ms, bytes) = (self.settings.inbox, self.now_ms(), inbox::bytes(&message.sealed));
        let result = self.shrink(user, |inbox| inbox.make_room(&room, &message.authorship.sender, bytes, now_ms));
        result.map_err(|rejection| rejection.with("user", self.own_label(user)))
    }

    /// Does something to an inbox by which the oldest messages may go, and has the disk drop them, too.
    fn shrink<T>(&mut self, user: &UserName, change: impl FnOnce(&mut Inbox) -> T) -> T {
        let inbox = self.inboxes.by_user.entry(user.clone()).or_default();
        let (before, entries) = (inbox.dropped.position, inbox.len());
        let result = change(inbox);
        let (up_to, gone) = (inbox.dropped, entries - inbox.len());
        self.inboxes.entries -= gone;
        if up_to.position > before {
            self.write(Record::Dropped { user: user.clone(), up_to });
        }
        result
    }

    /// The monotonic clock, as inboxes have it.
    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.now.monotonic_ms).unwrap_or(i64::MAX)
    }

    fn write_message(&mut self, message: Message, sender: Sender) {
        let now = self.now;
        let authorship = message.authorship.clone();
        let user = message.recipient.user.clone();
        let id_until_unix_ms = now.unix_ms + ID_REMEMBERED_MS;
        let write = self.next_write();
        self.repeats.remember(&authorship, Known::Writing(write), now.monotonic_ms);
        let content = Content::Message { message: Box::new(message), id_until_unix_ms };
        self.write_entry(user, content, Vec::from([sender]));
    }

    /// Puts the word about a queued message into its sender's inbox. There is room: see the outbox.
    pub(super) fn keep_outcome(&mut self, user: UserName, settled: Settled) {
        if is_on(Mutation::OutcomeNotKept) {
            self.write(Record::Unqueued { number: settled.number });
        } else {
            self.write_entry(user, Content::Outcome(settled), Vec::new());
        }
    }

    /// Gives an entry its position, and has it written.
    fn write_entry(&mut self, user: UserName, content: Content, senders: Vec<Sender>) {
        let (received_unix_ms, received_ms) = (self.now.unix_ms, self.now_ms());
        let inbox = self.inboxes.by_user.entry(user.clone()).or_default();
        let entry = Arc::new(Entry { user, position: inbox.last() + 1, received_unix_ms, content });
        inbox.push(entry.hash(), entry.bytes(), entry.sender(), received_ms);
        self.inboxes.entries += 1;
        let write = self.write(Record::Entry(Arc::clone(&entry)));
        self.inboxes.writing_bytes += entry.bytes() as usize;
        self.inboxes.writing.push_back(Writing { write, entry, senders });
        if is_on(Mutation::ToldBeforeWritten) {
            self.written(write);
        }
    }

    /// What the next record will be known by.
    fn next_write(&self) -> WriteId {
        WriteId(self.inboxes.writes + 1)
    }

    /// Gives a record out to be written together with others.
    pub(super) fn write(&mut self, record: Record) -> WriteId {
        let write = self.next_write();
        self.inboxes.writes += 1;
        self.output(Output::Write { write, record });
        write
    }

    /// Everything up to this is on disk.
    pub(super) fn written(&mut self, up_to: WriteId) {
        while self.inboxes.writing.front().is_some_and(|writing| writing.write <= up_to) {
            let Writing { entry, senders, .. } = self.inboxes.writing.pop_front().expect("it was just there");
            self.inboxes.writing_bytes -= entry.bytes() as usize;
            let kind = self.hand_over(&entry);
            if let Content::Message { message, .. } = &entry.content {
                let taken = Taken { kind, recipients: 1 };
                self.repeats.settle(&message.authorship, taken);
                senders.into_iter().for_each(|sender| self.tell_sender(sender, &message.authorship, Ok(taken)));
            }
        }
        self.posts_written(up_to);
        self.queued(up_to);
    }

    /// Hands an entry that is on disk now to the streams that have all before it.
    fn hand_over(&mut self, entry: &Entry) -> OutcomeKind {
        let Entry { user, position, .. } = entry;
        if let Some(inbox) = self.inboxes.by_user.get_mut(user) {
            inbox.on_disk = *position;
        }
        let event = entry.response();
        for (attachment, device) in self.sessions.live(user, *position) {
            self.output(Output::Deliver { attachment, event: event.clone() });
            self.handed(user, device, *position);
        }
        if self.sessions.is_attached(user.as_str()) { OutcomeKind::HandedOver } else { OutcomeKind::Stored }
    }

    fn tell_sender(&mut self, sender: Sender, authorship: &Authorship, result: Result<Taken, Rejection>) {
        match sender {
            Sender::Home => self.send_outcome(authorship, result),
            Sender::Call(call) => {
                let result = result.map(|taken| {
                    let outcome = Some(self.sign_outcome(authorship.hash, Ok(taken)));
                    Answer::Sent(SendMessageResponse { outcome })
                });
                self.answer(call, result);
            }
        }
    }

    /// A device was handed all up to this position. One that says which it is will say that it has it; any other has it now.
    fn handed(&mut self, user: &UserName, device: Option<DeviceId>, position: u64) {
        if device.is_none() {
            self.note_device(user, None, position, false);
        }
    }

    fn note_device(&mut self, user: &UserName, device: Option<DeviceId>, read: u64, exactly: bool) {
        let now_ms = self.now_ms();
        self.inboxes.by_user.entry(user.clone()).or_default().note(device, read, exactly, now_ms);
    }

    pub(super) fn acknowledge(&mut self, call: CallId, token: TokenHash, cursor: &str) {
        let result = self.authorize(token).and_then(|user| {
            let (read, _) = self.inboxes.find(&user, cursor)?;
            let device = self.sessions.session_mut(token).and_then(|session| session.device_id);
            self.note_device(&user, device, read, false);
            Ok(Answer::MessagesAcknowledged)
        });
        self.answer(call, result);
    }

    /// Begins to give an attached stream what its device has not read.
    pub(super) fn begin_replay(
        &mut self,
        user: &UserName,
        attachment: AttachmentId,
        device: Option<DeviceId>,
        after: u64,
        missed: u64,
    ) {
        self.note_device(user, device, after, device.is_some());
        self.tell_gap(attachment, missed);
        self.go_on_replaying(user, attachment, after);
    }

    fn go_on_replaying(&mut self, user: &UserName, attachment: AttachmentId, after: u64) {
        let is_live = after >= self.inboxes.on_disk(user);
        self.sessions.set_reading(attachment, after, is_live);
        if !is_live {
            self.output(Output::Replay { attachment, user: user.clone(), after });
        }
    }

    /// Hands a page from the disk to the stream it was read for.
    pub(super) fn replayed(&mut self, attachment: AttachmentId, page: Vec<Stored>) {
        let Some((user, device, mut after)) = self.sessions.replaying(attachment) else { return };
        let (dropped, on_disk) =
            self.inboxes.by_user.get(&user).map_or((0, 0), |inbox| (inbox.dropped.position, inbox.on_disk));
        if page.is_empty() && after >= dropped {
            return; // Nothing that is there came: the shell is at fault, and the device reads on when it attaches again.
        }
        for stored in page {
            if stored.position <= after {
                continue;
            }
            // Read before the word came that it is there. With that word it is handed to all streams that have what is before it.
            if stored.position > on_disk && !is_on(Mutation::ReadAheadOfTheWord) {
                break;
            }
            self.tell_gap(attachment, stored.position - after - 1);
            after = stored.position;
            self.output(Output::Deliver { attachment, event: stored.response() });
        }
        // What was still to be read may have been dropped meanwhile.
        if after < dropped {
            self.tell_gap(attachment, dropped - after);
            after = dropped;
        }
        if is_on(Mutation::LiveAfterOnePage) {
            after = self.inboxes.on_disk(&user);
        }
        self.handed(&user, device, after);
        self.go_on_replaying(&user, attachment, after);
    }

    fn tell_gap(&mut self, attachment: AttachmentId, missed: u64) {
        if missed > 0 {
            let event = AttachResponse { event: Some(Event::Gap(InboxGap { missed })), ..AttachResponse::default() };
            self.output(Output::Deliver { attachment, event });
        }
    }

    /// Drops messages that are too old, and has the disk know who has read how far.
    pub(super) fn sweep_inboxes(&mut self) {
        let now_ms = self.now_ms();
        let unix_ms = i64::try_from(self.now.unix_ms).unwrap_or(i64::MAX);
        if !self.inboxes.is_begun {
            self.inboxes.is_begun = true;
            self.inboxes.by_user.values_mut().for_each(|inbox| inbox.begin(now_ms, unix_ms));
        }
        for (user, device) in self.sessions.attached_devices() {
            if let Some(inbox) = self.inboxes.by_user.get_mut(&user) {
                inbox.touch(device, now_ms);
            }
        }
        let room = self.settings.inbox;
        let old = self.inboxes.by_user.iter().filter(|(_, inbox)| inbox.may_be_old(&room, now_ms));
        for user in old.map(|(user, _)| user.clone()).take(SWEPT_MAX).collect::<Vec<_>>() {
            self.shrink(&user, |inbox| inbox.drop_old(&room, now_ms));
        }
        self.write_devices();
        self.inboxes.largest = self.inboxes.by_user.values().map(Inbox::len).max().unwrap_or_default();
    }

    /// Has the disk know of devices what changed.
    pub(super) fn write_devices(&mut self) {
        let now_ms = self.now_ms();
        let unix_ms = i64::try_from(self.now.unix_ms).unwrap_or(i64::MAX);
        let inboxes = self.inboxes.by_user.iter_mut();
        let changed = inboxes.filter_map(|(user, inbox)| Some((user.clone(), inbox.changed_devices(now_ms, unix_ms)?)));
        for (user, readers) in changed.take(SWEPT_MAX).collect::<Vec<_>>() {
            self.write(Record::Readers { user, readers });
        }
    }
}

/// Why one more call cannot wait for a message that is on its way already.
pub(super) fn too_many_wait() -> Rejection {
    let rejection = Rejection::new(Reason::TooMany, "too many wait for the same message; try again");
    rejection.with("limit", SENDS_PER_SESSION_MAX.to_string())
}
