//! A rogue peer: what it can make with its own key, and what it can only garble.

use std::{collections::BTreeSet, sync::Arc};

use fastrand::Rng;
use prost::{Message as _, bytes::Bytes};
use socp::{
    admission::Admission,
    batch::{Advert, Batch, Content, Epoch, sign_goodbye},
    digest::SetHash,
    directory::Entry,
    federation::v1::{
        Admissions, AdvertiseFrame, CatchUpEnd, CatchUpRequest, DeliverFrame, Hello, KeepAlive, MessageDelivery,
        NeighboursStatement, NewcomerQuery, OutcomeDelivery, Position, PostDelivery, RemoveFrame, SignedBatch,
        SignedNeighbours, SnapshotBegin, SnapshotEnd, SnapshotPart, Statements, UserQuery, UserReply,
        UserReplyStatement, Voucher, advertise_frame, deliver_frame, remove_frame,
    },
    id::{ContentHash, KeyFingerprint, ServerId, StartId},
    identity::Identity as _,
    input::{Frame, LinkId},
    message::{Address, PUBLIC_CHANNEL, SUITE},
    moves::Move,
    name::{ServerName, UserName},
    origin::{CatchUp, Origin},
    signed::{Label, signing_input},
    statement::{KeyStatement, statement_hash},
    user_key::UserKey,
    v1::{
        ChannelKeyWrap, MessageHeader, MessageStatement, Outcome, OutcomeStatement, PostHeader, PostStatement,
        SealedMessage, SealedPost, SignedKeyStatement, SignedMove, SignedOutcome,
    },
};

use crate::{
    keys::{self, SimIdentity},
    victim::USERS,
};

/// Unix time at which every run begins.
pub const UNIX_MS: u64 = 1_800_000_000_000;

/// The rogue's users; some bear names of the victim's.
const NAMES: [&str; 5] = ["anchor", "alice", "eve", "mallory", "trudy"];

/// What of an advert must have been signed: user, status, sessions, when the time online began.
type Signed = (String, String, u32, u64);

/// The peer.
pub struct Rogue {
    identity: SimIdentity,
    victim: ServerId,
    epoch: u64,
    /// What an honest server in its place would have.
    origin: Origin,
    /// Honest batches, sent or not.
    batches: Vec<Arc<Batch>>,
    /// Frames that are due next, such as the rest of a snapshot.
    due: Vec<Frame>,
    signed: BTreeSet<Signed>,
    messages: Vec<SealedMessage>,
}

impl Rogue {
    pub fn new(victim: ServerId) -> Self {
        let identity = SimIdentity::new(2);
        let id = ServerId::of_key(&identity.public_key());
        let origin = Origin::new(id, epoch(1));
        let mut rogue = Self {
            identity,
            victim,
            epoch: 1,
            origin,
            batches: Vec::new(),
            due: Vec::new(),
            signed: BTreeSet::new(),
            messages: Vec::new(),
        };
        rogue.restart(1);
        rogue
    }

    pub fn id(&self) -> ServerId {
        ServerId::of_key(&self.identity.public_key())
    }

    pub fn epoch(&self) -> Epoch {
        epoch(self.epoch)
    }

    fn restart(&mut self, number: u64) {
        self.epoch = number;
        self.origin = Origin::new(self.id(), epoch(number));
        self.batches.clear();
        self.due.clear();
        for user in NAMES {
            let statement = KeyStatement::parse(&key_statement(self.id(), user)).expect("a good statement");
            self.origin.keep_statement(Arc::new(statement));
        }
    }

    /// Whether the rogue ever said this of its user.
    pub fn has_signed(&self, entry: &Entry) -> bool {
        let user = entry.address.user.to_string();
        self.signed.contains(&(user, entry.status.to_string(), entry.sessions, entry.online_since))
    }

    /// An honest introduction.
    pub fn hello(&self) -> Frame {
        let position = self.position(self.origin.position());
        advertise(advertise_frame::Kind::Hello(self.hello_of(self.epoch(), vec![position])))
    }

    fn hello_of(&self, epoch: Epoch, positions: Vec<Position>) -> Hello {
        let start_id = Bytes::copy_from_slice(epoch.start.as_bytes());
        Hello { version_major: 1, version_minor: 0, name: "rogue".into(), epoch: epoch.number, start_id, positions }
    }

