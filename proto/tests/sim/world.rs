//! The simulated world: servers, time, and the one queue of everything that will happen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fastrand::Rng;
use prost::Message as _;
use socp::{
    account::Account,
    admission::Kept,
    federation::v1::{AdvertiseFrame, RemoveFrame, advertise_frame, remove_frame},
    id::{ServerId, StartId, sha256},
    input::{AttachmentId, CallId, CheckId, Frame, Input, LinkId, Now, Request},
    message::Address,
    name::{ServerName, UserName},
    node::{Node, Pin, Settings, Start, Trust, next_epoch},
    output::{Answer, Note, Output, Record},
    rejection::Rejection,
    v1::{AttachResponse, attach_response::Event as Inbox},
};

use crate::{
    byzantine::Overheard,
    checks::{
        byzantine::Said, deliveries::Deliveries, ghosts, once, once::Positions, queues, resume::Audience,
        watches::Watch,
    },
    faults::{Faults, Shape},
    introducer::Introduced,
    keys::{self, SimIdentity},
    lies::Liars,
    tally::{Kind, Tally},
    users::Users,
    wires::{End, Wires, end_of, link_id},
};

/// Unix time at which every run begins.
const BEGIN_UNIX_MS: u64 = 1_800_000_000_000;

/// How long a run is left alone before everything must be right: the slowest repair (a position that stands still)
/// and a few rounds of dialling.
const QUIET_MS: u64 = 30_000;

/// What survives a crash.
#[derive(Clone, Default)]
struct Disk {
    epoch: u64,
    accounts: BTreeMap<UserName, Account>,
    invites: BTreeSet<[u8; 32]>,
    admissions: BTreeMap<(ServerId, ServerId), Kept>,
    names: BTreeMap<ServerId, ServerName>,
    blocked: BTreeSet<ServerId>,
}

/// One server, running or not.
pub struct Server {
    pub id: ServerId,
    pub name: ServerName,
    pub identity: SimIdentity,
    pub node: Option<Node>,
    pub epoch: u64,
    /// How often it started.
    pub starts: u64,
    /// What a watcher on this server has seen since its start.
    pub watch: Watch,
    /// Attached streams that are open, by user: what is true, whatever the node believes.
    pub streams: BTreeMap<AttachmentId, UserName>,
    pub answers: BTreeMap<CallId, Result<Answer, Rejection>>,
    pub refusals: Vec<Note>,
    /// When each start of it ended, by epoch.
    pub ended_ms: BTreeMap<u64, u64>,
    /// The starts that it ended by a goodbye.
    pub said_goodbye: BTreeSet<u64>,
    /// What was said loudly of names.
    pub names_noted: Vec<Note>,
    /// Whom the node lets through the handshake.
    pub admitted: Arc<BTreeSet<ServerId>>,
    /// Batches of others are not passed on before this time.
    pub hides_until_ms: u64,
    /// Until when its links take longer, and by how much.
    pub slow: (u64, u64),
    disk: Disk,
    backup: Option<Disk>,
    paused_until_ms: u64,
    tick_ms: Option<u64>,
    /// How far its clock is ahead of the true time.
    pub clock_ahead_ms: i64,
}

/// Something that will happen.
#[derive(Debug)]
enum Event {
    Tick(usize),
    Checked { server: usize, epoch: u64, check: CheckId, valid: bool },
    LinkUp(End),
    LinkDown(End),
    Arrives { to: End, frame: Frame },
    DialFailed { server: usize, epoch: u64, peer: ServerId },
    Start(usize),
    HealPartition,
    Act,
    Fault,
}

