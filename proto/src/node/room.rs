//! One inbox in memory: what is known of each message, who has read how far, and whether there is room for more.
//!
//! What every live device has read may go to make room; what one of them has not, only by being refused to the next sender.
//! So a sender's part counts from there on, too: who is read promptly is never refused. A device that was not seen for a
//! month holds nothing back, and is told of the gap when it returns.

use alloc::{
    collections::{BTreeMap, VecDeque},
    string::ToString,
    sync::Arc,
    vec::Vec,
};

use crate::{
    id::{ContentHash, DeviceId},
    inbox::{self, Cursor, Reader},
    limits::{DAY_MS, DEVICE_IDLE_MS, DEVICES_PER_USER_MAX},
    message::Address,
    mutation::{Mutation, is_on},
    rejection::Rejection,
    v1::Reason,
};

/// How much an inbox may hold, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxRoom {
    /// Messages in one inbox. Default 10,000: months of a busy person's, and 1 MB of memory. One sender fills an eighth with
    /// what is unread.
    pub entries_max: usize,
    /// Bytes of messages in one inbox. Default 64 MiB: a thousand of the longest kind. One sender fills an eighth with what is
    /// unread.
    pub bytes_max: u64,
    /// After how many days a message goes. Default 30: a device that was away for as long reads everything.
    pub days: u32,
}

impl Default for InboxRoom {
    fn default() -> Self {
        Self { entries_max: 10_000, bytes_max: 64 * 1024 * 1024, days: 30 }
    }
}

/// How large a part of an inbox one sender may fill.
const SENDER_SHARE: usize = 8;

/// What is known of a message in an inbox.
#[derive(Debug)]
struct Meta {
    hash: ContentHash,
    bytes: u32,
    /// `None` of an outcome.
    sender: Option<Arc<Address>>,
    /// On the monotonic clock, so that one which jumps drops nothing.
    received_ms: i64,
}

/// How much of what is unread is one sender's.
#[derive(Debug, Default)]
struct Share {
    entries: usize,
    bytes: u64,
}

/// How far a device has read.
#[derive(Debug)]
struct Device {
    read: u64,
    /// On the monotonic clock.
    seen_ms: i64,
}

/// The inbox of one user.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// The last message that was dropped.
    pub(super) dropped: Cursor,
    /// All after that, those on their way to disk at the end.
    metas: VecDeque<Meta>,
    /// The last position on disk.
    pub(super) on_disk: u64,
    bytes: u64,
    /// All live devices have all up to this, if there is one.
    read: u64,
    /// Of what is after that; that of nobody is outcomes, for which there is room anyway.
    shares: BTreeMap<Option<Arc<Address>>, Share>,
    /// Those that do not say which they are count as one.
    devices: BTreeMap<Option<DeviceId>, Device>,
    /// Whether the disk knows less of the devices.
    devices_changed: bool,
}

impl Inbox {
    /// As it was on disk; its times are Unix milliseconds until [`Self::begin`].
    pub(super) fn new(inbox: inbox::Inbox) -> Self {
        let ms = |unix_ms: u64| i64::try_from(unix_ms).unwrap_or(i64::MAX);
        let mut new = Self { dropped: inbox.dropped, read: inbox.dropped.position, ..Self::default() };
        for kept in inbox.kept {
            new.push(kept.hash, kept.bytes, kept.sender.as_ref(), ms(kept.received_unix_ms));
        }
        new.on_disk = new.last();
        for Reader { device, read, seen_unix_ms } in inbox.readers {
            new.devices.insert(device, Device { read: read.min(new.on_disk), seen_ms: ms(seen_unix_ms) });
        }
        new
    }

    /// Puts the times of what was loaded on the monotonic clock; nothing is from the future.
    pub(super) fn begin(&mut self, now_ms: i64, unix_ms: i64) {
        let received = self.metas.iter_mut().map(|meta| &mut meta.received_ms);
        for time_ms in received.chain(self.devices.values_mut().map(|device| &mut device.seen_ms)) {
            *time_ms = now_ms.saturating_sub(unix_ms.saturating_sub(*time_ms).max(0));
        }
        self.judge(now_ms);
    }

