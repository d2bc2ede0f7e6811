//! Bringing peers up to date with the own origin.
//!
//! Each hello and keep-alive says how far its sender is; whoever is ahead sends what is missing. A key statement goes
//! over a link once, before the first batch that names it.

use alloc::{collections::BTreeSet, sync::Arc, vec::Vec};

use super::Node;
use crate::{
    batch::{Advert, Batch, Content},
    federation::v1::{
        AdvertiseFrame, RemoveFrame, SnapshotBegin, SnapshotEnd, SnapshotPart, Statements, advertise_frame,
        remove_frame,
    },
    id::StatementHash,
    input::{Frame, LinkId},
    limits::STATEMENTS_FRAME_BYTES_MAX,
    origin::CatchUp,
    output::Output,
    v1::SignedKeyStatement,
};

/// A peer that has said for so long that it lacks what was sent to it is sent it again; then after twice as long each
/// time, so that a snapshot which takes longer than that to arrive is not sent on top of itself without end.
const RESEND_MS: u64 = 3_000;

/// How often that time doubles at most.
const RESEND_DOUBLINGS_MAX: u32 = 4;

/// What one peer was sent of the own origin, and what it says that it has.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Own batches up to this number were sent.
    sent_number: u64,
    sent_statements: BTreeSet<StatementHash>,
    /// The peer says that it is at this number, behind what was sent, since then.
    behind: Option<(u64, u64)>,
    /// How often it was sent the same again, since its position last moved.
    resends: u32,
    /// The position that the peer told last.
    position: u64,
}

impl Progress {
    /// The peer is at this number. Tells from where to send again, if it has stood still behind what was sent for so
    /// long that it must have lost it; what is sent is harmless if it has not.
    pub(super) fn told(&mut self, number: u64, now_ms: u64) -> Option<u64> {
        if number != self.position {
            self.position = number;
            self.resends = 0;
        }
        self.behind = match self.behind {
            _ if number >= self.sent_number => None,
            Some((before, since_ms)) if before == number => Some((number, since_ms)),
            _ => Some((number, now_ms)),
        };
        let (number, since_ms) = self.behind?;
        if since_ms + (RESEND_MS << self.resends.min(RESEND_DOUBLINGS_MAX)) > now_ms {
            return None;
        }
        self.behind = None;
        self.resends += 1;
        self.sent_statements.clear();
        Some(number)
    }
}

impl Node {
    /// Sends what a peer lacks of the own origin, whose position there is `number`.
    pub(super) fn bring_up_to_date(&mut self, link: LinkId, number: u64) {
        let own = self.own();
        let position = own.position(self.id);
        match own.origin.catch_up(number) {
            CatchUp::Nothing => {}
            CatchUp::Batches(batches) => batches.iter().for_each(|batch| self.send_batch(link, batch)),
            CatchUp::Snapshot { parts, last } => {
                self.send_advertise(
                    link,
                    advertise_frame::Kind::SnapshotBegin(SnapshotBegin { position: Some(position) }),
                );
                let adverts = parts.iter().flat_map(|(batch, current)| {
                    current.iter().filter_map(|index| batch.adverts().get(*index as usize))
                });
                self.send_statements(link, adverts.map(|advert| &**advert));
                for (batch, current) in parts {
                    let part = SnapshotPart { batch: Some(batch.signed.clone()), current };
                    self.send_advertise(link, advertise_frame::Kind::SnapshotPart(part));
                }
                let end = SnapshotEnd { last: Some(last.signed.clone()) };
                self.send_advertise(link, advertise_frame::Kind::SnapshotEnd(end));
            }
        }
        let position = self.own().origin.position();
        if let Some(state) = self.links.state_mut(link) {
            state.progress.sent_number = position;
        }
    }

    /// Sends a new batch of the own origin to every peer.
    pub(super) fn tell_links(&mut self, batch: &Arc<Batch>) {
        let links: Vec<LinkId> = self.links.in_use().collect();
        for link in links {
            self.send_batch(link, batch);
        }
    }

    /// Sends one batch, and before it the statements that it names and that this link has not carried.
    fn send_batch(&mut self, link: LinkId, batch: &Arc<Batch>) {
        self.send_statements(link, batch.adverts().iter().map(Arc::as_ref));
        if let Some(state) = self.links.state_mut(link) {
            state.progress.sent_number = batch.number;
        }
        self.output(Output::Send { link, frame: batch_frame(batch) });
    }

    /// Sends those statements of the own origin that these adverts name and that this link has not carried.
    fn send_statements<'a>(&mut self, link: LinkId, adverts: impl Iterator<Item = &'a Advert>) {
        let Some(state) = self.links.state_mut(link) else { return };
        let fresh = adverts.map(|advert| advert.statement).filter(|hash| state.progress.sent_statements.insert(*hash));
        let fresh: Vec<_> = fresh.collect();
        let own = &self.own().origin;
        let statements = fresh.into_iter().filter_map(|hash| own.statement(hash)).map(|known| known.signed.clone());
        let statements: Vec<_> = statements.collect();
        statement_frames(statements)
            .into_iter()
            .for_each(|frame| self.output(Output::Send { link, frame: Frame::Advertise(frame) }));
    }
}

/// Packs statements into frames under the limit of one gRPC message.
fn statement_frames(statements: Vec<SignedKeyStatement>) -> Vec<AdvertiseFrame> {
    let mut frames: Vec<Vec<SignedKeyStatement>> = Vec::new();
    let mut bytes = usize::MAX;
    for statement in statements {
        let size = statement.statement.len() + statement.signature.len() + statement.previous_signature.len();
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
        Content::Removals(_) => Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Batch(signed)) }),
    }
}
