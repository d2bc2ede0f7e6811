//! Catching up: a server that is behind asks one neighbour that is ahead for what it lacks of an origin.
//!
//! New batches come unasked, each from one neighbour (see [`super::neighbours`]). Each hello and keep-alive says how far
//! its sender is with every origin; who is still behind a moment later asks. The answer is a bounded number of batches, or
//! a bounded part of a snapshot, and the next request asks for more, so a large catch-up never fills a queue. A key
//! statement goes over a link once, before the first batch that names it.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    vec::Vec,
};

use super::{Node, Timer, directory::position, sizes::Sizes};
use crate::{
    batch::{Advert, Batch, Content, Epoch},
    digest::Digest,
    federation::v1::{
        AdvertiseFrame, CatchUpEnd, CatchUpRequest, RemoveFrame, SnapshotBegin, SnapshotEnd, SnapshotPart, Statements,
        advertise_frame, remove_frame,
    },
    id::{ServerId, StatementHash},
    input::{Frame, LinkId},
    limits::{
        CATCH_UP_BATCHES_MAX, CATCH_UP_BYTES, PENDING_STATEMENTS_MAX, STATEMENTS_FRAME_BYTES_MAX, USERS_PER_ORIGIN_MAX,
    },
    mutation::{Mutation, is_on},
    origin::CatchUp,
    output::{Output, Refusal},
    statement::KeyStatement,
    v1::SignedKeyStatement,
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

/// A neighbour gets a snapshot of one origin made no sooner than so long after the last: making one looks at every entry.
const SNAPSHOT_APART_MS: u64 = 1_000;

/// A neighbour is shown the same proof no sooner than so long after the last time: a proof has half a megabyte at most.
const PROOFS_APART_MS: u64 = 10_000;

/// A neighbour is asked for the batch behind another digest no sooner than so long after the last time: a batch has a quarter of
/// a megabyte at most.
const DOUBTS_APART_MS: u64 = 5_000;

/// A snapshot that a neighbour has not asked more of for so long is dropped.
const SERVING_MS: u64 = 30_000;

/// Neighbours are told of progress after so long, together.
const POSITIONS_MS: u64 = 20;

/// How far one neighbour is, and what it was sent.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// How far it says that it is.
    positions: BTreeMap<ServerId, (Epoch, u64)>,
    /// When it was last shown that an origin contradicted itself.
    proofs_ms: BTreeMap<ServerId, u64>,
    /// Batches that it was asked for because what it has differs, and when.
    doubted: BTreeMap<ServerId, (Epoch, u64, u64)>,
    sent_statements: BTreeSet<StatementHash>,
    /// Snapshots that it was sent a part of.
    serving: BTreeMap<ServerId, Serving>,
    /// Statements from it that no signed batch has named yet: their hashes are nobody's word before that.
    pending: BTreeMap<StatementHash, Arc<KeyStatement>>,
    pending_order: VecDeque<StatementHash>,
}

/// How far a neighbour says that it is with one origin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) origin: ServerId,
    pub(super) epoch: Epoch,
    pub(super) number: u64,
    pub(super) digest: Option<Digest>,
}

/// A snapshot that is sent in parts.
#[derive(Debug)]
struct Serving {
    epoch: Epoch,
    made_ms: u64,
    asked_ms: u64,
    /// What is left of it; `None` once its end was sent.
    left: Option<Left>,
}

/// The rest of a snapshot.
#[derive(Debug)]
struct Left {
    /// Batches with the indexes of their adverts that are current.
    parts: VecDeque<(Arc<Batch>, Vec<u32>)>,
    /// The batch at its position.
    last: Arc<Batch>,
}

impl Serving {
    /// Whether this is the rest of the snapshot as of this number.
    fn goes_on(&self, epoch: Epoch, number: u64) -> bool {
        self.epoch == epoch && self.left.as_ref().is_some_and(|left| left.last.number == number)
    }
}

