//! Users of the simulated world: what they do at random, and what a test makes them do.

use std::{cell::OnceCell, collections::BTreeMap};

use prost::{Message as _, bytes::Bytes};
use socp::{
    id::{KeyFingerprint, ServerId, SessionId, TokenHash, sha256},
    input::{AttachmentId, CallId, Input, Request},
    message::{Address, PUBLIC_CHANNEL, SUITE},
    moves::Move,
    name::UserName,
    output::Answer,
    rejection::Rejection,
    signed::{Label, signing_input},
    statement::{KeyStatement, encode_login, statement_hash},
    user_key::UserKey,
    v1::{
        AttachRequest, ChannelKeyWrap, MessageHeader, MessageStatement, OutcomeKind, PostHeader, PostStatement, Reason,
        SealedMessage, SealedPost, SignedKeyStatement, SignedMove,
    },
};

use crate::{
    checks::posts::BEGINNING,
    keys::{real_spki, seal, sign, user_spki},
    tally::Kind,
    world::World,
};

/// A device of a user: logged in, and perhaps attached.
#[derive(Clone, Debug)]
pub struct Device {
    pub token: TokenHash,
    pub attachment: Option<AttachmentId>,
    /// What it has of the inbox.
    pub cursor: String,
    /// What it has of the channel's log.
    pub channel_cursor: String,
    /// Its id, if it says which it is.
    pub id: String,
}

/// A user of one server.
#[derive(Clone, Debug)]
pub struct User {
    pub server: usize,
    pub name: UserName,
    pub spki: Bytes,
    /// As it was signed once, and is shown ever since.
    statement: OnceCell<SignedKeyStatement>,
    pub is_registered: bool,
    /// Whom they register as elsewhere, to move there.
    pub moves_to: Option<usize>,
    /// Whether the home has taken their word that they moved, and did not lose it since.
    pub has_moved: bool,
    pub devices: Vec<Device>,
    /// A cursor that one of the devices had, for one that was logged out and comes back.
    pub had: String,
    /// The same of the channel's log.
    pub had_posts: String,
}

/// What an answer is awaited for.
#[derive(Clone, Debug)]
enum Asked {
    Registration { user: usize },
    LogIn { user: usize, token: TokenHash },
    Message { user: usize, sealed: SealedMessage, tries: u32 },
    Post { user: usize, sealed: SealedPost, tries: u32 },
    Move { user: usize },
}

/// All users and what they asked.
#[derive(Default)]
pub struct Users {
    pub users: Vec<User>,
    asked: BTreeMap<(usize, CallId), Asked>,
}

impl Users {
    /// A server lost its disk, and with it all accounts.
    pub fn forget_accounts(&mut self, server: usize) {
        self.keep_accounts(server, |_| None);
    }

    /// A server has an older disk now, and on it only some of its accounts; of each, whether its user has moved.
    pub fn keep_accounts(&mut self, server: usize, kept: impl Fn(&UserName) -> Option<bool>) {
        for user in self.users.iter_mut().filter(|user| user.server == server) {
            let kept = kept(&user.name);
            user.is_registered &= kept.is_some();
            user.has_moved &= kept == Some(true);
        }
    }

    /// A device was handed the message at this place.
    pub fn read(&mut self, server: usize, attachment: AttachmentId, cursor: &str) {
        for user in self.users.iter_mut().filter(|user| user.server == server) {
            for device in user.devices.iter_mut().filter(|device| device.attachment == Some(attachment)) {
                device.cursor = cursor.to_owned();
                user.had = cursor.to_owned();
            }
        }
    }

    /// A device was handed the post at this place.
    pub fn read_post(&mut self, server: usize, attachment: AttachmentId, cursor: &str) {
        for user in self.users.iter_mut().filter(|user| user.server == server) {
            for device in user.devices.iter_mut().filter(|device| device.attachment == Some(attachment)) {
                device.channel_cursor = cursor.to_owned();
                user.had_posts = cursor.to_owned();
            }
        }
    }

