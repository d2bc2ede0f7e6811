//! Catching up: a server that is behind asks one neighbour that is ahead for what it lacks of an origin.
//!
//! New batches come unasked, each from one neighbour (see [`super::neighbours`]). Each hello and keep-alive says how far
//! its sender is with every origin; who is still behind a moment later asks. The answer ([`super::serving`]) is bounded,
//! and the next request asks for more, so a large catch-up never fills a queue.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{Node, Timer, directory::position};
use crate::{
    batch::Epoch,
    digest::Digest,
    federation::v1::{CatchUpEnd, CatchUpRequest, advertise_frame},
    id::ServerId,
    input::LinkId,
    limits::{CATCH_UP_BATCHES_MAX, CATCH_UP_BYTES},
    mutation::{Mutation, is_on},
    output::Refusal,
};

/// How long a server that shows an origin waits for what is on its way before it asks.
const ASK_MS: u64 = 250;

/// How often that time doubles at most, while asking brings nothing.
const ASK_DOUBLINGS_MAX: u32 = 5;

/// An answer that takes longer is given up, and another neighbour asked. A neighbour that failed gets twice as long each
/// time: its link may be that slow.
const ANSWER_MS: u64 = 3_000;

/// How often that time doubles at most: 24 s, more than a link can need that is not dead.
const ANSWER_DOUBLINGS_MAX: u32 = 3;

/// Neighbours are told of progress after so long, together.
const POSITIONS_MS: u64 = 20;

/// How far a neighbour says that it is with one origin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) origin: ServerId,
    pub(super) epoch: Epoch,
    pub(super) number: u64,
    pub(super) digest: Option<Digest>,
}

/// What this server asks about one origin.
#[derive(Debug, Default)]
pub(super) struct Asking {
    request: Option<Request>,
    /// When to ask, if still behind.
    due_ms: Option<u64>,
    /// Links that brought nothing, or less than they said they had, and how often in turn. Each is asked the more rarely,
    /// and after all others.
    failed: BTreeMap<LinkId, u32>,
    /// Links whose answers were given up and may come still: nobody's fault.
    late: BTreeSet<LinkId>,
    /// Links whose batches did not fit what is here. They are asked for the last one that is here, too: it differs there, or else
    /// they have it no more, and answer with a snapshot.
    unfitting: BTreeSet<LinkId>,
}

/// A request under way.
#[derive(Debug)]
struct Request {
    link: LinkId,
    until_ms: u64,
    /// The position when it was sent.
    number: u64,
    /// What an answer must reach: what the neighbour said it has, as far as one answer goes.
    expected: u64,
    /// What was staged of a snapshot when it was sent.
    staged: usize,
    /// Bytes of batches and statements that came over that link meanwhile.
    bytes: usize,
}

impl Asking {
    /// Whether this link was asked and is answering.
    pub(super) fn is_asked(&self, link: LinkId) -> bool {
        self.request.as_ref().is_some_and(|request| request.link == link)
    }

    /// So much came over a link: if it is part of an answer, the answer may be as long as one can be.
    pub(super) fn received(&mut self, link: LinkId, bytes: usize) {
        if let Some(request) = self.request.as_mut().filter(|request| request.link == link) {
            request.bytes += bytes;
        }
    }

    /// Whether an answer that comes over this link was given up.
    pub(super) fn is_late(&self, link: LinkId) -> bool {
        self.late.contains(&link)
    }

    /// The answer that is under way is not waited for any more.
    fn give_up(&mut self) {
        self.late.extend(self.request.take().map(|request| request.link));
    }

    /// What this link answered does not fit what is here.
    pub(super) fn does_not_fit(&mut self, link: LinkId) {
        self.unfitting.insert(link);
    }

    /// Nothing more comes of what was asked of this link.
    fn ended(&mut self, link: LinkId) {
        self.late.remove(&link);
    }

    /// The one that is asked brought nothing, or not enough.
    fn fail(&mut self) {
        if let Some(request) = &self.request {
            let failures = self.failed.entry(request.link).or_default();
            *failures = failures.saturating_add(1);
        }
    }
}

