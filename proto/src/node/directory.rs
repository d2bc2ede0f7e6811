//! What this node knows of every origin, what it tells of its own users, and what it shows.
//!
//! Own users go the way of remote ones: a change of presence becomes a batch of the own origin, and what the batch
//! changes is published. An origin is shown while there is a way to it, and for a grace after; its users leave in one
//! revision, are kept aside, and return in one revision once the own position has reached one that the origin named after
//! the break.

use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use prost::bytes::Bytes;

use super::{
    Node, Timer,
    catch_up::{Asking, size},
    history::Cause,
    hold::Held,
};
use crate::{
    batch::{Advert, Batch, Content, Epoch, Goodbye, open_goodbye, sign_goodbye},
    digest::{Digest, SetHash},
    directory::{Destination, Entry},
    federation::v1::{
        Contradiction, Position, SignedBatch, SignedGoodbye, SnapshotBegin, SnapshotEnd, SnapshotPart, Statements,
        remove_frame,
    },
    id::{ServerId, StartId, sha256},
    input::LinkId,
    message::Address,
    moves::Move,
    mutation::{Mutation, is_on},
    name::{ServerName, UserName},
    origin::{Origin, Received},
    output::{Note, Output, Record, Refusal},
    statement::{KeyStatement, own},
};

/// Whether an origin's users are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// They are.
    Shown,
    /// They are, until then: there is no way to it.
    Grace { until_ms: u64 },
    /// They are not, until the position has reached `need`; `None` while it is not known to be back. A position counts
    /// that stands in a list of neighbours later than `after`, the last one before the break.
    Away { need: Option<u64>, after: u64 },
}

/// How an origin was found to be reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// There is a way to it.
    ByPath,
    /// It introduced itself on a link of its own, and is at this number.
    ByHello { number: u64 },
}

/// Why nothing of an epoch counts any more, as whoever does not know it is shown.
#[derive(Clone, Debug)]
enum LastWord {
    /// The origin stopped.
    Goodbye(SignedGoodbye),
    /// The origin told different servers different things.
    Contradiction(Contradiction),
}

impl LastWord {
    fn frame(&self) -> remove_frame::Kind {
        match self {
            Self::Goodbye(goodbye) => remove_frame::Kind::Goodbye(goodbye.clone()),
            Self::Contradiction(proof) => remove_frame::Kind::Contradiction(proof.clone()),
        }
    }
}

/// One origin, and whether it is shown.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) origin: Origin,
    pub(super) asking: Asking,
    pub(super) reach: Reach,
    /// What ended this epoch, if something did.
    ended: Option<LastWord>,
    /// Users of the epoch before who are shown still.
    pub(super) held: Held,
}

impl Known {
    pub(super) fn own(id: ServerId, epoch: Epoch) -> Self {
        Self {
            origin: Origin::new(id, epoch),
            asking: Asking::default(),
            reach: Reach::Shown,
            ended: None,
            held: Held::default(),
        }
    }

    fn away(id: ServerId, epoch: Epoch) -> Self {
        Self { reach: Reach::Away { need: None, after: 0 }, ..Self::own(id, epoch) }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Whether the origin contradicted itself in this epoch.
    pub(super) fn is_contradicted(&self) -> bool {
        matches!(self.ended, Some(LastWord::Contradiction(_)))
    }

    /// What ended this epoch, to be shown to others.
    pub(super) fn last_word(&self) -> Option<remove_frame::Kind> {
        self.ended.as_ref().map(LastWord::frame)
    }

    pub(super) fn is_shown(&self) -> bool {
        matches!(self.reach, Reach::Shown | Reach::Grace { .. })
    }

    pub(super) fn position(&self, id: ServerId) -> Position {
        // Nothing of an epoch that ended is believed, or compared.
        let digest = self.origin.digest().filter(|_| !self.has_ended());
        position(id, self.origin.epoch(), self.origin.position(), digest)
    }
}

/// A position as it is told.
pub(super) fn position(id: ServerId, epoch: Epoch, number: u64, digest: Option<Digest>) -> Position {
    Position {
        origin_id: Bytes::copy_from_slice(id.as_bytes()),
        epoch: epoch.number,
        start_id: Bytes::copy_from_slice(epoch.start.as_bytes()),
        number,
        digest: digest.map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(digest.as_bytes())),
    }
}

