//! Floods: one more of something than a server keeps, at once, by a peer or by a client.

use prost::Message as _;
use socp::{
    admission::Admission,
    batch::{Batch, Content},
    digest::SetHash,
    federation::v1::{
        AdmissionStatement, Admissions, AdvertiseFrame, SignedAdmission, SignedBatch, Statements, advertise_frame,
        remove_frame,
    },
    id::{ServerId, TokenHash},
    input::{Frame, Input, LinkId},
    limits::{
        ADMISSIONS_FRAME_MAX, ADMISSIONS_KEPT_PER_ISSUER_MAX, DAY_MS, EARLY_FRAMES_MAX, HELD_BATCHES_MAX,
        IGNORED_ISSUERS_MAX, NONCES_PER_USER_MAX, PENDING_STATEMENTS_MAX, REFUSED_FRAMES_MAX, SESSIONS_PER_USER_MAX,
    },
    name::{ServerName, UserName},
    statement::KeyStatement,
    user_key::UserKey,
    v1::SignedKeyStatement,
};

use crate::{byzantine::remove, keys::user_spki, tally::Kind, wires::End, world::World};

/// What is passed on costs as much at every server, so larger networks are spared.
const SERVERS_MAX: usize = 8;

impl World {
    /// A flood of some kind.
    pub fn flood(&mut self) {
        let Some(to) = self.any_end() else { return };
        let is_small = self.servers.len() <= SERVERS_MAX;
        match self.rng.u32(0..8) {
            0 if is_small => self.flood_of_batches(to),
            1 if is_small => self.flood_of_admissions(to),
            2 => self.flood_of_statements(to),
            3 => self.flood_before_a_hello(to),
            4 => self.flood_of_strangers(to),
            5 => self.flood_of_nonces(),
            6 => self.flood_of_logins(),
            _ => self.flood_of_garbage(to),
        }
    }

    /// The servers at an end and at the other one.
    fn at(&self, to: End) -> (usize, usize) {
        let servers = self.wires.get(to.wire).expect("it was just drawn").servers;
        (servers[to.side], servers[1 - to.side])
    }

    fn flood_of_garbage(&mut self, to: End) {
        self.tally.count(Kind::Flood);
        let garbage = SignedBatch { statement: vec![0xff; 40].into(), signature: vec![0; 64].into() };
        for _ in 0..REFUSED_FRAMES_MAX + 100 {
            self.forge_to(to, remove(remove_frame::Kind::Batch(garbage.clone())));
        }
    }

    /// A peer signs batches of its own for which another one is missing.
    fn flood_of_batches(&mut self, to: End) {
        let rogue = &self.servers[self.at(to).1];
        let Some(own) = rogue.node.as_ref().and_then(|node| node.origin(&rogue.id)) else { return };
        let (identity, epoch, first) = (rogue.identity.clone(), own.epoch(), own.position() + 1_000);
        self.tally.count(Kind::FloodOfBatches);
        let nobody = UserName::parse("nobody").expect("a good name");
        for number in (first..).take(HELD_BATCHES_MAX + 1) {
            let content = Content::Removals(vec![nobody.clone()]);
            let batch = Batch::sign(&identity, epoch, number, SetHash::default().digest(), 0, content);
            self.forge_to(to, remove(remove_frame::Kind::Batch(batch.signed)));
        }
    }