/// A run.
pub struct World {
    pub now_ms: u64,
    pub servers: Vec<Server>,
    pub wires: Wires,
    pub users: Users,
    pub deliveries: Deliveries,
    /// Clients of one server, which differs between seeds.
    pub audience: Audience,
    pub tally: Tally,
    /// Batches that were sent over each wire.
    pub batches: BTreeMap<u64, u64>,
    /// A hash over everything that happened: equal for equal seeds.
    pub trace: u64,
    pub rng: Rng,
    pub faults: Faults,
    seed: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    handles: u64,
    /// Servers on one side of a partition.
    partition: BTreeSet<usize>,
    pub faults_on: bool,
    clock_is_lost: bool,
    /// Who pins whom, by index; everybody everybody where nothing is said.
    pub pinned: Option<BTreeSet<(usize, usize)>>,
    pub overheard: Overheard,
    /// Servers that do not exist, of which a rogue spoke.
    pub invented: BTreeSet<ServerId>,
    pub liars: Liars,
    pub introduced: Introduced,
    pub positions: Positions,
    pub said: Said,
}

impl World {
    /// Servers that are all pinned to one another and start within the first second, in an order drawn from the seed.
    pub fn new(seed: u64, faults: Faults) -> Self {
        let mut world = Self {
            now_ms: 0,
            servers: (0..faults.servers).map(|index| Server::new(seed, index)).collect(),
            wires: Wires::default(),
            users: Users::default(),
            deliveries: Deliveries::default(),
            audience: Audience::new(),
            tally: Tally::of_one_run(),
            batches: BTreeMap::new(),
            trace: seed,
            rng: Rng::with_seed(seed ^ 0x5eed),
            faults,
            seed,
            queue: BTreeMap::new(),
            queued: 0,
            handles: 0,
            partition: BTreeSet::new(),
            faults_on: false,
            clock_is_lost: false,
            pinned: None,
            overheard: Overheard::default(),
            invented: BTreeSet::new(),
            liars: Liars::default(),
            introduced: Introduced::default(),
            positions: Positions::default(),
            said: Said::default(),
        };
        for index in 0..world.servers.len() {
            let at_ms = world.rng.u64(0..1_000);
            world.schedule(at_ms, Event::Start(index));
        }
        world
    }

    /// A quiet network of this shape, started in the given order.
    pub fn calm_shaped(shape: Shape, order: &[usize]) -> Self {
        let mut world = Self::new(1, Faults { shape, ..Faults::none(order.len()) });
        world.start_in(order, 100);
        world
    }

    /// A quiet network of so many servers, started in the given order, for tests that tell a story.
    pub fn calm(order: &[usize]) -> Self {
        Self::calm_with(1, order, 700)
    }

    /// The same with another seed, and with so long between the starts.
    pub fn calm_with(seed: u64, order: &[usize], apart_ms: u64) -> Self {
        let mut world = Self::new(seed, Faults::none(order.len()));
        world.start_in(order, apart_ms);
        world
    }

    /// A quiet network in which these servers pin those, each of which vouches for whom it pins.
    pub fn calm_pinned(servers: usize, pinned: &[(usize, usize)], prepare: impl FnOnce(&mut Self)) -> Self {
        let mut world = Self::new(1, Faults::none(servers));
        prepare(&mut world);
        world.pinned = Some(pinned.iter().copied().collect());
        world.start_in(&(0..servers).collect::<Vec<_>>(), 100);
        world
    }

    fn start_in(&mut self, order: &[usize], apart_ms: u64) {
        self.queue.clear();
        for (place, index) in order.iter().enumerate() {
            self.schedule(place as u64 * apart_ms, Event::Start(*index));
        }
        self.run_for(5_000);
    }

    pub fn run_with_faults(&mut self) {
        self.faults_on = true;
        let until_ms = self.faults.active_ms;
        self.schedule(500, Event::Act);
        self.schedule(1_000, Event::Fault);
        self.run_until(until_ms);
        self.faults_on = false;
    }

    /// Heals the network, starts every server, and waits.
    pub fn run_until_quiet(&mut self) {
        self.heal();
        for index in 0..self.servers.len() {
            self.servers[index].paused_until_ms = 0;
            if self.servers[index].node.is_none() {
                self.schedule(self.now_ms, Event::Start(index));
            }
        }
        self.run_for(QUIET_MS);
        self.audience.come(&mut self.tally);
        self.tally.simulated_ms = self.now_ms;
    }

