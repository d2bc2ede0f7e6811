//! Links to peers: dialling, introductions and keep-alives.
//!
//! A link counts from the peer's hello on. There is one in use per peer; of two, the one of the newer start wins,
//! else the one dialled by the smaller id, and the other is retired: nothing is sent on it, and what still arrives
//! on it counts. What servers ask each other when one is behind is in [`super::catch_up`], who can be reached over which
//! links in [`super::neighbours`].

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    format,
    string::ToString,
    vec::Vec,
};

use super::{
    Node, Timer, admit::not_admitted, catch_up::Told, draining, greeting::Untold, peers::Past, progress::Progress,
    reach::Reached, sizes::Sizes,
};
use crate::{
    PROTOCOL_VERSION,
    batch::{self, Epoch},
    digest::Digest,
    federation::v1::{
        AdvertiseFrame, Hello, KeepAlive, Position, RemoveFrame, advertise_frame, deliver_frame, remove_frame,
    },
    id::ServerId,
    input::{Frame, LinkId},
    limits::{EARLY_FRAMES_MAX, POSITIONS_MAX, REFUSED_FRAMES_MAX},
    mutation::{Mutation, is_on},
    name::ServerName,
    output::{Note, Output, Refusal},
    rejection::Rejection,
    v1::Reason,
};

/// Every so many keep-alives all positions are told, not only those that changed.
const ALL_POSITIONS_EVERY: u64 = 10;

/// The first delay after a failed dial; it doubles up to the setting.
const REDIAL_MS_MIN: u64 = 50;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: ServerName,
    /// Whether its address is known.
    pub(super) is_dialled: bool,
    /// The link in use.
    pub(super) link: Option<LinkId>,
    pub(super) is_dialling: bool,
    failures: u32,
    /// For the operator; nothing is decided by it.
    pub(super) past: Past,
}

/// One link.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) peer: ServerId,
    pub(super) is_dialled: bool,
    /// When it came up.
    pub(super) up_ms: u64,
    /// The peer's epoch, once it has introduced itself.
    pub(super) epoch: Option<Epoch>,
    pub(super) is_retired: bool,
    pub(super) heard_ms: u64,
    /// How far the peer is, and what it was sent.
    pub(super) progress: Progress,
    /// Servers that were not admitted when admissions by them came.
    pub(super) ignored_issuers: BTreeSet<ServerId>,
    /// What of others it is still to be told.
    pub(super) untold: VecDeque<Untold>,
    told: BTreeMap<ServerId, (u64, u64)>,
    keep_alives: u64,
    pub(super) refused: u64,
    /// Frames of the other streams that overtook the hello.
    early: Vec<Frame>,
}

impl Peer {
    pub(super) fn new(name: ServerName, is_dialled: bool) -> Self {
        Self { name, is_dialled, link: None, is_dialling: false, failures: 0, past: Past::default() }
    }
}

/// All admitted servers and all links.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) peers: BTreeMap<ServerId, Peer>,
    pub(super) links: BTreeMap<LinkId, LinkState>,
}

