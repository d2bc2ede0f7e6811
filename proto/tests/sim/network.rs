//! The network of a run: who can dial whom, what a link does to what is sent over it, and what breaks it.

use std::collections::BTreeSet;

use socp::{
    federation::v1::{AdvertiseFrame, RemoveFrame, advertise_frame, remove_frame},
    id::ServerId,
    input::{Frame, Input, LinkId},
};

use crate::{
    tally::Kind,
    wires::{End, link_id},
    world::{Event, World},
};

/// Frames that are repeated within a second, by the server. What goes round between servers whose lists of neighbours are of
/// different age would grow with each hop without a limit, to millions, which no stream of bytes does.
const REPETITIONS_MAX: usize = 50;

/// How many frames were repeated in this second.
#[derive(Default)]
pub struct Repetitions {
    second: u64,
    count: usize,
}

impl Repetitions {
    /// Takes one, if there is one left.
    fn is_one_left(&mut self, now_ms: u64, servers: usize) -> bool {
        let second = now_ms / 1_000;
        if self.second != second {
            *self = Self { second, count: 0 };
        }
        self.count += 1;
        self.count <= REPETITIONS_MAX * servers
    }
}

impl World {
    pub fn server_at(&self, end: End) -> Option<usize> {
        self.wires.get(end.wire).map(|wire| wire.servers[end.side])
    }

    pub fn is_cut(&self, one: usize, other: usize) -> bool {
        self.partition.contains(&one) != self.partition.contains(&other)
    }

    /// Whether the shape of the network gives these two a link.
    pub fn joins(&self, one: usize, other: usize) -> bool {
        self.faults.shape.joins(self.seed, self.servers.len(), one, other)
    }

    pub fn swallows(&self, from: End) -> bool {
        let Some(wire) = self.wires.get(from.wire) else { return true };
        wire.swallows[from.side] || self.is_cut(wire.servers[0], wire.servers[1])
    }

    pub fn transmit(&mut self, from: End, frame: Frame) {
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
        if self.faults_on
            && self.faults.repeated_frame_in > 0
            && self.rng.u32(0..self.faults.repeated_frame_in) == 0
            && self.repetitions.is_one_left(self.now_ms, self.servers.len())
        {
            self.tally.count(Kind::FrameRepeated);
            self.schedule(at_ms, Event::Arrives { to: from.other(), frame: frame.clone() });
        }
        self.schedule(at_ms, Event::Arrives { to: from.other(), frame });
    }

    pub fn slow_ms(&self, server: usize) -> u64 {
        let (until_ms, by_ms) = self.servers[server].slow;
        if until_ms > self.now_ms { by_ms } else { 0 }
    }

    pub fn dial(&mut self, server: usize, peer: ServerId) {
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

    pub fn link_up(&mut self, end: End) {
        let Some(wire) = self.wires.get_mut(end.wire) else { return };
        wire.is_up[end.side] = true;
        let (server, peer) = (wire.servers[end.side], wire.servers[1 - end.side]);
        let peer = self.servers[peer].id;
        self.input(server, Input::LinkUp { link: link_id(end), peer, dialled: end.side == 0 });
    }

    pub fn link_down(&mut self, end: End) {
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

    pub fn heal(&mut self) {
        self.partition.clear();
        self.wires.iter_mut().for_each(|wire| wire.swallows = [false; 2]);
    }

    /// The link that a server has to another one.
    pub fn link_between(&self, server: usize, other: usize) -> LinkId {
        let joins = |servers: [usize; 2]| servers == [server, other] || servers == [other, server];
        let up = self.wires.iter().find(|(_, wire)| wire.is_up == [true; 2] && joins(wire.servers));
        let (wire, of) = up.map(|(id, wire)| (id, wire.servers)).expect("they are linked");
        let side = usize::from(of[1] == server);
        link_id(End { wire, side })
    }
}
