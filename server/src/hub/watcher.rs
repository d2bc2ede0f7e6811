//! One watcher: a cursor and a wake-up.
//!
//! It reads messages when its stream wants one and otherwise holds nothing, so a client that stops reading costs
//! what an idle one does, and nobody else notices it. Each revision after its cursor is sent exactly once and in order,
//! or the watch ends and says so. Several revisions that are ready are joined into one message, never merged.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use prost::bytes::Bytes;
use socp::{digest::Digest, rejection::Rejection, v1::Reason};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Duration, Instant, Sleep, sleep_until},
};

use super::{
    Shared,
    bells::Bell,
    cursors::{At, Cursor},
    filter::{Detail, Filter},
    latency::Handed,
    resume::Tokens,
    ring::Slot,
    snapshot::{Part, Snapshot},
    wire,
};
use crate::{
    limits::{REVISIONS_PER_MESSAGE_MAX, WATCH_GROUP_MS, WATCH_MESSAGE_BYTES_MAX},
    status,
};

/// Where a watcher is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Reads the present state.
    Joining {
        /// Of which revision.
        snapshot: Arc<Snapshot>,
        /// The next part.
        part: usize,
        /// Entries sent so far.
        entries: u64,
    },
    /// Has sent all up to a revision, and so many messages of the next.
    Following {
        /// All up to this one.
        revision: u64,
        /// Messages of the one after it.
        messages: usize,
    },
    /// Has ended.
    Over,
}

/// A live watch.
#[derive(Debug)]
pub struct Watcher {
    pub(super) hub: Arc<Shared>,
    pub(super) cursor: Cursor,
    pub(super) bell: Bell,
    pub(super) detail: Detail,
    pub(super) filter: Option<Box<Filter>>,
    pub(super) tokens: Tokens,
    pub(super) stage: Stage,
    /// When the last message was sent, or the watch began.
    pub(super) last_message: Instant,
    /// Goes off when a bookmark may be due; `None` until it is first waited for. Set anew only then, so that messages in between
    /// cost no timer.
    pub(super) alarm: Option<Pin<Box<Sleep>>>,
    /// Whether a message was sent, so that the next may have to wait a little.
    pub(super) warm: bool,
    /// Its place among the watchers there may be.
    pub(super) _place: OwnedSemaphorePermit,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Before its place is another's.
        self.hub.bells.take_down(self.cursor.place());
        self.hub.state().cursors.leave(&self.cursor);
    }
}

/// Why a watcher that had nothing to send looks again.
#[derive(PartialEq, Eq)]
enum Woken {
    /// Something was published.
    ByBell,
    /// Nothing was for so long that a bookmark is due.
    ForBookmark,
}

/// What there is to send.
enum Ready {
    Message(Bytes),
    /// Nothing, with the digest of the revision that the cursor is at.
    Nothing(Digest),
    End(Rejection),
}

impl Watcher {
    /// The next encoded `WatchDirectoryResponse` in its frame, waited for; or why the watch ends, and after that `None`.
    pub async fn next(&mut self) -> Option<Result<Bytes, Rejection>> {
        let asked = Instant::now();
        loop {
            self.bell.look(&self.hub.bells);
            let ready = match &self.stage {
                Stage::Over => return None,
                Stage::Joining { .. } => self.join(asked),
                Stage::Following { .. } => {
                    self.let_changes_gather().await;
                    self.follow(asked)
                }
            };
            let digest = match ready {
                Ready::Message(message) => return Some(Ok(self.sent(message))),
                Ready::End(rejection) => {
                    self.stage = Stage::Over;
                    return Some(Err(rejection));
                }
                Ready::Nothing(digest) => digest,
            };
            if poll_fn(|context| self.poll_woken(context)).await == Woken::ForBookmark {
                let revision = self.revision();
                let message = wire::bookmark(revision, self.digest(digest), self.tokens.at(revision));
                return Some(Ok(self.sent(message)));
            }
        }
    }

    fn poll_woken(&mut self, context: &mut Context<'_>) -> Poll<Woken> {
        if self.bell.poll_rung(&self.hub.bells, context).is_ready() {
            return Poll::Ready(Woken::ByBell);
        }
        let due = self.bookmark_at();
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
        loop {
            ready!(alarm.as_mut().poll(context));
            if alarm.deadline() >= due {
                return Poll::Ready(Woken::ForBookmark);
            }
            alarm.as_mut().reset(due);
        }
    }

    /// When a bookmark is due, if no message goes out until then. Up to an eighth sooner for some watches than for others, or all that
    /// were told of the same change would get theirs at once; and some at the same moment, since one wake-up of the server for many
    /// costs less than one for each.
    pub(super) fn bookmark_at(&self) -> Instant {
        let longest = self.hub.limits.bookmark;
        let sooner = longest / 8 * (self.cursor.place() % 1_024) as u32 / 1_024;
        let due = self.last_message + longest - sooner;
        let moment = (longest / 64).as_nanos().max(1);
        let past_moment = due.duration_since(self.hub.began).as_nanos() % moment;
        due - Duration::from_nanos(past_moment as u64)
    }

