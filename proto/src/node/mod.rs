//! One server as a state machine: inputs in, outputs out, no IO.
//!
//! Each noun keeps its state and its rules in a file of its own beside this one; here is what joins them: dispatch,
//! deadlines, and the shared acts of answering and publishing. A node is driven by one owner, one input at a time.

mod account;
mod admission;
mod admit;
mod block;
mod catch_up;
mod channel;
mod channel_log;
mod check;
mod contradiction;
mod directory;
mod epoch;
mod explain;
mod file;
mod gauges;
mod greeting;
mod history;
mod hold;
mod inbox;
mod lanes;
mod link;
mod message;
mod moves;
mod names;
mod neighbours;
mod outbox;
mod outcome;
mod page;
mod paths;
mod peers;
mod progress;
mod reach;
mod repeat;
mod room;
mod rotation;
mod serving;
mod session;
mod sizes;
mod user;

use alloc::{boxed::Box, collections::BTreeMap, collections::BTreeSet, sync::Arc, vec::Vec};

use crate::{
    account::Account,
    admission::Kept,
    batch::Epoch,
    directory::Directory,
    id::{ContentHash, ServerId, StartId, TokenHash},
    identity::Identity,
    inbox::Mail,
    input::{CallId, Input, LinkId, Now, Request},
    limits::KEPT_BATCHES_MAX,
    name::ServerName,
    output::{Answer, Note, Output, Record},
    rejection::Rejection,
    v1::{Reason, RegistrationPolicy},
};

pub use self::{channel::ChannelRoom, file::FileRoom, gauges::Gauges, room::InboxRoom};

/// A peer that this server was told of by its operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its id; nothing else is believed.
    pub id: ServerId,
    /// The name it is shown under, and must introduce itself by. Unique among the pins and not the server's own.
    pub name: ServerName,
    /// Whether this server dials it. Another one may dial this server, or be reached through others.
    pub is_dialled: bool,
}

/// What a node is told at its start. Durations are in milliseconds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This server's own name.
    pub name: ServerName,
    /// The pinned peers.
    pub peers: Vec<Pin>,
    /// Whether this server vouches for its pinned peers, so that whoever pins it takes them too. Default: it does.
    pub introduces: bool,
    /// Who may register.
    pub registration: RegistrationPolicy,
    /// How long a broken attached stream keeps its user online. Default 2 s: longer hides longer blips, and shows the dead for longer.
    pub attach_grace_ms: u64,
    /// How long a broken link keeps the peer's users shown. Default 0.5 s: longer hides longer blips, and shows the unreachable for longer.
    pub link_grace_ms: u64,
    /// How often a link is told that this side lives. Default 0.5 s: shorter finds the dead sooner, and costs more.
    pub keep_alive_ms: u64,
    /// A link without a keep-alive for so long is dead. Default 2.5 s: five keep-alives.
    pub link_dead_ms: u64,
    /// How long this server's goodbye asks others to hold its users. Default 0: they leave. Longer hides a restart, and shows the
    /// users of a server that does not come back for as long.
    pub goodbye_hold_ms: u64,
    /// The longest delay between dials of a peer that is away. Default 1 s.
    pub redial_ms_max: u64,
    /// Own batches that are kept before old entries are signed again. Default [`KEPT_BATCHES_MAX`]: fewer make joining cheaper, and
    /// changes dearer.
    pub kept_batches_max: usize,
    /// How much an inbox holds.
    pub inbox: InboxRoom,
    /// How much the log of the public channel holds.
    pub channel: ChannelRoom,
    /// How much is kept of files.
    pub files: FileRoom,
}

impl Settings {
    /// Default settings under this name, with no peers and open registration.
    pub fn new(name: ServerName) -> Self {
        Self {
            name,
            peers: Vec::new(),
            introduces: true,
            registration: RegistrationPolicy::Open,
            attach_grace_ms: 2_000,
            link_grace_ms: 500,
            keep_alive_ms: 500,
            link_dead_ms: 2_500,
            goodbye_hold_ms: 0,
            redial_ms_max: 1_000,
            kept_batches_max: KEPT_BATCHES_MAX,
            inbox: InboxRoom::default(),
            channel: ChannelRoom::default(),
            files: FileRoom::default(),
        }
    }
}

