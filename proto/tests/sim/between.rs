//! One node between a neighbour that lies and an honest one, with an origin behind both: every frame is made by hand.

use std::sync::Arc;

use prost::{Message as _, bytes::Bytes};
use socp::{
    PROTOCOL_VERSION,
    batch::{Advert, Batch, Content, Epoch},
    digest::{Digest, DigestEntry, SetHash},
    federation::v1::{
        AdvertiseFrame, CatchUpEnd, GoodbyeStatement, Hello, KeepAlive, NeighboursStatement, Position, RemoveFrame,
        SignedGoodbye, SignedNeighbours, Statements, advertise_frame, remove_frame,
    },
    id::{ServerId, StartId, StatementHash},
    identity::Identity as _,
    inbox::Mail,
    input::{CallId, Frame, Input, LinkId, Now, Request},
    name::{ServerName, UserName},
    node::{Node, Pin, Settings, Start, Trust},
    operator::v1::Reach,
    origin::Origin,
    output::{Answer, Output},
    signed::{Label, signing_input},
    statement::KeyStatement,
    user_key::UserKey,
    v1::SignedKeyStatement,
};

use crate::keys::{SimIdentity, user_spki};

/// Links of the node to its neighbours: the liar first, which is chosen first where nothing else decides.
pub const LIAR: LinkId = LinkId(1);
pub const HONEST: LinkId = LinkId(2);
/// A link of the origin itself, which it does not have at first.
pub const ORIGINS: LinkId = LinkId(3);

/// Seeds of the identities: the node, its two neighbours, and an origin behind them.
pub const OWN: u64 = 1;
pub const OF_LIAR: u64 = 2;
pub const OF_HONEST: u64 = 3;
pub const ORIGIN: u64 = 4;

/// A node with two neighbours, and an origin behind them.
pub struct Between {
    pub node: Node,
    pub now_ms: u64,
    pub sent: Vec<(u64, LinkId, Frame)>,
    pub closed: Vec<LinkId>,
    pub origin: Origin,
}

pub fn id(seed: u64) -> ServerId {
    ServerId::of_key(&SimIdentity::new(seed).public_key())
}

pub fn epoch(seed: u64) -> Epoch {
    Epoch { number: 1, start: StartId::from_bytes(&[u8::try_from(seed).unwrap(); 16]).unwrap() }
}

pub fn position(seed: u64, number: u64) -> Position {
    let (epoch, origin_id) = (epoch(seed), id(seed).as_bytes().to_vec().into());
    let start_id = epoch.start.as_bytes().to_vec().into();
    Position { origin_id, epoch: epoch.number, start_id, number, ..Position::default() }
}

pub fn advertise(kind: advertise_frame::Kind) -> Frame {
    Frame::Advertise(AdvertiseFrame { kind: Some(kind) })
}

pub fn remove(kind: remove_frame::Kind) -> Frame {
    Frame::Remove(RemoveFrame { kind: Some(kind) })
}

/// How a server of this name introduces itself.
pub fn hello(name: &str, epoch: Epoch) -> Hello {
    Hello {
        version_major: PROTOCOL_VERSION.0,
        version_minor: 0,
        name: name.into(),
        epoch: epoch.number,
        start_id: epoch.start.as_bytes().to_vec().into(),
        positions: Vec::new(),
    }
}

pub fn list(seed: u64, number: u64, of: &[u64]) -> Frame {
    list_of(&SimIdentity::new(seed), epoch(seed), number, of)
}

/// A list of neighbours as this identity signs it.
pub fn list_of(identity: &SimIdentity, epoch: Epoch, number: u64, of: &[u64]) -> Frame {
    let statement = NeighboursStatement {
        origin_key: identity.public_key().to_vec().into(),
        epoch: epoch.number,
        start_id: epoch.start.as_bytes().to_vec().into(),
        number,
        position: 0,
        neighbour_ids: of.iter().map(|seed| id(*seed).as_bytes().to_vec().into()).collect(),
    }
    .encode_to_vec();
    let signature = identity.sign(&signing_input(Label::Neighbours, &statement)).to_vec().into();
    remove(remove_frame::Kind::Neighbours(SignedNeighbours { statement: statement.into(), signature, age_ms: 0 }))
}

