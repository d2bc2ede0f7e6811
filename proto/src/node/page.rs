//! Pages of an inbox for a client that looks back, attached or not: which part of the inbox it is given.
//!
//! The newest page comes first, and each further one ends where the one before begins. Looking back says nothing of what a
//! device has, and keeps nothing here.

use super::{Node, inbox::Inboxes, room::Inbox};
use crate::{
    id::TokenHash,
    input::CallId,
    limits::{REPLAY_BYTES, REPLAY_ENTRIES_MAX},
    name::UserName,
    output::{Answer, Page},
};

impl Inboxes {
    /// How many are on disk after a position, all of which a device that has all up to it may read.
    pub(super) fn unread(&self, user: &UserName, after: u64) -> u64 {
        self.find_inbox(user).map_or(0, |inbox| inbox.on_disk.saturating_sub(after.max(inbox.dropped.position)))
    }
}

impl Inbox {
    /// The position after which a page begins that ends with this one.
    fn page_up_to(&self, up_to: u64) -> u64 {
        let (mut after, mut bytes) = (up_to, 0);
        while let Some(more) = self.bytes_at(after) {
            bytes += more as usize;
            let is_full = up_to - after >= REPLAY_ENTRIES_MAX as u64 || bytes > REPLAY_BYTES;
            if after < up_to && is_full {
                break;
            }
            after -= 1;
        }
        after
    }
}

impl Node {
    /// Tells which page of the own inbox ends before a cursor. Rejects: TOKEN_INVALID, CURSOR_UNKNOWN.
    pub(super) fn read_inbox(&mut self, call: CallId, token: TokenHash, before: &str) {
        let result = self.authorize(token).and_then(|user| {
            let before = if before.is_empty() { None } else { Some(self.inboxes.find(&user, before)?.0) };
            let Some(inbox) = self.inboxes.find_inbox(&user) else {
                return Ok(Answer::InboxPage(Page { user, after: 0, up_to: 0, has_older: false }));
            };
            let up_to = before.map_or(inbox.on_disk, |before| before.saturating_sub(1));
            let after = inbox.page_up_to(up_to);
            Ok(Answer::InboxPage(Page { user, after, up_to, has_older: inbox.bytes_at(after).is_some() }))
        });
        self.answer(call, result);
    }
}