/// What a node needs at its start besides its settings.
pub struct Start {
    /// Signs as this server.
    pub identity: Box<dyn Identity + Send>,
    /// This start's number: [`next_epoch`] of the one on disk, and on disk before the node is made.
    pub epoch: u64,
    /// Random, with the epoch.
    pub start_id: StartId,
    /// Random; spreads dials.
    pub seed: u64,
    /// All accounts on disk.
    pub accounts: Vec<Account>,
    /// Hashes of all unused invites on disk.
    pub invites: Vec<[u8; 32]>,
    /// Whom it believed before.
    pub trust: Trust,
    /// All of messages that is on disk.
    pub mail: Mail,
}

/// What of other servers is on disk. Each is as it was stored last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// All admissions, by whomever.
    pub admissions: Vec<Kept>,
    /// All names that are bound.
    pub names: Vec<(ServerName, ServerId)>,
    /// All servers that are blocked.
    pub blocked: Vec<ServerId>,
}

/// The epoch that follows the one on disk (0 if there is none): greater than it, and the Unix time in milliseconds
/// where that is greater still, so that a lost or restored disk does not lead back.
pub fn next_epoch(stored: u64, unix_ms: u64) -> u64 {
    unix_ms.max(stored + 1)
}

/// Something that is due at some time. A timer that came to nothing meanwhile is ignored when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Who is admitted may be others by now. Before the dials of the start.
    Admissions,
    /// A peer may be dialled.
    Dial(ServerId),
    /// A link is to be told that this side lives.
    KeepAlive(LinkId),
    /// A new neighbour is to be told more of others.
    Greeting(LinkId),
    /// A link may be dead.
    LinkDead(LinkId),
    /// An origin without a way to it may be unreachable by now.
    LinkGrace(ServerId),
    /// An epoch of this server's own returned, and it goes on above it.
    GoOn,
    /// Users of an origin that said goodbye were held long enough.
    Hold(ServerId),
    /// The own neighbours are to be signed.
    Neighbours,
    /// Others' lists changed, and paths with them.
    Paths,
    /// A server's neighbours may be too old to count by now.
    Stale(ServerId),
    /// This server may lack something of an origin that it should ask for.
    CatchUp(ServerId),
    /// Neighbours are to be told how far this server is.
    Positions,
    /// A session that broke may be offline by now.
    AttachGrace(TokenHash),
    /// A message or post waited long enough for its outcome.
    Outcome(ContentHash),
    /// Queued messages may have to be sent to a home again.
    Outbox(ServerId),
    /// A query waited long enough for its reply.
    Query(u64),
    /// What is too old is dropped.
    Sweep,
}

/// How often what is too old is dropped: nothing depends on it but memory.
const SWEEP_MS: u64 = 10_000;

/// The state machine of one server.
pub struct Node {
    id: ServerId,
    settings: Settings,
    identity: Box<dyn Identity + Send>,
    epoch: Epoch,
    /// State of a small generator that spreads dials.
    jitter: u64,
    accounts: account::Accounts,
    sessions: session::Sessions,
    checks: check::Checks,
    outcomes: outcome::Outcomes,
    outbox: lanes::Outbox,
    inboxes: inbox::Inboxes,
    channel: channel::Channel,
    repeats: repeat::Repeats,
    files: file::Files,
    queries: user::Queries,
    admissions: admission::Admissions,
    links: link::Links,
    neighbours: neighbours::Neighbours,
    origins: BTreeMap<ServerId, directory::Known>,
    directory: Directory,
    history: history::History,
    timers: BTreeSet<(u64, Timer)>,
    /// When it went on above an epoch of its own that returned.
    went_on_ms: Option<u64>,
    /// The highest epoch of its own that returned and that it is not above yet.
    surpassed: Option<Epoch>,
    /// Whether neighbours are to be told of progress soon.
    positions_are_due: bool,
    draining: bool,
    now: Now,
    outputs: Vec<Output>,
}

