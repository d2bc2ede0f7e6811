//! The network between servers: links with three streams that keep their own order and overtake each other.

use std::collections::BTreeMap;

use socp::input::{Frame, LinkId};

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    pub wire: u64,
    /// 0 is the end that dialled.
    pub side: usize,
}

impl End {
    pub fn other(self) -> Self {
        Self { side: 1 - self.side, ..self }
    }
}

/// A link between two servers.
#[derive(Debug)]
pub struct Wire {
    /// The servers at both ends, the one that dialled first.
    pub servers: [usize; 2],
    /// Whether the server at an end was told that the link is up, and not yet that it is down.
    pub is_up: [bool; 2],
    /// Whether what an end sends is swallowed.
    pub swallows: [bool; 2],
    /// When the last frame of each stream that an end sent arrives: streams keep their order.
    arrivals: [[u64; 3]; 2],
}

impl Wire {
    /// The end of this wire that a server has.
    pub fn end_at(&self, wire: u64, server: usize) -> Option<End> {
        self.servers.iter().position(|other| *other == server).map(|side| End { wire, side })
    }
}

/// All links that were not forgotten.
#[derive(Debug, Default)]
pub struct Wires {
    wires: BTreeMap<u64, Wire>,
    begun: u64,
}

impl Wires {
    pub fn open(&mut self, servers: [usize; 2]) -> u64 {
        self.begun += 1;
        let wire = Wire { servers, is_up: [false; 2], swallows: [false; 2], arrivals: [[0; 3]; 2] };
        self.wires.insert(self.begun, wire);
        self.begun
    }

    pub fn get(&self, wire: u64) -> Option<&Wire> {
        self.wires.get(&wire)
    }

    pub fn get_mut(&mut self, wire: u64) -> Option<&mut Wire> {
        self.wires.get_mut(&wire)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &Wire)> {
        self.wires.iter().map(|(id, wire)| (*id, wire))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Wire> {
        self.wires.values_mut()
    }

    /// An end is told at this time that the link is up; what was sent to it before waits.
    pub fn opens(&mut self, end: End, at_ms: u64) {
        if let Some(wire) = self.wires.get_mut(&end.wire) {
            wire.arrivals[end.other().side] = [at_ms; 3];
        }
    }

    /// When a frame sent now arrives at the earliest, without overtaking its own stream.
    pub fn arrival(&mut self, from: End, frame: &Frame, at_ms: u64) -> u64 {
        let stream = match frame {
            Frame::Advertise(_) => 0,
            Frame::Remove(_) => 1,
            Frame::Deliver(_) => 2,
        };
        let Some(wire) = self.wires.get_mut(&from.wire) else { return at_ms };
        let last = &mut wire.arrivals[from.side][stream];
        *last = at_ms.max(*last);
        *last
    }

    /// When all that an end sent has arrived.
    pub fn drained(&self, from: End) -> u64 {
        self.wires.get(&from.wire).map_or(0, |wire| wire.arrivals[from.side].into_iter().max().unwrap_or(0))
    }
}

/// The handle that a server has for its end of a link.
pub fn link_id(end: End) -> LinkId {
    LinkId(end.wire * 2 + end.side as u64)
}

/// The end that a server's handle stands for.
pub fn end_of(link: LinkId) -> End {
    End { wire: link.0 / 2, side: (link.0 % 2) as usize }
}