/// A goodbye that asks for so long, whatever the limit is.
pub fn goodbye_that_holds_for(seed: u64, hold_ms: u32) -> SignedGoodbye {
    let identity = SimIdentity::new(seed);
    let statement = GoodbyeStatement {
        origin_key: identity.public_key().to_vec().into(),
        epoch: 1,
        start_id: epoch(seed).start.as_bytes().to_vec().into(),
        hold_ms,
    }
    .encode_to_vec();
    let signature = identity.sign(&signing_input(Label::Goodbye, &statement)).to_vec().into();
    SignedGoodbye { statement: statement.into(), signature }
}

/// A digest that no entries of the origin in these tests have.
pub fn wrong_digest() -> Digest {
    let mut wrong = SetHash::default();
    wrong.insert(&DigestEntry {
        origin: id(ORIGIN),
        epoch: 1,
        user: &UserName::parse("eve").unwrap(),
        display_name: "",
        status: "",
        key_statement: StatementHash::from_bytes(&[0; 32]).unwrap(),
        online_since: 1,
        sessions: 1,
    });
    wrong.digest()
}

impl Between {
    pub fn new() -> Self {
        Self::knowing(&[])
    }

    /// The same with more servers that are pinned, and not linked.
    pub fn knowing(others: &[u64]) -> Self {
        let name = |name: &str| ServerName::parse(name).unwrap();
        let names = [(OF_LIAR, "liar"), (OF_HONEST, "honest"), (ORIGIN, "origin")];
        let pin = |seed: u64, label: &str| Pin { id: id(seed), name: name(label), is_dialled: false };
        let named = names.into_iter().map(|(seed, label)| pin(seed, label));
        let peers = named.chain(others.iter().map(|seed| pin(*seed, &format!("other-{seed}")))).collect();
        let start = Start {
            identity: Box::new(SimIdentity::new(OWN)),
            epoch: 1,
            start_id: epoch(OWN).start,
            seed: 1,
            accounts: Vec::new(),
            invites: Vec::new(),
            trust: Trust::default(),
            mail: Mail::default(),
        };
        let mut between = Self {
            node: Node::new(Settings { peers, ..Settings::new(name("own")) }, start),
            now_ms: 0,
            sent: Vec::new(),
            closed: Vec::new(),
            origin: Origin::new(id(ORIGIN), epoch(ORIGIN)),
        };
        between.link_up(LIAR);
        between.link_up(HONEST);
        between.frame(LIAR, list(OF_LIAR, 1, &[OWN, ORIGIN]));
        between.frame(HONEST, list(OF_HONEST, 1, &[OWN, ORIGIN]));
        between.frame(HONEST, list(ORIGIN, 1, &[OF_LIAR, OF_HONEST]));
        between
    }

    /// A neighbour's link comes up, and it introduces itself.
    pub fn link_up(&mut self, link: LinkId) {
        let (seed, label) = if link == LIAR { (OF_LIAR, "liar") } else { (OF_HONEST, "honest") };
        self.input(Input::LinkUp { link, peer: id(seed), dialled: false });
        self.frame(link, advertise(advertise_frame::Kind::Hello(hello(label, epoch(seed)))));
    }

    pub fn input(&mut self, input: Input) {
        let now = Now { monotonic_ms: self.now_ms, unix_ms: 1_800_000_000_000 };
        for output in self.node.handle(now, input) {
            match output {
                Output::Send { link, frame } => self.sent.push((self.now_ms, link, frame)),
                Output::CloseLink { link, .. } => self.closed.push(link),
                _ => {}
            }
        }
    }

    pub fn frame(&mut self, link: LinkId, frame: Frame) {
        self.input(Input::Frame { link, frame });
    }

    pub fn says(&mut self, link: LinkId, number: u64) {
        let positions = vec![position(ORIGIN, number)];
        self.frame(link, remove(remove_frame::Kind::KeepAlive(KeepAlive { positions, time_unix_ms: 0 })));
    }

    /// The next batch of the origin: it needs no key statements.
    pub fn next_batch(&mut self) -> Arc<Batch> {
        let content = Content::Removals(vec![UserName::parse("nobody").unwrap()]);
        self.origin.originate(content, |number, digest, content| {
            Batch::sign(&SimIdentity::new(ORIGIN), epoch(ORIGIN), number, digest, 0, content)
        })
    }