impl Links {
    pub(super) fn new<'a>(pins: impl Iterator<Item = &'a super::Pin>) -> Self {
        let peers = pins.map(|pin| (pin.id, Peer::new(pin.name.clone(), pin.is_dialled)));
        Self { peers: peers.collect(), links: BTreeMap::new() }
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = ServerId> {
        self.peers.keys().copied()
    }

    /// The name of a server that is admitted, pinned or not.
    pub(super) fn admitted_name(&self, peer: &ServerId) -> Option<&ServerName> {
        self.peers.get(peer).map(|peer| &peer.name)
    }

    /// The admitted server with this name or id.
    pub(super) fn find(&self, server: &str) -> Option<ServerId> {
        let is_it = |(id, peer): &(&ServerId, &Peer)| peer.name.as_str() == server || id.to_string() == server;
        self.peers.iter().find(is_it).map(|(id, _)| *id)
    }

    pub(super) fn sizes(&self, sizes: &mut Sizes) {
        for state in self.links.values() {
            sizes.note("frames before a hello", state.early.len());
            sizes.note("refused frames of a link", usize::try_from(state.refused).unwrap_or(usize::MAX));
            sizes.note("ignored issuers of a link", state.ignored_issuers.len());
            sizes.note("origins told on a link", state.told.len());
            sizes.note("untold on a link", state.untold.len());
            state.progress.sizes(sizes);
        }
    }

    /// The links in use, one per peer that can be reached.
    pub(super) fn in_use(&self) -> impl Iterator<Item = LinkId> {
        self.peers.values().filter_map(|peer| peer.link)
    }

    /// The same but for the one that something came from.
    pub(super) fn all_but(&self, from: Option<LinkId>) -> Vec<LinkId> {
        self.in_use().filter(|link| Some(*link) != from).collect()
    }

    /// The link in use to a neighbour.
    pub(super) fn to(&self, peer: &ServerId) -> Option<LinkId> {
        self.peers.get(peer)?.link
    }

    /// The peers to which there is a link in use, ascending.
    pub(super) fn neighbours(&self) -> impl Iterator<Item = ServerId> {
        self.peers.iter().filter(|(_, peer)| peer.link.is_some()).map(|(id, _)| *id)
    }

    /// Who is at the other end.
    pub(super) fn peer_of(&self, link: LinkId) -> Option<ServerId> {
        self.links.get(&link).map(|state| state.peer)
    }

    pub(super) fn state(&self, link: LinkId) -> Option<&LinkState> {
        self.links.get(&link)
    }

    pub(super) fn state_mut(&mut self, link: LinkId) -> Option<&mut LinkState> {
        self.links.get_mut(&link)
    }
}

impl Node {
    pub(super) fn dial_due(&mut self, id: ServerId) {
        let has_link = self.links.links.values().any(|link| link.peer == id && !link.is_retired);
        let Some(peer) = self.links.peers.get_mut(&id) else { return };
        if self.draining || peer.is_dialling || has_link || !peer.is_dialled {
            return;
        }
        peer.is_dialling = true;
        self.output(Output::Dial { peer: id });
    }

    pub(super) fn dial_failed(&mut self, id: ServerId, cause: &str) {
        self.links.failed(id, self.now, cause);
        let Some(peer) = self.links.peers.get_mut(&id) else { return };
        peer.is_dialling = false;
        peer.failures = peer.failures.saturating_add(1);
        self.dial_again(id);
    }

    /// Dials after a delay that doubles with each failure: half of it, and a random part of the other half.
    fn dial_again(&mut self, peer: ServerId) {
        let failures = self.links.peers.get(&peer).map_or(0, |peer| peer.failures);
        let delay_ms = (REDIAL_MS_MIN << failures.min(10)).min(self.settings.redial_ms_max);
        let spread = self.jitter(delay_ms / 2 + 1);
        self.after(delay_ms / 2 + spread, Timer::Dial(peer));
    }

    pub(super) fn link_up(&mut self, link: LinkId, id: ServerId, is_dialled: bool) {
        let known = self.links.peers.get_mut(&id).map(|peer| {
            if is_dialled {
                peer.is_dialling = false;
            }
        });
        if self.draining {
            return self.output(Output::CloseLink { link, rejection: draining() });
        }
        if known.is_none() && !is_on(Mutation::StrangerAdmitted) {
            return self.output(Output::CloseLink { link, rejection: not_admitted() });
        }
        self.links.links.insert(
            link,
            LinkState {
                peer: id,
                is_dialled,
                up_ms: self.now.monotonic_ms,
                epoch: None,
                is_retired: false,
                heard_ms: self.now.monotonic_ms,
                progress: Progress::default(),
                ignored_issuers: BTreeSet::new(),
                untold: VecDeque::new(),
                told: BTreeMap::new(),
                keep_alives: 0,
                refused: 0,
                early: Vec::new(),
            },
        );
        let hello = Hello {
            version_major: PROTOCOL_VERSION.0,
            version_minor: PROTOCOL_VERSION.1,
            name: self.settings.name.to_string(),
            epoch: self.epoch.number,
            start_id: self.epoch.start.as_bytes().to_vec().into(),
            positions: self.origins.iter().map(|(id, known)| known.position(*id)).collect(),
        };
        self.send_advertise(link, advertise_frame::Kind::Hello(hello));
        self.keep_alive_due(link);
        self.after(self.settings.link_dead_ms, Timer::LinkDead(link));
    }