    fn position(&self, number: u64) -> Position {
        let origin_id = Bytes::copy_from_slice(self.id().as_bytes());
        let start_id = Bytes::copy_from_slice(self.epoch().start.as_bytes());
        Position { origin_id, epoch: self.epoch, start_id, number, ..Position::default() }
    }

    /// The statements of all its users.
    pub fn statements(&self) -> Frame {
        let statements = NAMES.iter().map(|user| key_statement(self.id(), user)).collect();
        advertise(advertise_frame::Kind::Statements(Statements { statements }))
    }

    /// Signs whatever it is given, and remembers what it said.
    pub fn sign(&mut self, epoch: Epoch, number: u64, digest: &SetHash, content: Content) -> Batch {
        let batch = Batch::sign(&self.identity, epoch, number, digest.digest(), UNIX_MS, content);
        self.note_signed(&batch);
        batch
    }

    fn note_signed(&mut self, batch: &Batch) {
        for advert in batch.adverts() {
            self.signed.insert((
                advert.user.to_string(),
                advert.status.to_string(),
                advert.sessions,
                advert.online_since,
            ));
        }
    }

    pub fn advert(&self, user: &str, status: &str, online_since: u64, sessions: u32) -> Arc<Advert> {
        let statement = KeyStatement::parse(&key_statement(self.id(), user)).expect("a good statement");
        Arc::new(Advert {
            user: statement.user.clone(),
            display_name: "".into(),
            status: status.into(),
            statement: statement.hash(),
            online_since,
            sessions,
        })
    }

    /// The next batch as an honest server would make it.
    pub fn honest(&mut self, content: Content) -> Arc<Batch> {
        let (identity, epoch) = (self.identity.clone(), self.epoch());
        let batch = self.origin.originate(content, |number, digest, content| {
            Batch::sign(&identity, epoch, number, digest, UNIX_MS, content)
        });
        self.note_signed(&batch);
        self.batches.push(Arc::clone(&batch));
        batch
    }

    /// A move of a user of the victim's or of its own, more or less well-formed, that nobody signed.
    pub fn any_move(&self, rng: &mut Rng) -> SignedMove {
        let home = if rng.u32(0..4) == 0 { self.id() } else { self.victim };
        let user = USERS[rng.usize(0..USERS.len())];
        let address = |home| Address { home, user: UserName::parse(user).expect("a good name") };
        let hash = statement_hash(&key_statement(home, user));
        let statement = Move::encode(&address(home), hash, &address(ServerId::of_key(&[9; 32])), UNIX_MS as i64);
        let statement = if rng.u32(0..4) == 0 { mutated(rng, &statement) } else { statement };
        SignedMove { statement: statement.into(), signature: vec![0; 512].into() }
    }

    fn any_content(&mut self, rng: &mut Rng, number: u64) -> Content {
        let count = rng.usize(1..6);
        if rng.u32(0..12) == 0 {
            let name = NAMES[rng.usize(0..NAMES.len())];
            let from = Address { home: self.id(), user: UserName::parse(name).expect("a good name") };
            let to = Address { home: ServerId::of_key(&[9; 32]), user: from.user.clone() };
            let shown = statement_hash(&key_statement(self.id(), name));
            let statement = Move::encode(&from, shown, &to, 1).into();
            let moved = Move::parse(&SignedMove { statement, signature: vec![0; 512].into() });
            return Content::Moved(Arc::new(moved.expect("it is well formed")));
        }
        if rng.u32(0..3) == 0 {
            let user = |_| UserName::parse(rng.choice(NAMES).expect("there are some")).expect("a good name");
            return Content::Removals((0..count).map(user).collect());
        }
        let advert = |_| {
            let user = rng.choice(NAMES).expect("there are some");
            let online_since = if rng.bool() { number.max(1) } else { rng.u64(1..=number.max(1)) };
            self.advert(user, &format!("status {}", rng.u32(0..9)), online_since, rng.u32(1..4))
        };
        Content::Adverts((0..count).map(advert).collect())
    }

