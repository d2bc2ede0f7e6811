//! The outbox: messages of this server's users that are on their way to another home, or wait for it.
//!
//! A message is sent at once if there is a way, and its sender is told what the recipient's home says. When there is no way,
//! or no word within 5 s, it goes to disk, and the sender is told that it is queued; from then on it is this server that
//! tries, until there is a word or its time is over, and what that was goes into the sender's inbox. A home takes each
//! message once, so it may be sent as often as one likes.
//!
//! Messages of one sender to one recipient are a lane, and stay in order: one that is sent names the one before it that has
//! no outcome yet, and is ignored where that one is not there. Once one of a lane is queued, those after it are, too.

use alloc::{collections::BTreeSet, string::ToString, sync::Arc, vec::Vec};

use prost::bytes::Bytes;

use super::{
    Node, Timer,
    inbox::Taken,
    lanes::{Item, State, lane},
};
use crate::{
    federation::v1::{MessageDelivery, deliver_frame},
    id::{ContentHash, ServerId},
    inbox::Settled,
    input::{CallId, WriteId},
    limits::{
        HOPS_MAX, OUTBOX_BYTES_PER_USER_MAX, OUTBOX_IN_FLIGHT_MAX, OUTBOX_PER_USER_MAX, OUTCOME_MS, QUEUED_MS,
        SENDS_PER_SESSION_MAX,
    },
    message::{Authorship, Message},
    mutation::{Mutation, is_on},
    outbox::Queued,
    output::{Answer, Record},
    rejection::Rejection,
    v1::{Outcome, OutcomeKind, Reason, SendMessageResponse, SignedOutcome},
};

/// How often the wait for a word doubles, beginning with [`OUTCOME_MS`]: to 20 s.
const DOUBLED_MAX: u32 = 2;

/// How long after a home was reached what is queued for it goes out: the news of a new link takes some tens of milliseconds.
const REACHED_MS: u64 = 250;

/// Messages that expire at once: others go the next time, so that no message waits long behind them.
const EXPIRED_MAX: usize = 1_000;

impl Node {
    /// Takes a message of a user of this server to a user of another one.
    pub(super) fn send_out(&mut self, call: CallId, message: Message) {
        let Message { authorship, recipient, requires_online, .. } = &message;
        let (home, hash) = (recipient.home, authorship.hash);
        match self.outbox.ids.get(&(authorship.sender.user.clone(), authorship.id)) {
            Some(same) if *same == hash => return self.wait_in_outbox(call, hash),
            Some(_) => return self.answer(call, Err(super::repeat::id_reused(authorship))),
            None => {}
        }
        let way = self.way_to(&home);
        if way.is_none() && (*requires_online || self.links.admitted_name(&home).is_none()) {
            return self.answer(call, Err(self.unreachable(home, recipient.user.as_str())));
        }
        if let Err(rejection) = self.outbox.check_room(&message) {
            return self.answer(call, Err(rejection));
        }
        // Once one of a lane waits, so do those after it.
        let waits = |last: &Item| !last.is_direct();
        let must_wait = way.is_none() || !requires_online && self.outbox.last_of_lane(&message).is_some_and(waits);
        if must_wait && let Err(rejection) = self.check_room_to_queue(&message) {
            return self.answer(call, Err(rejection));
        }
        let state = State::Direct { until_ms: self.now.monotonic_ms + OUTCOME_MS };
        let (home, number) = self.outbox.push(Item { message, calls: Vec::from([call]), state, is_sent: false });
        if must_wait {
            self.queue(home, number);
        } else {
            self.send_item(home, number);
            self.after(OUTCOME_MS, Timer::Outcome(hash));
        }
    }

    /// The same message is on its way, or waits: whoever sent it again is told as much.
    fn wait_in_outbox(&mut self, call: CallId, hash: ContentHash) {
        let (home, number) = self.outbox.places[&hash];
        let Some(item) = self.outbox.item(&home, number) else { return };
        if matches!(item.state, State::Queued { .. }) {
            return self.answer_queued(call, hash);
        }
        if item.calls.len() >= SENDS_PER_SESSION_MAX {
            return self.answer(call, Err(super::inbox::too_many_wait()));
        }
        item.calls.push(call);
        if item.is_direct() {
            self.send_item(home, number);
        }
    }

    fn answer_queued(&mut self, call: CallId, hash: ContentHash) {
        let outcome = Some(self.sign_outcome(hash, Ok(Taken { kind: OutcomeKind::Queued, recipients: 1 })));
        self.answer(call, Ok(Answer::Sent(SendMessageResponse { outcome })));
    }

