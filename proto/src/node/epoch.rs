//! Epochs: which start of an origin counts, what ends one, and how this server goes on above one of its own.
//!
//! Each start of a server is an epoch, and of two the higher counts for everybody alike. An origin's goodbye ends its epoch, and
//! so does a proof that it contradicted itself. A server that is shown something under its own name which it did not sign in its
//! present epoch goes on in a higher one.

use alloc::vec::Vec;

use super::{Node, Timer, catch_up::Asking, directory::Known, history::Cause, reach::Reach};
use crate::{
    batch::{Epoch, Goodbye, open_goodbye, sign_goodbye},
    federation::v1::{Contradiction, SignedGoodbye, remove_frame},
    id::{ServerId, StartId, sha256},
    input::LinkId,
    mutation::{Mutation, is_on},
    output::{Note, Output, Record, Refusal},
    statement::own,
};

/// A server goes on above an epoch of its own that returned no sooner than so long after the last time.
const EPOCHS_APART_MS: u64 = 2_000;

/// Why nothing of an epoch counts any more, as whoever does not know it is shown.
#[derive(Clone, Debug)]
pub(super) enum LastWord {
    /// The origin stopped.
    Goodbye(SignedGoodbye),
    /// The origin told different servers different things.
    Contradiction(Contradiction),
}

impl LastWord {
    pub(super) fn frame(&self) -> remove_frame::Kind {
        match self {
            Self::Goodbye(goodbye) => remove_frame::Kind::Goodbye(goodbye.clone()),
            Self::Contradiction(proof) => remove_frame::Kind::Contradiction(proof.clone()),
        }
    }
}

impl Node {
    /// Somebody shows this server what it signed itself under another epoch. If that is not a lower one, an old copy of the
    /// data folder is in use: others would take nothing of the present epoch, so it goes on under a higher one.
    pub(super) fn own_word_returned(&mut self, link: LinkId, epoch: Epoch) {
        if epoch <= self.epoch || is_on(Mutation::OwnWordIgnored) {
            return;
        }
        if let Some(peer) = self.links.peer_of(link) {
            self.note(Note::EpochBehind { peer, epoch: epoch.number });
        }
        self.go_on_above(epoch);
    }

    /// Somebody else signed something in this server's present epoch with its key.
    pub(super) fn own_word_invented(&mut self, number: u64) {
        self.note(Note::Contradiction { origin: self.id, number });
        self.go_on_above(self.epoch);
    }

    /// Starts the next epoch above this one, with the same users online. Two copies of one server that run at once would
    /// drive each other on without end, so it waits for a moment after the last time.
    fn go_on_above(&mut self, epoch: Epoch) {
        self.surpassed = self.surpassed.max(Some(epoch));
        let due_ms = self.went_on_ms.map_or(0, |went_on_ms| went_on_ms + EPOCHS_APART_MS);
        if due_ms > self.now.monotonic_ms {
            self.timers.insert((due_ms, Timer::GoOn));
        } else {
            self.go_on_due();
        }
    }

    pub(super) fn go_on_due(&mut self) {
        let surpassed = self.surpassed.take().filter(|epoch| *epoch >= self.epoch && !self.draining);
        let Some(number) = surpassed.and_then(|epoch| epoch.number.checked_add(1)) else { return };
        self.went_on_ms = Some(self.now.monotonic_ms);
        let start = sha256(&[b"socp.next-start", self.epoch.start.as_bytes(), &number.to_be_bytes()]);
        self.epoch = Epoch { number, start: StartId::from_bytes(&start[..16]).expect("16 bytes are a start id") };
        self.output(Output::Store(Record::Epoch(number)));
        let epoch = self.epoch;
        let own = self.own_mut();
        let users = own.origin.users();
        own.origin = own.origin.next(epoch);
        users.iter().for_each(|user| self.advertise(user));
        self.sign_neighbours_anew();
    }

    /// Makes sure that what is known of an admitted origin is of this epoch, which it signed or named itself. Refuses an epoch
    /// that is over: of two the higher counts, by number and then by start, for everybody alike.
    pub(super) fn begin_epoch(&mut self, id: ServerId, epoch: Epoch) -> Result<(), Refusal> {
        let known = self.origins.get_mut(&id);
        if known.as_ref().is_none_or(|known| known.origin.epoch() < epoch) {
            let mut next = Known::away(id, epoch);
            if let Some(known) = known {
                known.reach = Reach::Away { need: None, after: 0 };
                if !is_on(Mutation::OldEpochStaysShown) {
                    self.refresh_all(id, Cause::NewEpoch);
                }
                let known = self.origins.get_mut(&id).expect("it was just there");
                next.origin = known.origin.next(epoch);
                next.held = core::mem::take(&mut known.held);
            }
            self.origins.insert(id, next);
        }
        self.known_mut(id, epoch).map(|_| ())
    }