    /// A frame of any kind, more or less well-formed.
    pub fn frame(&mut self, rng: &mut Rng, seen: &[(LinkId, Frame)]) -> Frame {
        if let Some(frame) = self.due.pop()
            && rng.u32(0..10) > 0
        {
            return frame;
        }
        match rng.u32(0..150) {
            0..4 => self.any_hello(rng),
            4..10 => self.statements(),
            10..14 => {
                let statements = vec![self.any_statement(rng), key_statement(self.victim, "alice")];
                advertise(advertise_frame::Kind::Statements(Statements { statements }))
            }
            14..45 | 138..150 => self.honest_frame(rng),
            45..60 => self.any_batch(rng),
            60..64 => self.snapshot(rng),
            64..70 => self.any_part_of_snapshot(rng),
            70..74 => {
                let (home_id, asker_id) = (self.any_server(rng), self.any_server(rng));
                let hops_left = rng.u32(0..4);
                let query = UserQuery { query: rng.u64(..), user: any_text(rng), home_id, asker_id, hops_left };
                advertise(advertise_frame::Kind::UserQuery(query))
            }
            74..80 => self.any_reply(rng),
            80..90 => self.any_keep_alive(rng),
            90 => {
                let of = if rng.bool() { self.epoch } else { rng.u64(..) };
                let goodbye = sign_goodbye(&self.identity, epoch(of), 0);
                remove(remove_frame::Kind::Goodbye(goodbye))
            }
            91..97 => {
                let message = self.message_from(rng);
                let voucher = self.any_voucher(rng, &message.statement);
                let after_message_id =
                    if rng.u8(0..4) > 0 { Bytes::new() } else { (0..16).map(|_| rng.u8(..)).collect() };
                let hops_left = rng.u32(0..3);
                let home_epoch = 0;
                let delivery =
                    MessageDelivery { message: Some(message), voucher, hops_left, after_message_id, home_epoch };
                deliver(deliver_frame::Kind::Message(delivery))
            }
            97..101 => {
                let post = self.post_from(rng);
                let voucher = self.any_voucher(rng, &post.statement);
                let home_ids = (0..rng.usize(0..4)).map(|_| self.any_server(rng)).collect();
                let (wraps, hops_left) = (self.wraps(rng), rng.u32(..));
                let delivery = PostDelivery { post: Some(post), wraps, voucher, hops_left, home_ids };
                deliver(deliver_frame::Kind::Post(delivery))
            }
            101..111 => self.any_outcome(rng, seen),
            111 => Frame::Remove(RemoveFrame { kind: None }),
            112..118 => self.any_neighbours(rng),
            118..122 => {
                let position = (rng.u32(0..8) > 0)
                    .then(|| Position { origin_id: self.any_server(rng), ..self.keep_alive_position(rng.u64(0..4)) });
                let (snapshot_number, with_statements) = (rng.u64(0..4), rng.bool());
                let request = CatchUpRequest { position, snapshot_number, with_statements };
                advertise(advertise_frame::Kind::CatchUpRequest(request))
            }
            122..124 => {
                let end = CatchUpEnd { origin_id: self.any_server(rng), snapshot_number: rng.u64(0..4) };
                advertise(advertise_frame::Kind::CatchUpEnd(end))
            }
            132..136 => self.any_admissions(rng),
            136..138 => {
                let query = NewcomerQuery { server_id: self.any_server(rng), with_admissions: rng.bool() };
                remove(remove_frame::Kind::NewcomerQuery(query))
            }
            _ => self.garbled(rng),
        }
    }

    /// Admissions of anybody by the rogue or by nobody, some of them garbled: those it admits are nobody, too.
    fn any_admissions(&self, rng: &mut Rng) -> Frame {
        let admission = |rng: &mut Rng| {
            let issuer = if rng.u32(0..6) == 0 { SimIdentity::new(rng.u64(3..6)) } else { self.identity.clone() };
            let subject = match rng.u32(0..8) {
                0 => self.victim,
                1 => self.id(),
                _ => ServerId::of_key(&SimIdentity::new(rng.u64(3..90)).public_key()),
            };
            let name = ServerName::parse(["victim", "rogue", "a", "b"][rng.usize(0..4)]).expect("a good name");
            let until_unix_ms = UNIX_MS.saturating_add_signed(rng.i64(-1_000..1_000_000));
            let serial = if rng.u32(0..9) == 0 { rng.u64(..) } else { rng.u64(1..9) };
            let mut signed = Admission::sign(&issuer, subject, name, serial, until_unix_ms, rng.bool()).signed;
            if rng.u32(0..6) == 0 {
                signed.statement = mutated(rng, &signed.statement).into();
            }
            signed
        };
        let admissions = (0..rng.usize(0..6)).map(|_| admission(rng)).collect();
        remove(remove_frame::Kind::Admissions(Admissions { admissions }))
    }