impl Node {
    /// Starts a node; its first deadline is at once.
    pub fn new(settings: Settings, start: Start) -> Self {
        let id = ServerId::of_key(&start.identity.public_key());
        let epoch = Epoch { number: start.epoch, start: start.start_id };
        let Trust { admissions, names, blocked } = start.trust;
        let names = names::Names::new(names);
        let admissions = admission::Admissions::new(id, settings.peers.clone(), admissions, blocked, names);
        let mut node = Self {
            id,
            links: link::Links::new(admissions.pinned()),
            admissions,
            settings,
            identity: start.identity,
            epoch,
            jitter: start.seed,
            accounts: account::Accounts::new(start.accounts, start.invites),
            sessions: session::Sessions::default(),
            checks: check::Checks::default(),
            outcomes: outcome::Outcomes::default(),
            outbox: lanes::Outbox::new(start.mail.queued),
            inboxes: inbox::Inboxes::new(start.mail.inboxes),
            channel: channel::Channel::new(start.mail.channel),
            repeats: repeat::Repeats::new(start.mail.remembered),
            files: file::Files::default(),
            queries: user::Queries::default(),
            neighbours: neighbours::Neighbours::default(),
            origins: BTreeMap::from([(id, directory::Known::own(id, epoch))]),
            directory: Directory::default(),
            history: history::History::default(),
            timers: BTreeSet::from([(0, Timer::Admissions), (0, Timer::Sweep), (0, Timer::Neighbours)]),
            went_on_ms: None,
            surpassed: None,
            positions_are_due: false,
            draining: false,
            now: Now { monotonic_ms: 0, unix_ms: 0 },
            outputs: Vec::new(),
        };
        node.timers.extend(node.links.peers().map(|peer| (0, Timer::Dial(peer))));
        node
    }

    /// This server's id.
    pub fn id(&self) -> ServerId {
        self.id
    }