    pub fn run_for(&mut self, ms: u64) {
        self.run_until(self.now_ms + ms);
    }

    fn run_until(&mut self, until_ms: u64) {
        while let Some(entry) = self.queue.first_entry() {
            let (at_ms, _) = *entry.key();
            if at_ms > until_ms {
                break;
            }
            let event = entry.remove();
            self.now_ms = at_ms;
            self.happen(event);
        }
        self.now_ms = until_ms;
    }

    fn schedule(&mut self, at_ms: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((at_ms, self.queued), event);
    }

    fn trace(&mut self, what: &[u8]) {
        let hash = sha256(&[&self.trace.to_be_bytes(), &self.now_ms.to_be_bytes(), what]);
        self.trace = u64::from_be_bytes(hash[..8].try_into().expect("8 bytes"));
    }

    fn happen(&mut self, event: Event) {
        let busy = match &event {
            Event::Tick(server) | Event::Checked { server, .. } | Event::DialFailed { server, .. } => Some(*server),
            Event::LinkUp(end) | Event::LinkDown(end) | Event::Arrives { to: end, .. } => self.server_at(*end),
            Event::Start(_) | Event::HealPartition | Event::Act | Event::Fault => None,
        };
        if let Some(until_ms) = busy.map(|server| self.servers[server].paused_until_ms)
            && until_ms > self.now_ms
        {
            return self.schedule(until_ms, event);
        }
        match event {
            Event::Tick(server) => {
                self.servers[server].tick_ms = None;
                self.input(server, Input::Tick);
            }
            Event::Checked { server, epoch, check, valid } => {
                if self.servers[server].epoch == epoch {
                    self.input(server, Input::Checked { check, valid });
                }
            }
            Event::LinkUp(end) => self.link_up(end),
            Event::LinkDown(end) => self.link_down(end),
            Event::Arrives { to, frame } => {
                if self.wires.get(to.wire).is_some_and(|wire| wire.is_up[to.side]) {
                    let server = self.server_at(to).expect("the wire is known");
                    if self.is_unheard(server, &frame) {
                        return;
                    }
                    self.input(server, Input::Frame { link: link_id(to), frame });
                }
            }
            Event::DialFailed { server, epoch, peer } => {
                if self.servers[server].epoch == epoch {
                    self.input(server, Input::DialFailed { peer, cause: "nobody answers".into() });
                }
            }
            Event::Start(server) => self.start(server),
            Event::HealPartition => self.heal(),
            Event::Act => {
                if self.faults_on {
                    self.users_act();
                    let next_ms = self.now_ms + self.rng.u64(20..200);
                    self.schedule(next_ms, Event::Act);
                }
            }
            Event::Fault => {
                if self.faults_on {
                    self.inject();
                    match self.rng.u32(0..4) {
                        0 => self.audience.come(&mut self.tally),
                        1 => self.audience.go(),
                        _ => {}
                    }
                    ghosts::of_ended_epochs(self);
                    once::at_any_time(self);
                    queues::at_any_time(self);
                    self.schedule(self.now_ms + 1_000, Event::Fault);
                }
            }
        }
    }

    /// Gives a running server an input and carries its outputs out.
    pub fn input(&mut self, server: usize, input: Input) {
        let clock_ms = self.servers[server].clock_ahead_ms;
        let unix_ms = (self.true_unix_ms()).saturating_add_signed(clock_ms);
        let now = Now { monotonic_ms: self.now_ms, unix_ms };
        let Some(node) = self.servers[server].node.as_mut() else { return };
        self.tally.inputs += 1;
        let outputs = node.handle(now, input);
        for output in outputs {
            self.perform(server, output);
        }
        self.schedule_tick(server);
    }