    pub(super) fn link_down(&mut self, link: LinkId, cause: &str) {
        let Some(state) = self.links.links.remove(&link) else { return };
        let id = state.peer;
        self.links.ended(link, &state, self.now, cause);
        let Some(peer) = self.links.peers.get_mut(&id) else { return };
        if state.epoch.is_none() {
            // Such as a peer of another version: it is as far away as one that does not answer.
            peer.failures = peer.failures.saturating_add(1);
        }
        if peer.link == Some(link) {
            peer.link = None;
            self.note(Note::PeerLost { peer: id });
            self.links_changed();
            self.requests_lost(link);
        }
        self.dial_again(id);
    }

    /// Forgets a link and has it closed; what still arrives on it is ignored.
    pub(super) fn close_link(&mut self, link: LinkId, rejection: Rejection) {
        let cause = rejection.to_string();
        self.output(Output::CloseLink { link, rejection });
        self.link_down(link, &cause);
    }

    pub(super) fn link_may_be_dead(&mut self, link: LinkId) {
        let Some(state) = self.links.links.get(&link) else { return };
        let heard_ms = if is_on(Mutation::SilentLinkStays) { self.now.monotonic_ms } else { state.heard_ms };
        let dead_ms = heard_ms + self.settings.link_dead_ms;
        if dead_ms > self.now.monotonic_ms {
            self.timers.insert((dead_ms, Timer::LinkDead(link)));
            return;
        }
        let silent = format!("no keep-alive for {} ms", self.settings.link_dead_ms);
        self.close_link(link, Rejection::new(Reason::Timeout, silent));
    }

    pub(super) fn keep_alive_due(&mut self, link: LinkId) {
        let Some(state) = self.links.links.get_mut(&link) else { return };
        state.progress.sweep(self.now.monotonic_ms);
        let tell_all = state.keep_alives.is_multiple_of(ALL_POSITIONS_EVERY);
        state.keep_alives += 1;
        self.tell_positions_on(link, tell_all);
        self.after(self.settings.keep_alive_ms, Timer::KeepAlive(link));
    }