    /// The merged directory, as published.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Takes one input and tells what must be done about it, in order.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        self.now = now;
        match input {
            Input::Call { call, request } => self.call(call, request),
            Input::AttachmentEnded { attachment } => self.attachment_ended(attachment),
            Input::Checked { check, valid } => self.checked(check, valid),
            Input::Written { write } => self.written(write),
            Input::Replayed { attachment, page } => self.replayed(attachment, page),
            Input::PostsReplayed { attachment, page } => self.posts_replayed(attachment, page),
            Input::FileStored { file } => self.file_stored(file),
            Input::LinkUp { link, peer, dialled } => self.link_up(link, peer, dialled),
            Input::LinkDown { link, cause } => self.link_down(link, &cause),
            Input::Parted { peer, cause } => self.links.failed(peer, self.now, &cause),
            Input::DialFailed { peer, cause } => self.dial_failed(peer, &cause),
            Input::Frame { link, frame } => self.frame(link, frame),
            Input::Tick => {}
            Input::Drain => self.drain(),
        }
        self.fire_timers();
        core::mem::take(&mut self.outputs)
    }

    /// When the node next wants a [`Input::Tick`], on the monotonic clock, in milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.first().map(|(due, _)| *due)
    }

    fn call(&mut self, call: CallId, request: Request) {
        if self.draining {
            return self.answer(call, Err(draining()));
        }
        match request {
            Request::Register { statement, invite, display_name } => {
                self.register(call, &statement, &invite, display_name);
            }
            Request::CreateChallenge { user, nonce } => self.create_challenge(call, &user, nonce),
            Request::LogIn { statement, signature, device, token, session } => {
                self.log_in(call, &statement, &signature, device, token, session);
            }
            Request::LogOut { token, session } => self.log_out(call, token, &session),
            Request::RotateKey { token, statement } => self.rotate_key(call, token, &statement),
            Request::MoveUser { token, moved } => self.move_user(call, token, &moved),
            Request::ListSessions { token } => self.list_sessions(call, token),
            Request::Authorize { token } => {
                let result = self.authorize(token).map(|_| Answer::Authorized);
                self.answer(call, result);
            }
            Request::GetUser { token, user } => self.find_user(call, token, &user),
            Request::Attach { token, attachment, attach } => self.attach(call, token, attachment, attach),
            Request::AcknowledgeMessages { token, cursor } => self.acknowledge(call, token, &cursor),
            Request::GetChannelKey { token, wanted } => self.find_channel_key(call, token, &wanted),
            Request::ReadInbox { token, before } => self.read_inbox(call, token, &before),
            Request::Detach { token } => self.detach(call, token),
            Request::SendMessage { token, message } => self.send_message(call, token, &message),
            Request::PostToChannel { token, post, wraps } => self.post(call, token, &post, &wraps),
            Request::CreateFile { token, file } => self.create_file(call, token, &file),
            Request::UploadFile { token, file } => self.upload_file(call, token, &file),
            Request::DownloadFile { token, file, home, offset } => {
                self.download_file(call, token, &file, &home, offset);
            }
            Request::FetchFile { peer, fetch } => self.fetch_file(call, peer, fetch),
            Request::CreateInvite { invite } => self.create_invite(call, &invite),
            Request::ListAccounts => self.list_accounts(call),
            Request::SetDisabled { user, disabled } => self.set_disabled(call, &user, disabled),
            Request::ListPeers => self.list_peers(call),
            Request::Explain { user } => self.explain(call, &user),
            Request::Admit { name, server_id, days } => self.admit(call, &name, &server_id, days),
            Request::RevokeAdmission { server_id } => self.revoke_admission(call, &server_id),
            Request::SetBlocked { server, is_blocked } => self.set_blocked(call, &server, is_blocked),
        }
    }

    fn fire_timers(&mut self) {
        while let Some(&(due, timer)) = self.timers.first() {
            if due > self.now.monotonic_ms {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Admissions => self.admissions_due(),
                Timer::Dial(peer) => self.dial_due(peer),
                Timer::KeepAlive(link) => self.keep_alive_due(link),
                Timer::Greeting(link) => self.greet_more(link),
                Timer::LinkDead(link) => self.link_may_be_dead(link),
                Timer::LinkGrace(origin) => self.link_grace_over(origin),
                Timer::GoOn => self.go_on_due(),
                Timer::Hold(origin) => self.hold_over(origin),
                Timer::Neighbours => self.neighbours_due(),
                Timer::Paths => self.paths_due(),
                Timer::Stale(server) => self.neighbours_may_be_stale(server),
                Timer::CatchUp(origin) => self.catch_up_due(origin),
                Timer::Positions => self.tell_positions(),
                Timer::AttachGrace(token) => self.attach_grace_over(token),
                Timer::Outcome(hash) => {
                    self.outcome_overdue(hash);
                    self.message_overdue(hash);
                }
                Timer::Outbox(home) => self.outbox_due(home),
                Timer::Query(query) => self.query_overdue(query),
                Timer::Sweep => {
                    self.sessions.sweep(self.now.monotonic_ms);
                    self.sweep_ids();
                    self.sweep_inboxes();
                    self.sweep_channel();
                    self.sweep_files();
                    self.sweep_outbox();
                    self.admissions.sweep();
                    self.admissions_due();
                    self.after(SWEEP_MS, Timer::Sweep);
                }
            }
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        self.end_all_attachments(&draining());
        self.write_devices();
        self.say_goodbye();
        let calls = [
            self.checks.take_calls(),
            self.inboxes.take_calls(),
            self.outcomes.take_calls(),
            self.outbox.take_calls(),
            self.queries.take_calls(),
        ];
        calls.into_iter().flatten().for_each(|call| self.answer(call, Err(draining())));
    }

    fn after(&mut self, ms: u64, timer: Timer) {
        self.timers.insert((self.now.monotonic_ms + ms, timer));
    }

    fn output(&mut self, output: Output) {
        self.outputs.push(output);
    }

    fn answer(&mut self, call: CallId, result: Result<Answer, Rejection>) {
        self.output(Output::Answer { call, result });
    }

    fn note(&mut self, note: Note) {
        self.output(Output::Note(note));
    }

    fn store_account(&mut self, account: Account, record: impl FnOnce(Arc<Account>) -> Record) -> Arc<Account> {
        let account = Arc::new(account);
        self.accounts.insert(Arc::clone(&account));
        self.output(Output::Store(record(Arc::clone(&account))));
        account
    }

    /// The time as the contracts have it.
    fn unix_ms(&self) -> i64 {
        i64::try_from(self.now.unix_ms).unwrap_or(i64::MAX)
    }

    /// A number below `bound` (at least 1) that differs between servers: SplitMix64 (Steele, Lea and Flood 2014). Not for secrets.
    fn jitter(&mut self, bound: u64) -> u64 {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.jitter;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

fn draining() -> Rejection {
    Rejection::new(Reason::Draining, "the server is stopping; connect again in a moment")
}
