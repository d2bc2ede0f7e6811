//! Peers that break the rules on purpose: what they send, and what they keep to themselves.
//!
//! A rogue has its own key and all that it overheard, and no other key. What it does must change nothing that is not its own.

use std::collections::{BTreeMap, VecDeque};

use prost::Message as _;
use socp::{
    batch::{Advert, Batch, Content},
    digest::SetHash,
    federation::v1::{
        AdvertiseFrame, BatchStatement, NeighboursStatement, RemoveFrame, SignedBatch, SignedNeighbours,
        advertise_frame, remove_frame,
    },
    id::ServerId,
    identity::Identity as _,
    input::Frame,
    name::UserName,
    signed::{Label, signing_input},
};

use crate::{
    keys::SimIdentity,
    tally::Kind,
    wires::{End, link_id},
    world::World,
};

/// Frames that are kept to be said again.
const FRAMES_MAX: usize = 512;

/// Snapshots and goodbyes that are kept.
const WORDS_MAX: usize = 16;

/// What went over some link, for rogues to use.
#[derive(Default)]
pub struct Overheard {
    frames: VecDeque<Frame>,
    /// Whole snapshots, each with the id of its origin.
    snapshots: VecDeque<(Vec<u8>, Vec<Frame>)>,
    /// Snapshots under way, by the end that sends them.
    begun: BTreeMap<End, (Vec<u8>, Vec<Frame>)>,
    goodbyes: VecDeque<Frame>,
    /// Each server's last list of neighbours.
    lists: BTreeMap<ServerId, NeighboursStatement>,
}

fn keep<T>(kept: &mut VecDeque<T>, new: T, most: usize) {
    kept.push_back(new);
    if kept.len() > most {
        kept.pop_front();
    }
}

impl Overheard {
    /// A server's last list of neighbours.
    pub fn list_of(&self, server: &ServerId) -> Option<NeighboursStatement> {
        self.lists.get(server).cloned()
    }

    pub fn hear(&mut self, from: End, frame: &Frame) {
        keep(&mut self.frames, frame.clone(), FRAMES_MAX);
        match frame {
            Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Goodbye(_)) }) => {
                keep(&mut self.goodbyes, frame.clone(), WORDS_MAX);
            }
            Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Neighbours(signed)) }) => {
                let list =
                    NeighboursStatement::decode(&signed.statement[..]).expect("honest nodes sign what can be read");
                let key = list.origin_key[..].try_into().expect("a key has 32 bytes");
                self.lists.insert(ServerId::of_key(&key), list);
            }
            Frame::Advertise(AdvertiseFrame { kind: Some(kind) }) => self.hear_snapshot(from, kind, frame),
            _ => {}
        }
    }

    fn hear_snapshot(&mut self, from: End, kind: &advertise_frame::Kind, frame: &Frame) {
        match kind {
            advertise_frame::Kind::SnapshotBegin(begin) => {
                let origin = begin.position.as_ref().expect("a snapshot has a position").origin_id.to_vec();
                self.begun.insert(from, (origin, vec![frame.clone()]));
            }
            advertise_frame::Kind::SnapshotPart(_) | advertise_frame::Kind::Statements(_) => {
                if let Some((_, frames)) = self.begun.get_mut(&from) {
                    frames.push(frame.clone());
                }
            }
            advertise_frame::Kind::SnapshotEnd(_) => {
                if let Some((origin, mut frames)) = self.begun.remove(&from) {
                    frames.push(frame.clone());
                    keep(&mut self.snapshots, (origin, frames), WORDS_MAX);
                }
            }
            _ => {}
        }
    }
}

pub fn batch_of(frame: &Frame) -> Option<&SignedBatch> {
    match frame {
        Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Batch(batch)) })
        | Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Batch(batch)) }) => Some(batch),
        _ => None,
    }
}

/// Whether a batch bears the key of this identity.
pub fn is_signed_by(batch: &SignedBatch, identity: &SimIdentity) -> bool {
    let statement = BatchStatement::decode(&batch.statement[..]);
    statement.is_ok_and(|statement| statement.origin_key[..] == identity.public_key())
}

pub fn remove(kind: remove_frame::Kind) -> Frame {
    Frame::Remove(RemoveFrame { kind: Some(kind) })
}