    fn any_hello(&mut self, rng: &mut Rng) -> Frame {
        match rng.u32(0..8) {
            0..3 => self.restart(self.epoch + rng.u64(0..2)),
            3 => {
                let number = rng.u64(0..=self.epoch);
                let mut hello = self.hello_of(epoch(number), vec![self.position(u64::MAX)]);
                hello.start_id = vec![rng.u8(..); rng.usize(15..17)].into();
                return advertise(advertise_frame::Kind::Hello(hello));
            }
            4 => {
                let mut hello = self.hello_of(self.epoch(), Vec::new());
                hello.positions = vec![self.position(0); socp::limits::POSITIONS_MAX + rng.usize(0..2)];
                return advertise(advertise_frame::Kind::Hello(hello));
            }
            5 => {
                let mut hello = self.hello_of(self.epoch(), Vec::new());
                hello.version_major = rng.u32(0..3);
                hello.name = any_text(rng);
                return advertise(advertise_frame::Kind::Hello(hello));
            }
            _ => {}
        }
        self.hello()
    }

    /// The next batch, or one of before, in or out of order.
    fn honest_frame(&mut self, rng: &mut Rng) -> Frame {
        let is_next = self.batches.is_empty() || rng.u32(0..3) > 0;
        let batch = if is_next {
            let content = self.any_content(rng, self.origin.position() + 1);
            self.honest(content)
        } else {
            Arc::clone(rng.choice(&self.batches).expect("there are some"))
        };
        if is_next && rng.u32(0..5) == 0 {
            return self.hello();
        }
        batch_frame(rng, batch.signed.clone())
    }

    /// A batch that contradicts what was said before, rightly signed or not.
    fn any_batch(&mut self, rng: &mut Rng) -> Frame {
        let position = self.origin.position();
        let number = match rng.u32(0..8) {
            0 => rng.u64(..),
            1 => u64::MAX,
            _ => position.saturating_add(rng.u64(0..6)),
        };
        // Whoever signs a later epoch ends the one before it.
        let of = if rng.u32(0..60) == 0 { epoch(self.epoch + rng.u64(0..3)) } else { self.epoch() };
        let content = self.any_content(rng, number);
        let digest = if rng.bool() { self.origin.hash().clone() } else { SetHash::default() };
        let mut signed = self.sign(of, number, &digest, content).signed;
        match rng.u32(0..8) {
            0 => signed.signature = mutated(rng, &signed.signature).into(),
            1 => signed.statement = mutated(rng, &signed.statement).into(),
            2..4 => {
                signed.statement = mutated(rng, &signed.statement).into();
                let signature = self.identity.sign(&signing_input(Label::Batch, &signed.statement));
                signed.signature = Bytes::copy_from_slice(&signature);
                if let Ok(batch) = Batch::open(&self.identity, &signed) {
                    self.note_signed(&batch);
                }
            }
            _ => {}
        }
        // It is found out by this, and believed nothing more before it starts anew.
        if rng.u32(0..4) == 0 {
            self.restart(self.epoch.saturating_add(1));
        }
        batch_frame(rng, signed)
    }

    /// An honest snapshot, in order.
    fn snapshot(&mut self, rng: &mut Rng) -> Frame {
        let position = self.origin.position();
        let mut frames = vec![
            self.keep_alive_ahead(),
            self.statements(),
            advertise(advertise_frame::Kind::SnapshotBegin(SnapshotBegin { position: Some(self.position(position)) })),
        ];
        let CatchUp::Snapshot { parts, last } = self.origin.catch_up(0) else { return frames.remove(rng.usize(0..3)) };
        for (batch, current) in parts {
            let part = SnapshotPart { batch: Some(batch.signed.clone()), current };
            frames.push(advertise(advertise_frame::Kind::SnapshotPart(part)));
        }
        let end = SnapshotEnd { last: Some(last.signed.clone()) };
        frames.push(advertise(advertise_frame::Kind::SnapshotEnd(end)));
        frames.reverse();
        self.due = frames;
        self.due.pop().expect("a snapshot has a beginning")
    }