    /// A peer takes its word back on servers of which it never said one.
    fn flood_of_admissions(&mut self, to: End) {
        self.tally.count(Kind::FloodOfAdmissions);
        let identity = self.servers[self.at(to).1].identity.clone();
        let name = ServerName::parse("nobody").expect("a good name");
        let until = self.true_unix_ms() + DAY_MS;
        let word = |number: usize| {
            let mut key = [7; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            Admission::sign(&identity, ServerId::of_key(&key), name.clone(), 1, until, true).signed
        };
        let words: Vec<_> = (0..=ADMISSIONS_KEPT_PER_ISSUER_MAX).map(word).collect();
        self.say_admissions(to, &words);
    }

    /// A peer brings admissions by servers that nobody knows.
    fn flood_of_strangers(&mut self, to: End) {
        self.tally.count(Kind::FloodOfStrangers);
        let word = |number: usize| {
            let mut issuer_key = [9; 32];
            issuer_key[..8].copy_from_slice(&number.to_be_bytes());
            let statement = AdmissionStatement {
                issuer_key: issuer_key.to_vec().into(),
                subject_id: vec![1; 32].into(),
                name: "nobody".into(),
                serial: 1,
                until_unix_ms: 1,
                revoked: false,
            };
            SignedAdmission { statement: statement.encode_to_vec().into(), signature: vec![0; 64].into() }
        };
        let words: Vec<_> = (0..=IGNORED_ISSUERS_MAX).map(word).collect();
        self.say_admissions(to, &words);
    }

    fn say_admissions(&mut self, to: End, words: &[SignedAdmission]) {
        for some in words.chunks(ADMISSIONS_FRAME_MAX) {
            let admissions = some.to_vec();
            self.forge_to(to, remove(remove_frame::Kind::Admissions(Admissions { admissions })));
        }
    }

    /// A peer sends key statements that no batch names.
    fn flood_of_statements(&mut self, to: End) {
        self.tally.count(Kind::FloodOfStatements);
        let home = self.servers[self.at(to).1].id;
        let user = |number: usize| UserName::parse(&format!("nobody-{number}")).expect("a good name");
        let key = UserKey::parse(&user_spki(b"nobody")).expect("a key of the right form");
        let statement = |number: usize| SignedKeyStatement {
            statement: KeyStatement::encode(&user(number), home, &key, 1, None).into(),
            signature: vec![0; 512].into(),
            previous_signature: Default::default(),
        };
        let all: Vec<_> = (1..=PENDING_STATEMENTS_MAX + 1).map(statement).collect();
        for some in all.chunks(512) {
            let kind = Some(advertise_frame::Kind::Statements(Statements { statements: some.to_vec() }));
            self.forge_to(to, Frame::Advertise(AdvertiseFrame { kind }));
        }
    }

    /// A peer opens another link and sends much on it, but never says who it is.
    fn flood_before_a_hello(&mut self, to: End) {
        self.tally.count(Kind::FloodBeforeHello);
        let (victim, rogue) = self.at(to);
        let link = LinkId(u64::MAX - self.handle());
        let peer = self.servers[rogue].id;
        self.input(victim, Input::LinkUp { link, peer, dialled: false });
        for _ in 0..=EARLY_FRAMES_MAX {
            let garbage = SignedBatch::default();
            self.forge(victim, link, remove(remove_frame::Kind::Batch(garbage)));
        }
    }

    /// Somebody asks for many nonces in one name.
    fn flood_of_nonces(&mut self) {
        let Some(user) = self.any_registered_user() else { return };
        self.tally.count(Kind::FloodOfNonces);
        for _ in 0..=NONCES_PER_USER_MAX {
            self.challenge(user);
        }
    }

    /// A user logs in with more devices than anybody may have, and uses none of them.
    fn flood_of_logins(&mut self) {
        let Some(user) = self.any_registered_user() else { return };
        self.tally.count(Kind::FloodOfLogins);
        let server = self.users.users[user].server;
        for _ in 0..=SESSIONS_PER_USER_MAX {
            let nonce = self.challenge(user);
            let token = TokenHash::of(&format!("token {}", self.handle()));
            let request = self.log_in_request(user, &nonce, token);
            self.ask(server, request);
        }
    }

    fn any_registered_user(&mut self) -> Option<usize> {
        let users = self.users.users.iter().enumerate();
        let users = users.filter(|(_, user)| user.is_registered && self.servers[user.server].node.is_some());
        let users: Vec<usize> = users.map(|(index, _)| index).collect();
        self.rng.choice(users)
    }
}
