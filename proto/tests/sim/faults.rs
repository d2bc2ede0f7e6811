//! What can go wrong in a run: every fault a field, drawn from the seed.

use fastrand::Rng;
use socp::{
    batch::{Batch, Content, Epoch},
    digest::SetHash,
    federation::v1::{RemoveFrame, remove_frame},
    id::StartId,
    input::Frame,
    limits::KEPT_BATCHES_MAX,
    name::UserName,
};

use crate::{
    tally::Kind,
    wires::{End, link_id},
    world::World,
};

/// Who dials whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Everybody everybody.
    Full,
    /// Each the one after it.
    Chain,
    /// The same, and the last one the first.
    Ring,
    /// Everybody the first one.
    Star,
    /// Each one before it, drawn from the seed, and a few more.
    Random,
}

impl Shape {
    /// Whether these two have a link, whoever dials.
    pub fn joins(self, seed: u64, servers: usize, one: usize, other: usize) -> bool {
        let (low, high) = (one.min(other), one.max(other));
        match self {
            Self::Full => true,
            Self::Chain => high - low == 1,
            Self::Ring => high - low == 1 || (low, high) == (0, servers - 1),
            Self::Star => low == 0,
            Self::Random => {
                let mut rng = Rng::with_seed(seed ^ (high as u64) << 32);
                let parents: Vec<usize> = (0..1 + rng.usize(0..2)).map(|_| rng.usize(0..high)).collect();
                parents.contains(&low)
            }
        }
    }
}

/// Chances are per simulated second and in thousandths; times are in milliseconds.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Servers in the run, all pinned to one another.
    pub servers: usize,
    /// Which of them have links.
    pub shape: Shape,
    /// Users of each server.
    pub users: usize,
    /// Whether users sign logins, messages and posts with their keys; what they say of keys and moves they always do.
    pub signs_everything: bool,
    /// How long faults and users act before everything is left to heal.
    pub active_ms: u64,
    /// How long goodbyes ask others to hold users.
    pub goodbye_hold_ms: u64,
    /// Own batches that servers keep before they sign old entries again.
    pub kept_batches_max: usize,
    /// Longest delay of a frame on its way; each stream draws its own, so streams overtake each other.
    pub delay_ms_max: u64,
    /// A link breaks, and both sides are told at different times.
    pub link_breaks: u32,
    /// A link swallows everything in one direction, and nobody is told.
    pub one_way_losses: u32,
    /// A link swallows everything in both directions, and nobody is told.
    pub two_way_losses: u32,
    /// A group of servers is cut off from the others for a while.
    pub partitions: u32,
    /// A server is killed and starts again later, with its disk.
    pub crashes: u32,
    /// A server says goodbye and starts again later.
    pub restarts: u32,
    /// A server does nothing for a while, and then goes on.
    pub pauses: u32,
    /// One frame in so many is lost without the link breaking; 0 for none.
    pub lost_frame_in: u32,
    /// One frame in so many arrives twice; 0 for none.
    pub repeated_frame_in: u32,
    /// A peer sends a frame that it must not send: forged, foreign or malformed.
    pub bad_frames: u32,
    /// A peer sends what somebody else sent before, on any link: old batches, snapshots, goodbyes, lists, messages.
    pub replays: u32,
    /// A server is killed and starts from an old copy of its disk, with a clock that is as wrong.
    pub old_disks: u32,
    /// A server is killed and starts with its key and nothing else.
    pub empty_disks: u32,
    /// A server is killed and starts from a backup of its disk, with the right time.
    pub rolled_back_disks: u32,
    /// A server's clock jumps, forth or back.
    pub clock_jumps: u32,
    /// All that a server sends or is sent takes up to 3 s longer for a while.
    pub slow_peers: u32,
    /// A peer says again that a server stopped.
    pub replayed_goodbyes: u32,
    /// A peer passes on a batch with one bit changed.
    pub altered_batches: u32,
    /// A peer signs in the name of another server.
    pub forged_origins: u32,
    /// A peer speaks of a server that does not exist.
    pub invented_origins: u32,
    /// A peer passes nobody else's batches on for a while.
    pub hidden_batches: u32,
    /// A peer lists a dead server among its neighbours.
    pub dead_listed: u32,
    /// A peer answers a request with a snapshot of long ago; of a thousand requests.
    pub old_snapshots: u32,
    /// A peer or client sends more of something at once than a server keeps: see `floods.rs`.
    pub floods: u32,
    /// A server begins to tell some neighbours other things of its users than others.
    pub lying_origins: u32,
    /// A peer vouches for a server that it made up, or takes that back, or speaks for it.
    pub hostile_introducers: u32,
}

