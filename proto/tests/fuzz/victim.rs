//! A node under attack, and what must hold of it after every input.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use fastrand::Rng;
use socp::{
    account::Account,
    digest::SetHash,
    directory::{Change, Delta, Entry},
    file::Kept,
    id::{FileId, ServerId, SessionId, StartId, TokenHash},
    identity::Identity as _,
    inbox::{Cursor, Mail},
    input::{AttachmentId, CallId, CheckId, Frame, Input, LinkId, Now, Request},
    limits::REPLAY_ENTRIES_MAX,
    message::Address,
    name::{ServerName, UserName},
    node::{Node, Pin, Settings, Start, Trust},
    output::{Answer, Note, Output, Refusal},
    rejection::Rejection,
    signed::{Label, signing_input},
    statement::{KeyStatement, encode_login},
    v1::{AttachRequest, GetChannelKeyRequest, Reason, SealedMessage, SignedKeyStatement, attach_response::Event},
};

use crate::{
    keys::{self, SimIdentity},
    mail::MailDisk,
    rogue::{self, Rogue},
};

/// The status of the user who is online all the time, and whom nothing may change.
const ANCHOR_STATUS: &str = "here";

/// Accounts of the node: the first is the anchor.
pub const USERS: [&str; 3] = ["anchor", "alice", "bob"];

/// The node, its surroundings, and what is known of it from outside.
pub struct Victim {
    pub node: Node,
    pub rng: Rng,
    /// For what has no bearing on the directory, so that all else is as it would be without it.
    beside: Rng,
    pub rogue: Rogue,
    pub revision: u64,
    pub refusals: Vec<Refusal>,
    /// All answers to each call.
    pub answers: BTreeMap<CallId, Vec<Result<Answer, Rejection>>>,
    /// Checks given out.
    pub checks: Vec<CheckId>,
    pub sent: Vec<(LinkId, Frame)>,
    /// The wrapped channel keys of posts handed to streams.
    pub wrapped: Vec<Vec<u8>>,
    /// Files that were dropped.
    pub dropped: Vec<FileId>,
    pub now: Now,
    seed: u64,
    handles: u64,
    shown: BTreeMap<Address, Arc<Entry>>,
    tokens: Vec<TokenHash>,
    attachments: BTreeSet<AttachmentId>,
    links: Vec<LinkId>,
    is_dialling: bool,
    is_draining: bool,
    disk: MailDisk,
    /// What the disk has to say.
    follow_ups: VecDeque<Input>,
}

impl Drop for Victim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was seed {0}: SOCP_FUZZ_SEEDS={0}..{1}", self.seed, self.seed + 1);
        }
    }
}

impl Victim {
    pub fn new(seed: u64) -> Self {
        Self::with_files(seed, Vec::new())
    }

    /// A node on whose disk these files are.
    pub fn with_files(seed: u64, files: Vec<Kept>) -> Self {
        let identity = SimIdentity::new(1);
        let id = ServerId::of_key(&identity.public_key());
        let rogue = Rogue::new(id);
        let name = |name| ServerName::parse(name).expect("a good name");
        let account = |user: &str| Account {
            user: UserName::parse(user).expect("a good name"),
            statements: vec![KeyStatement::parse(&rogue::key_statement(id, user)).expect("a good statement")],
            display_name: String::new(),
            created_unix_ms: 0,
            disabled: false,
            moved: None,
        };
        let start = Start {
            identity: Box::new(identity),
            epoch: 1,
            start_id: StartId::from_bytes(&[1; 16]).expect("16 bytes"),
            seed,
            accounts: USERS.map(account).into(),
            invites: Vec::new(),
            trust: Trust::default(),
            mail: Mail::default(),
        };
        let peers = vec![Pin { id: rogue.id(), name: name("rogue"), is_dialled: true }];
        let mut victim = Self {
            node: Node::new(Settings { peers, ..Settings::new(name("victim")) }, start).with_files(files),
            rng: Rng::with_seed(seed),
            beside: Rng::with_seed(!seed),
            rogue,
            revision: 0,
            refusals: Vec::new(),
            answers: BTreeMap::new(),
            checks: Vec::new(),
            sent: Vec::new(),
            wrapped: Vec::new(),
            dropped: Vec::new(),
            now: Now { monotonic_ms: 0, unix_ms: rogue::UNIX_MS },
            seed,
            handles: 0,
            shown: BTreeMap::new(),
            tokens: Vec::new(),
            attachments: BTreeSet::new(),
            links: Vec::new(),
            is_dialling: false,
            is_draining: false,
            disk: MailDisk::default(),
            follow_ups: VecDeque::new(),
        };
        let anchor = victim.log_in(USERS[0]);
        victim.attach(anchor, ANCHOR_STATUS);
        victim
    }