/// A server goes on above an epoch of its own that returned no sooner than so long after the last time.
const EPOCHS_APART_MS: u64 = 2_000;

impl Node {
    pub(super) fn own(&self) -> &Known {
        self.origins.get(&self.id).expect("the own origin is known from the start")
    }

    fn own_mut(&mut self) -> &mut Known {
        self.origins.get_mut(&self.id).expect("the own origin is known from the start")
    }

    /// What this node has of an origin.
    pub fn origin(&self, id: &ServerId) -> Option<&Origin> {
        self.origins.get(id).map(|known| &known.origin)
    }

    /// Makes the own origin say what is so of a user's presence, and tells it to everybody.
    pub(super) fn advertise(&mut self, user: &UserName) {
        let presence = self.sessions.presence(user);
        let told = self.own().origin.view(user).cloned();
        let content = match (presence, told) {
            (None, None) => return,
            (None, Some(_)) => match self.accounts.find(user).and_then(|account| account.moved.clone()) {
                Some(moved) => Content::Moved(moved),
                None => Content::Removals(Vec::from([user.clone()])),
            },
            (Some(presence), told) => {
                let account = Arc::clone(self.accounts.find(user).expect("a session's user has an account"));
                let statement = account.statement();
                let advert = Advert {
                    user: user.clone(),
                    display_name: account.display_name.as_str().into(),
                    status: presence.status,
                    statement: statement.hash(),
                    online_since: match &told {
                        _ if is_on(Mutation::OnlineSinceNotRenewed) => 1,
                        Some(told) => told.online_since,
                        None => self.own().origin.position() + 1,
                    },
                    sessions: presence.sessions,
                };
                if told.is_some_and(|told| *told == advert) {
                    return;
                }
                let own = &mut self.own_mut().origin;
                if own.statement(statement.hash()).is_none() {
                    own.keep_statement(Arc::new(statement.clone()));
                }
                Content::Adverts(Vec::from([Arc::new(advert)]))
            }
        };
        let (epoch, time_unix_ms) = (self.epoch, self.now.unix_ms);
        let known = self.origins.get_mut(&self.id).expect("the own origin is known from the start");
        let identity = &*self.identity;
        let batch = known.origin.originate(content, |number, digest, content| {
            Batch::sign(identity, epoch, number, digest, time_unix_ms, content)
        });
        self.refresh_by(&batch, Vec::from([user.clone()]), None);
        self.pass_on(&batch, None);
    }

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

    /// Publishes what is so of these users now, if the origin is shown.
    pub(super) fn refresh(&mut self, id: ServerId, users: impl IntoIterator<Item = UserName>, cause: Cause) {
        let Some(known) = self.origins.get(&id) else { return };
        if id == self.id && is_on(Mutation::OwnUsersNotShown) {
            return;
        }
        let Some(server_name) = self.server_name(&id) else { return };
        let entries: Vec<_> = users
            .into_iter()
            .map(|user| {
                let advert = known.is_shown().then(|| known.origin.view(&user)).flatten();
                let entry = advert.and_then(|advert| entry(id, &server_name, &known.origin, advert));
                let entry = entry.or_else(|| known.held.entry(&user).cloned());
                (Address { home: id, user }, entry)
            })
            .collect();
        if let Some(delta) = self.directory.replace(entries, cause.removal()) {
            self.history.keep(self.now.monotonic_ms, known.origin.epoch(), &delta, cause);
            let is_update = delta.changes.iter().all(|change| matches!(change, crate::directory::Change::Updated(_)));
            if !(is_update && is_on(Mutation::UpdateNotPublished)) {
                self.output(Output::Publish(delta));
            }
        }
    }