    fn schedule_tick(&mut self, server: usize) {
        let at_ms = self.servers[server].node.as_ref().and_then(Node::next_deadline);
        let Some(at_ms) = at_ms.map(|at_ms| at_ms.max(self.now_ms)) else { return };
        if self.servers[server].tick_ms.is_none_or(|tick_ms| tick_ms > at_ms) {
            self.servers[server].tick_ms = Some(at_ms);
            self.schedule(at_ms, Event::Tick(server));
        }
    }

    fn perform(&mut self, server: usize, output: Output) {
        match output {
            Output::Store(record) => self.servers[server].disk.store(&record),
            Output::Check { check, signatures } => {
                let valid = keys::is_valid(&signatures);
                let epoch = self.servers[server].epoch;
                let at_ms = self.now_ms + self.rng.u64(0..3);
                self.schedule(at_ms, Event::Checked { server, epoch, check, valid });
            }
            Output::Answer { call, result } => {
                self.answered(server, call, &result);
                self.servers[server].answers.insert(call, result);
            }
            Output::Deliver { attachment, event } => self.delivered(server, attachment, &event),
            Output::EndAttachment { attachment, .. } => {
                self.servers[server].streams.remove(&attachment);
            }
            Output::Publish(delta) => {
                self.trace(delta.digest.as_bytes());
                let is_heard = server == self.audience_at();
                let Self { servers, tally, audience, said, .. } = self;
                said.publish(servers[server].id, &delta);
                servers[server].watch.apply(&delta, tally);
                if is_heard {
                    audience.publish(&delta, tally);
                }
            }
            Output::Send { link, frame } => self.transmit(end_of(link), frame),
            Output::Dial { peer } => self.dial(server, peer),
            Output::Admit(admitted) => self.servers[server].admitted = admitted,
            Output::CloseLink { link, .. } => {
                let end = end_of(link);
                let at_ms = self.wires.drained(end).max(self.now_ms) + 1;
                self.schedule(at_ms, Event::LinkDown(end));
                if !self.swallows(end) {
                    self.schedule(at_ms, Event::LinkDown(end.other()));
                }
            }
            Output::Note(note) => {
                if matches!(note, Note::FrameRefused { .. }) {
                    self.tally.count(Kind::FrameRefused);
                    self.servers[server].refusals.push(note);
                } else if matches!(note, Note::NameTaken { .. } | Note::NameMoved { .. }) {
                    self.servers[server].names_noted.push(note);
                }
            }
        }
    }

    fn delivered(&mut self, server: usize, attachment: AttachmentId, event: &AttachResponse) {
        let Server { id, epoch, streams, .. } = &self.servers[server];
        let Some(user) = streams.get(&attachment) else { return };
        let to = Address { home: *id, user: user.clone() };
        match event.event.as_ref().expect("an event says what it is") {
            Inbox::Attached(_) => {}
            Inbox::Message(received) => {
                let sealed = received.message.as_ref().expect("a message was received");
                self.deliveries.message(&to, *epoch, attachment, sealed);
                self.tally.count(Kind::MessageHandedOver);
            }
            Inbox::Post(received) => {
                let sealed = received.post.as_ref().expect("a post was received");
                self.deliveries.post(&to, *epoch, attachment, sealed);
                self.tally.count(Kind::PostHandedOver);
            }
        }
        self.trace(&event.encode_to_vec());
    }

    fn server_at(&self, end: End) -> Option<usize> {
        self.wires.get(end.wire).map(|wire| wire.servers[end.side])
    }

    pub fn index_of(&self, id: ServerId) -> usize {
        self.find(id).expect("every id is a server's")
    }

    /// The server with this id; there is none if a peer made it up.
    pub fn find(&self, id: ServerId) -> Option<usize> {
        self.servers.iter().position(|server| server.id == id)
    }

    /// The time of a clock that goes right.
    pub fn true_unix_ms(&self) -> u64 {
        BEGIN_UNIX_MS + self.now_ms
    }