    /// A number that no other handle has.
    pub fn handle(&mut self) -> u64 {
        self.handles += 1;
        self.handles
    }

    pub fn call(&mut self, request: Request) -> CallId {
        let call = CallId(self.handle());
        self.answers.insert(call, Vec::new());
        self.input(Input::Call { call, request });
        call
    }

    /// A good session of a user.
    pub fn log_in(&mut self, user: &str) -> TokenHash {
        let nonce = [7; 32];
        self.call(Request::CreateChallenge { user: user.into(), nonce });
        let request = self.log_in_request(user, nonce);
        let Request::LogIn { token, .. } = request else { unreachable!("it is a login") };
        self.call(request);
        let check = self.checks.pop().expect("a login is checked");
        self.input(Input::Checked { check, valid: true });
        token
    }

    fn log_in_request(&mut self, user: &str, nonce: [u8; 32]) -> Request {
        let name = UserName::parse(user).expect("a good name");
        let statement = encode_login(self.node.id(), &name, &nonce);
        let signature = keys::seal(&keys::user_spki(user.as_bytes()), &signing_input(Label::Login, &statement));
        let token = TokenHash::of(&format!("token {}", self.handle()));
        let session = SessionId::from_bytes(&token.as_bytes()[..16]).expect("16 bytes");
        Request::LogIn { statement: statement.into(), signature, device: String::new(), token, session }
    }

    pub fn attach(&mut self, token: TokenHash, status: &str) -> AttachmentId {
        self.attach_after(token, status, "")
    }

    fn attach_after(&mut self, token: TokenHash, status: &str, channel_cursor: &str) -> AttachmentId {
        let attachment = AttachmentId(self.handle());
        self.attachments.insert(attachment);
        let call = self.call(Request::Attach {
            token,
            attachment,
            attach: AttachRequest {
                status: status.into(),
                channel_cursor: channel_cursor.into(),
                ..AttachRequest::default()
            },
        });
        if !matches!(self.answers[&call][..], [Ok(Answer::Attached(_))]) {
            self.attachments.remove(&attachment);
        }
        attachment
    }

    pub fn break_stream(&mut self, attachment: AttachmentId) {
        self.attachments.remove(&attachment);
        self.input(Input::AttachmentEnded { attachment });
    }

    /// Lets time pass in one step.
    pub fn pass(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.input(Input::Tick);
    }

    /// Sends a message of alice of which the signature is good.
    pub fn send(&mut self, token: TokenHash, message: SealedMessage) -> CallId {
        let call = self.call(Request::SendMessage { token, message });
        if let Some(check) = self.checks.pop() {
            self.input(Input::Checked { check, valid: true });
        }
        call
    }

    /// Why a call was refused, if it is answered and was.
    pub fn reason(&self, call: CallId) -> Option<Reason> {
        self.answers[&call].first()?.as_ref().err().map(|rejection| rejection.reason)
    }

    /// A link to the rogue, introduced.
    pub fn link(&mut self) -> LinkId {
        let link = self.link_up(false);
        let hello = self.rogue.hello();
        self.input(Input::Frame { link, frame: hello });
        link
    }

    pub fn link_up(&mut self, dialled: bool) -> LinkId {
        let link = LinkId(self.handle());
        self.links.push(link);
        self.input(Input::LinkUp { link, peer: self.rogue.id(), dialled });
        link
    }

    pub fn frame(&mut self, link: LinkId, frame: Frame) {
        self.input(Input::Frame { link, frame });
    }