    /// Publishes what is so of these users after a batch: whether the one it says has moved, or is away.
    fn refresh_by(&mut self, batch: &Batch, users: Vec<UserName>, from: Option<ServerId>) {
        let cause = Cause::Batch { number: batch.number, from };
        if let Content::Moved(moved) = &batch.content {
            self.depart(batch.origin, moved, cause);
        }
        self.refresh(batch.origin, users, cause);
    }

    /// Publishes that a user moved, if that is the latest word and names the key statement that was shown.
    fn depart(&mut self, id: ServerId, moved: &Arc<Move>, cause: Cause) {
        let shown = self.directory.entry(&moved.from);
        let is_of_entry = shown.is_some_and(|entry| moved.is_of(&entry.statement));
        let Some(known) = self.origins.get(&id).filter(|known| known.is_shown()) else { return };
        if !is_of_entry || known.origin.view(&moved.from.user).is_some() {
            return;
        }
        let epoch = known.origin.epoch();
        let destination = Destination { moved: Arc::clone(moved), label: self.label_of(&moved.to) };
        if let Some(delta) = self.directory.depart(destination) {
            self.history.keep(self.now.monotonic_ms, epoch, &delta, cause);
            self.output(Output::Publish(delta));
        }
    }

    /// A user as people read it: `name@server-name`, or with the id of a server that is not known here.
    pub(super) fn label_of(&self, address: &Address) -> String {
        format!("{}@{}", address.user, self.name_of(&address.home))
    }

    /// Publishes what is so of all users of an origin now, in one revision.
    pub(super) fn refresh_all(&mut self, id: ServerId, cause: Cause) {
        let shown = self.directory.entries().filter(|entry| entry.address.home == id);
        let mut users: BTreeSet<UserName> = shown.map(|entry| entry.address.user.clone()).collect();
        if let Some(known) = self.origins.get(&id) {
            users.extend(known.origin.users());
        }
        if is_on(Mutation::LeaveOneByOne) {
            return users.into_iter().for_each(|user| self.refresh(id, [user], cause));
        }
        self.refresh(id, users, cause);
    }

    /// The name under which an origin is shown.
    pub(super) fn server_name(&self, id: &ServerId) -> Option<ServerName> {
        if *id == self.id { Some(self.settings.name.clone()) } else { self.links.admitted_name(id).cloned() }
    }

    /// The same as text, also of a server that is admitted no more; the id where there is no name.
    pub(super) fn name_of(&self, id: &ServerId) -> String {
        let known = self.server_name(id).or_else(|| self.admissions.names.of(id).cloned());
        known.map_or_else(|| id.to_string(), |name| name.to_string())
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
            || self.neighbours.signed(&id, known.origin.epoch()).is_some();
        if !is_signed {
            known.origin = known.origin.next(epoch);
            known.reach = Reach::Away { need: None, after: 0 };
            known.asking = Asking::default();
        }
    }

    /// There is a way to an origin, or news of how far it is.
    pub(super) fn origin_reached(&mut self, id: ServerId, how: Reached) {
        let Some(known) = self.origins.get_mut(&id) else { return };
        if known.has_ended() {
            return;
        }
        match known.reach {
            Reach::Shown | Reach::Grace { .. } => known.reach = Reach::Shown,
            Reach::Away { need, after } => {
                let told = self.neighbours.told(&id, known.origin.epoch());
                let signed = told.filter(|(number, _)| *number > after).map(|(_, position)| position);
                let named = match how {
                    Reached::ByPath => signed,
                    Reached::ByHello { number } => Some(number),
                };
                known.reach = Reach::Away { need: need.max(named), after };
                if is_on(Mutation::ReturnShownIncomplete) {
                    known.reach = Reach::Away { need: Some(0), after };
                } else if is_on(Mutation::ReturnNotShown) && after > 0 {
                    known.reach = Reach::Away { need: None, after };
                }
                self.show_if_complete(id);
                self.catch_up(id);
            }
        }
    }