impl Faults {
    /// A run without faults.
    pub fn none(servers: usize) -> Self {
        Self {
            servers,
            shape: Shape::Full,
            users: 4,
            signs_everything: false,
            active_ms: 20_000,
            goodbye_hold_ms: 0,
            kept_batches_max: KEPT_BATCHES_MAX,
            delay_ms_max: 20,
            link_breaks: 0,
            one_way_losses: 0,
            two_way_losses: 0,
            partitions: 0,
            crashes: 0,
            restarts: 0,
            pauses: 0,
            lost_frame_in: 0,
            repeated_frame_in: 0,
            bad_frames: 0,
            replays: 0,
            old_disks: 0,
            empty_disks: 0,
            rolled_back_disks: 0,
            clock_jumps: 0,
            slow_peers: 0,
            replayed_goodbyes: 0,
            altered_batches: 0,
            forged_origins: 0,
            invented_origins: 0,
            hidden_batches: 0,
            dead_listed: 0,
            old_snapshots: 0,
            floods: 0,
            lying_origins: 0,
            hostile_introducers: 0,
        }
    }

    /// The faults of a seed; some kinds are off in some seeds, so that each is also seen alone.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut some = |most: u32| if rng.bool() { rng.u32(1..=most) } else { 0 };
        let (link_breaks, one_way_losses, two_way_losses) = (some(600), some(150), some(150));
        let (partitions, rolled_back_disks, slow_peers) = (some(150), some(150), some(150));
        let (replayed_goodbyes, altered_batches, forged_origins) = (some(300), some(500), some(500));
        let (invented_origins, hidden_batches, dead_listed) = (some(300), some(200), some(300));
        let (old_snapshots, floods) = (some(500), some(160));
        let (crashes, restarts, pauses) = (some(250), some(250), some(250));
        let (lost, repeated, bad_frames) = (some(100), some(20), some(500));
        let (replays, old_disks, empty_disks, clock_jumps) = (some(900), some(60), some(60), some(200));
        Self {
            servers: rng.usize(2..=7),
            shape: [Shape::Full, Shape::Chain, Shape::Ring, Shape::Star, Shape::Random][rng.usize(0..5)],
            users: rng.usize(1..=6),
            // Signing takes most of the time of a run then.
            signs_everything: seed % 16 == 5,
            active_ms: rng.u64(10_000..40_000),
            delay_ms_max: rng.u64(1..200),
            link_breaks,
            one_way_losses,
            two_way_losses,
            partitions,
            rolled_back_disks,
            slow_peers,
            replayed_goodbyes,
            altered_batches,
            forged_origins,
            invented_origins,
            hidden_batches,
            dead_listed,
            old_snapshots,
            floods,
            crashes,
            restarts,
            pauses,
            lost_frame_in: if lost == 0 { 0 } else { lost + 50 },
            repeated_frame_in: if repeated == 0 { 0 } else { repeated + 2 },
            bad_frames,
            replays,
            old_disks,
            empty_disks,
            clock_jumps,
            goodbye_hold_ms: if rng.bool() { 0 } else { rng.u64(500..10_000) },
            kept_batches_max: if rng.bool() { 2 } else { KEPT_BATCHES_MAX },
            lying_origins: if rng.bool() { 0 } else { rng.u32(1..=150) },
            hostile_introducers: if rng.bool() { 0 } else { rng.u32(1..=300) },
        }
    }

    /// The same in a network of 3 to 200 servers: most are small, 12 in a thousand have more than a hundred. Drawn by
    /// `examples/simulate.rs`.
    #[allow(dead_code, reason = "the tests draw small networks only")]
    pub fn draw_wide(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x1de);
        let servers = match rng.u32(0..1_000) {
            0..600 => rng.usize(3..=9),
            600..900 => rng.usize(10..=16),
            900..988 => rng.usize(17..=40),
            _ => rng.usize(101..=200),
        };
        let drawn = Self::draw(seed);
        let is_wide = servers > 16;
        Self {
            servers,
            // A chain or ring of hundreds is longer than anything may travel.
            shape: if is_wide { Shape::Random } else { drawn.shape },
            users: if is_wide { 1 } else { drawn.users },
            active_ms: if is_wide { 10_000 } else { drawn.active_ms },
            ..drawn
        }
    }
}