    /// A server's start is over, and with it all sessions and calls.
    pub fn forget_sessions(&mut self, server: usize) {
        self.users.iter_mut().filter(|user| user.server == server).for_each(|user| user.devices.clear());
        self.asked.retain(|(asked, _), _| *asked != server);
    }
}

impl World {
    pub fn address(&self, user: usize) -> Address {
        let User { server, name, .. } = &self.users.users[user];
        Address { home: self.servers[*server].id, user: name.clone() }
    }

    /// Whether a home has taken a user's word that they moved.
    pub fn has_moved(&self, address: &Address) -> bool {
        let is_it = |user: &User| user.name == address.user && self.servers[user.server].id == address.home;
        self.users.users.iter().any(|user| user.has_moved && is_it(user))
    }

    /// Whether anybody of a home has moved away.
    pub fn has_anybody_moved_from(&self, home: ServerId) -> bool {
        self.users.users.iter().any(|user| user.has_moved && self.servers[user.server].id == home)
    }

    /// Adds somebody who will be a user of a server.
    pub fn add_user(&mut self, server: usize, name: &str) -> usize {
        let name = UserName::parse(name).expect("a good name");
        let spki = user_spki(format!("{name}@{server}").as_bytes());
        self.users.users.push(User {
            server,
            name,
            spki,
            statement: OnceCell::new(),
            is_registered: false,
            moves_to: None,
            has_moved: false,
            devices: Vec::new(),
            had: String::new(),
            had_posts: String::new(),
        });
        self.users.users.len() - 1
    }

    pub fn key_statement(&self, user: usize) -> SignedKeyStatement {
        let User { server, name, spki, statement, .. } = &self.users.users[user];
        let sign = || {
            let key = UserKey::parse(spki).expect("a key of the right form");
            let statement = KeyStatement::encode(name, self.servers[*server].id, &key, 1, None);
            let signature = sign(spki, &signing_input(Label::KeyStatement, &statement));
            SignedKeyStatement { statement: statement.into(), signature, previous_signature: Bytes::new() }
        };
        statement.get_or_init(sign).clone()
    }

    pub fn ask_to_register(&mut self, user: usize) -> CallId {
        let server = self.users.users[user].server;
        let statement = self.key_statement(user);
        let call =
            self.ask(server, Request::Register { statement, invite: String::new(), display_name: String::new() });
        self.users.asked.insert((server, call), Asked::Registration { user });
        call
    }

    /// Somebody who registers at a server with the key of another user, as one does who moves.
    pub fn same_person(&mut self, user: usize, server: usize, name: &str) -> usize {
        let new = self.add_user(server, name);
        self.users.users[new].spki = self.users.users[user].spki.clone();
        new
    }

    /// The word of a user, signed, that they are now another.
    pub fn signed_move(&self, user: usize, new: usize) -> SignedMove {
        let hash = statement_hash(&self.key_statement(user));
        let statement = Move::encode(&self.address(user), hash, &self.address(new), self.unix_ms());
        let signature = sign(&self.users.users[user].spki, &signing_input(Label::Move, &statement));
        SignedMove { statement: statement.into(), signature }
    }

    /// Gives a move to a user's home, in the session of the first device, and waits for the answer.
    pub fn move_user(&mut self, user: usize, moved: SignedMove) -> Result<Answer, Rejection> {
        let User { server, devices, .. } = &self.users.users[user];
        let (server, token) = (*server, devices[0].token);
        let call = self.ask(server, Request::MoveUser { token, moved });
        self.answer(server, call)
    }

    /// A nonce for a login, straight from the server.
    pub fn challenge(&mut self, user: usize) -> [u8; 32] {
        let User { server, name, .. } = self.users.users[user].clone();
        let nonce = sha256(&[b"nonce", &self.handle().to_be_bytes()]);
        self.ask(server, Request::CreateChallenge { user: name.to_string(), nonce });
        nonce
    }