    /// The server that has the audience.
    pub fn audience_at(&self) -> usize {
        self.seed as usize % self.servers.len()
    }

    pub fn is_paused(&self, server: &Server) -> bool {
        server.paused_until_ms > self.now_ms
    }

    pub fn is_cut(&self, one: usize, other: usize) -> bool {
        self.partition.contains(&one) != self.partition.contains(&other)
    }

    /// Whether the shape of the network gives these two a link.
    pub fn joins(&self, one: usize, other: usize) -> bool {
        self.faults.shape.joins(self.seed, self.servers.len(), one, other)
    }

    fn pins(&self, one: usize, other: usize) -> bool {
        self.pinned.as_ref().is_none_or(|pinned| pinned.contains(&(one, other)))
    }

    fn swallows(&self, from: End) -> bool {
        let Some(wire) = self.wires.get(from.wire) else { return true };
        wire.swallows[from.side] || self.is_cut(wire.servers[0], wire.servers[1])
    }

    fn transmit(&mut self, from: End, frame: Frame) {
        if matches!(
            &frame,
            Frame::Advertise(frame) if matches!(frame.kind, Some(advertise_frame::Kind::SnapshotBegin(_)))
        ) {
            self.tally.count(Kind::SnapshotSent);
        }
        if matches!(&frame, Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Batch(_)) }))
            || matches!(&frame, Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Batch(_)) }))
        {
            *self.batches.entry(from.wire).or_default() += 1;
        }
        if self.swallows(from) {
            return;
        }
        if self.faults_on && self.faults.lost_frame_in > 0 && self.rng.u32(0..self.faults.lost_frame_in) == 0 {
            return self.tally.count(Kind::FrameLost);
        }
        let Some(server) = self.server_at(from) else { return };
        if self.hides(server, &frame) {
            return self.tally.count(Kind::BatchHidden);
        }
        let frame = self.in_place_of(server, &frame).unwrap_or(frame);
        if let Some(frames) = self.old_snapshot(&frame) {
            self.tally.count(Kind::OldSnapshot);
            for frame in frames {
                self.schedule(self.now_ms + 1, Event::Arrives { to: from, frame });
            }
        }
        if self.faults_on {
            self.overheard.hear(from, &frame);
        }
        let peer = self.server_at(from.other()).unwrap_or(server);
        let slow_ms = if self.faults_on { self.slow_ms(server).max(self.slow_ms(peer)) } else { 0 };
        let delay_ms = 1 + self.rng.u64(0..self.faults.delay_ms_max) + slow_ms;
        let at_ms = self.wires.arrival(from, &frame, self.now_ms + delay_ms);
        if self.wires.drained(from) > at_ms {
            self.tally.count(Kind::StreamOvertaken);
        }
        if self.faults_on && self.faults.repeated_frame_in > 0 && self.rng.u32(0..self.faults.repeated_frame_in) == 0 {
            self.tally.count(Kind::FrameRepeated);
            self.schedule(at_ms, Event::Arrives { to: from.other(), frame: frame.clone() });
        }
        self.schedule(at_ms, Event::Arrives { to: from.other(), frame });
    }

    fn slow_ms(&self, server: usize) -> u64 {
        let (until_ms, by_ms) = self.servers[server].slow;
        if until_ms > self.now_ms { by_ms } else { 0 }
    }

    fn dial(&mut self, server: usize, peer: ServerId) {
        let target = self.index_of(peer);
        let answers = self.servers[target].node.is_some() && self.servers[target].paused_until_ms <= self.now_ms;
        if self.is_cut(server, target) || !answers {
            let epoch = self.servers[server].epoch;
            // Nothing listens: refused at once. No way there: the dial is given up after 1.5 s.
            let wait_ms = if self.servers[target].node.is_none() { 2 } else { 1_500 };
            return self.schedule(self.now_ms + wait_ms, Event::DialFailed { server, epoch, peer });
        }
        let wire = self.wires.open([server, target]);
        for side in [0, 1] {
            let at_ms = self.now_ms + 1 + self.rng.u64(0..self.faults.delay_ms_max);
            self.wires.opens(End { wire, side }, at_ms);
            self.schedule(at_ms, Event::LinkUp(End { wire, side }));
        }
    }

    fn link_up(&mut self, end: End) {
        let Some(wire) = self.wires.get_mut(end.wire) else { return };
        wire.is_up[end.side] = true;
        let (server, peer) = (wire.servers[end.side], wire.servers[1 - end.side]);
        let peer = self.servers[peer].id;
        self.input(server, Input::LinkUp { link: link_id(end), peer, dialled: end.side == 0 });
    }

    fn link_down(&mut self, end: End) {
        let Some(wire) = self.wires.get_mut(end.wire) else { return };
        if std::mem::take(&mut wire.is_up[end.side]) {
            let server = wire.servers[end.side];
            self.input(server, Input::LinkDown { link: link_id(end), cause: "it broke".into() });
        }
    }

    /// Breaks a link, told to each side in its own time.
    pub fn break_wire(&mut self, wire: u64) {
        for side in [0, 1] {
            let at_ms = self.now_ms + self.rng.u64(0..500);
            self.schedule(at_ms, Event::LinkDown(End { wire, side }));
        }
        if let Some(wire) = self.wires.get_mut(wire) {
            wire.swallows = [true; 2];
        }
    }

    /// Breaks a link, told to both sides at once.
    pub fn break_wire_now(&mut self, wire: u64) {
        for side in [0, 1] {
            self.schedule(self.now_ms, Event::LinkDown(End { wire, side }));
        }
    }

    /// Cuts these servers off from the others for a while; nobody is told.
    pub fn cut(&mut self, group: BTreeSet<usize>, for_ms: u64) {
        self.partition = group;
        self.schedule(self.now_ms + for_ms, Event::HealPartition);
    }

    fn heal(&mut self) {
        self.partition.clear();
        self.wires.iter_mut().for_each(|wire| wire.swallows = [false; 2]);
    }

    /// Starts a server anew, with its disk and other settings.
    pub fn restart_with(&mut self, index: usize, change: impl FnOnce(&mut Settings)) {
        self.servers[index].node = None;
        self.start_with(index, change);
    }

    /// Starts a server anew from an old copy of its disk, by a clock that goes as wrong.
    pub fn restart_from_old_copy(&mut self, index: usize) {
        self.crash(index, 0);
        self.servers[index].disk.epoch = 7;
        self.clock_is_lost = true;
        self.start(index);
        self.clock_is_lost = false;
    }

    /// Starts a server anew with its key and nothing else: its users have to register once more.
    pub fn restart_with_empty_disk(&mut self, index: usize) {
        self.crash(index, 0);
        self.servers[index].disk = Disk::default();
        self.users.forget_accounts(index);
        self.start(index);
    }

    /// Copies a server's disk; or, if there is a copy, starts the server anew from it.
    pub fn back_up_or_roll_back(&mut self, index: usize) {
        let Some(backup) = self.servers[index].backup.take() else {
            self.servers[index].backup = Some(self.servers[index].disk.clone());
            return;
        };
        self.tally.count(Kind::RolledBackDisk);
        self.crash(index, 0);
        self.users.keep_accounts(index, |name| backup.accounts.contains_key(name));
        self.servers[index].disk = backup;
        self.start(index);
    }

    fn start(&mut self, index: usize) {
        if self.servers[index].node.is_none() {
            self.start_with(index, |_| {});
        }
    }

    fn start_with(&mut self, index: usize, change: impl FnOnce(&mut Settings)) {
        let peers: Vec<Pin> = self
            .servers
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index && self.pins(index, *other))
            .map(|(other, server)| Pin {
                id: server.id,
                name: server.name.clone(),
                is_dialled: self.joins(index, other),
            })
            .collect();
        let count = self.servers.len();
        let unix_ms = if self.clock_is_lost { 0 } else { self.true_unix_ms() };
        let server = &mut self.servers[index];
        server.disk.epoch = next_epoch(server.disk.epoch, unix_ms);
        server.epoch = server.disk.epoch;
        server.starts += 1;
        // From an old copy of the disk, a number may come again.
        server.ended_ms.remove(&server.epoch);
        server.paused_until_ms = 0;
        server.tick_ms = None;
        server.watch = Watch::default();
        let start_id = sha256(&[
            b"start",
            &self.seed.to_be_bytes(),
            &server.epoch.to_be_bytes(),
            &[index as u8],
            &server.starts.to_be_bytes(),
        ]);
        let start = Start {
            identity: Box::new(server.identity.clone()),
            epoch: server.epoch,
            start_id: StartId::from_bytes(&start_id[..16]).expect("16 bytes"),
            seed: self.seed.wrapping_add(server.epoch).wrapping_add(index as u64),
            accounts: server.disk.accounts.values().cloned().collect(),
            invites: server.disk.invites.iter().copied().collect(),
            trust: server.disk.trust(),
        };
        if index == self.audience_at() {
            self.audience.begin(start.start_id, &mut self.tally);
        }
        let server = &mut self.servers[index];
        // Where everybody pins everybody it changes nothing, and costs much in large networks: some do it.
        let introduces = self.pinned.is_some() || (self.seed % 4 == 3 && count <= 8);
        let Faults { goodbye_hold_ms, kept_batches_max, .. } = self.faults;
        let mut settings =
            Settings { peers, introduces, goodbye_hold_ms, kept_batches_max, ..Settings::new(server.name.clone()) };
        change(&mut settings);
        server.node = Some(Node::new(settings, start));
        self.input(index, Input::Tick);
    }

    /// Ends a server at once, as `kill -9` does. Peers may be told, or have to find out.
    pub fn crash(&mut self, index: usize, down_ms: u64) {
        let server = &mut self.servers[index];
        let epoch = server.present_epoch();
        server.node = None;
        server.ended_ms.insert(epoch, self.now_ms);
        server.streams.clear();
        self.users.forget_sessions(index);
        let told = self.rng.bool();
        let ends: Vec<End> = self.wires.iter().filter_map(|(id, wire)| wire.end_at(id, index)).collect();
        for end in ends {
            if let Some(wire) = self.wires.get_mut(end.wire) {
                wire.is_up[end.side] = false;
                wire.swallows = [true; 2];
            }
            if told {
                let at_ms = self.now_ms + self.rng.u64(0..300);
                self.schedule(at_ms, Event::LinkDown(end.other()));
            }
        }
        self.schedule(self.now_ms + down_ms, Event::Start(index));
    }

    /// Stops a server as SIGTERM does: it says goodbye, and what it said arrives.
    pub fn stop(&mut self, index: usize, down_ms: u64) {
        if self.servers[index].node.is_none() {
            return;
        }
        self.input(index, Input::Drain);
        let server = &mut self.servers[index];
        let epoch = server.present_epoch();
        server.node = None;
        server.ended_ms.insert(epoch, self.now_ms);
        server.said_goodbye.insert(epoch);
        server.streams.clear();
        self.users.forget_sessions(index);
        for wire in self.wires.iter_mut() {
            if let Some(side) = wire.servers.iter().position(|server| *server == index) {
                wire.is_up[side] = false;
            }
        }
        self.schedule(self.now_ms + down_ms, Event::Start(index));
    }

    pub fn pause(&mut self, index: usize, for_ms: u64) {
        self.servers[index].paused_until_ms = self.now_ms + for_ms;
    }

    /// Asks a server something; the answer, where it comes at once.
    pub fn ask(&mut self, server: usize, request: Request) -> CallId {
        let call = CallId(self.handle());
        self.input(server, Input::Call { call, request });
        call
    }

    /// A number that no other handle has.
    pub fn handle(&mut self) -> u64 {
        self.handles += 1;
        self.handles
    }

    /// Frames that a server is given as if a peer had sent them.
    pub fn forge(&mut self, server: usize, link: LinkId, frame: Frame) {
        self.input(server, Input::Frame { link, frame });
    }

    /// The link that a server has to another one.
    pub fn link_between(&self, server: usize, other: usize) -> LinkId {
        let joins = |servers: [usize; 2]| servers == [server, other] || servers == [other, server];
        let up = self.wires.iter().find(|(_, wire)| wire.is_up == [true; 2] && joins(wire.servers));
        let (wire, of) = up.map(|(id, wire)| (id, wire.servers)).expect("they are linked");
        let side = usize::from(of[1] == server);
        link_id(End { wire, side })
    }

    /// Every user who truly is online: with an open stream at a running server.
    pub fn online(&self) -> BTreeSet<Address> {
        let running = self.servers.iter().filter(|server| server.node.is_some());
        running
            .flat_map(|server| server.streams.values().map(|user| Address { home: server.id, user: user.clone() }))
            .collect()
    }
}