impl World {
    /// Lets one second's worth of rogues act.
    pub fn misbehave(&mut self) {
        let faults = self.faults.clone();
        if self.happens(faults.replays) {
            let said = self.any_of(|overheard| &overheard.frames);
            self.say(said, Kind::FrameReplayed);
        }
        if self.happens(faults.replayed_goodbyes) {
            let said = self.any_of(|overheard| &overheard.goodbyes);
            self.say(said, Kind::GoodbyeReplayed);
        }
        if self.happens(faults.altered_batches) {
            let altered = self.altered_batch();
            self.say(altered, Kind::BatchAltered);
        }
        if self.happens(faults.forged_origins) {
            self.forge_origin();
        }
        if self.happens(faults.invented_origins) {
            self.invent_origin();
        }
        if self.happens(faults.dead_listed) {
            self.list_the_dead();
        }
        if self.happens(faults.hidden_batches) {
            let server = self.rng.usize(0..self.servers.len());
            self.servers[server].hides_until_ms = self.now_ms + self.rng.u64(500..5_000);
        }
        if self.happens(faults.lying_origins) {
            self.begin_to_lie();
        }
        if self.happens(faults.hostile_introducers) {
            self.introduce();
        }
        if self.happens(faults.floods) {
            self.flood();
        }
    }

    /// Whether a relay keeps this batch of another origin to itself.
    pub fn hides(&self, server: usize, frame: &Frame) -> bool {
        let hides = self.faults_on && self.servers[server].hides_until_ms > self.now_ms;
        hides && batch_of(frame).is_some_and(|batch| !is_signed_by(batch, &self.servers[server].identity))
    }