impl World {
    /// Lets one second's worth of faults happen.
    pub fn inject(&mut self) {
        let Faults { link_breaks, one_way_losses, two_way_losses, partitions, .. } = self.faults;
        let Faults { crashes, restarts, pauses, bad_frames, old_disks, empty_disks, .. } = self.faults;
        let Faults { rolled_back_disks, clock_jumps, slow_peers, .. } = self.faults;
        if self.happens(link_breaks)
            && let Some(wire) = self.any_wire()
        {
            self.tally.count(Kind::LinkBroken);
            self.break_wire(wire);
        }
        for (chance, kind, both) in
            [(one_way_losses, Kind::OneWayLoss, false), (two_way_losses, Kind::TwoWayLoss, true)]
        {
            if self.happens(chance)
                && let Some(wire) = self.any_wire()
            {
                self.tally.count(kind);
                let side = self.rng.usize(0..2);
                let wire = self.wires.get_mut(wire).expect("it was just drawn");
                wire.swallows[side] = true;
                wire.swallows[1 - side] |= both;
            }
        }
        if self.happens(partitions) {
            self.tally.count(Kind::Partition);
            let count = self.servers.len();
            let group = (0..count).filter(|_| self.rng.bool()).collect();
            let for_ms = self.rng.u64(500..8_000);
            self.cut(group, for_ms);
        }
        let index = self.rng.usize(0..self.servers.len());
        let runs = self.servers[index].node.is_some();
        // Mostly short, and now and then longer than anybody of it may be shown.
        let away_ms = if self.rng.u32(0..8) == 0 { 20_000 } else { self.rng.u64(10..6_000) };
        if runs && self.happens(crashes) {
            self.tally.count(Kind::Crash);
            self.crash(index, away_ms);
        } else if runs && self.happens(restarts) {
            self.tally.count(Kind::Restart);
            self.stop(index, away_ms);
        } else if runs && self.happens(pauses) {
            self.tally.count(Kind::Pause);
            self.pause(index, away_ms.min(6_000));
        }
        if runs && self.happens(old_disks) {
            self.tally.count(Kind::OldDisk);
            self.restart_from_old_copy(index);
        } else if runs && self.happens(empty_disks) {
            self.tally.count(Kind::EmptyDisk);
            self.restart_with_empty_disk(index);
        } else if runs && self.happens(rolled_back_disks) {
            self.back_up_or_roll_back(index);
        }
        if self.happens(clock_jumps) {
            self.tally.count(Kind::ClockJump);
            self.servers[index].clock_ahead_ms = self.rng.i64(-3_600_000..3_600_000);
        }
        if self.happens(bad_frames) {
            self.send_bad_frame();
        }
        if self.happens(slow_peers) {
            self.tally.count(Kind::SlowPeer);
            let for_ms = self.rng.u64(500..6_000);
            self.servers[index].slow = (self.now_ms + for_ms, self.rng.u64(100..3_000));
        }
        self.misbehave();
    }

    /// Whether something with this chance in a thousand happens.
    pub fn happens(&mut self, chance: u32) -> bool {
        self.rng.u32(0..1_000) < chance
    }

    /// A link that is up at both ends.
    pub fn any_wire(&mut self) -> Option<u64> {
        let up: Vec<u64> = self.wires.iter().filter(|(_, wire)| wire.is_up == [true; 2]).map(|(id, _)| id).collect();
        self.rng.choice(up)
    }

    /// A peer sends what it must not: a batch that is altered, or signed by it for another's user, or of no kind.
    fn send_bad_frame(&mut self) {
        let Some(wire) = self.any_wire() else { return };
        let to = End { wire, side: self.rng.usize(0..2) };
        let servers = self.wires.get(wire).expect("it was just drawn").servers;
        let sender = servers[1 - to.side];
        self.tally.count(Kind::FrameForged);
        let identity = self.servers[sender].identity.clone();
        let epoch = Epoch {
            number: self.servers[sender].epoch + u64::from(self.rng.bool()),
            start: StartId::from_bytes(&[9; 16]).expect("16 bytes"),
        };
        let victim = UserName::parse("u0").expect("a good name");
        let digest = SetHash::default().digest();
        let mut signed = Batch::sign(&identity, epoch, 1, digest, 0, Content::Removals(vec![victim])).signed;
        let frame = match self.rng.u32(0..3) {
            0 => Some(remove_frame::Kind::Batch(signed)),
            1 => {
                let mut altered = signed.statement.to_vec();
                let place = self.rng.usize(0..altered.len());
                altered[place] ^= 1;
                signed.statement = altered.into();
                Some(remove_frame::Kind::Batch(signed))
            }
            _ => None,
        };
        self.forge(servers[to.side], link_id(to), Frame::Remove(RemoveFrame { kind: frame }));
    }
}