    /// A user of the origin comes online in an epoch of which this is the first batch.
    pub fn comes_online(&mut self, user: &str, epoch: Epoch) {
        let user = UserName::parse(user).unwrap();
        let key = UserKey::parse(&user_spki(user.as_str().as_bytes())).unwrap();
        let statement = SignedKeyStatement {
            statement: KeyStatement::encode(&user, id(ORIGIN), &key, 1, None).into(),
            signature: vec![0; 512].into(),
            previous_signature: Bytes::new(),
        };
        let known = Arc::new(KeyStatement::parse(&statement).unwrap());
        let (display_name, status) = ("".into(), "".into());
        let advert = Advert { user, display_name, status, statement: known.hash(), online_since: 1, sessions: 1 };
        let mut origin = Origin::new(id(ORIGIN), epoch);
        origin.keep_statement(known);
        let batch = origin.originate(Content::Adverts(vec![Arc::new(advert)]), |number, digest, content| {
            Batch::sign(&SimIdentity::new(ORIGIN), epoch, number, digest, 0, content)
        });
        self.frame(ORIGINS, advertise(advertise_frame::Kind::Statements(Statements { statements: vec![statement] })));
        self.frame(ORIGINS, advertise(advertise_frame::Kind::Batch(batch.signed.clone())));
    }

    /// Requests since this moment, by whom they went to.
    pub fn requests(&self, since_ms: u64) -> Vec<(u64, LinkId)> {
        let is_request = |frame: &Frame| matches!(frame, Frame::Advertise(frame) if matches!(frame.kind, Some(advertise_frame::Kind::CatchUpRequest(_))));
        let requests = self.sent.iter().filter(|(at_ms, _, frame)| *at_ms >= since_ms && is_request(frame));
        requests.map(|(at_ms, link, _)| (*at_ms, *link)).collect()
    }

    /// From which number on something was asked last, of whomever.
    pub fn asked_from(&self) -> Option<u64> {
        let number = |frame: &Frame| match frame {
            Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::CatchUpRequest(request)) }) => {
                request.position.as_ref().map(|position| position.number)
            }
            _ => None,
        };
        self.sent.iter().rev().find_map(|(_, _, frame)| number(frame))
    }

    /// Lets time pass; the neighbours say how far they are as they go.
    pub fn pass(&mut self, ms: u64, liar: u64, honest: u64, mut act: impl FnMut(&mut Self)) {
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.now_ms += 10;
            self.input(Input::Tick);
            if self.now_ms.is_multiple_of(500) {
                self.says(LIAR, liar);
                self.says(HONEST, honest);
            }
            if self.now_ms.is_multiple_of(5_000) {
                let number = self.now_ms;
                self.frame(HONEST, list(OF_LIAR, number, &[OWN, ORIGIN]));
                self.frame(HONEST, list(OF_HONEST, number, &[OWN, ORIGIN]));
                self.frame(HONEST, list(ORIGIN, number, &[OF_LIAR, OF_HONEST]));
            }
            act(self);
        }
    }

    /// A while goes by in which both neighbours say that they live, and this often whom they have links to; the origin does not.
    pub fn pass_without_origin(&mut self, ms: u64, lists_every_ms: u64) {
        self.now_ms += ms;
        self.input(Input::Tick);
        if self.now_ms.is_multiple_of(500) {
            self.says(LIAR, 0);
            self.says(HONEST, 0);
        }
        if self.now_ms.is_multiple_of(lists_every_ms) {
            let number = self.now_ms;
            self.frame(LIAR, list(OF_LIAR, number, &[OWN, ORIGIN]));
            self.frame(HONEST, list(OF_HONEST, number, &[OWN, ORIGIN]));
        }
    }

    /// What an honest neighbour that has everything answers.
    pub fn answer(&mut self, batches: &[Arc<Batch>]) {
        for batch in batches {
            self.frame(HONEST, advertise(advertise_frame::Kind::Batch(batch.signed.clone())));
        }
        self.end(HONEST, 0);
    }

    pub fn end(&mut self, link: LinkId, snapshot_number: u64) {
        let origin_id = id(ORIGIN).as_bytes().to_vec().into();
        self.frame(link, advertise(advertise_frame::Kind::CatchUpEnd(CatchUpEnd { origin_id, snapshot_number })));
    }

    pub fn reaches_origin(&mut self) -> bool {
        let now = Now { monotonic_ms: self.now_ms, unix_ms: 1_800_000_000_000 };
        let call = Input::Call { call: CallId(self.now_ms), request: Request::ListPeers };
        let listed = self.node.handle(now, call).into_iter().find_map(|output| match output {
            Output::Answer { result: Ok(Answer::Peers(list)), .. } => Some(list.peers),
            _ => None,
        });
        let peers = listed.expect("peers are listed");
        peers.iter().any(|peer| peer.name == "origin" && peer.reach() != Reach::Unreachable)
    }

    pub fn own_position(&self) -> u64 {
        self.node.origin(&id(ORIGIN)).map_or(0, Origin::position)
    }
}
