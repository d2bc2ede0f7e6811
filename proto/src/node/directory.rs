//! What this node knows of every origin, what it tells of its own users, and what it shows.
//!
//! Own users go the way of remote ones: a change of presence becomes a batch of the own origin, and what the batch
//! changes is published. An origin is shown while it can be reached, and for a grace after; its users leave in one
//! revision, are kept aside, and return in one revision once the own position has reached the one that the origin
//! named when it came back.

use alloc::{collections::BTreeSet, sync::Arc, vec::Vec};

use super::{Node, Timer};
use crate::{
    batch::{Advert, Batch, Content, Epoch, open_goodbye, sign_goodbye},
    digest::SetHash,
    directory::Entry,
    federation::v1::{Position, SignedBatch, SignedGoodbye, SnapshotBegin, SnapshotEnd, SnapshotPart, Statements},
    id::ServerId,
    limits::USERS_PER_ORIGIN_MAX,
    message::Address,
    name::{ServerName, UserName},
    origin::{Origin, Received},
    output::{Output, Refusal},
    statement::KeyStatement,
    v1::RemovalReason,
};

/// Whether an origin's users are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// They are.
    Shown,
    /// They are, until then: the link is down.
    Grace { until_ms: u64 },
    /// They are not, until the position has reached this; `None` while it is not known to be back.
    Away { need: Option<u64> },
}

/// One origin, and whether it is shown.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) origin: Origin,
    reach: Reach,
    /// The origin said goodbye: nothing of this epoch counts any more.
    ended: bool,
}

impl Known {
    pub(super) fn own(id: ServerId, epoch: Epoch) -> Self {
        Self { origin: Origin::new(id, epoch), reach: Reach::Shown, ended: false }
    }

    fn is_shown(&self) -> bool {
        matches!(self.reach, Reach::Shown | Reach::Grace { .. })
    }