impl Node {
    /// A neighbour says how far it is.
    pub(super) fn peer_told(&mut self, link: LinkId, positions: Vec<Told>) {
        // Of servers that are admitted, so that nobody fills the memory with others.
        let is_known = |id: &ServerId| *id == self.id || self.links.admitted_name(id).is_some();
        let positions: Vec<_> = positions.into_iter().filter(|told| is_known(&told.origin)).collect();
        let Some(state) = self.links.state_mut(link) else { return };
        state.progress.positions.extend(positions.iter().map(|told| (told.origin, (told.epoch, told.number))));
        for told in positions {
            self.ask_for_word(link, &told);
            self.compare(link, &told);
            if told.origin != self.id {
                self.catch_up(told.origin);
            }
        }
    }

    /// A neighbour says that it knows a later epoch of an origin, or more of this server than it has said. It may be so: asks
    /// for something that was signed there.
    fn ask_for_word(&mut self, link: LinkId, told: &Told) {
        let Some(known) = self.origins.get(&told.origin).map(|known| &known.origin) else { return };
        let is_later = told.epoch > known.epoch();
        let is_unsaid = told.origin == self.id && told.epoch == known.epoch() && told.number > known.position();
        if !is_later && !is_unsaid {
            return;
        }
        let number = if is_later { u64::MAX } else { known.position() };
        self.ask_beyond(link, told.origin, told.epoch, number);
    }

    /// Asks one neighbour for what it has of an origin beyond this number, whatever else is asked meanwhile.
    pub(super) fn ask_beyond(&mut self, link: LinkId, id: ServerId, epoch: Epoch, number: u64) {
        let position = Some(position(id, epoch, number, None));
        let request = CatchUpRequest { position, snapshot_number: 0, with_statements: false };
        self.send_advertise(link, advertise_frame::Kind::CatchUpRequest(request));
    }

    /// Makes sure that this server asks for what it lacks of an origin: soon, since most of it is on its way, and at
    /// once while the origin waits to be shown.
    pub(super) fn catch_up(&mut self, id: ServerId) {
        let ahead = self.ahead(id);
        let now_ms = self.now.monotonic_ms;
        let Some(known) = self.origins.get_mut(&id) else { return };
        let Some(link) = ahead else {
            known.asking.failed.clear();
            known.asking.unfitting.clear();
            return;
        };
        if let Some(request) = &known.asking.request {
            let failures = |link| known.asking.failed.get(link).copied().unwrap_or_default();
            if failures(&link) >= failures(&request.link) {
                return;
            }
            // One that failed before is not waited for while there is a better one.
            known.asking.give_up();
        }
        let wait_ms = match known.asking.failed.get(&link) {
            None if !known.is_shown() => 0,
            None => ASK_MS,
            Some(failures) => ASK_MS << (failures - 1).min(ASK_DOUBLINGS_MAX),
        };
        let due_ms = now_ms + wait_ms;
        if known.asking.due_ms.is_none_or(|due| due > due_ms) {
            known.asking.due_ms = Some(due_ms);
            self.timers.insert((due_ms, Timer::CatchUp(id)));
        }
    }