    fn show_if_complete(&mut self, id: ServerId) {
        let Some(known) = self.origins.get_mut(&id) else { return };
        if matches!(known.reach, Reach::Away { need: Some(need), .. } if known.origin.position() >= need) {
            known.reach = Reach::Shown;
            known.release_shown();
            self.refresh_all(id, Cause::Reached);
        }
    }

    /// There is no way to an origin any more.
    pub(super) fn origin_lost(&mut self, id: ServerId) {
        let grace_ms = if is_on(Mutation::GraceNotGiven) { 0 } else { self.settings.link_grace_ms };
        let until_ms = self.now.monotonic_ms + grace_ms;
        let Some(known) = self.origins.get_mut(&id) else { return };
        let after = self.neighbours.told(&id, known.origin.epoch()).map_or(0, |(number, _)| number);
        known.reach = match known.reach {
            Reach::Shown => Reach::Grace { until_ms },
            Reach::Grace { until_ms } => Reach::Grace { until_ms },
            Reach::Away { .. } => Reach::Away { need: None, after },
        };
        self.timers.insert((until_ms, Timer::LinkGrace(id)));
    }

    pub(super) fn link_grace_over(&mut self, id: ServerId) {
        let now_ms = self.now.monotonic_ms;
        let Some(known) = self.origins.get_mut(&id) else { return };
        if is_on(Mutation::UnreachableStayShown) {
            return;
        }
        if matches!(known.reach, Reach::Grace { until_ms } if until_ms <= now_ms) {
            let after = self.neighbours.told(&id, known.origin.epoch()).map_or(0, |(number, _)| number);
            known.reach = Reach::Away { need: None, after };
            self.refresh_all(id, Cause::Unreachable);
        }
    }