    pub(super) fn frame(&mut self, link: LinkId, frame: Frame) {
        let Some(state) = self.links.links.get_mut(&link) else { return };
        let peer = state.peer;
        let is_hello =
            matches!(frame, Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Hello(_)) }));
        if state.epoch.is_some() == is_hello {
            // Before the hello: the streams overtake each other, so the hello may be on its way.
            let is_full = state.early.len() >= EARLY_FRAMES_MAX && !is_on(Mutation::EarlyWithoutLimit);
            if is_hello || matches!(frame, Frame::Advertise(_)) || is_full {
                return self.refuse(link, peer, Refusal::OutOfTurn);
            }
            return state.early.push(frame);
        }
        let result = self.take_frame(link, peer, frame);
        if let Err(refusal) = result {
            self.refuse(link, peer, refusal);
        }
        if is_hello && let Some(state) = self.links.links.get_mut(&link) {
            core::mem::take(&mut state.early).into_iter().for_each(|frame| self.frame(link, frame));
        }
    }

    fn refuse(&mut self, link: LinkId, peer: ServerId, refusal: Refusal) {
        self.note(Note::FrameRefused { peer, refusal });
        let Some(state) = self.links.links.get_mut(&link) else { return };
        state.refused += 1;
        if state.refused > REFUSED_FRAMES_MAX && !is_on(Mutation::RefusedWithoutLimit) {
            let rejection = Rejection::new(Reason::TooMany, "too many frames on this link had to be refused");
            self.close_link(link, rejection.with("limit", REFUSED_FRAMES_MAX.to_string()));
        }
    }

    /// What a server did wrong is not counted against a neighbour that passed on what it signed.
    pub(super) fn blame(&mut self, link: LinkId, signer: ServerId, result: Result<(), Refusal>) -> Result<(), Refusal> {
        match (self.links.peer_of(link), result) {
            (Some(peer), Err(refusal)) if peer != signer => {
                self.note(Note::FrameRefused { peer, refusal });
                Ok(())
            }
            (_, result) => result,
        }
    }

    fn take_frame(&mut self, link: LinkId, peer: ServerId, frame: Frame) -> Result<(), Refusal> {
        use advertise_frame::Kind as Advertise;
        use deliver_frame::Kind as Deliver;
        use remove_frame::Kind as Remove;
        match frame {
            Frame::Advertise(frame) => match frame.kind {
                Some(Advertise::Hello(hello)) => self.hello(link, peer, &hello),
                Some(Advertise::Batch(batch)) => self.batch(link, &batch),
                Some(Advertise::Statements(statements)) => self.statements(link, &statements),
                Some(Advertise::SnapshotBegin(begin)) => self.snapshot_begin(link, &begin),
                Some(Advertise::SnapshotPart(part)) => self.snapshot_part(link, &part),
                Some(Advertise::SnapshotEnd(end)) => self.snapshot_end(link, &end),
                Some(Advertise::UserQuery(query)) => self.user_query(query),
                Some(Advertise::UserReply(reply)) => self.user_reply(link, reply),
                Some(Advertise::CatchUpRequest(request)) => self.catch_up_request(link, &request),
                Some(Advertise::CatchUpEnd(end)) => self.catch_up_end(link, &end),
                None => {
                    self.note(Note::FrameIgnored { peer });
                    Ok(())
                }
            },
            Frame::Remove(frame) => match frame.kind {
                Some(Remove::KeepAlive(keep_alive)) => self.keep_alive(link, &keep_alive),
                Some(Remove::Batch(batch)) => self.batch(link, &batch),
                Some(Remove::Goodbye(goodbye)) => self.goodbye(link, &goodbye),
                Some(Remove::Neighbours(neighbours)) => self.neighbours(link, &neighbours),
                Some(Remove::Contradiction(proof)) => self.contradiction(link, &proof),
                Some(Remove::Admissions(admissions)) => self.admissions(link, &admissions),
                Some(Remove::NewcomerQuery(query)) => self.newcomer_query(link, &query),
                None => {
                    self.note(Note::FrameIgnored { peer });
                    Ok(())
                }
            },
            Frame::Deliver(frame) => match frame.kind {
                Some(Deliver::Message(delivery)) => self.message_from_peer(peer, delivery),
                Some(Deliver::Post(delivery)) => self.post_from_peer(peer, delivery),
                Some(Deliver::Outcome(delivery)) => self.outcome_from_peer(link, peer, delivery),
                None => {
                    self.note(Note::FrameIgnored { peer });
                    Ok(())
                }
            },
        }
    }

    fn hello(&mut self, link: LinkId, id: ServerId, hello: &Hello) -> Result<(), Refusal> {
        if hello.version_major != PROTOCOL_VERSION.0 {
            let (ours, theirs) = (version(PROTOCOL_VERSION), version((hello.version_major, hello.version_minor)));
            let message = format!("this server speaks protocol {ours}, the other one {theirs}");
            let rejection = Rejection::new(Reason::VersionMismatch, message);
            self.close_link(link, rejection.with("ours", ours).with("theirs", theirs));
            return Ok(());
        }
        let epoch = batch::epoch(hello.epoch, &hello.start_id)?;
        if hello.positions.len() > POSITIONS_MAX {
            return Err(Refusal::TooMany("positions"));
        }
        let name = self.links.admitted_name(&id).ok_or(Refusal::ForeignOrigin)?;
        let is_so = match self.admissions.pin(&id) {
            Some(pin) => pin.name.as_str() == hello.name,
            None => self.admissions.is_called(&id, &hello.name, self.now.unix_ms),
        };
        if !is_so {
            let message = format!("it is admitted as `{name}` and introduced itself under another name");
            self.close_link(link, Rejection::new(Reason::StatementInvalid, message).with("field", "name"));
            return Ok(());
        }
        let Some(state) = self.links.links.get_mut(&link) else { return Ok(()) };
        state.epoch = Some(epoch);
        state.heard_ms = self.now.monotonic_ms;
        if !self.settle(link, id, epoch) {
            return Ok(());
        }
        self.note(Note::PeerJoined { peer: id, epoch: epoch.number });
        let theirs: Vec<_> = positions(&hello.positions).collect();
        let own = theirs.iter().find(|told| told.origin == id && told.epoch == epoch);
        let number = own.map_or(0, |told| told.number);
        self.fall_back(id, epoch);
        if self.begin_epoch(id, epoch).is_ok() {
            self.origin_reached(id, Reached::ByHello { number });
        }
        self.greet(link);
        self.links_changed();
        self.peer_told(link, theirs);
        Ok(())
    }

    /// Decides which link to a peer is in use. Both sides decide alike. Tells whether it is this one.
    fn settle(&mut self, link: LinkId, id: ServerId, epoch: Epoch) -> bool {
        let other = self.links.to(&id).filter(|other| *other != link);
        let other_state = other.and_then(|other| Some((other, self.links.links.get(&other)?)));
        let is_dialled = self.links.links.get(&link).is_some_and(|state| state.is_dialled);
        let wins = other_state.is_none_or(|(_, other)| match other.epoch.map(|other| epoch.cmp(&other)) {
            Some(core::cmp::Ordering::Less) => false,
            Some(core::cmp::Ordering::Greater) | None => true,
            // One side dialled twice: it lost the older link, even if this side did not notice.
            Some(core::cmp::Ordering::Equal) if other.is_dialled == is_dialled => true,
            Some(core::cmp::Ordering::Equal) => is_dialled == (self.id < id),
        });
        let loser = if wins { other } else { Some(link) };
        if let Some(state) = loser.and_then(|loser| self.links.links.get_mut(&loser)) {
            state.is_retired = true;
        }
        if wins && let Some(peer) = self.links.peers.get_mut(&id) {
            peer.link = Some(link);
            peer.failures = 0;
        }
        if let Some(loser) = loser {
            let rejection = Rejection::new(Reason::Replaced, "another link of this pair is in use");
            self.output(Output::CloseLink { link: loser, rejection });
            self.requests_lost(loser);
        }
        wins
    }

    fn keep_alive(&mut self, link: LinkId, keep_alive: &KeepAlive) -> Result<(), Refusal> {
        if keep_alive.positions.len() > POSITIONS_MAX {
            return Err(Refusal::TooMany("positions"));
        }
        let Some(state) = self.links.links.get_mut(&link) else { return Ok(()) };
        state.heard_ms = self.now.monotonic_ms;
        if !state.is_retired {
            self.peer_told(link, positions(&keep_alive.positions).collect());
        }
        Ok(())
    }

    /// Tells every neighbour at once how far this server is, where it is further than it said.
    pub(super) fn tell_positions(&mut self) {
        self.positions_are_due = false;
        for link in self.links.all_but(None) {
            self.tell_positions_on(link, false);
        }
    }

    fn tell_positions_on(&mut self, link: LinkId, tell_all: bool) {
        let Some(state) = self.links.links.get_mut(&link) else { return };
        let mut positions = Vec::new();
        for (id, known) in &self.origins {
            let told = (known.origin.epoch().number, known.origin.position());
            let is_news = state.told.insert(*id, told) != Some(told) || tell_all;
            if is_news && !is_on(Mutation::PositionsNotTold) {
                positions.push(known.position(*id));
            }
        }
        let kind = remove_frame::Kind::KeepAlive(KeepAlive { positions, time_unix_ms: self.unix_ms() });
        self.send_remove(link, kind);
    }

    pub(super) fn say_goodbye(&mut self) {
        let goodbye = self.own_goodbye();
        let links: Vec<LinkId> = self.links.links.keys().copied().collect();
        for link in links {
            self.send_remove(link, remove_frame::Kind::Goodbye(goodbye.clone()));
            self.output(Output::CloseLink { link, rejection: draining() });
        }
    }

    pub(super) fn send_advertise(&mut self, link: LinkId, kind: advertise_frame::Kind) {
        self.output(Output::Send { link, frame: Frame::Advertise(advertise(kind)) });
    }

    pub(super) fn send_remove(&mut self, link: LinkId, kind: remove_frame::Kind) {
        self.output(Output::Send { link, frame: Frame::Remove(RemoveFrame { kind: Some(kind) }) });
    }
}

fn advertise(kind: advertise_frame::Kind) -> AdvertiseFrame {
    AdvertiseFrame { kind: Some(kind) }
}

fn version((major, minor): (u32, u32)) -> alloc::string::String {
    format!("{major}.{minor}")
}

/// The well-formed ones of some positions.
fn positions(positions: &[Position]) -> impl Iterator<Item = Told> {
    positions.iter().filter_map(|position| {
        let origin = ServerId::from_bytes(&position.origin_id)?;
        let epoch = batch::epoch(position.epoch, &position.start_id).ok()?;
        Some(Told { origin, epoch, number: position.number, digest: Digest::from_bytes(&position.digest) })
    })
}