    pub(super) fn len(&self) -> usize {
        self.metas.len()
    }

    pub(super) fn devices(&self) -> usize {
        self.devices.len()
    }

    pub(super) fn last(&self) -> u64 {
        self.dropped.position + self.metas.len() as u64
    }

    fn meta(&self, position: u64) -> Option<&Meta> {
        let index = position.checked_sub(self.dropped.position + 1)?;
        self.metas.get(usize::try_from(index).ok()?)
    }

    /// How much room what is at a position takes; nothing if nothing is there.
    pub(super) fn bytes_at(&self, position: u64) -> Option<u32> {
        self.meta(position).map(|meta| meta.bytes)
    }

    /// The place at a position that is in the inbox, or the last that was.
    pub(super) fn cursor(&self, position: u64) -> Option<Cursor> {
        if position == self.dropped.position {
            return Some(self.dropped);
        }
        Some(Cursor::of(position, &self.meta(position)?.hash))
    }

    /// A sender whose part is counted, to be kept once.
    fn known(&self, sender: &Address) -> Option<Arc<Address>> {
        let wanted = Some(Arc::new(sender.clone()));
        self.shares.get_key_value(&wanted).and_then(|(known, _)| known.clone())
    }

    /// Outcomes that not every live device has read.
    pub(super) fn unread_outcomes(&self) -> usize {
        self.shares.get(&None).map_or(0, |share| share.entries)
    }

    pub(super) fn push(&mut self, hash: ContentHash, bytes: u32, sender: Option<&Address>, received_ms: i64) {
        let sender = sender.map(|sender| self.known(sender).unwrap_or_else(|| Arc::new(sender.clone())));
        self.bytes += u64::from(bytes);
        self.metas.push_back(Meta { hash, bytes, sender, received_ms });
        self.count(self.last());
    }

    /// Counts a message to its sender's part.
    fn count(&mut self, position: u64) {
        let Some(meta) = self.meta(position) else { return };
        let (sender, bytes) = (meta.sender.clone(), u64::from(meta.bytes));
        let share = self.shares.entry(sender).or_default();
        share.entries += 1;
        share.bytes += bytes;
    }

    /// The opposite.
    fn discount(&mut self, position: u64) {
        let Some(meta) = self.meta(position) else { return };
        let (sender, bytes) = (meta.sender.clone(), u64::from(meta.bytes));
        if let Some(share) = self.shares.get_mut(&sender) {
            share.entries -= 1;
            share.bytes -= bytes;
            if share.entries == 0 {
                self.shares.remove(&sender);
            }
        }
    }

    fn drop_oldest(&mut self) {
        let position = self.dropped.position + 1;
        if position > self.read {
            self.discount(position);
            self.read = position;
        }
        if let Some(meta) = self.metas.pop_front() {
            self.dropped = Cursor::of(position, &meta.hash);
            self.bytes -= u64::from(meta.bytes);
        }
    }

    /// Up to which position every device that was seen within a month has read; `None` if there is no such device.
    fn read_by_all(&self, now_ms: i64) -> Option<u64> {
        let is_live = |device: &&Device| now_ms.saturating_sub(device.seen_ms) < DEVICE_IDLE_MS as i64;
        self.devices.values().filter(is_live).map(|device| device.read).min()
    }

    /// Finds out anew what all have read, and counts senders' parts from there.
    fn judge(&mut self, now_ms: i64) {
        let read = self.read_by_all(now_ms).unwrap_or(0).max(self.dropped.position);
        let before = core::mem::replace(&mut self.read, read);
        (before + 1..=read).for_each(|position| self.discount(position));
        (read + 1..=before).for_each(|position| self.count(position));
    }