impl Progress {
    pub(super) fn sizes(&self, sizes: &mut Sizes) {
        sizes.note("origins told on a link", self.positions.len());
        sizes.note("origins doubted on a link", self.doubted.len());
        sizes.note("proofs shown on a link", self.proofs_ms.len());
        sizes.note("snapshots sent on a link", self.serving.len());
        sizes.note("statements sent on a link", self.sent_statements.len());
        sizes.note("statements that no batch names", self.pending.len().max(self.pending_order.len()));
    }

    /// Keeps a statement until a batch names it; the oldest goes when there are too many.
    pub(super) fn keep(&mut self, statement: KeyStatement) {
        let hash = statement.hash();
        if self.pending.insert(hash, Arc::new(statement)).is_none() {
            self.pending_order.push_back(hash);
        }
        if self.pending_order.len() > PENDING_STATEMENTS_MAX
            && !is_on(Mutation::StatementsWithoutLimit)
            && let Some(oldest) = self.pending_order.pop_front()
        {
            self.pending.remove(&oldest);
        }
    }

    /// How far the neighbour says that it is with this epoch of an origin.
    pub(super) fn told(&self, id: &ServerId, epoch: Epoch) -> Option<u64> {
        self.positions.get(id).filter(|(at, _)| *at == epoch).map(|(_, number)| *number)
    }

    /// Notes that it is shown a proof about an origin; tells whether it was not lately.
    pub(super) fn shows_proof(&mut self, id: ServerId, now_ms: u64) -> bool {
        let is_due = self.proofs_ms.get(&id).is_none_or(|shown_ms| shown_ms + PROOFS_APART_MS <= now_ms);
        if is_due {
            self.proofs_ms.insert(id, now_ms);
        }
        is_due
    }

