//! What this node knows of every origin, what it tells of its own users, and what it shows.
//!
//! Own users go the way of remote ones: a change of presence becomes a batch of the own origin, and what the batch
//! changes is published. Whether an origin is shown is in [`super::reach`], which of its epochs counts in [`super::epoch`].

use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use prost::bytes::Bytes;

use super::{Node, catch_up::Asking, epoch::LastWord, history::Cause, hold::Held, reach::Reach, serving::size};
use crate::{
    batch::{Advert, Batch, Content, Epoch},
    digest::{Digest, SetHash},
    directory::{Delta, Destination, Entry, Made},
    federation::v1::{Position, SignedBatch, SnapshotBegin, SnapshotEnd, SnapshotPart, Statements, remove_frame},
    id::ServerId,
    input::LinkId,
    message::Address,
    moves::Move,
    mutation::{Mutation, is_on},
    name::{ServerName, UserName},
    origin::{Origin, Received},
    output::{Output, Refusal},
    statement::KeyStatement,
};

/// One origin, and whether it is shown.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) origin: Origin,
    pub(super) asking: Asking,
    pub(super) reach: Reach,
    /// What ended this epoch, if something did.
    pub(super) ended: Option<LastWord>,
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

    pub(super) fn away(id: ServerId, epoch: Epoch) -> Self {
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

impl Node {
    pub(super) fn own(&self) -> &Known {
        self.origins.get(&self.id).expect("the own origin is known from the start")
    }

    pub(super) fn own_mut(&mut self) -> &mut Known {
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
        let batch = self.originate(content);
        // Before it is shown here: it has the longer way there.
        self.pass_on(&batch, None);
        self.refresh_by(&batch, Vec::from([user.clone()]), None);
        self.sign_again();
    }

    /// Signs old entries again, when what is kept for whoever joins has grown too large. Nobody sees a change by that.
    fn sign_again(&mut self) {
        let again = self.own().origin.base().to_sign_again(self.settings.kept_batches_max);
        if !again.is_empty() && !is_on(Mutation::NeverSignedAgain) {
            let batch = self.originate(Content::Adverts(again));
            self.pass_on(&batch, None);
        }
    }

    /// Makes the next batch of the own origin.
    fn originate(&mut self, content: Content) -> Arc<Batch> {
        let (epoch, time_unix_ms) = (self.epoch, self.now.unix_ms);
        let known = self.origins.get_mut(&self.id).expect("the own origin is known from the start");
        let identity = &*self.identity;
        known.origin.originate(content, |number, digest, content| {
            Batch::sign(identity, epoch, number, digest, time_unix_ms, content)
        })
    }

    /// Publishes what is so of these users now, if the origin is shown.
    pub(super) fn refresh(&mut self, id: ServerId, users: impl IntoIterator<Item = UserName>, cause: Cause) {
        self.refresh_made(id, users, cause, None);
    }

    fn refresh_made(
        &mut self,
        id: ServerId,
        users: impl IntoIterator<Item = UserName>,
        cause: Cause,
        made: Option<Made>,
    ) {
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
            let delta = dated(delta, made);
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
            self.depart(batch, moved, cause);
        }
        self.refresh_made(batch.origin, users, cause, Some(made(batch)));
    }

    /// Publishes that a user moved, if that is the latest word and names the key statement that was shown.
    fn depart(&mut self, batch: &Batch, moved: &Arc<Move>, cause: Cause) {
        let id = batch.origin;
        let shown = self.directory.entry(&moved.from);
        let is_of_entry = shown.is_some_and(|entry| moved.is_of(&entry.statement));
        let Some(known) = self.origins.get(&id).filter(|known| known.is_shown()) else { return };
        if !is_of_entry || known.origin.view(&moved.from.user).is_some() {
            return;
        }
        let epoch = known.origin.epoch();
        let destination = Destination { moved: Arc::clone(moved), label: self.label_of(&moved.to) };
        if let Some(delta) = self.directory.depart(destination) {
            let delta = dated(delta, Some(made(batch)));
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
            match known.asking.is_asked(link) {
                true => known.asking.does_not_fit(link),
                false => self.doubt(link, origin),
            }
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

    /// The origin that a neighbour was asked about and answers for now; none if its answer comes too late.
    fn asked_mut(&mut self, link: LinkId, id: ServerId, epoch: Epoch) -> Result<Option<&mut Origin>, Refusal> {
        let known = self.known_mut(id, epoch)?;
        match known.asking.is_asked(link) {
            true => Ok(Some(&mut known.origin)),
            false if known.asking.is_late(link) => Ok(None),
            false => Err(Refusal::OutOfTurn),
        }
    }

    pub(super) fn snapshot_begin(&mut self, link: LinkId, begin: &SnapshotBegin) -> Result<(), Refusal> {
        let position = begin.position.as_ref().ok_or(Refusal::Malformed("snapshot_begin.position"))?;
        let origin = ServerId::from_bytes(&position.origin_id).ok_or(Refusal::Malformed("origin_id"))?;
        let epoch = crate::batch::epoch(position.epoch, &position.start_id)?;
        if let Some(origin) = self.asked_mut(link, origin, epoch)? {
            origin.begin_snapshot(position.number);
        }
        Ok(())
    }

    pub(super) fn snapshot_part(&mut self, link: LinkId, part: &SnapshotPart) -> Result<(), Refusal> {
        let signed = part.batch.as_ref().ok_or(Refusal::Malformed("snapshot_part.batch"))?;
        let batch = Arc::new(Batch::open(&*self.identity, signed)?);
        self.keep_statements(link, batch.origin, batch.adverts());
        self.asked_mut(link, batch.origin, batch.epoch)?.map_or(Ok(()), |origin| origin.stage(&batch, &part.current))
    }

    pub(super) fn snapshot_end(&mut self, link: LinkId, end: &SnapshotEnd) -> Result<(), Refusal> {
        let signed = end.last.as_ref().ok_or(Refusal::Malformed("snapshot_end.last"))?;
        let last = Batch::open(&*self.identity, signed)?;
        let (origin, position) = (last.origin, last.number);
        if self.finds_contradiction(link, &last) {
            return Ok(());
        }
        let Some(asked) = self.asked_mut(link, origin, last.epoch)? else { return Ok(()) };
        if asked.end_snapshot(Arc::new(last))? {
            let is_shown = self.origins.get(&origin).is_some_and(Known::is_shown);
            if is_shown {
                self.origins.get_mut(&origin).map(Known::release_shown);
                self.refresh_all(origin, Cause::Snapshot { position, from: self.links.peer_of(link) });
            }
            self.show_if_complete(origin);
        }
        Ok(())
    }

    /// Sum of the hashes of the bases of all origins that are shown, for checkers.
    pub fn base_hash(&self) -> SetHash {
        let mut sum = SetHash::default();
        self.origins.values().filter(|known| known.is_shown()).for_each(|known| sum.add(known.origin.hash()));
        sum
    }
}

fn made(batch: &Batch) -> Made {
    Made { origin: batch.origin, unix_ms: batch.time_unix_ms }
}

/// The same revision with the batch that led to it.
fn dated(delta: Arc<Delta>, made: Option<Made>) -> Arc<Delta> {
    if made.is_none() { delta } else { Arc::new(Delta { made, ..Arc::unwrap_or_clone(delta) }) }
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