impl Server {
    /// The epoch that its node is in: it may have gone on above the one of its start.
    fn present_epoch(&self) -> u64 {
        let own = self.node.as_ref().and_then(|node| node.origin(&self.id));
        own.map_or(self.epoch, |own| own.epoch().number)
    }

    fn new(seed: u64, index: usize) -> Self {
        use socp::identity::Identity as _;
        let identity = SimIdentity::new(seed * 1_000 + index as u64);
        let label = match u8::try_from(index).ok().filter(|index| *index < 26) {
            Some(letter) => char::from(b'a' + letter).to_string(),
            None => index.to_string(),
        };
        Self {
            id: ServerId::of_key(&identity.public_key()),
            name: ServerName::parse(&format!("server-{label}")).expect("a good name"),
            identity,
            node: None,
            epoch: 0,
            starts: 0,
            watch: Watch::default(),
            streams: BTreeMap::new(),
            answers: BTreeMap::new(),
            refusals: Vec::new(),
            ended_ms: BTreeMap::new(),
            said_goodbye: BTreeSet::new(),
            names_noted: Vec::new(),
            admitted: Arc::default(),
            hides_until_ms: 0,
            slow: (0, 0),
            disk: Disk::default(),
            backup: None,
            paused_until_ms: 0,
            tick_ms: None,
            clock_ahead_ms: 0,
        }
    }
}