    fn any_part_of_snapshot(&mut self, rng: &mut Rng) -> Frame {
        let number = if rng.u32(0..4) == 0 { u64::MAX } else { self.origin.position() + rng.u64(0..3) };
        let content = self.any_content(rng, number);
        let batch = self.sign(self.epoch(), number, &SetHash::default(), content);
        let kind = match rng.u32(0..3) {
            0 => advertise_frame::Kind::SnapshotBegin(SnapshotBegin { position: Some(self.position(number)) }),
            1 => {
                let current = (0..rng.usize(0..4)).map(|_| rng.u32(0..4)).collect();
                advertise_frame::Kind::SnapshotPart(SnapshotPart { batch: Some(batch.signed), current })
            }
            _ => advertise_frame::Kind::SnapshotEnd(SnapshotEnd { last: Some(batch.signed) }),
        };
        advertise(kind)
    }

    fn any_reply(&mut self, rng: &mut Rng) -> Frame {
        let user = rng.choice(NAMES).expect("there are some");
        let mut statements = vec![key_statement(self.id(), user)];
        match rng.u32(0..4) {
            0 => statements.clear(),
            1 => statements = [u64::MAX, 2].map(|number| later_statement(self.id(), user, number)).into(),
            2 => statements.push(self.any_statement(rng)),
            _ => {}
        }
        let asker_id = self.any_server(rng);
        let user = user.to_string();
        let moved = (rng.u32(0..3) == 0).then(|| self.any_move(rng));
        let statement =
            UserReplyStatement { query: rng.u64(0..40), asker_id: asker_id.clone(), user, statements, moved }
                .encode_to_vec();
        let label = if rng.u32(0..9) == 0 { Label::Outcome } else { Label::UserReply };
        let signature = self.identity.sign(&signing_input(label, &statement)).to_vec().into();
        let home_key = self.identity.public_key().to_vec().into();
        let hops_left = rng.u32(0..4);
        let reply = UserReply { statement: statement.into(), signature, home_key, asker_id, hops_left };
        advertise(advertise_frame::Kind::UserReply(reply))
    }

    /// The id of the victim, of itself, or of nobody, and sometimes none.
    fn any_server(&self, rng: &mut Rng) -> Bytes {
        match rng.u32(0..8) {
            0 => vec![0; rng.usize(0..40)].into(),
            1 => vec![7; 32].into(),
            2 | 3 => Bytes::copy_from_slice(self.id().as_bytes()),
            _ => Bytes::copy_from_slice(self.victim.as_bytes()),
        }
    }

    /// A list of neighbours: own or invented, and of any epoch.
    fn any_neighbours(&self, rng: &mut Rng) -> Frame {
        let epoch = epoch(if rng.u32(0..60) > 0 { self.epoch } else { rng.u64(..) });
        let statement = NeighboursStatement {
            origin_key: self.identity.public_key().to_vec().into(),
            epoch: epoch.number,
            start_id: Bytes::copy_from_slice(epoch.start.as_bytes()),
            number: rng.u64(0..20),
            position: if rng.bool() { self.origin.position() } else { rng.u64(..) },
            neighbour_ids: (0..rng.usize(0..4)).map(|_| self.any_server(rng)).collect(),
        }
        .encode_to_vec();
        let label = if rng.u32(0..9) == 0 { Label::Goodbye } else { Label::Neighbours };
        let signature = self.identity.sign(&signing_input(label, &statement)).to_vec().into();
        remove(remove_frame::Kind::Neighbours(SignedNeighbours { statement: statement.into(), signature, age_ms: 0 }))
    }

    /// Its word that it checked who sent this.
    pub fn voucher(&self, statement: &[u8]) -> Voucher {
        let hash = ContentHash::of(statement);
        let signature = self.identity.sign(&signing_input(Label::Submission, hash.as_bytes()));
        Voucher { home_key: self.identity.public_key().to_vec().into(), signature: signature.to_vec().into() }
    }

    fn any_voucher(&self, rng: &mut Rng, statement: &[u8]) -> Option<Voucher> {
        match rng.u32(0..12) {
            0 => None,
            1 => Some(self.voucher(b"something else")),
            2 => Some(Voucher { home_key: vec![1; rng.usize(0..40)].into(), signature: Bytes::new() }),
            _ => Some(self.voucher(statement)),
        }
    }