    /// Checks that a sender may queue one more message, so that there is room for its outcome in the inbox, too.
    /// Rejects: TOO_MANY.
    fn check_room_to_queue(&self, message: &Message) -> Result<(), Rejection> {
        if is_on(Mutation::OutboxWithoutLimit) {
            return Ok(());
        }
        let user = &message.authorship.sender.user;
        let share = self.outbox.shares.get(user);
        let (entries, bytes) = share.map_or((0, 0), |share| (share.entries, share.bytes));
        let rejection =
            |message, limit: usize| Rejection::new(Reason::TooMany, message).with("limit", limit.to_string());
        if entries + self.inboxes.unread_outcomes(user) >= OUTBOX_PER_USER_MAX {
            let message = "too many messages of yours wait for servers that cannot be reached";
            return Err(rejection(message, OUTBOX_PER_USER_MAX));
        }
        if bytes + crate::inbox::bytes(&message.sealed) as usize > OUTBOX_BYTES_PER_USER_MAX {
            let message = "messages of yours that wait for servers that cannot be reached take too much room";
            return Err(rejection(message, OUTBOX_BYTES_PER_USER_MAX));
        }
        Ok(())
    }

    /// Has a message put on disk, to be tried until there is a word. Where there is no room it is given up, and nobody knows
    /// what became of it.
    fn queue(&mut self, home: ServerId, number: u64) {
        let Some(message) = self.outbox.item(&home, number).map(|item| item.message.clone()) else { return };
        if message.requires_online || self.check_room_to_queue(&message).is_err() {
            let item = self.outbox.remove(home, number);
            let message = "the recipient's home did not answer; what became of the message is not known, and sending \
                           it again under the same id is safe";
            let rejection = Rejection::new(Reason::Timeout, message);
            let calls = item.map(|item| item.calls).unwrap_or_default();
            return calls.into_iter().for_each(|call| self.answer(call, Err(rejection.clone())));
        }
        let queued = Queued { number, received_unix_ms: self.now.unix_ms, message };
        let write = self.write(Record::Queued(Arc::new(queued)));
        self.outbox.share(home, number);
        self.outbox.item(&home, number).expect("it was just there").state = State::Writing;
        self.outbox.writing.push_back((write, home, number));
        if is_on(Mutation::QueuedBeforeWritten) {
            self.queued(write);
        }
    }

    /// Everything up to this is on disk: whoever waits is told that the message is queued.
    pub(super) fn queued(&mut self, up_to: WriteId) {
        let mut homes = BTreeSet::new();
        while let Some((write, home, number)) = self.outbox.writing.front().copied() {
            if write > up_to {
                break;
            }
            self.outbox.writing.pop_front();
            let until_ms = self.now.monotonic_ms + QUEUED_MS;
            // It is gone if there was a word meanwhile.
            let Some(item) = self.outbox.item(&home, number) else { continue };
            item.state = State::Queued { until_ms };
            let (calls, hash) = (core::mem::take(&mut item.calls), item.message.authorship.hash);
            self.outbox.line(home).unsent.insert(number);
            calls.into_iter().for_each(|call| self.answer_queued(call, hash));
            homes.insert(home);
        }
        homes.into_iter().for_each(|home| self.send_queued(home));
    }

    /// Sends queued messages to a home, if there is a way: so many that it is never flooded.
    fn send_queued(&mut self, home: ServerId) {
        if self.way_to(&home).is_none() || is_on(Mutation::QueuedNotSent) {
            return;
        }
        let Some(line) = self.outbox.lines.get(&home) else { return };
        let mut sent = Vec::new();
        for number in line.unsent.iter().copied() {
            if line.in_flight + sent.len() >= OUTBOX_IN_FLIGHT_MAX {
                break;
            }
            // What is not on disk yet goes first.
            let waits = |before: &Item| !matches!(before.state, State::Queued { .. });
            if !self.outbox.before(&home, number).is_some_and(waits) {
                sent.push(number);
            }
        }
        if sent.is_empty() {
            return;
        }
        let now_ms = self.now.monotonic_ms;
        let line = self.outbox.line(home);
        sent.iter().for_each(|number| line.note_sent(*number));
        line.retry_ms = now_ms + (OUTCOME_MS << line.tries.min(DOUBLED_MAX));
        let retry_ms = line.retry_ms;
        self.timers.insert((retry_ms, Timer::Outbox(home)));
        sent.into_iter().for_each(|number| self.send_item(home, number));
    }

    /// A home may not have had what was sent to it.
    pub(super) fn outbox_due(&mut self, home: ServerId) {
        let now_ms = self.now.monotonic_ms;
        let Some(line) = self.outbox.lines.get_mut(&home) else { return };
        if line.retry_ms <= now_ms && line.in_flight + line.unsent.len() > 0 {
            line.tries = line.tries.saturating_add(u32::from(line.in_flight > 0));
            line.send_again();
            self.send_queued(home);
        }
    }

    /// There is a way to a home again. It may not know yet that there is one back.
    pub(super) fn home_reached(&mut self, home: ServerId) {
        let due_ms = self.now.monotonic_ms + REACHED_MS;
        if let Some(line) = self.outbox.lines.get_mut(&home) {
            line.tries = 0;
            line.retry_ms = due_ms;
            line.send_again();
            self.timers.insert((due_ms, Timer::Outbox(home)));
        }
    }

    /// There is no way to a home any more: what was sent may never have come there.
    pub(super) fn home_lost(&mut self, home: ServerId) {
        let Some(line) = self.outbox.lines.get(&home) else { return };
        let direct: Vec<u64> =
            line.items.iter().filter(|(_, item)| item.is_direct()).map(|(number, _)| *number).collect();
        for number in direct {
            self.queue(home, number);
        }
    }