    pub fn input(&mut self, input: Input) {
        let outputs = self.node.handle(self.now, input);
        for output in outputs {
            self.perform(output);
        }
        // What a disk has to say comes before anything else happens.
        if let Some(input) = self.follow_ups.pop_front() {
            return self.input(input);
        }
        let deadline = self.node.next_deadline().expect("a node always has something ahead");
        assert!(deadline > self.now.monotonic_ms, "a deadline that has come was not met");
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Check { check, .. } => self.checks.push(check),
            Output::Answer { call, result } => {
                let answers = self.answers.get_mut(&call).expect("only calls are answered");
                answers.push(result);
                assert_eq!(answers.len(), 1, "one call, one answer");
            }
            Output::Deliver { attachment, event } => {
                assert!(self.attachments.contains(&attachment), "only open streams are given events");
                match event.event {
                    Some(Event::Post(post)) => self.wrapped.push(post.wrapped_channel_key.to_vec()),
                    Some(Event::Message(_) | Event::Outcome(_)) => {}
                    other => panic!("streams are given entries and posts only, not {other:?}"),
                }
                assert!(Cursor::parse(&event.cursor).is_some_and(|cursor| cursor.position > 0));
            }
            Output::EndAttachment { attachment, .. } => {
                assert!(self.attachments.remove(&attachment), "a stream ends once");
            }
            Output::Write { write, record } => {
                self.disk.write(write, record);
                self.disk.reach(write);
                self.follow_ups.push_back(Input::Written { write });
            }
            Output::Replay { attachment, user, after } => {
                let page = self.disk.page(&user, after, REPLAY_ENTRIES_MAX);
                assert!(!page.is_empty(), "only what is on disk is asked for");
                self.follow_ups.push_back(Input::Replayed { attachment, page });
            }
            Output::ReplayPosts { attachment, user, positions } => {
                let page = self.disk.channel.posts(&user, &positions);
                assert_eq!(page.len(), positions.len(), "only what is on disk is asked for");
                self.follow_ups.push_back(Input::PostsReplayed { attachment, page });
            }
            Output::Publish(delta) => self.publish(&delta),
            Output::Send { link, frame } => self.sent.push((link, frame)),
            Output::Dial { peer } => {
                assert!(peer == self.rogue.id() && !self.is_dialling, "one dial at a time");
                self.is_dialling = true;
            }
            Output::DropFile(file) => self.dropped.push(file),
            Output::Note(Note::FrameRefused { refusal, .. }) => self.refusals.push(refusal),
            Output::CloseLink { .. } | Output::Store(_) | Output::Admit(_) | Output::Note(_) => {}
        }
    }

    fn publish(&mut self, delta: &Delta) {
        self.revision += 1;
        assert_eq!(delta.revision, self.revision, "revisions are consecutive");
        assert!(!delta.changes.is_empty());
        for change in &delta.changes {
            match change {
                Change::Added(entry) => {
                    self.check_entry(entry);
                    assert!(self.shown.insert(entry.address.clone(), Arc::clone(entry)).is_none());
                }
                Change::Updated(entry) => {
                    self.check_entry(entry);
                    assert!(self.shown.insert(entry.address.clone(), Arc::clone(entry)).is_some());
                }
                Change::Removed(entry, _) | Change::Moved(entry, _) => {
                    assert_eq!(self.shown.remove(&entry.address).as_ref(), Some(entry));
                    assert!(entry.address.user.as_str() != USERS[0] || entry.address.home == self.rogue.id());
                }
            }
        }
    }

    /// What may be shown: of the own home what an own session said, of the peer what it signed.
    fn check_entry(&self, entry: &Entry) {
        let Address { home, user } = &entry.address;
        if *home == self.node.id() {
            let expected = if user.as_str() == USERS[0] { ANCHOR_STATUS } else { "own" };
            assert_eq!(&*entry.status, expected, "nobody else speaks for {user}");
        } else {
            assert_eq!(*home, self.rogue.id());
            assert!(self.rogue.has_signed(entry), "{entry:?} was never signed by its home");
        }
    }

    /// Compares the sum of what was published with what the node says, and that with what it knows.
    fn check_directory(&self) {
        let directory = self.node.directory();
        assert!(directory.entries().eq(self.shown.values()), "the deltas add up to the directory");
        let mut hash = SetHash::default();
        self.shown.values().for_each(|entry| hash.insert(&entry.digest_entry()));
        assert_eq!(hash.digest(), directory.digest());
        let peer = self.node.origin(&self.rogue.id());
        for entry in self.shown.values().filter(|entry| entry.address.home == self.rogue.id()) {
            let view = peer.and_then(|origin| origin.view(&entry.address.user)).expect("who is shown is known");
            assert_eq!((&view.status, view.sessions), (&entry.status, entry.sessions), "the latest word is shown");
        }
        if let Some(origin) = peer {
            assert!(origin.is_consistent());
        }
        let anchor = Address { home: self.node.id(), user: UserName::parse(USERS[0]).expect("a good name") };
        assert!(self.is_draining || self.shown.contains_key(&anchor), "a user who is online is shown");
    }

    /// Something happens.
    pub fn suffer(&mut self) {
        let step_ms = match self.rng.u32(0..200) {
            0..100 => 0,
            100..190 => self.rng.u64(1..30),
            190..199 => self.rng.u64(30..3_000),
            _ => self.rng.u64(3_000..200_000),
        };
        self.now.monotonic_ms += step_ms;
        self.now.unix_ms = (self.now.unix_ms + step_ms).saturating_add_signed(self.rng.i64(-5..=5));
        match self.rng.u32(0..1_000) {
            0..600 => {
                let link = self.any_link();
                let frame = self.rogue.frame(&mut self.rng, &self.sent);
                self.frame(link, frame);
            }
            600..800 => self.any_call(),
            800..880 => self.any_check(),
            880..910 => {
                let link = self.any_link();
                self.links.retain(|other| *other != link);
                let cause = rogue::any_text(&mut self.rng);
                self.input(Input::LinkDown { link, cause });
            }
            910..940 => self.any_dial(),
            940..960 => {
                let streams: Vec<AttachmentId> = self.attachments.iter().copied().skip(1).collect();
                if let Some(attachment) = self.rng.choice(streams) {
                    self.break_stream(attachment);
                }
            }
            960 if self.rng.u32(0..20) == 0 => self.drain(),
            _ => self.input(Input::Tick),
        }
        if self.beside.u32(0..8) == 0 {
            let mut rng = self.beside.fork();
            let token = rng.choice(&self.tokens).copied().unwrap_or_else(|| TokenHash::of("nobody's"));
            self.any_request_beside(&mut rng, token);
        }
        self.sent.drain(..self.sent.len().saturating_sub(200));
        self.check_directory();
    }

    /// Something of the channel's log or of files.
    fn any_request_beside(&mut self, rng: &mut Rng, token: TokenHash) {
        let text = rogue::any_text(rng);
        let request = match rng.u32(0..6) {
            0 => {
                let cursor = ["", "0", "0", "1-0000000000000000", &text][rng.usize(..5)];
                self.attach_after(token, "own", cursor);
                return;
            }
            1 => {
                let (sender, sender_home_id) = ("mallory".into(), self.rogue.id().to_string());
                let wanted = GetChannelKeyRequest { sender, sender_home_id, key_id: vec![1; rng.usize(15..18)].into() };
                Request::GetChannelKey { token, wanted }
            }
            _ => self.any_file_request(rng, token),
        };
        self.call(request);
    }

    fn drain(&mut self) {
        self.is_draining = true;
        self.input(Input::Drain);
        assert!(self.answers.values().all(|answers| answers.len() == 1), "a stop leaves no call behind");
    }

    /// Leaves the node alone until every call must have its answer.
    pub fn end(mut self) {
        for check in std::mem::take(&mut self.checks) {
            self.input(Input::Checked { check, valid: self.seed.is_multiple_of(2) });
        }
        let until_ms = self.now.monotonic_ms + 10_000;
        while self.now.monotonic_ms < until_ms {
            self.now.monotonic_ms = self.node.next_deadline().expect("a node always has something ahead");
            self.input(Input::Tick);
            self.any_dial();
        }
        assert!(self.answers.values().all(|answers| answers.len() == 1), "every call has its answer");
        self.check_directory();
    }

    /// Mostly one that is up and introduced.
    fn any_link(&mut self) -> LinkId {
        let is_new = self.links.is_empty() || self.rng.u32(0..100) == 0;
        if !is_new {
            return *self.rng.choice(&self.links).expect("there is one");
        }
        let link = self.link_up(false);
        if self.rng.u32(0..4) > 0 {
            let hello = self.rogue.hello();
            self.frame(link, hello);
        }
        link
    }

    fn any_dial(&mut self) {
        if std::mem::take(&mut self.is_dialling) {
            if self.rng.bool() {
                self.link_up(true);
            } else {
                let cause = rogue::any_text(&mut self.rng);
                self.input(Input::DialFailed { peer: self.rogue.id(), cause });
            }
        }
    }

    /// Answers a check either way, late, or for the second time.
    fn any_check(&mut self) {
        if self.checks.is_empty() {
            return;
        }
        let place = self.rng.usize(0..self.checks.len());
        let check = if self.rng.u32(0..5) > 0 { self.checks.swap_remove(place) } else { self.checks[place] };
        let valid = self.rng.u32(0..4) > 0;
        self.input(Input::Checked { check, valid });
    }

    fn any_call(&mut self) {
        if self.tokens.len() < 4 && !self.is_draining && self.rng.bool() {
            let user = self.rng.choice(&USERS[1..]).expect("there are two");
            let token = self.log_in_at_random(user);
            return self.tokens.push(token);
        }
        let token = match self.rng.u32(0..8) {
            0 => TokenHash::of("nobody's"),
            _ => self.rng.choice(&self.tokens).copied().unwrap_or_else(|| TokenHash::of("nobody's")),
        };
        let user = rogue::any_text(&mut self.rng);
        let request = match self.rng.u32(0..20) {
            0 => Request::Register {
                statement: self.rogue.any_statement(&mut self.rng),
                invite: String::new(),
                display_name: rogue::any_text(&mut self.rng),
            },
            1 => Request::CreateChallenge { user, nonce: [self.rng.u8(0..3); 32] },
            2 => {
                let nonce = [self.rng.u8(0..3); 32];
                let mut request = self.log_in_request(USERS[1], nonce);
                if let Request::LogIn { statement, .. } = &mut request
                    && self.rng.bool()
                {
                    *statement = rogue::mutated(&mut self.rng, statement).into();
                }
                request
            }
            3 if self.rng.u32(0..4) == 0 => {
                self.tokens.retain(|other| *other != token);
                Request::LogOut { token, session: String::new() }
            }
            4 if self.rng.bool() => Request::MoveUser { token, moved: self.rogue.any_move(&mut self.rng) },
            4 if user.len().is_multiple_of(2) => Request::RotateKey { token, statement: SignedKeyStatement::default() },
            4 => Request::ListSessions { token },
            5 if user.len().is_multiple_of(2) => Request::ReadInbox { token, before: user },
            5 => Request::Authorize { token },
            6..9 => Request::GetUser { token, user: rogue::any_user(&mut self.rng) },
            9..12 => {
                self.attach(token, "own");
                return;
            }
            12 => Request::Detach { token },
            13..16 => Request::SendMessage { token, message: self.rogue.message_to(&mut self.rng, self.now.unix_ms) },
            16 => Request::PostToChannel {
                token,
                post: self.rogue.post_to(&mut self.rng, self.now.unix_ms),
                wraps: self.rogue.wraps(&mut self.rng),
            },
            17 => Request::CreateInvite { invite: user },
            18 if self.rng.bool() => Request::ListPeers,
            18 if self.rng.bool() => Request::Explain { user: rogue::any_user(&mut self.rng) },
            18 => Request::ListAccounts,
            _ => Request::SetDisabled { user: USERS[2].into(), disabled: self.rng.bool() },
        };
        self.call(request);
    }

    /// A login of which the check is answered some time.
    fn log_in_at_random(&mut self, user: &str) -> TokenHash {
        let nonce = [8; 32];
        self.call(Request::CreateChallenge { user: user.into(), nonce });
        let request = self.log_in_request(user, nonce);
        let Request::LogIn { token, .. } = request else { unreachable!("it is a login") };
        self.call(request);
        token
    }
}