    /// A post for the victim's members, vouched for.
    pub fn post_frame(&self, post: SealedPost, wraps: Vec<ChannelKeyWrap>) -> Frame {
        let voucher = Some(self.voucher(&post.statement));
        let home_ids = vec![Bytes::copy_from_slice(self.victim.as_bytes())];
        deliver(deliver_frame::Kind::Post(PostDelivery { post: Some(post), wraps, voucher, hops_left: 1, home_ids }))
    }

    /// An outcome for the victim.
    pub fn outcome_frame(&self, outcome: SignedOutcome) -> Frame {
        let home_id = Bytes::copy_from_slice(self.victim.as_bytes());
        deliver(deliver_frame::Kind::Outcome(OutcomeDelivery { outcome: Some(outcome), home_id, hops_left: 1 }))
    }

    fn any_keep_alive(&self, rng: &mut Rng) -> Frame {
        let positions = (0..rng.usize(0..4)).map(|_| {
            let mut position = self.position(if rng.bool() { rng.u64(0..9) } else { rng.u64(..) });
            match rng.u32(0..3) {
                0 => position.origin_id = vec![0; rng.usize(0..40)].into(),
                1 => {
                    position.origin_id = Bytes::copy_from_slice(self.victim.as_bytes());
                    position.start_id = vec![1; 16].into();
                    position.epoch = 1;
                }
                _ => {}
            }
            position
        });
        let positions = positions.collect();
        remove(remove_frame::Kind::KeepAlive(KeepAlive { positions, time_unix_ms: rng.i64(..) }))
    }

    /// A keep-alive that says that it has batches which it never sent.
    pub fn keep_alive_ahead(&self) -> Frame {
        let positions = vec![self.position(self.origin.position() + 5)];
        remove(remove_frame::Kind::KeepAlive(KeepAlive { positions, time_unix_ms: 0 }))
    }

    fn keep_alive_position(&self, number: u64) -> Position {
        let origin_id = Bytes::copy_from_slice(self.victim.as_bytes());
        Position { origin_id, epoch: 1, start_id: vec![1; 16].into(), number, ..Position::default() }
    }

    /// Words on what was sent to it, and on what never was.
    fn any_outcome(&self, rng: &mut Rng, seen: &[(LinkId, Frame)]) -> Frame {
        let sent = seen.iter().filter_map(|(_, frame)| match frame {
            Frame::Deliver(DeliverFrame { kind: Some(deliver_frame::Kind::Message(message)) }) => {
                message.message.as_ref().map(|message| &message.statement)
            }
            Frame::Deliver(DeliverFrame { kind: Some(deliver_frame::Kind::Post(post)) }) => {
                post.post.as_ref().map(|post| &post.statement)
            }
            _ => None,
        });
        let hash = rng.choice(sent.collect::<Vec<_>>()).map(|statement| ContentHash::of(statement));
        let reason = rng.choice(["USER_NOT_FOUND", "TOKEN_INVALID", "", "NOT_A_REASON"]).expect("there are some");
        let signed = self.outcome(hash, rng.i32(-1..4), reason, rng.u32(..));
        if rng.u32(0..8) == 0 {
            let delivery =
                OutcomeDelivery { outcome: Some(signed), home_id: self.any_server(rng), hops_left: rng.u32(0..3) };
            return deliver(deliver_frame::Kind::Outcome(delivery));
        }
        self.outcome_frame(signed)
    }

    /// A signed outcome of one message.
    pub fn outcome(&self, hash: Option<ContentHash>, kind: i32, reason: &str, recipients: u32) -> SignedOutcome {
        let statement_sha256 = hash.map(|hash| Bytes::copy_from_slice(hash.as_bytes())).unwrap_or_default();
        let outcome = Outcome { statement_sha256, kind, reason: reason.into(), recipients };
        let statement = OutcomeStatement { home_id: self.id().to_string(), time_unix_ms: 0, outcomes: vec![outcome] }
            .encode_to_vec();
        let signature = self.identity.sign(&signing_input(Label::Outcome, &statement));
        SignedOutcome {
            statement: statement.into(),
            signature: Bytes::copy_from_slice(&signature),
            home_key: Bytes::copy_from_slice(&self.identity.public_key()),
        }
    }