    /// A device is here, and has all up to this position: more than before, or with `exactly` whatever it had.
    pub(super) fn note(&mut self, device: Option<DeviceId>, read: u64, exactly: bool, now_ms: i64) {
        if !self.devices.contains_key(&device) && self.devices.len() >= DEVICES_PER_USER_MAX {
            let oldest = self.devices.iter().min_by_key(|(_, device)| device.seen_ms).map(|(id, _)| *id);
            oldest.and_then(|oldest| self.devices.remove(&oldest));
        }
        let known = self.devices.entry(device).or_insert(Device { read: 0, seen_ms: now_ms });
        known.read = if exactly { read } else { read.max(known.read) };
        known.seen_ms = now_ms;
        self.devices_changed = true;
        self.judge(now_ms);
    }

    /// A device is still here.
    pub(super) fn touch(&mut self, device: Option<DeviceId>, now_ms: i64) {
        // To the day is enough.
        if let Some(device) = self.devices.get_mut(&device)
            && now_ms.saturating_sub(device.seen_ms) >= DAY_MS as i64
        {
            device.seen_ms = now_ms;
            self.devices_changed = true;
        }
    }

    /// The devices, if the disk knows less of them.
    pub(super) fn changed_devices(&mut self, now_ms: i64, unix_ms: i64) -> Option<Vec<Reader>> {
        let reader = |(device, known): (&Option<DeviceId>, &Device)| {
            let seen_unix_ms = unix_ms.saturating_sub(now_ms.saturating_sub(known.seen_ms));
            Reader { device: *device, read: known.read, seen_unix_ms: u64::try_from(seen_unix_ms).unwrap_or(0) }
        };
        core::mem::take(&mut self.devices_changed).then(|| self.devices.iter().map(reader).collect())
    }

    /// Whether the oldest message is old enough to go.
    pub(super) fn may_be_old(&self, room: &InboxRoom, now_ms: i64) -> bool {
        let age_ms = i64::from(room.days).saturating_mul(DAY_MS as i64);
        self.metas.front().is_some_and(|meta| now_ms.saturating_sub(meta.received_ms) >= age_ms)
    }

    /// Drops what is older than so many days and was read by every live device.
    pub(super) fn drop_old(&mut self, room: &InboxRoom, now_ms: i64) {
        self.judge(now_ms);
        let last = self.read_by_all(now_ms).unwrap_or(u64::MAX).min(self.on_disk);
        while self.dropped.position < last && self.may_be_old(room, now_ms) {
            self.drop_oldest();
        }
    }

    /// Checks that a sender may put in a message, and makes room for it by dropping what every live device has read.
    /// Rejects: INBOX_FULL.
    pub(super) fn make_room(
        &mut self,
        room: &InboxRoom,
        sender: &Address,
        bytes: u32,
        now_ms: i64,
    ) -> Result<(), Rejection> {
        if is_on(Mutation::InboxWithoutLimit) {
            return Ok(());
        }
        self.judge(now_ms);
        let bytes = u64::from(bytes);
        let share = self.known(sender).and_then(|sender| self.shares.get(&Some(sender)));
        let (entries, held) = share.map_or((0, 0), |share| (share.entries, share.bytes));
        let entries_max = room.entries_max.div_ceil(SENDER_SHARE);
        if entries >= entries_max {
            return Err(full("too many messages of yours are unread in the recipient's inbox", entries_max as u64));
        }
        let bytes_max = room.bytes_max.div_ceil(SENDER_SHARE as u64);
        if held + bytes > bytes_max {
            return Err(full("unread messages of yours take too much room in the recipient's inbox", bytes_max));
        }
        let last = self.read_by_all(now_ms).unwrap_or(0).min(self.on_disk);
        let last = if is_on(Mutation::UnreadDropped) { self.on_disk } else { last };
        loop {
            let too_many = self.metas.len() >= room.entries_max;
            if !too_many && self.bytes + bytes <= room.bytes_max {
                return Ok(());
            }
            if self.dropped.position < last {
                self.drop_oldest();
            } else if too_many {
                return Err(full("the recipient's inbox is full", room.entries_max as u64));
            } else {
                return Err(full("the recipient's inbox has too many bytes in it", room.bytes_max));
            }
        }
    }
}

fn full(message: &'static str, limit: u64) -> Rejection {
    Rejection::new(Reason::InboxFull, message).with("limit", limit.to_string())
}