    /// Drops snapshots that it has not asked more of for long.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.serving.retain(|_, serving| serving.asked_ms + SERVING_MS > now_ms);
    }

    /// Notes that what it has of an origin differs at this number; tells whether that is new, or was noted long ago.
    pub(super) fn doubts(&mut self, id: ServerId, epoch: Epoch, number: u64, now_ms: u64) -> bool {
        let is_same = |doubted: &&(Epoch, u64, u64)| (doubted.0, doubted.1) == (epoch, number);
        let asked_ms = self.doubted.get(&id).filter(is_same).map(|doubted| doubted.2);
        let is_due = asked_ms.is_none_or(|asked_ms| asked_ms + DOUBTS_APART_MS <= now_ms);
        if is_due {
            self.doubted.insert(id, (epoch, number, now_ms));
        }
        is_due
    }

    /// A statement that a signed batch names.
    pub(super) fn statement(&self, hash: StatementHash) -> Option<&Arc<KeyStatement>> {
        self.pending.get(&hash)
    }
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

    /// Shows a neighbour that lacks no batch what an origin signed last in an epoch.
    fn send_word(&mut self, link: LinkId, id: ServerId, epoch: Epoch) {
        let Some(known) = self.origins.get(&id) else { return };
        if let Some(last_word) = known.last_word() {
            self.send_remove(link, last_word);
        } else if let Some(signed) = self.neighbours.signed(&id, epoch, self.now.monotonic_ms) {
            self.send_remove(link, remove_frame::Kind::Neighbours(signed));
        } else if let Some(last) = known.origin.last_heard() {
            self.send_remove(link, remove_frame::Kind::Batch(last.signed.clone()));
        }
    }

    /// Makes sure that this server asks for what it lacks of an origin: soon, since most of it is on its way, and at
    /// once while the origin waits to be shown.
    pub(super) fn catch_up(&mut self, id: ServerId) {
        let ahead = self.ahead(id);
        let now_ms = self.now.monotonic_ms;
        let Some(known) = self.origins.get_mut(&id) else { return };
        let Some(link) = ahead else {
            known.asking.failed.clear();
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
    fn told_by(&self, link: LinkId, id: ServerId, epoch: Epoch) -> u64 {
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
        let request = CatchUpRequest {
            position: Some(known.position(id)),
            snapshot_number: snapshot.map_or(0, |(_, number)| number),
            with_statements: known.asking.failed.contains_key(&link),
        };
        self.timers.insert((until_ms, Timer::CatchUp(id)));
        self.send_advertise(link, advertise_frame::Kind::CatchUpRequest(request));
    }

    /// Answers a neighbour that is behind.
    pub(super) fn catch_up_request(&mut self, link: LinkId, request: &CatchUpRequest) -> Result<(), Refusal> {
        let position = request.position.as_ref().ok_or(Refusal::Malformed("catch_up_request.position"))?;
        let id = ServerId::from_bytes(&position.origin_id).ok_or(Refusal::Malformed("origin_id"))?;
        let epoch = crate::batch::epoch(position.epoch, &position.start_id)?;
        let snapshot_number = self.answer_request(link, id, epoch, position.number, request);
        let end = CatchUpEnd { origin_id: position.origin_id.clone(), snapshot_number };
        self.send_advertise(link, advertise_frame::Kind::CatchUpEnd(end));
        Ok(())
    }

    /// Sends what one answer holds; gives the number of the snapshot that goes on, or 0.
    fn answer_request(
        &mut self,
        link: LinkId,
        id: ServerId,
        epoch: Epoch,
        number: u64,
        request: &CatchUpRequest,
    ) -> u64 {
        let Some(state) = self.links.state_mut(link) else { return 0 };
        if request.with_statements {
            state.progress.sent_statements.clear();
        }
        let now_ms = self.now.monotonic_ms;
        let serving = &mut state.progress.serving;
        let last = serving.get_mut(&id).map(|serving| {
            serving.asked_ms = now_ms;
            (serving.goes_on(epoch, request.snapshot_number), serving.made_ms)
        });
        if last.is_some_and(|(goes_on, _)| goes_on) {
            return self.send_snapshot_part(link, id);
        }
        let Some(known) = self.origins.get(&id) else { return 0 };
        if known.origin.epoch() != epoch {
            return 0;
        }
        let is_too_soon = last.is_some_and(|(_, made_ms)| made_ms + SNAPSHOT_APART_MS > now_ms);
        if is_too_soon && known.origin.needs_snapshot(number) {
            return 0;
        }
        let lacks = if known.has_ended() { CatchUp::Nothing } else { known.origin.catch_up(number) };
        match lacks {
            CatchUp::Nothing => {
                self.send_word(link, id, epoch);
                0
            }
            CatchUp::Batches(batches) => {
                let mut bytes = 0;
                for batch in batches.iter().take(CATCH_UP_BATCHES_MAX) {
                    bytes += self.send_statements(link, id, batch.adverts().iter().map(Arc::as_ref));
                    self.send_advertise(link, advertise_frame::Kind::Batch(batch.signed.clone()));
                    bytes += batch.signed.statement.len();
                    if bytes >= CATCH_UP_BYTES {
                        break;
                    }
                }
                0
            }
            CatchUp::Snapshot { parts, last } => {
                let begin = SnapshotBegin { position: Some(known.position(id)) };
                self.send_advertise(link, advertise_frame::Kind::SnapshotBegin(begin));
                let Some(state) = self.links.state_mut(link) else { return 0 };
                let left = Some(Left { parts: parts.into(), last });
                state.progress.serving.insert(id, Serving { epoch, made_ms: now_ms, asked_ms: now_ms, left });
                self.send_snapshot_part(link, id)
            }
        }
    }

    /// Sends the next part of a snapshot that is under way; gives its number if there is more.
    fn send_snapshot_part(&mut self, link: LinkId, id: ServerId) -> u64 {
        let mut bytes = 0;
        while bytes < CATCH_UP_BYTES {
            let serving = self.links.state_mut(link).and_then(|state| state.progress.serving.get_mut(&id));
            let Some(serving) = serving else { return 0 };
            let Some(Left { parts, last }) = &mut serving.left else { return 0 };
            let Some((batch, current)) = parts.pop_front() else {
                let end = SnapshotEnd { last: Some(last.signed.clone()) };
                serving.left = None;
                self.send_advertise(link, advertise_frame::Kind::SnapshotEnd(end));
                return 0;
            };
            let adverts = current.iter().filter_map(|index| batch.adverts().get(*index as usize));
            bytes += batch.signed.statement.len() + self.send_statements(link, id, adverts.map(Arc::as_ref));
            let part = SnapshotPart { batch: Some(batch.signed.clone()), current };
            self.send_advertise(link, advertise_frame::Kind::SnapshotPart(part));
        }
        let serving = self.links.state(link).and_then(|state| state.progress.serving.get(&id));
        serving.and_then(|serving| serving.left.as_ref()).map_or(0, |left| left.last.number)
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

    /// Sends a new batch to the neighbours that get it from this server, but for the one that it came from.
    pub(super) fn pass_on(&mut self, batch: &Arc<Batch>, from: Option<LinkId>) {
        let is_advert = matches!(batch.content, Content::Adverts(_));
        let kept = if is_advert { Mutation::AdvertsNotPassedOn } else { Mutation::RemovalsNotPassedOn };
        if is_on(kept) || (from.is_some() && is_on(Mutation::RelayKeepsToItself)) {
            return;
        }
        for link in self.children(batch.origin) {
            let has_it = self.told_by(link, batch.origin, batch.epoch) >= batch.number;
            let has_it = has_it && !is_on(Mutation::BatchesFlood);
            if Some(link) != from && !has_it {
                self.send_statements(link, batch.origin, batch.adverts().iter().map(Arc::as_ref));
                self.output(Output::Send { link, frame: batch_frame(batch) });
            }
        }
    }

    /// Sends those statements of an origin that these adverts name and that this link has not carried; gives their size in bytes.
    fn send_statements<'a>(&mut self, link: LinkId, id: ServerId, adverts: impl Iterator<Item = &'a Advert>) -> usize {
        let (Some(state), Some(known)) = (self.links.state_mut(link), self.origins.get(&id)) else { return 0 };
        if state.progress.sent_statements.len() >= USERS_PER_ORIGIN_MAX {
            // Whoever has one takes it again.
            state.progress.sent_statements.clear();
        }
        let fresh = adverts.map(|advert| advert.statement).filter(|hash| state.progress.sent_statements.insert(*hash));
        let statements: Vec<_> =
            fresh.filter_map(|hash| known.origin.statement(hash)).map(|known| known.signed.clone()).collect();
        let bytes = statements.iter().map(size).sum();
        let statements = if is_on(Mutation::StatementsNotSent) { Vec::new() } else { statements };
        statement_frames(statements)
            .into_iter()
            .for_each(|frame| self.output(Output::Send { link, frame: Frame::Advertise(frame) }));
        bytes
    }
}

pub(super) fn size(statement: &SignedKeyStatement) -> usize {
    statement.statement.len() + statement.signature.len() + statement.previous_signature.len()
}

/// Packs statements into frames under the limit of one gRPC message.
fn statement_frames(statements: Vec<SignedKeyStatement>) -> Vec<AdvertiseFrame> {
    let mut frames: Vec<Vec<SignedKeyStatement>> = Vec::new();
    let mut bytes = usize::MAX;
    for statement in statements {
        let size = size(&statement);
        bytes = bytes.saturating_add(size);
        if bytes > STATEMENTS_FRAME_BYTES_MAX {
            frames.push(Vec::new());
            bytes = size;
        }
        frames.last_mut().expect("a frame was begun").push(statement);
    }
    let frame =
        |statements| AdvertiseFrame { kind: Some(advertise_frame::Kind::Statements(Statements { statements })) };
    frames.into_iter().map(frame).collect()
}

fn batch_frame(batch: &Batch) -> Frame {
    let signed = batch.signed.clone();
    match batch.content {
        Content::Adverts(_) => Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Batch(signed)) }),
        Content::Removals(_) | Content::Moved(_) => {
            Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Batch(signed)) })
        }
    }
}