impl Disk {
    fn store(&mut self, record: &Record) {
        match record {
            Record::NewAccount { account, invite } => {
                self.accounts.insert(account.user.clone(), (**account).clone());
                if let Some(invite) = invite {
                    self.invites.remove(invite);
                }
            }
            Record::Epoch(epoch) => self.epoch = *epoch,
            Record::NewInvite(invite) => {
                self.invites.insert(*invite);
            }
            Record::Disabled { account } | Record::Moved { account } => {
                self.accounts.insert(account.user.clone(), (**account).clone());
            }
            Record::Admissions { kept, dropped } => {
                self.admissions.retain(|of, _| !dropped.contains(of));
                let kept = kept.iter().map(|kept| ((kept.admission.issuer, kept.admission.subject), kept.clone()));
                self.admissions.extend(kept);
            }
            Record::Names(names) => {
                for (name, server) in names {
                    assert!(!self.names.iter().any(|(other, bound)| bound == name && other != server), "{name} moves");
                    self.names.insert(*server, name.clone());
                }
            }
            Record::Blocked { server, is_blocked: true } => {
                self.blocked.insert(*server);
            }
            Record::Blocked { server, is_blocked: false } => {
                self.blocked.remove(server);
            }
        }
    }

    fn trust(&self) -> Trust {
        Trust {
            admissions: self.admissions.values().cloned().collect(),
            names: self.names.iter().map(|(server, name)| (name.clone(), *server)).collect(),
            blocked: self.blocked.iter().copied().collect(),
        }
    }
}