    /// A message was sent, and there was no word in time.
    pub(super) fn message_overdue(&mut self, hash: ContentHash) {
        let now_ms = self.now.monotonic_ms;
        let Some((home, number)) = self.outbox.places.get(&hash).copied() else { return };
        let state = self.outbox.item(&home, number).map(|item| &item.state);
        if matches!(state, Some(State::Direct { until_ms }) if *until_ms <= now_ms) {
            self.queue(home, number);
        }
    }

    /// Sends a message on its way, if there is one.
    fn send_item(&mut self, home: ServerId, number: u64) {
        let (Some(link), Some(item)) = (self.way_to(&home), self.outbox.item(&home, number)) else { return };
        let Message { authorship: Authorship { hash, .. }, sealed, requires_online, .. } = &item.message;
        let (sealed, hash, requires_online) = (sealed.clone(), *hash, *requires_online);
        let before = self.outbox.before(&home, number).map(|before| before.message.authorship.id);
        let epoch = self.origin(&home).map_or(0, |origin| origin.epoch().number);
        let home_epoch = if requires_online { epoch } else { 0 };
        let delivery = MessageDelivery {
            message: Some(sealed),
            // A home that is a neighbour knows by the link who speaks.
            voucher: (self.links.to(&home) != Some(link)).then(|| self.vouch(hash)),
            hops_left: HOPS_MAX,
            after_message_id: before.map_or(Bytes::new(), |id| Bytes::copy_from_slice(id.as_bytes())),
            home_epoch,
        };
        self.send_deliver(link, deliver_frame::Kind::Message(delivery));
    }

    /// A home has said what became of a message.
    pub(super) fn message_settled(
        &mut self,
        home: ServerId,
        hash: ContentHash,
        outcome: &Outcome,
        signed: &SignedOutcome,
    ) {
        let Some((to, number)) = self.outbox.places.get(&hash).copied() else { return };
        let Some(item) = self.outbox.item(&to, number).filter(|_| to == home) else { return };
        let refused =
            (outcome.kind() == OutcomeKind::Rejected).then(|| super::outcome::reason_of_home(&outcome.reason));
        if refused == Some(Reason::TooMany) && !item.is_direct() {
            return; // It comes again.
        }
        let lane = lane(&item.message);
        let Some(item) = self.outbox.remove(home, number) else { return };
        let result = match refused {
            None => Ok(Answer::Sent(SendMessageResponse { outcome: Some(signed.clone()) })),
            Some(reason) => {
                Err(Rejection::new(reason, super::outcome::refusal(reason)).with("server_id", home.to_string()))
            }
        };
        self.tell_settled(number, item, signed, result);
        if let Some(line) = self.outbox.lines.get_mut(&home) {
            line.tries = 0;
            // What was sent after one that was refused was ignored.
            let later = line.lanes.get(&lane).filter(|_| refused.is_some());
            let later: Vec<u64> =
                later.into_iter().flatten().copied().filter(|later| line.items[later].is_direct()).collect();
            later.into_iter().for_each(|later| self.send_item(home, later));
            self.send_queued(home);
        }
    }

    /// Tells the sender of a message that was taken out what became of it.
    fn tell_settled(&mut self, number: u64, item: Item, signed: &SignedOutcome, result: Result<Answer, Rejection>) {
        let Item { message, calls, state, .. } = item;
        calls.into_iter().for_each(|call| self.answer(call, result.clone()));
        match state {
            State::Direct { .. } => {}
            State::Writing => drop(self.write(Record::Unqueued { number })),
            State::Queued { .. } => {
                let Message { authorship: Authorship { sender, id, .. }, recipient, .. } = message;
                self.keep_outcome(sender.user, Settled { number, id, recipient, signed: signed.clone() });
            }
        }
    }

    /// Gives up what has waited for too long.
    pub(super) fn sweep_outbox(&mut self) {
        let now_ms = self.now.monotonic_ms;
        if !self.outbox.is_begun {
            self.outbox.begin(now_ms, self.now.unix_ms);
        }
        let items = self
            .outbox
            .lines
            .iter()
            .flat_map(|(home, line)| line.items.iter().map(|(number, item)| (*home, *number, item)));
        let expired = items.filter(|(.., item)| matches!(item.state, State::Queued { until_ms } if until_ms <= now_ms));
        let expired: Vec<(ServerId, u64)> = expired.map(|(home, number, _)| (home, number)).take(EXPIRED_MAX).collect();
        for (home, number) in expired {
            if let Some(item) = self.outbox.remove(home, number) {
                let taken = Taken { kind: OutcomeKind::Expired, recipients: 0 };
                let signed = self.sign_outcome(item.message.authorship.hash, Ok(taken));
                // Nobody waits for it: who sent it was told that it is queued.
                let Item { message: Message { authorship: Authorship { sender, id, .. }, recipient, .. }, .. } = item;
                self.keep_outcome(sender.user, Settled { number, id, recipient, signed });
            }
        }
    }
}