    /// Waits a little after a message before the next, but not if the last one was long ago.
    async fn let_changes_gather(&self) {
        let due = self.last_message + Duration::from_millis(WATCH_GROUP_MS);
        if self.warm && Instant::now() < due && self.is_behind() {
            sleep_until(due).await;
        }
    }

    /// Adds the last resume token, if there is one, to the rejection with which somebody else ends this watch.
    pub fn ended_with(&self, rejection: Rejection) -> Rejection {
        match self.stage {
            Stage::Following { revision, .. } => rejection.with("resume_token", self.tokens.at(revision)),
            Stage::Joining { .. } | Stage::Over => rejection,
        }
    }

    fn sent(&mut self, message: Bytes) -> Bytes {
        self.last_message = Instant::now();
        self.warm = true;
        message
    }

    /// The last revision that was sent as a whole; 0 while joining.
    fn revision(&self) -> u64 {
        match self.stage {
            Stage::Following { revision, .. } => revision,
            Stage::Joining { .. } | Stage::Over => 0,
        }
    }

    /// Tells whether more was published than was sent.
    fn is_behind(&self) -> bool {
        self.hub.state().ring.latest() != self.revision()
    }

    /// A digest as it is sent: absent where a filter makes it meaningless.
    fn digest(&self, digest: Digest) -> Bytes {
        match self.filter {
            Some(_) => Bytes::new(),
            None => Bytes::copy_from_slice(digest.as_bytes()),
        }
    }

    fn join(&mut self, asked: Instant) -> Ready {
        let second = self.hub.second();
        self.hub.state().cursors.reached(&self.cursor, At::Joining(second));
        while let Stage::Joining { snapshot, part, entries } = &mut self.stage {
            match snapshot.part(*part, self.detail, self.filter.as_deref()) {
                Part::Entries(message, count) => {
                    *part += 1;
                    *entries += count;
                    if count > 0 {
                        return Ready::Message(message);
                    }
                }
                Part::GivenUp => return Ready::End(too_slow(None)),
                Part::End => {
                    let (revision, digest, entries) = (snapshot.revision, snapshot.digest, *entries);
                    self.stage = Stage::Following { revision, messages: 0 };
                    self.warm = false;
                    let token = self.tokens.at(revision);
                    return Ready::Message(wire::end_mark(revision, entries, self.digest(digest), token));
                }
            }
        }
        self.follow(asked)
    }

    /// Reads what is after the cursor: as many revisions as fit into one message.
    fn follow(&mut self, asked: Instant) -> Ready {
        let Stage::Following { mut revision, mut messages } = self.stage else {
            return Ready::End(status::server_failed());
        };
        loop {
            let slots: Vec<Arc<Slot>> = {
                let mut state = self.hub.state();
                state.cursors.reached(&self.cursor, At::Following(revision));
                if state.ring.latest() == revision {
                    self.stage = Stage::Following { revision, messages };
                    if state.draining {
                        return Ready::End(status::draining().with("resume_token", self.tokens.at(revision)));
                    }
                    return Ready::Nothing(state.digest);
                }
                match state.ring.after(revision, REVISIONS_PER_MESSAGE_MAX) {
                    Some(slots) => slots.cloned().collect(),
                    None => return Ready::End(too_slow(Some(self.tokens.at(revision)))),
                }
            };
            let mut joined = Joined::default();
            let mut handed = Handed::new(asked);
            'slots: for slot in slots {
                let all = slot.messages(self.detail, self.filter.as_deref(), &self.tokens);
                for message in all.iter().skip(messages) {
                    let is_last = messages + 1 == all.len();
                    if !joined.take(message, is_last) {
                        break 'slots;
                    }
                    if !is_last {
                        messages += 1;
                        break 'slots;
                    }
                }
                revision = slot.revision;
                messages = 0;
                if let (Some(age), false) = (slot.age, all.is_empty()) {
                    handed.take(slot.published, age, &self.hub.latencies);
                }
            }
            handed.count(&self.hub.latencies);
            self.stage = Stage::Following { revision, messages };
            if let Some(message) = joined.into_frame() {
                return Ready::Message(message);
            }
        }
    }
}

/// Framed messages joined into one: the first alone is shared, more are copied.
#[derive(Default)]
struct Joined {
    first: Option<Bytes>,
    /// With room for the frame's head before them.
    all: Vec<u8>,
}

impl Joined {
    /// Takes a message if it fits. A part of a revision is taken only alone: joined to others, their token would stand
    /// for it as well.
    fn take(&mut self, frame: &Bytes, ends_revision: bool) -> bool {
        let Some(first) = &self.first else {
            self.first = Some(frame.clone());
            return true;
        };
        let message = wire::message(frame);
        let length = first.len().max(self.all.len());
        if !ends_revision || length + message.len() >= WATCH_MESSAGE_BYTES_MAX {
            return false;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(first);
        }
        self.all.extend_from_slice(message);
        true
    }

    fn into_frame(self) -> Option<Bytes> {
        if self.all.is_empty() { self.first } else { Some(wire::close(self.all)) }
    }
}

pub(super) fn too_slow(token: Option<String>) -> Rejection {
    let rejection = Rejection::new(Reason::WatcherTooSlow, "the watch was read too slowly, and what it missed is gone");
    match token {
        Some(token) => rejection.with("resume_token", token),
        None => rejection,
    }
}
