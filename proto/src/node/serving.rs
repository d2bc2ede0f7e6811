//! Serving: what a neighbour that is behind gets of an origin, new or old.
//!
//! A new batch goes to the neighbours that get it from this server, unasked. A neighbour that asks gets a bounded number of
//! batches, or a bounded part of a snapshot, and asks again for more. A key statement goes over a link once, before the
//! first batch that names it.

use alloc::{collections::VecDeque, sync::Arc, vec::Vec};

use super::Node;
use crate::{
    batch::{Advert, Batch, Content, Epoch},
    federation::v1::{
        AdvertiseFrame, CatchUpEnd, CatchUpRequest, RemoveFrame, SnapshotBegin, SnapshotEnd, SnapshotPart, Statements,
        advertise_frame, remove_frame,
    },
    id::ServerId,
    input::{Frame, LinkId},
    limits::{CATCH_UP_BATCHES_MAX, CATCH_UP_BYTES, STATEMENTS_FRAME_BYTES_MAX, USERS_PER_ORIGIN_MAX},
    mutation::{Mutation, is_on},
    origin::CatchUp,
    output::{Output, Refusal},
    v1::SignedKeyStatement,
};

/// A neighbour gets a snapshot of one origin made no sooner than so long after the last: making one looks at every entry.
const SNAPSHOT_APART_MS: u64 = 1_000;

/// A snapshot that is sent in parts.
#[derive(Debug)]
pub(super) struct Serving {
    epoch: Epoch,
    made_ms: u64,
    pub(super) asked_ms: u64,
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

impl Node {
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

    /// Shows a neighbour that lacks no batch what an origin signed last in an epoch.
    pub(super) fn send_word(&mut self, link: LinkId, id: ServerId, epoch: Epoch) {
        let Some(known) = self.origins.get(&id) else { return };
        if let Some(last_word) = known.last_word() {
            self.send_remove(link, last_word);
        } else if let Some(signed) = self.neighbours.signed(&id, epoch, self.now.monotonic_ms) {
            self.send_remove(link, remove_frame::Kind::Neighbours(signed));
        } else if let Some(last) = known.origin.last_heard() {
            self.send_remove(link, remove_frame::Kind::Batch(last.signed.clone()));
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