    /// The state of an origin, if this is the epoch in force.
    fn known_mut(&mut self, id: ServerId, epoch: Epoch) -> Result<&mut Known, Refusal> {
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

    pub(super) fn batch(&mut self, link: LinkId, signed: &SignedBatch) -> Result<(), Refusal> {
        let batch = Batch::open(&*self.identity, signed)?;
        let origin = batch.origin;
        if origin == self.id {
            if batch.epoch == self.epoch && batch.number > self.own().origin.position() {
                self.own_word_invented(batch.number);
            } else if !self.finds_contradiction(link, &batch) {
                self.own_word_returned(link, batch.epoch);
            }
            return Ok(());
        }
        if !self.takes(link, origin, batch.epoch) {
            return Ok(());
        }
        let result = self.take_batch(link, batch);
        self.blame(link, origin, result)
    }

    fn take_batch(&mut self, link: LinkId, batch: Batch) -> Result<(), Refusal> {
        let origin = batch.origin;
        self.begin_epoch(origin, batch.epoch)?;
        if self.finds_contradiction(link, &batch) {
            return Ok(());
        }
        let mut users: Vec<UserName> = batch.users().into_iter().cloned().collect();
        let batch = Arc::new(batch);
        self.keep_statements(link, origin, batch.adverts());
        let known = self.known_mut(origin, batch.epoch)?;
        known.asking.received(link, batch.signed.statement.len());
        let received = known.origin.receive(Arc::clone(&batch));
        if received == Err(Refusal::DigestMismatch) {
            // What is here may be what the origin told nobody else.
            self.doubt(link, origin);
        }
        let received = received?;
        let is_contradicted = match &received {
            Received::Duplicate => return Ok(()),
            Received::Taken => false,
            Received::Contradicted(lost) => {
                users.extend(lost.users().into_iter().cloned());
                true
            }
        };
        self.release(origin, &users);
        self.pass_on(&batch, Some(link));
        self.refresh_by(&batch, users, self.links.peer_of(link));
        self.show_if_complete(origin);
        if is_contradicted { Err(Refusal::DigestMismatch) } else { Ok(()) }
    }

    /// Keeps statements until the batches come that name them.
    pub(super) fn statements(&mut self, link: LinkId, statements: &Statements) -> Result<(), Refusal> {
        let bytes = statements.statements.iter().map(size).sum();
        self.origins.values_mut().for_each(|known| known.asking.received(link, bytes));
        for signed in &statements.statements {
            let statement = KeyStatement::parse(signed).map_err(|_| Refusal::Malformed("statement"))?;
            if let Some(state) = self.links.state_mut(link) {
                state.progress.keep(statement);
            }
        }
        Ok(())
    }

    /// Gives an origin the statements that its signed adverts name and this link has brought.
    fn keep_statements(&mut self, link: LinkId, origin: ServerId, adverts: &[Arc<Advert>]) {
        let (Some(known), Some(state)) = (self.origins.get_mut(&origin), self.links.state(link)) else { return };
        for advert in adverts {
            if known.origin.statement(advert.statement).is_none()
                && let Some(statement) = state.progress.statement(advert.statement)
            {
                known.origin.keep_statement(Arc::clone(statement));
            }
        }
    }

    /// The origin that a neighbour was asked about and answers for now.
    fn asked_mut(&mut self, link: LinkId, id: ServerId, epoch: Epoch) -> Result<&mut Known, Refusal> {
        let known = self.known_mut(id, epoch)?;
        if known.asking.is_asked(link) { Ok(known) } else { Err(Refusal::OutOfTurn) }
    }

    pub(super) fn snapshot_begin(&mut self, link: LinkId, begin: &SnapshotBegin) -> Result<(), Refusal> {
        let position = begin.position.as_ref().ok_or(Refusal::Malformed("snapshot_begin.position"))?;
        let origin = ServerId::from_bytes(&position.origin_id).ok_or(Refusal::Malformed("origin_id"))?;
        let epoch = crate::batch::epoch(position.epoch, &position.start_id)?;
        self.asked_mut(link, origin, epoch)?.origin.begin_snapshot(position.number);
        Ok(())
    }

    pub(super) fn snapshot_part(&mut self, link: LinkId, part: &SnapshotPart) -> Result<(), Refusal> {
        let signed = part.batch.as_ref().ok_or(Refusal::Malformed("snapshot_part.batch"))?;
        let batch = Arc::new(Batch::open(&*self.identity, signed)?);
        self.keep_statements(link, batch.origin, batch.adverts());
        self.asked_mut(link, batch.origin, batch.epoch)?.origin.stage(&batch, &part.current)
    }

    pub(super) fn snapshot_end(&mut self, link: LinkId, end: &SnapshotEnd) -> Result<(), Refusal> {
        let signed = end.last.as_ref().ok_or(Refusal::Malformed("snapshot_end.last"))?;
        let last = Batch::open(&*self.identity, signed)?;
        let (origin, position) = (last.origin, last.number);
        if self.finds_contradiction(link, &last) {
            return Ok(());
        }
        if self.asked_mut(link, origin, last.epoch)?.origin.end_snapshot(Arc::new(last))? {
            let is_shown = self.origins.get(&origin).is_some_and(Known::is_shown);
            if is_shown {
                self.origins.get_mut(&origin).map(Known::release_shown);
                self.refresh_all(origin, Cause::Snapshot { position, from: self.links.peer_of(link) });
            }
            self.show_if_complete(origin);
        }
        Ok(())
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
        let is_kept = is_on(Mutation::GoodbyeNotPassedOn);
        let others: Vec<LinkId> = self.links.in_use().filter(|other| *other != link && !is_kept).collect();
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

    /// Sum of the hashes of the bases of all origins that are shown, for checkers.
    pub fn base_hash(&self) -> SetHash {
        let mut sum = SetHash::default();
        self.origins.values().filter(|known| known.is_shown()).for_each(|known| sum.add(known.origin.hash()));
        sum
    }
}

fn entry(id: ServerId, server_name: &ServerName, origin: &Origin, advert: &Advert) -> Option<Entry> {
    Some(Entry {
        address: Address { home: id, user: advert.user.clone() },
        server_name: server_name.clone(),
        display_name: Arc::clone(&advert.display_name),
        status: Arc::clone(&advert.status),
        statement: Arc::clone(origin.statement(advert.statement)?),
        epoch: origin.epoch().number,
        online_since: advert.online_since,
        sessions: advert.sessions,
    })
}
