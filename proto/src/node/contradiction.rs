//! Origins that tell different servers different things.
//!
//! An origin signs one batch of each number. Two of them that differ prove that it lies; whoever finds both passes them onward,
//! and everybody ends that epoch: its users leave every watch, and nothing of it counts, until the origin starts anew. What
//! different servers have is compared by the digests that go with positions: of an origin that both know up to the same batch
//! they must be equal, and the batch behind another digest is asked for.

use alloc::sync::Arc;

use super::{Node, catch_up::Told};
use crate::{
    batch::Batch,
    federation::v1::{Contradiction, SignedBatch},
    id::ServerId,
    input::LinkId,
    mutation::{Mutation, is_on},
    output::{Note, Refusal},
};

impl Node {
    /// Compares what a neighbour says that it has of an origin. One that still believes an epoch which ended here by a
    /// contradiction is shown the proof, again after a while; so is the origin itself, which may not know what was signed with
    /// its key.
    pub(super) fn compare(&mut self, link: LinkId, told: &Told) {
        let Some(known) = self.origins.get(&told.origin) else { return };
        if known.has_ended() {
            let proof = known.last_word().filter(|_| known.is_contradicted() && told.epoch == known.origin.epoch());
            let now_ms = self.now.monotonic_ms;
            let Some((proof, state)) = proof.filter(|_| told.digest.is_some()).zip(self.links.state_mut(link)) else {
                return;
            };
            if state.progress.shows_proof(told.origin, now_ms) {
                self.send_remove(link, proof);
            }
            return;
        }
        let here = (known.origin.epoch(), known.origin.position());
        if here == (told.epoch, told.number) && told.digest.is_some() && told.digest != known.origin.digest() {
            self.doubt(link, told.origin);
        }
    }

    /// A neighbour has something else of an origin: asks for the batch that this server has last, as that neighbour has it,
    /// and again after a while.
    pub(super) fn doubt(&mut self, link: LinkId, origin: ServerId) {
        let Some(known) = self.origins.get(&origin).filter(|known| !known.has_ended()) else { return };
        let (epoch, number) = (known.origin.epoch(), known.origin.position());
        let now_ms = self.now.monotonic_ms;
        let Some(state) = self.links.state_mut(link) else { return };
        if number == 0 || !state.progress.doubts(origin, epoch, number, now_ms) {
            return;
        }
        let peer = state.peer;
        self.note(Note::DigestDiffers { peer, origin, number });
        self.ask_beyond(link, origin, epoch, number - 1);
    }

    /// Whether a batch that a neighbour brought proves, with one that is here, that their origin lies.
    pub(super) fn finds_contradiction(&mut self, link: LinkId, batch: &Batch) -> bool {
        let known = self.origins.get(&batch.origin).filter(|known| known.origin.epoch() == batch.epoch);
        if is_on(Mutation::ContradictionIgnored) {
            return false;
        }
        let Some(here) = known.and_then(|known| known.origin.contradicted_by(batch)).map(Arc::clone) else {
            return false;
        };
        let proof = Contradiction { one: Some(here.signed.clone()), other: Some(batch.signed.clone()) };
        self.contradicted(link, &here, proof);
        true
    }

    /// A neighbour brings a proof.
    pub(super) fn contradiction(&mut self, link: LinkId, proof: &Contradiction) -> Result<(), Refusal> {
        let open = |signed: &Option<SignedBatch>| {
            Batch::open(&*self.identity, signed.as_ref().ok_or(Refusal::Malformed("contradiction"))?)
        };
        let (one, other) = (open(&proof.one)?, open(&proof.other)?);
        if !one.contradicts(&other) {
            return Err(Refusal::Malformed("contradiction"));
        }
        let is_own = one.origin == self.id;
        if is_own || self.takes(link, one.origin, one.epoch) {
            let proof = Contradiction { one: Some(one.signed.clone()), other: Some(other.signed) };
            self.contradicted(link, &one, proof);
        }
        Ok(())
    }

    /// Ends the epoch of a batch for which there is another one. If it is this server's own epoch, somebody else signs with its
    /// key, and it goes on above it; above a later one too, since others show nothing else of an epoch that ended so.
    fn contradicted(&mut self, link: LinkId, batch: &Batch, proof: Contradiction) {
        let (origin, epoch, number) = (batch.origin, batch.epoch, batch.number);
        if origin == self.id {
            if epoch == self.epoch {
                self.own_word_invented(number);
            } else {
                self.own_word_returned(link, epoch);
            }
        } else if self.begin_epoch(origin, epoch).is_ok() {
            self.note(Note::Contradiction { origin, number });
            self.end_contradicted(origin, number, proof, link);
        }
    }
}