    /// A frame with some bytes altered that can still be read as one.
    fn garbled(&mut self, rng: &mut Rng) -> Frame {
        for _ in 0..20 {
            let frame = match self.honest_frame(rng) {
                Frame::Advertise(frame) => {
                    AdvertiseFrame::decode(&mutated(rng, &frame.encode_to_vec())[..]).map(Frame::Advertise)
                }
                Frame::Remove(frame) => {
                    RemoveFrame::decode(&mutated(rng, &frame.encode_to_vec())[..]).map(Frame::Remove)
                }
                Frame::Deliver(_) => unreachable!("batches do not travel there"),
            };
            if let Ok(frame) = frame {
                return frame;
            }
        }
        self.hello()
    }

    /// A statement that may be altered, another home's, or of an odd number.
    pub fn any_statement(&mut self, rng: &mut Rng) -> SignedKeyStatement {
        let home = if rng.bool() { self.id() } else { self.victim };
        let mut signed = match rng.u32(0..3) {
            0 => later_statement(home, "eve", if rng.bool() { rng.u64(..) } else { u64::MAX }),
            _ => key_statement(home, rng.choice(NAMES).expect("there are some")),
        };
        if rng.bool() {
            signed.statement = mutated(rng, &signed.statement).into();
        }
        signed
    }

    /// A message of one of the victim's users to anybody.
    pub fn message_to(&mut self, rng: &mut Rng, unix_ms: u64) -> SealedMessage {
        if let Some(again) = rng.choice(&self.messages)
            && rng.u32(0..4) == 0
        {
            return again.clone();
        }
        let home = if rng.bool() { self.id() } else { self.victim };
        let sealed = self.sealed(rng, (self.victim, "alice"), home, unix_ms);
        self.messages.push(sealed.clone());
        sealed
    }

    fn message_from(&mut self, rng: &mut Rng) -> SealedMessage {
        let mut sealed = self.sealed(rng, (self.id(), "eve"), self.victim, UNIX_MS);
        if rng.u32(0..3) == 0 {
            sealed.statement = mutated(rng, &sealed.statement).into();
        }
        sealed
    }

    /// A new message of alice at the victim to a user of the rogue.
    pub fn message_out(&self, rng: &mut Rng) -> SealedMessage {
        self.sealed(rng, (self.victim, "alice"), self.id(), UNIX_MS)
    }

    fn sealed(&self, rng: &mut Rng, sender: (ServerId, &str), home: ServerId, unix_ms: u64) -> SealedMessage {
        let recipient = rng.choice(USERS).expect("there are some");
        let header = MessageHeader {
            suite: SUITE,
            message_id: any_message_id(rng),
            sender: sender.1.into(),
            sender_home_id: sender.0.to_string(),
            sender_key_sha256: fingerprint(sender.1),
            recipient: recipient.into(),
            recipient_home_id: home.to_string(),
            recipient_key_sha256: fingerprint(recipient),
            time_unix_ms: unix_ms as i64,
            require_online: false,
            wants_receipts: false,
        };
        seal_message(&header)
    }

    /// A post of one of the victim's users.
    pub fn post_to(&self, rng: &mut Rng, unix_ms: u64) -> SealedPost {
        seal_post(rng, self.victim, "alice", unix_ms)
    }

    fn post_from(&self, rng: &mut Rng) -> SealedPost {
        let mut sealed = seal_post(rng, self.id(), "eve", UNIX_MS);
        if rng.u32(0..3) == 0 {
            sealed.statement = mutated(rng, &sealed.statement).into();
        }
        sealed
    }

    pub fn wraps(&self, rng: &mut Rng) -> Vec<ChannelKeyWrap> {
        let wrap = |_| {
            let recipient = rng.choice(USERS).expect("there are some");
            ChannelKeyWrap {
                recipient: recipient.into(),
                recipient_home_id: if rng.u32(0..5) == 0 { self.id() } else { self.victim }.to_string(),
                recipient_key_sha256: fingerprint(recipient),
                wrapped_key: vec![0; if rng.u32(0..9) == 0 { 511 } else { 512 }].into(),
            }
        };
        (0..4).map(wrap).collect()
    }
}

pub fn seal_message(header: &MessageHeader) -> SealedMessage {
    let statement = MessageStatement {
        header: header.encode_to_vec().into(),
        nonce: Bytes::from_static(&[0; 12]),
        ciphertext: Bytes::from_static(b"nobody here reads this"),
        key_commitment: Bytes::from_static(&[0; 32]),
        ..MessageStatement::default()
    };
    let statement = statement.encode_to_vec().into();
    SealedMessage { statement, signature: vec![0; 512].into(), wrapped_key: vec![0; 512].into() }
}