    pub(super) fn catch_up_due(&mut self, id: ServerId) {
        let now_ms = self.now.monotonic_ms;
        let Some(known) = self.origins.get_mut(&id) else { return };
        if known.asking.request.as_ref().is_some_and(|request| request.until_ms <= now_ms) {
            known.asking.fail();
            known.asking.give_up();
            return self.catch_up(id);
        }
        if known.asking.due_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            known.asking.due_ms = None;
            self.ask(id, None);
        }
    }

    /// A neighbour that says it has more of an origin: the origin itself, else the next on the way to it, else any; one
    /// that brought nothing last time comes last.
    fn ahead(&self, id: ServerId) -> Option<LinkId> {
        let known = self.origins.get(&id).filter(|known| id != self.id && !known.has_ended())?;
        let (epoch, number) = (known.origin.epoch(), known.origin.position());
        let is_ahead = |link: &LinkId| self.told_by(*link, id, epoch) > number;
        let rank = |link: &LinkId| {
            let peer = self.links.peer_of(*link);
            let is_next = peer.is_some() && peer == self.neighbours.next_hop(&id);
            let has_failed = known.asking.failed.get(link).copied().unwrap_or(0);
            // One that has a whole answer before one that has less: a liar may tell ever the next number.
            let has = self.told_by(*link, id, epoch).min(number.saturating_add(CATCH_UP_BATCHES_MAX as u64));
            (has_failed, peer != Some(id), core::cmp::Reverse(has), !is_next, *link)
        };
        self.links.in_use().filter(is_ahead).min_by_key(rank)
    }

    /// How far a neighbour said it is with an origin in this epoch; 0 if it said nothing.
    pub(super) fn told_by(&self, link: LinkId, id: ServerId, epoch: Epoch) -> u64 {
        self.links.state(link).and_then(|state| state.progress.told(&id, epoch)).unwrap_or_default()
    }

    /// Asks for what is lacking, or for the rest of a snapshot.
    fn ask(&mut self, id: ServerId, snapshot: Option<(LinkId, u64)>) {
        let Some(link) = snapshot.map(|(link, _)| link).or_else(|| self.ahead(id)) else { return };
        if is_on(Mutation::CatchUpNotAsked) {
            return;
        }
        let Some(epoch) = self.origins.get(&id).map(|known| known.origin.epoch()) else { return };
        let told = self.told_by(link, id, epoch);
        let Some(known) = self.origins.get_mut(&id) else { return };
        let number = known.origin.position();
        let expected = told.min(number.saturating_add(CATCH_UP_BATCHES_MAX as u64));
        let staged = if snapshot.is_some() { known.origin.staged_bytes() } else { 0 };
        let failures = known.asking.failed.get(&link).copied().unwrap_or_default();
        let until_ms = self.now.monotonic_ms + (ANSWER_MS << failures.min(ANSWER_DOUBLINGS_MAX));
        known.asking.request = Some(Request { link, until_ms, number, expected, staged, bytes: 0 });
        let here = match known.asking.unfitting.contains(&link) {
            true => position(id, epoch, number.saturating_sub(1), None),
            false => known.position(id),
        };
        let request = CatchUpRequest {
            position: Some(here),
            snapshot_number: snapshot.map_or(0, |(_, number)| number),
            with_statements: known.asking.failed.contains_key(&link),
        };
        self.timers.insert((until_ms, Timer::CatchUp(id)));
        self.send_advertise(link, advertise_frame::Kind::CatchUpRequest(request));
    }

    /// An answer is complete: asks for more, or again elsewhere.
    pub(super) fn catch_up_end(&mut self, link: LinkId, end: &CatchUpEnd) -> Result<(), Refusal> {
        let id = ServerId::from_bytes(&end.origin_id).ok_or(Refusal::Malformed("origin_id"))?;
        let Some(known) = self.origins.get_mut(&id) else { return Ok(()) };
        if !known.asking.is_asked(link) {
            known.asking.ended(link);
            return Ok(());
        }
        if end.snapshot_number > 0 && known.origin.is_staging(end.snapshot_number) {
            let staged = known.asking.request.as_ref().map_or(0, |request| request.staged);
            if known.origin.staged_bytes() >= staged + CATCH_UP_BYTES {
                self.ask(id, Some((link, end.snapshot_number)));
            } else {
                known.asking.fail();
                known.asking.request = None;
                self.catch_up(id);
            }
            return Ok(());
        }
        let position = known.origin.position();
        let is_progress = known.asking.request.as_ref().is_some_and(|request| position > request.number);
        if !is_progress {
            known.asking.fail();
            known.asking.request = None;
            self.catch_up(id);
            return Ok(());
        }
        let request = known.asking.request.take();
        let is_whole = request.is_some_and(|request| position >= request.expected || request.bytes >= CATCH_UP_BYTES);
        if is_whole {
            known.asking.failed.remove(&link);
            known.asking.unfitting.remove(&link);
        } else {
            known.asking.failed.insert(link, 1);
        }
        self.tell_positions_soon();
        if self.ahead(id).is_some() {
            self.ask(id, None);
        }
        Ok(())
    }

    /// Tells neighbours of progress after a moment, together.
    fn tell_positions_soon(&mut self) {
        if !core::mem::replace(&mut self.positions_are_due, true) {
            self.after(POSITIONS_MS, Timer::Positions);
        }
    }

    /// A link is gone, and with it the answers that were to come over it.
    pub(super) fn requests_lost(&mut self, link: LinkId) {
        self.origins.values_mut().for_each(|known| known.asking.ended(link));
        let asked: Vec<ServerId> =
            self.origins.iter().filter(|(_, known)| known.asking.is_asked(link)).map(|(id, _)| *id).collect();
        for id in asked {
            if let Some(known) = self.origins.get_mut(&id) {
                known.asking.request = None;
            }
            self.catch_up(id);
        }
    }
}