    pub(super) fn position(&self, id: ServerId) -> Position {
        Position {
            origin_id: id.as_bytes().to_vec().into(),
            epoch: self.origin.epoch().number,
            start_id: self.origin.epoch().start.as_bytes().to_vec().into(),
            number: self.origin.position(),
        }
    }
}

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
            (None, Some(_)) => Content::Removals(Vec::from([user.clone()])),
            (Some(presence), told) => {
                let account = Arc::clone(self.accounts.find(user).expect("a session's user has an account"));
                let statement = account.statement();
                let advert = Advert {
                    user: user.clone(),
                    display_name: account.display_name.as_str().into(),
                    status: presence.status,
                    statement: statement.hash(),
                    online_since: match &told {
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
        self.refresh(self.id, Vec::from([user.clone()]), RemovalReason::Left);
        self.tell_links(&batch);
    }

    /// Publishes what is so of these users now, if the origin is shown.
    fn refresh(&mut self, id: ServerId, users: impl IntoIterator<Item = UserName>, reason: RemovalReason) {
        let Some(known) = self.origins.get(&id) else { return };
        let Some(server_name) = self.server_name(&id) else { return };
        let entries: Vec<_> = users
            .into_iter()
            .map(|user| {
                let advert = known.is_shown().then(|| known.origin.view(&user)).flatten();
                let entry = advert.and_then(|advert| entry(id, &server_name, &known.origin, advert));
                (Address { home: id, user }, entry)
            })
            .collect();
        if let Some(delta) = self.directory.replace(entries, reason) {
            self.output(Output::Publish(delta));
        }
    }

    /// Publishes what is so of all users of an origin now, in one revision.
    fn refresh_all(&mut self, id: ServerId, reason: RemovalReason) {
        let shown = self.directory.entries().filter(|entry| entry.address.home == id);
        let mut users: BTreeSet<UserName> = shown.map(|entry| entry.address.user.clone()).collect();
        if let Some(known) = self.origins.get(&id) {
            users.extend(known.origin.users());
        }
        self.refresh(id, users, reason);
    }

    /// The name under which an origin is shown.
    pub(super) fn server_name(&self, id: &ServerId) -> Option<ServerName> {
        if *id == self.id { Some(self.settings.name.clone()) } else { self.links.pinned_name(id).cloned() }
    }

    /// An origin introduced itself on a fresh link: its epoch, and how far it is.
    pub(super) fn origin_is_back(&mut self, id: ServerId, epoch: Epoch, number: u64) {
        let known = self.origins.get(&id);
        let is_new = known.is_none_or(|known| known.origin.epoch().number < epoch.number);
        if is_new {
            if let Some(known) = self.origins.get_mut(&id) {
                known.reach = Reach::Away { need: None };
                self.refresh_all(id, RemovalReason::Unreachable);
            }
            let known = Known { origin: Origin::new(id, epoch), reach: Reach::Away { need: None }, ended: false };
            self.origins.insert(id, known);
        }
        let Some(known) = self.origins.get_mut(&id) else { return };
        if known.origin.epoch() != epoch || known.ended {
            return;
        }
        match known.reach {
            Reach::Shown | Reach::Grace { .. } => known.reach = Reach::Shown,
            Reach::Away { .. } => {
                known.reach = Reach::Away { need: Some(number) };
                self.show_if_complete(id);
            }
        }
    }

    fn show_if_complete(&mut self, id: ServerId) {
        let Some(known) = self.origins.get_mut(&id) else { return };
        if matches!(known.reach, Reach::Away { need: Some(need) } if known.origin.position() >= need) {
            known.reach = Reach::Shown;
            self.refresh_all(id, RemovalReason::Unreachable);
        }
    }

    /// The last link to an origin went down.
    pub(super) fn origin_lost(&mut self, id: ServerId) {
        let until_ms = self.now.monotonic_ms + self.settings.link_grace_ms;
        let Some(known) = self.origins.get_mut(&id) else { return };
        known.reach = match known.reach {
            Reach::Shown => Reach::Grace { until_ms },
            Reach::Grace { until_ms } => Reach::Grace { until_ms },
            Reach::Away { .. } => Reach::Away { need: None },
        };
        self.timers.insert((until_ms, Timer::LinkGrace(id)));
    }

    pub(super) fn link_grace_over(&mut self, id: ServerId) {
        let now_ms = self.now.monotonic_ms;
        let Some(known) = self.origins.get_mut(&id) else { return };
        if matches!(known.reach, Reach::Grace { until_ms } if until_ms <= now_ms) {
            known.reach = Reach::Away { need: None };
            self.refresh_all(id, RemovalReason::Unreachable);
        }
    }

    /// Checks that a peer may speak for an origin: in this version, each for itself only.
    fn speaks_for(peer: ServerId, origin: ServerId) -> Result<(), Refusal> {
        if peer == origin { Ok(()) } else { Err(Refusal::ForeignOrigin) }
    }

    /// The state of a batch's origin, if the batch is of the epoch in force.
    fn known_mut(&mut self, id: ServerId, epoch: Epoch) -> Result<&mut Known, Refusal> {
        let known = self.origins.get_mut(&id).ok_or(Refusal::OutOfTurn)?;
        if known.ended || known.origin.epoch() != epoch { Err(Refusal::OldEpoch) } else { Ok(known) }
    }

    pub(super) fn batch(&mut self, peer: ServerId, signed: &SignedBatch) -> Result<(), Refusal> {
        let batch = Batch::open(&*self.identity, signed)?;
        Self::speaks_for(peer, batch.origin)?;
        let mut users: Vec<UserName> = batch.users().into_iter().cloned().collect();
        let received = self.known_mut(batch.origin, batch.epoch)?.origin.receive(Arc::new(batch))?;
        let is_contradicted = match &received {
            Received::Duplicate => return Ok(()),
            Received::Taken => false,
            Received::Contradicted(lost) => {
                users.extend(lost.users().into_iter().cloned());
                true
            }
        };
        self.refresh(peer, users, RemovalReason::Left);
        self.show_if_complete(peer);
        if is_contradicted { Err(Refusal::DigestMismatch) } else { Ok(()) }
    }

    pub(super) fn statements(&mut self, peer: ServerId, statements: &Statements) -> Result<(), Refusal> {
        let known = self.origins.get_mut(&peer).ok_or(Refusal::OutOfTurn)?;
        if statements.statements.len() > USERS_PER_ORIGIN_MAX {
            return Err(Refusal::TooMany("statements"));
        }
        for signed in &statements.statements {
            let statement = KeyStatement::parse(signed).map_err(|_| Refusal::Malformed("statement"))?;
            if statement.home != peer {
                return Err(Refusal::ForeignOrigin);
            }
            known.origin.keep_statement(Arc::new(statement));
        }
        Ok(())
    }

    pub(super) fn snapshot_begin(&mut self, peer: ServerId, begin: &SnapshotBegin) -> Result<(), Refusal> {
        let position = begin.position.as_ref().ok_or(Refusal::Malformed("snapshot_begin.position"))?;
        let origin = ServerId::from_bytes(&position.origin_id).ok_or(Refusal::Malformed("origin_id"))?;
        Self::speaks_for(peer, origin)?;
        let epoch = crate::batch::epoch(position.epoch, &position.start_id)?;
        self.known_mut(origin, epoch)?.origin.begin_snapshot(position.number);
        Ok(())
    }

    pub(super) fn snapshot_part(&mut self, peer: ServerId, part: &SnapshotPart) -> Result<(), Refusal> {
        let signed = part.batch.as_ref().ok_or(Refusal::Malformed("snapshot_part.batch"))?;
        let batch = Batch::open(&*self.identity, signed)?;
        Self::speaks_for(peer, batch.origin)?;
        self.known_mut(batch.origin, batch.epoch)?.origin.stage(&Arc::new(batch), &part.current)
    }

    pub(super) fn snapshot_end(&mut self, peer: ServerId, end: &SnapshotEnd) -> Result<(), Refusal> {
        let signed = end.last.as_ref().ok_or(Refusal::Malformed("snapshot_end.last"))?;
        let last = Batch::open(&*self.identity, signed)?;
        Self::speaks_for(peer, last.origin)?;
        if self.known_mut(last.origin, last.epoch)?.origin.end_snapshot(Arc::new(last))? {
            let is_shown = self.origins.get(&peer).is_some_and(Known::is_shown);
            if is_shown {
                self.refresh_all(peer, RemovalReason::Left);
            }
            self.show_if_complete(peer);
        }
        Ok(())
    }

    pub(super) fn goodbye(&mut self, peer: ServerId, signed: &SignedGoodbye) -> Result<(), Refusal> {
        let (origin, epoch) = open_goodbye(&*self.identity, signed)?;
        Self::speaks_for(peer, origin)?;
        let known = self.known_mut(origin, epoch)?;
        known.ended = true;
        known.reach = Reach::Away { need: None };
        self.refresh_all(origin, RemovalReason::Unreachable);
        Ok(())
    }

    pub(super) fn own_goodbye(&self) -> SignedGoodbye {
        sign_goodbye(&*self.identity, self.epoch)
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