    pub fn log_in_request(&mut self, user: usize, nonce: &[u8; 32], token: TokenHash) -> Request {
        let User { server, name, .. } = &self.users.users[user];
        let statement = encode_login(self.servers[*server].id, name, nonce);
        let signature = self.sign_often(user, &signing_input(Label::Login, &statement));
        let session = sha256(&[b"session", token.as_bytes()]);
        let session = SessionId::from_bytes(&session[..16]).expect("16 bytes");
        Request::LogIn { statement: statement.into(), signature, device: String::new(), token, session }
    }

    pub fn ask_to_log_in(&mut self, user: usize) -> CallId {
        let server = self.users.users[user].server;
        let nonce = self.challenge(user);
        let token = TokenHash::of(&format!("token {}", self.handle()));
        let request = self.log_in_request(user, &nonce, token);
        let call = self.ask(server, request);
        self.users.asked.insert((server, call), Asked::LogIn { user, token });
        call
    }

    /// Registers and logs in, and waits for it.
    pub fn new_device(&mut self, user: usize) -> usize {
        if !self.users.users[user].is_registered {
            self.ask_to_register(user);
            self.run_for(20);
        }
        self.ask_to_log_in(user);
        self.run_for(20);
        self.users.users[user].devices.len() - 1
    }

    /// A user of a quiet network who is online with one device.
    pub fn online_user(&mut self, server: usize, name: &str) -> usize {
        let user = self.add_user(server, name);
        let device = self.new_device(user);
        self.attach(user, device, "");
        self.run_for(500);
        user
    }

    pub fn attach(&mut self, user: usize, device: usize, status: &str) {
        let User { server, name, devices, .. } = self.users.users[user].clone();
        let attachment = AttachmentId(self.handle());
        let Device { token, cursor, channel_cursor, id, .. } = devices[device].clone();
        let attach = AttachRequest {
            status: status.into(),
            cursor: cursor.clone(),
            device_id: id,
            channel_cursor: channel_cursor.clone(),
        };
        let request = Request::Attach { token, attachment, attach };
        // What comes with the answer is for the stream, too.
        self.deliveries.attached(attachment, &cursor, self.servers[server].disk.mail.dropped(&name));
        self.posts.attached(attachment, &channel_cursor);
        self.servers[server].streams.insert(attachment, name.clone());
        let before = self.users.users[user].devices[device].attachment.replace(attachment);
        let call = self.ask(server, request);
        let refusal = match self.servers[server].answers.get(&call) {
            Some(Ok(Answer::Attached(attached))) => {
                if channel_cursor.is_empty() {
                    let newest = attached.newest_channel_cursor.clone();
                    self.posts.attached(attachment, &newest);
                    self.users.users[user].devices[device].channel_cursor = newest;
                }
                return;
            }
            Some(Err(rejection)) => Some(rejection.clone()),
            _ => None,
        };
        self.servers[server].streams.remove(&attachment);
        self.users.users[user].devices[device].attachment = before;
        if let Some(refusal) = refusal.filter(|refusal| refusal.reason == Reason::CursorUnknown) {
            self.deliveries.refused(&name, self.servers[server].disks_lost);
            self.tally.count(Kind::CursorUnknown);
            let device_of = &mut self.users.users[user].devices[device];
            let is_of_posts = refusal.metadata.contains(&("field", "channel_cursor".to_owned()));
            if is_of_posts { &mut device_of.channel_cursor } else { &mut device_of.cursor }.clear();
            self.attach(user, device, status);
        }
    }

    /// A device says that it has what it was handed.
    pub fn acknowledge(&mut self, user: usize, device: usize) -> Result<(), Reason> {
        let User { server, devices, .. } = &self.users.users[user];
        let (server, Device { token, cursor, .. }) = (*server, devices[device].clone());
        let call = self.ask(server, Request::AcknowledgeMessages { token, cursor });
        self.answer(server, call).map(drop).map_err(|rejection| rejection.reason)
    }

    pub fn detach(&mut self, user: usize, device: usize) {
        let User { server, devices, .. } = self.users.users[user].clone();
        self.ask(server, Request::Detach { token: devices[device].token });
        self.users.users[user].devices[device].attachment = None;
    }

