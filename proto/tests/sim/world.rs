//! The simulated world: servers, time, and the one queue of everything that will happen.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use socp::{
    directory::Change,
    id::{ServerId, sha256},
    input::{AttachmentId, CallId, CheckId, Frame, Input, LinkId, Now, Request, WriteId},
    message::Address,
    name::UserName,
    node::Node,
    output::{Note, Output},
    v1::{AttachResponse, attach_response::Event as Inbox},
};

use crate::{
    byzantine::Overheard,
    checks::{
        byzantine::Said, deliveries::Deliveries, ghosts, moves::Moves, once, once::Positions, posts::Posts, queues,
        resume::Audience,
    },
    faults::Faults,
    introducer::Introduced,
    keys,
    lies::Liars,
    mail::Wanted,
    network::Repetitions,
    server::Server,
    tally::{Kind, Tally},
    users::Users,
    wires::{End, Wires, end_of, link_id},
};

/// Unix time at which every run begins.
const BEGIN_UNIX_MS: u64 = 1_800_000_000_000;

/// How long a run is left alone before everything must be right: the slowest repair (a position that stands still)
/// and a few rounds of dialling.
const QUIET_MS: u64 = 30_000;

/// How much longer it is left alone while messages wait for another home: one that could be reached late may have had no way
/// back for its first word, and is tried again after 5 s, then after up to 20 s.
const OUTBOX_MS: u64 = 30_000;

/// Something that will happen.
#[derive(Debug)]
pub enum Event {
    Tick(usize),
    Checked {
        server: usize,
        epoch: u64,
        check: CheckId,
        valid: bool,
    },
    /// What was written up to this is on disk, if the server still runs that wrote it.
    Written {
        server: usize,
        start: u64,
        write: WriteId,
    },
    /// An inbox or the channel's log is read for a stream.
    Replay {
        server: usize,
        start: u64,
        attachment: AttachmentId,
        user: UserName,
        wanted: Wanted,
    },
    LinkUp(End),
    LinkDown(End),
    Arrives {
        to: End,
        frame: Frame,
    },
    DialFailed {
        server: usize,
        epoch: u64,
        peer: ServerId,
    },
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
    pub posts: Posts,
    /// Clients of one server, which differs between seeds.
    pub audience: Audience,
    pub tally: Tally,
    /// Batches that were sent over each wire.
    pub batches: BTreeMap<u64, u64>,
    /// A hash over everything that happened: equal for equal seeds.
    pub trace: u64,
    pub rng: Rng,
    pub faults: Faults,
    pub seed: u64,
    pub queue: BTreeMap<(u64, u64), Event>,
    pub queued: u64,
    pub handles: u64,
    /// Servers on one side of a partition.
    pub partition: BTreeSet<usize>,
    pub faults_on: bool,
    pub clock_is_lost: bool,
    /// Who pins whom, by index; everybody everybody where nothing is said.
    pub pinned: Option<BTreeSet<(usize, usize)>>,
    pub overheard: Overheard,
    /// Servers that do not exist, of which a rogue spoke.
    pub invented: BTreeSet<ServerId>,
    pub liars: Liars,
    pub introduced: Introduced,
    pub positions: Positions,
    pub said: Said,
    pub moves: Moves,
    pub repetitions: Repetitions,
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
            posts: Posts::default(),
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
            moves: Moves::default(),
            repetitions: Repetitions::default(),
        };
        for index in 0..world.servers.len() {
            let at_ms = world.rng.u64(0..1_000);
            world.schedule(at_ms, Event::Start(index));
        }
        world
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
        if self.servers.iter().any(|server| server.disk.mail.queued() > 0) {
            self.run_for(OUTBOX_MS);
        }
        self.everybody_reads();
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

    pub fn schedule(&mut self, at_ms: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((at_ms, self.queued), event);
    }

    fn trace(&mut self, what: &[u8]) {
        let hash = sha256(&[&self.trace.to_be_bytes(), &self.now_ms.to_be_bytes(), what]);
        self.trace = u64::from_be_bytes(hash[..8].try_into().expect("8 bytes"));
    }

    fn happen(&mut self, event: Event) {
        let busy = match &event {
            Event::Tick(server)
            | Event::Checked { server, .. }
            | Event::Written { server, .. }
            | Event::Replay { server, .. }
            | Event::DialFailed { server, .. } => Some(*server),
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
            Event::Written { server, start, write } => self.written(server, start, write),
            Event::Replay { server, start, attachment, user, wanted } => {
                self.replay(server, start, attachment, &user, &wanted);
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
            Output::Write { write, record } => self.write(server, write, record),
            Output::Replay { attachment, user, after } => {
                self.ask_to_read(server, attachment, user, Wanted::Entries { after });
            }
            Output::ReplayPosts { attachment, user, positions } => {
                self.ask_to_read(server, attachment, user, Wanted::Posts { positions });
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
                self.trace(&delta.revision.to_be_bytes());
                for change in &delta.changes {
                    // No signature by a user, which differs each time that it is made.
                    let (Change::Added(entry)
                    | Change::Updated(entry)
                    | Change::Removed(entry, _)
                    | Change::Moved(entry, _)) = change;
                    self.trace(entry.label().as_bytes());
                }
                let is_heard = server == self.audience_at();
                self.check_moves(server, &delta);
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
            // Nobody brings one here.
            Output::DropFile(_) => unreachable!("no file was kept"),
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
        let Server { id, streams, disks_lost, .. } = &self.servers[server];
        let Some(user) = streams.get(&attachment) else { return };
        let to = Address { home: *id, user: user.clone() };
        match event.event.as_ref().expect("an event says what it is") {
            Inbox::Attached(_) => {}
            Inbox::Gap(gap) => self.deliveries.gap(attachment, gap.missed),
            Inbox::ChannelGap(gap) => self.posts.gap(attachment, gap.missed),
            Inbox::Message(received) => {
                let sealed = received.message.as_ref().expect("a message was received");
                self.deliveries.message(&to, *disks_lost, attachment, &event.cursor, sealed);
                self.users.read(server, attachment, &event.cursor);
                let statement = sealed.statement.clone();
                self.trace(&statement);
                self.tally.count(Kind::MessageHandedOver);
            }
            Inbox::Outcome(received) => {
                self.deliveries.outcome(&to, *disks_lost, attachment, &event.cursor, received);
                self.users.read(server, attachment, &event.cursor);
                self.tally.count(Kind::MessageSettled);
            }
            Inbox::Post(received) => {
                let sealed = received.post.as_ref().expect("a post was received");
                self.deliveries.post(&to, attachment, sealed);
                self.posts.handed(&to, *disks_lost, attachment, &event.cursor, sealed);
                self.users.read_post(server, attachment, &event.cursor);
                let statement = sealed.statement.clone();
                self.trace(&statement);
                self.tally.count(Kind::PostHandedOver);
            }
        }
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

    /// Every user who truly is online: with an open stream at a running server.
    pub fn online(&self) -> BTreeSet<Address> {
        let running = self.servers.iter().filter(|server| server.node.is_some());
        running
            .flat_map(|server| server.streams.values().map(|user| Address { home: server.id, user: user.clone() }))
            .collect()
    }
}