    /// A server introduces itself in an epoch below the one that is known here. If that one is known by an introduction alone,
    /// there is nothing to show the server that would make it go on above, and its present word counts.
    pub(super) fn fall_back(&mut self, id: ServerId, epoch: Epoch) {
        let Some(known) = self.origins.get_mut(&id).filter(|known| known.origin.epoch() > epoch) else { return };
        let is_signed = known.origin.last_heard().is_some()
            || known.has_ended()
            || self.neighbours.told(&id, known.origin.epoch()).is_some();
        if !is_signed {
            known.origin = known.origin.next(epoch);
            known.reach = Reach::Away { need: None, after: 0 };
            known.asking = Asking::default();
            self.hold_none_of_later(id, epoch);
        }
    }

    /// The state of an origin, if this is the epoch in force.
    pub(super) fn known_mut(&mut self, id: ServerId, epoch: Epoch) -> Result<&mut Known, Refusal> {
        let known = self.origins.get_mut(&id).ok_or(Refusal::OutOfTurn)?;
        let is_over = known.has_ended() || known.origin.epoch() != epoch;
        if is_over && !is_on(Mutation::OldEpochTaken) { Err(Refusal::OldEpoch) } else { Ok(known) }
    }

    /// Whether this server takes what another one signed in this epoch: it admits it, and knows of nothing later.
    /// Whoever passes something on may not know that it is over, so the rest is ignored.
    pub(super) fn takes(&mut self, link: LinkId, origin: ServerId, epoch: Epoch) -> bool {
        let is_admitted = self.links.admitted_name(&origin).is_some();
        let is_over = |known: &Known| {
            let at = known.origin.epoch();
            at > epoch || (at == epoch && known.has_ended())
        };
        let is_over = self.origins.get(&origin).is_some_and(is_over) && !is_on(Mutation::OldEpochTaken);
        if !is_admitted || is_over {
            if let Some(peer) = self.links.peer_of(link) {
                self.note(Note::FrameIgnored { peer });
            }
            return false;
        }
        true
    }

    pub(super) fn goodbye(&mut self, link: LinkId, signed: &SignedGoodbye) -> Result<(), Refusal> {
        let Goodbye { origin, epoch, hold_ms } = open_goodbye(&*self.identity, signed)?;
        if origin == self.id {
            if epoch == self.epoch && !self.draining {
                self.own_word_invented(self.own().origin.position());
            }
            self.own_word_returned(link, epoch);
            return Ok(());
        }
        if !self.takes(link, origin, epoch) {
            return Ok(());
        }
        if is_on(Mutation::GoodbyeIgnored) {
            return Ok(());
        }
        self.begin_epoch(origin, epoch)?;
        let known = self.known_mut(origin, epoch)?;
        let goodbye = SignedGoodbye { statement: own(&signed.statement), signature: own(&signed.signature) };
        known.reach = Reach::Away { need: None, after: 0 };
        self.hold(origin, epoch, hold_ms);
        self.neighbours.forget(&origin);
        self.end_epoch(origin, LastWord::Goodbye(goodbye), link);
        self.refresh_all(origin, Cause::Goodbye { from: self.links.peer_of(link) });
        Ok(())
    }

    /// Nothing of an origin's present epoch counts any more: tells everybody but the neighbour that said so.
    fn end_epoch(&mut self, origin: ServerId, last: LastWord, link: LinkId) {
        let others = if is_on(Mutation::GoodbyeNotPassedOn) { Vec::new() } else { self.links.all_but(Some(link)) };
        others.into_iter().for_each(|other| self.send_remove(other, last.frame()));
        if let Some(known) = self.origins.get_mut(&origin) {
            known.ended = Some(last);
        }
    }

    /// An origin told different servers different things in its present epoch.
    pub(super) fn end_contradicted(&mut self, origin: ServerId, number: u64, proof: Contradiction, link: LinkId) {
        if let Some(known) = self.origins.get_mut(&origin) {
            known.reach = Reach::Away { need: None, after: 0 };
        }
        self.hold_no_more(origin);
        self.end_epoch(origin, LastWord::Contradiction(proof), link);
        self.refresh_all(origin, Cause::Contradiction { number, from: self.links.peer_of(link) });
    }

    /// Whether an origin told different servers different things in this epoch.
    pub(super) fn is_contradicted(&self, id: &ServerId, epoch: Epoch) -> bool {
        self.origins.get(id).is_some_and(|known| known.origin.epoch() == epoch && known.is_contradicted())
    }

    pub(super) fn own_goodbye(&self) -> SignedGoodbye {
        sign_goodbye(&*self.identity, self.epoch, self.settings.goodbye_hold_ms)
    }
}