    /// The device's stream breaks.
    pub fn break_stream(&mut self, user: usize, device: usize) {
        let server = self.users.users[user].server;
        if let Some(attachment) = self.users.users[user].devices[device].attachment.take() {
            self.servers[server].streams.remove(&attachment);
            self.input(server, Input::AttachmentEnded { attachment });
        }
    }

    fn log_out(&mut self, user: usize, device: usize) {
        let server = self.users.users[user].server;
        let device = self.users.users[user].devices.remove(device);
        self.ask(server, Request::LogOut { token: device.token, session: String::new() });
    }

    fn message_id(&mut self) -> String {
        let mut bytes = sha256(&[b"message", &self.handle().to_be_bytes()]);
        bytes[6] = 0x70 | bytes[6] & 0x0f;
        bytes[8] = 0x80 | bytes[8] & 0x3f;
        let hex = socp::id::hex(&bytes[..16]);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    fn unix_ms(&self) -> i64 {
        self.true_unix_ms() as i64
    }

    pub fn header(&mut self, from: usize, to: usize) -> MessageHeader {
        let (sender, recipient) = (self.address(from), self.address(to));
        let fingerprint =
            |user: usize| Bytes::copy_from_slice(KeyFingerprint::of_spki(&self.users.users[user].spki).as_bytes());
        MessageHeader {
            suite: SUITE,
            sender: sender.user.to_string(),
            sender_home_id: sender.home.to_string(),
            sender_key_sha256: fingerprint(from),
            recipient: recipient.user.to_string(),
            recipient_home_id: recipient.home.to_string(),
            recipient_key_sha256: fingerprint(to),
            time_unix_ms: self.unix_ms(),
            message_id: self.message_id(),
            require_online: false,
            wants_receipts: false,
        }
    }

    pub fn sealed(&self, from: usize, header: &MessageHeader) -> SealedMessage {
        let statement = MessageStatement {
            header: header.encode_to_vec().into(),
            nonce: Bytes::from_static(&[0; 12]),
            ciphertext: Bytes::from_static(b"nobody here reads this"),
            key_commitment: Bytes::from_static(&[0; 32]),
            ..MessageStatement::default()
        }
        .encode_to_vec();
        let signature = self.sign_often(from, &signing_input(Label::Message, &statement));
        SealedMessage { statement: statement.into(), signature, wrapped_key: vec![0; 512].into() }
    }

    /// Signs what users say often: with their key where the run does so, else by a seal.
    fn sign_often(&self, user: usize, message: &[u8]) -> Bytes {
        let sign = if self.faults.signs_everything { sign } else { seal };
        sign(&self.users.users[user].spki, message)
    }

    pub fn tell(&mut self, from: usize, to: usize) -> CallId {
        // In a story everything is kept.
        let require_online = self.faults_on && self.rng.u32(0..4) == 0;
        let header = MessageHeader { require_online, ..self.header(from, to) };
        let sealed = self.sealed(from, &header);
        self.send(from, sealed, 1)
    }

    pub fn send(&mut self, from: usize, sealed: SealedMessage, tries: u32) -> CallId {
        let User { server, devices, .. } = &self.users.users[from];
        let (server, token) = (*server, devices[0].token);
        self.deliveries.sent(token, &sealed);
        let call = self.ask(server, Request::SendMessage { token, message: sealed.clone() });
        self.users.asked.insert((server, call), Asked::Message { user: from, sealed, tries });
        call
    }

    pub fn post(&mut self, from: usize) -> CallId {
        let sealed = self.sealed_post(from);
        self.send_post(from, sealed, Vec::new(), 1)
    }

    pub fn sealed_post(&mut self, from: usize) -> SealedPost {
        let sender = self.address(from);
        let header = PostHeader {
            suite: SUITE,
            message_id: self.message_id(),
            sender: sender.user.to_string(),
            sender_home_id: sender.home.to_string(),
            sender_key_sha256: Bytes::copy_from_slice(KeyFingerprint::of_spki(&self.users.users[from].spki).as_bytes()),
            channel: PUBLIC_CHANNEL.into(),
            key_id: Bytes::from_static(&[1; 16]),
            salt: Bytes::from_static(&[2; 32]),
            counter: 0,
            time_unix_ms: self.unix_ms(),
        };
        let statement = PostStatement {
            header: header.encode_to_vec().into(),
            nonce: Bytes::from_static(&[0; 12]),
            ciphertext: Bytes::from_static(b"nobody here reads this"),
            key_commitment: Bytes::from_static(&[0; 32]),
        }
        .encode_to_vec();
        let signature = self.sign_often(from, &signing_input(Label::Post, &statement));
        SealedPost { statement: statement.into(), signature }
    }

    pub fn send_post(&mut self, from: usize, sealed: SealedPost, wraps: Vec<ChannelKeyWrap>, tries: u32) -> CallId {
        let User { server, devices, .. } = &self.users.users[from];
        let (server, token) = (*server, devices[0].token);
        let call = self.ask(server, Request::PostToChannel { token, post: sealed.clone(), wraps });
        self.users.asked.insert((server, call), Asked::Post { user: from, sealed, tries });
        call
    }

    /// The answer to a call, waiting for it.
    pub fn answer(&mut self, server: usize, call: CallId) -> Result<Answer, Rejection> {
        for _ in 0..100 {
            if let Some(answer) = self.servers[server].answers.get(&call) {
                return answer.clone();
            }
            self.run_for(100);
        }
        panic!("no answer within 10 s");
    }

    pub fn answered(&mut self, server: usize, call: CallId, result: &Result<Answer, Rejection>) {
        let Some(asked) = self.users.asked.remove(&(server, call)) else { return };
        match (asked, result) {
            (Asked::Registration { user }, Ok(_)) => self.users.users[user].is_registered = true,
            (Asked::LogIn { user, token }, Ok(_)) => {
                let had = self.users.users[user].had.clone();
                // In a story each device is new; else some come back.
                let had_posts = self.users.users[user].had_posts.clone();
                let (cursor, channel_cursor) =
                    if self.faults_on && self.rng.bool() { (had, had_posts) } else { Default::default() };
                let device = Device { token, attachment: None, cursor, channel_cursor, id: String::new() };
                self.users.users[user].devices.push(device);
            }
            (Asked::Message { sealed, .. }, Ok(Answer::Sent(sent))) => {
                let outcome = sent.outcome.as_ref().expect("an outcome came");
                match self.deliveries.confirm(&sealed, outcome) {
                    OutcomeKind::Stored => self.tally.count(Kind::MessageStored),
                    OutcomeKind::Queued => self.tally.count(Kind::MessageQueued),
                    _ => {}
                }
            }
            (Asked::Message { .. }, Ok(other)) => panic!("a message is not answered with {other:?}"),
            (Asked::Message { user, sealed, tries }, Err(rejection)) if rejection.reason == Reason::Timeout => {
                self.tally.count(Kind::MessageTimedOut);
                if tries < 3 && !self.users.users[user].devices.is_empty() {
                    self.send(user, sealed, tries + 1);
                }
            }
            (Asked::Message { sealed, tries, .. }, Err(rejection)) => {
                self.tally.count(Kind::MessageRejected);
                // What was under way when a server stopped may be there, and so may an earlier try.
                if rejection.reason != Reason::Draining && tries == 1 {
                    self.deliveries.refuse(&sealed, rejection.reason);
                }
            }
            (Asked::Post { user, sealed, tries }, Ok(Answer::Posted(posted))) => {
                self.posts.confirm(&sealed, posted);
                let is_whole = posted.silent_home_ids.is_empty();
                if !is_whole && tries < 3 && !self.users.users[user].devices.is_empty() {
                    self.send_post(user, sealed, Vec::new(), tries + 1);
                }
            }
            (Asked::Move { user }, Ok(_)) => {
                self.tally.count(Kind::UserMoved);
                self.users.users[user].has_moved = true;
                self.users.users[user].devices.clear();
            }
            (Asked::Registration { .. } | Asked::LogIn { .. } | Asked::Move { .. }, Err(_))
            | (Asked::Post { .. }, _) => {}
        }
    }

    /// A new device of everybody to whom something was accepted, of whom something was queued, or at whose home there are posts, reads
    /// the whole inbox and log, once all is brought that a home was reached too late for.
    pub fn everybody_reads(&mut self) {
        let waits = |world: &Self| world.servers.iter().any(|server| server.disk.mail.queued() > 0);
        for _ in 0..5 {
            if waits(self) {
                self.run_for(5_000);
            }
        }
        let is_awaited = |user: &usize| {
            let server = &self.servers[self.users.users[*user].server];
            self.deliveries.is_awaited(&self.address(*user)) || self.posts.is_awaited(server.id)
        };
        let readers: Vec<usize> = (0..self.users.users.len()).filter(is_awaited).collect();
        for user in &readers {
            self.ask_to_log_in(*user);
        }
        self.run_for(20);
        for user in readers {
            if let Some(device) = self.users.users[user].devices.len().checked_sub(1) {
                self.users.users[user].devices[device].cursor.clear();
                self.users.users[user].devices[device].channel_cursor = BEGINNING.to_owned();
                self.attach(user, device, "");
            }
        }
        self.run_for(5_000);
    }

    /// A few users do something.
    pub fn users_act(&mut self) {
        if self.users.users.is_empty() {
            for server in 0..self.servers.len() {
                for user in 0..self.faults.users {
                    let user = self.add_user(server, &format!("u{user}"));
                    self.users.users[user].spki = real_spki(user);
                }
            }
        }
        for _ in 0..self.rng.usize(1..4) {
            let user = self.rng.usize(0..self.users.users.len());
            let server = self.users.users[user].server;
            if self.servers[server].node.is_some() {
                self.user_acts(user);
            }
        }
    }

    /// A user registers at another home under another name, or, once that is done, tells the old home.
    fn goes_on_to_move(&mut self, user: usize, device: usize) {
        let User { server, devices, moves_to, .. } = self.users.users[user].clone();
        match moves_to {
            None => {
                let others: Vec<usize> = (0..self.servers.len()).filter(|other| *other != server).collect();
                let other = self.rng.choice(others).expect("a network has two servers at least");
                let name = format!("m{}", self.users.users.len());
                self.users.users[user].moves_to = Some(self.same_person(user, other, &name));
            }
            Some(new) if self.users.users[new].is_registered => {
                let moved = self.signed_move(user, new);
                self.moves.say(&moved);
                let token = devices[device].token;
                let call = self.ask(server, Request::MoveUser { token, moved });
                self.users.asked.insert((server, call), Asked::Move { user });
            }
            Some(_) => {}
        }
    }

    fn user_acts(&mut self, user: usize) {
        if !self.users.users[user].is_registered {
            self.ask_to_register(user);
            return;
        }
        // Who moved tries to be here still now and then, to no avail.
        if self.users.users[user].has_moved && self.rng.u32(0..4) > 0 {
            return;
        }
        let devices = self.users.users[user].devices.len();
        if devices == 0 || (devices < 3 && self.rng.u32(0..10) == 0) {
            self.ask_to_log_in(user);
            return;
        }
        let device = self.rng.usize(0..devices);
        let is_attached = self.users.users[user].devices[device].attachment.is_some();
        match self.rng.u32(0..100) {
            0..15 if is_attached => self.detach(user, device),
            15..25 if is_attached => self.break_stream(user, device),
            25..35 => {
                let status = format!("status {}", self.rng.u32(0..3));
                self.attach(user, device, &status);
            }
            35..38 => self.log_out(user, device),
            38..80 => {
                let to = self.rng.usize(0..self.users.users.len());
                self.tell(user, to);
            }
            80..85 => drop(self.post(user)),
            85..87 => self.goes_on_to_move(user, device),
            _ if !is_attached => self.attach(user, device, ""),
            _ => {}
        }
    }
}