    /// An old snapshot in place of what is asked for, if one was overheard.
    pub fn old_snapshot(&mut self, asked: &Frame) -> Option<Vec<Frame>> {
        let Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::CatchUpRequest(request)) }) = asked
        else {
            return None;
        };
        if !self.faults_on || !self.happens(self.faults.old_snapshots) {
            return None;
        }
        let origin = &request.position.as_ref()?.origin_id[..];
        let snapshots = self.overheard.snapshots.iter();
        snapshots.filter(|(of, _)| of == origin).map(|(_, frames)| frames.clone()).next()
    }

    fn any_of(&mut self, kept: impl Fn(&Overheard) -> &VecDeque<Frame>) -> Option<Frame> {
        let kept = kept(&self.overheard);
        let index = (!kept.is_empty()).then(|| self.rng.usize(0..kept.len()))?;
        Some(kept[index].clone())
    }

    pub fn any_end(&mut self) -> Option<End> {
        let wire = self.any_wire()?;
        Some(End { wire, side: self.rng.usize(0..2) })
    }

    /// The peer of this end says something to it.
    pub fn forge_to(&mut self, to: End, frame: Frame) {
        let server = self.wires.get(to.wire).expect("it was just drawn").servers[to.side];
        self.forge(server, link_id(to), frame);
    }

    fn say(&mut self, frame: Option<Frame>, kind: Kind) {
        if let (Some(frame), Some(to)) = (frame, self.any_end()) {
            self.tally.count(kind);
            self.forge_to(to, frame);
        }
    }

    fn altered_batch(&mut self) -> Option<Frame> {
        let batches: Vec<Frame> =
            self.overheard.frames.iter().filter(|frame| batch_of(frame).is_some()).cloned().collect();
        let batch = batch_of(&self.rng.choice(batches)?)?.clone();
        let mut altered = if self.rng.bool() { batch.statement.to_vec() } else { batch.signature.to_vec() };
        let place = self.rng.usize(0..altered.len());
        altered[place] ^= 1 << self.rng.u32(0..8);
        let is_statement = altered.len() == batch.statement.len();
        let altered = if is_statement {
            SignedBatch { statement: altered.into(), ..batch }
        } else {
            SignedBatch { signature: altered.into(), ..batch }
        };
        Some(remove(remove_frame::Kind::Batch(altered)))
    }

    /// A peer says in the name of another server that one of its users has another status.
    fn forge_origin(&mut self) {
        let Some(to) = self.any_end() else { return };
        let servers = self.wires.get(to.wire).expect("it was just drawn").servers;
        let (victim, rogue) = (servers[to.side], servers[1 - to.side]);
        let (own, other) = (self.servers[victim].id, self.servers[rogue].id);
        let shown = self.servers[victim].watch.entries();
        let is_others = |home: ServerId| ![own, other].contains(&home) && self.find(home).is_some();
        let shown: Vec<_> = shown.filter(|entry| is_others(entry.address.home)).cloned().collect();
        let Some(entry) = self.rng.choice(shown) else { return };
        let home = entry.address.home;
        let known = self.servers[victim].node.as_ref().and_then(|node| node.origin(&home));
        let Some((epoch, position)) = known.map(|origin| (origin.epoch(), origin.position())) else { return };
        let advert = Advert {
            user: entry.address.user.clone(),
            display_name: "".into(),
            status: "forged".into(),
            statement: entry.statement.hash(),
            online_since: entry.online_since,
            sessions: 1,
        };
        let identity = self.servers[rogue].identity.clone();
        let digest = SetHash::default().digest();
        let content = Content::Adverts(vec![advert.into()]);
        let batch = Batch::sign(&identity, epoch, position + 2, digest, 0, content);
        let mut statement = BatchStatement::decode(&batch.signed.statement[..]).expect("it was just made");
        let origin_key = self.servers[self.index_of(home)].identity.public_key();
        statement.origin_key = origin_key.to_vec().into();
        let statement = statement.encode_to_vec();
        let signature = identity.sign(&signing_input(Label::Batch, &statement)).to_vec().into();
        let batch = SignedBatch { statement: statement.into(), signature };
        self.tally.count(Kind::OriginForged);
        let kind = Some(advertise_frame::Kind::Batch(batch));
        self.forge_to(to, Frame::Advertise(AdvertiseFrame { kind }));
    }

    /// A peer speaks of a server that nobody pinned, with a key that it made up, and in that one's name.
    fn invent_origin(&mut self) {
        let Some(to) = self.any_end() else { return };
        let identity = SimIdentity::new(u64::MAX - self.rng.u64(0..1_000));
        let id = ServerId::of_key(&identity.public_key());
        let epoch = socp::batch::Epoch { number: 1, start: socp::id::StartId::from_bytes(&[7; 16]).expect("16 bytes") };
        let content = Content::Removals(vec![UserName::parse("nobody").expect("a good name")]);
        let batch = Batch::sign(&identity, epoch, 1, SetHash::default().digest(), 0, content);
        let list = NeighboursStatement {
            origin_key: identity.public_key().to_vec().into(),
            epoch: epoch.number,
            start_id: epoch.start.as_bytes().to_vec().into(),
            number: 1,
            position: 1,
            neighbour_ids: Vec::new(),
        };
        self.tally.count(Kind::OriginInvented);
        self.invented.insert(id);
        self.forge_to(to, remove(remove_frame::Kind::Batch(batch.signed)));
        self.forge_to(to, remove(remove_frame::Kind::Neighbours(sign(&identity, &list))));
    }

    /// A server lists one that is dead among its neighbours.
    fn list_the_dead(&mut self) {
        let (dead, alive): (Vec<_>, Vec<_>) =
            (0..self.servers.len()).partition(|server| self.servers[*server].node.is_none());
        let (Some(dead), Some(rogue)) = (self.rng.choice(dead), self.rng.choice(alive)) else { return };
        let Some(mut list) = self.overheard.list_of(&self.servers[rogue].id) else { return };
        list.number += 1;
        list.neighbour_ids.push(self.servers[dead].id.as_bytes().to_vec().into());
        let signed = sign(&self.servers[rogue].identity, &list);
        self.tally.count(Kind::DeadListed);
        self.tell_neighbours_of(rogue, remove(remove_frame::Kind::Neighbours(signed)));
    }

    /// A server says something to all to whom it has a link.
    pub fn tell_neighbours_of(&mut self, server: usize, frame: Frame) {
        let ends = self.wires.iter().filter_map(|(id, wire)| wire.end_at(id, server).map(End::other));
        let ends: Vec<End> = ends.collect();
        for to in ends {
            self.forge_to(to, frame.clone());
        }
    }
}

pub fn sign(identity: &SimIdentity, list: &NeighboursStatement) -> SignedNeighbours {
    let statement = list.encode_to_vec();
    let signature = identity.sign(&signing_input(Label::Neighbours, &statement)).to_vec().into();
    SignedNeighbours { statement: statement.into(), signature, age_ms: 0 }
}