pub fn seal_post(rng: &mut Rng, home: ServerId, user: &str, unix_ms: u64) -> SealedPost {
    let header = PostHeader {
        suite: SUITE,
        message_id: any_message_id(rng),
        sender: user.into(),
        sender_home_id: home.to_string(),
        sender_key_sha256: fingerprint(user),
        channel: PUBLIC_CHANNEL.into(),
        key_id: Bytes::from_static(&[1; 16]),
        salt: Bytes::from_static(&[2; 32]),
        counter: rng.u64(..),
        time_unix_ms: unix_ms as i64,
    };
    let statement = PostStatement {
        header: header.encode_to_vec().into(),
        nonce: Bytes::from_static(&[0; 12]),
        ciphertext: Bytes::from_static(b"nobody here reads this"),
        key_commitment: Bytes::from_static(&[0; 32]),
    };
    SealedPost { statement: statement.encode_to_vec().into(), signature: vec![0; 512].into() }
}

pub fn any_message_id(rng: &mut Rng) -> String {
    format!("01890a5d-ac96-774b-8{:03x}-{:012x}", rng.u16(0..0x1000), rng.u64(0..1 << 48))
}

pub fn fingerprint(user: &str) -> Bytes {
    Bytes::copy_from_slice(KeyFingerprint::of_spki(&keys::user_spki(user.as_bytes())).as_bytes())
}

/// The first statement of a user of any home.
pub fn key_statement(home: ServerId, user: &str) -> SignedKeyStatement {
    let name = UserName::parse(user).expect("a good name");
    let key = UserKey::parse(&keys::user_spki(user.as_bytes())).expect("a key of the right form");
    let statement = KeyStatement::encode(&name, home, &key, 1, None);
    let signature = keys::seal(key.spki(), &signing_input(Label::KeyStatement, &statement));
    SignedKeyStatement { statement: statement.into(), signature, previous_signature: Bytes::new() }
}

/// A statement of a number above 1 that follows none.
pub fn later_statement(home: ServerId, user: &str, number: u64) -> SignedKeyStatement {
    let first = KeyStatement::parse(&key_statement(home, user)).expect("a good statement");
    let statement = KeyStatement::encode(&first.user, home, &first.key, number, Some(first.hash()));
    let signature = first.signed.signature;
    SignedKeyStatement { statement: statement.into(), previous_signature: signature.clone(), signature }
}

/// Some bytes altered, cut off, or added.
pub fn mutated(rng: &mut Rng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.usize(1..4) {
        if bytes.is_empty() {
            bytes.push(rng.u8(..));
        }
        let place = rng.usize(0..bytes.len());
        match rng.u32(0..6) {
            0 => bytes.truncate(place),
            1 => bytes.insert(place, rng.u8(..)),
            2 => drop(bytes.remove(place)),
            3 => bytes[place] = 0xff,
            _ => bytes[place] ^= 1 << rng.u32(0..8),
        }
    }
    bytes
}

pub fn any_text(rng: &mut Rng) -> String {
    let longest = if rng.u32(0..10) == 0 { 300 } else { 12 };
    let length = rng.usize(0..longest);
    (0..length).map(|_| rng.char(..)).collect()
}

pub fn any_user(rng: &mut Rng) -> String {
    let name = rng.choice(["alice", "eve", "anchor", "nobody", "NO"]).expect("there are some");
    match rng.u32(0..4) {
        0 => any_text(rng),
        1 => format!("{name}@victim"),
        2 => format!("{name}@rogue"),
        _ => name.into(),
    }
}

fn epoch(number: u64) -> Epoch {
    Epoch { number, start: StartId::from_bytes(&[2; 16]).expect("16 bytes") }
}

fn batch_frame(rng: &mut Rng, signed: SignedBatch) -> Frame {
    if rng.bool() { advertise(advertise_frame::Kind::Batch(signed)) } else { remove(remove_frame::Kind::Batch(signed)) }
}

pub fn advertise(kind: advertise_frame::Kind) -> Frame {
    Frame::Advertise(AdvertiseFrame { kind: Some(kind) })
}

pub fn remove(kind: remove_frame::Kind) -> Frame {
    Frame::Remove(RemoveFrame { kind: Some(kind) })
}

pub fn deliver(kind: deliver_frame::Kind) -> Frame {
    Frame::Deliver(DeliverFrame { kind: Some(kind) })
}
