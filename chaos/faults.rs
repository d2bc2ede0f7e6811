//! Faults of the network: what happens to packets from one server to another, and how often it did.

use std::{collections::BTreeMap, time::Duration};

/// A way from one server to another.
pub type Way = (usize, usize);

/// What happens to the packets on a way.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// By which it is counted and printed.
    pub name: &'static str,
    /// How likely a packet is lost: 1 is a cut.
    pub loss: f64,
    /// How long each packet takes.
    pub delay: Duration,
    /// By how much that differs, in both directions.
    pub jitter: Duration,
    /// How likely a packet is held back, so that later ones overtake it.
    pub held: f64,
}

/// How long a packet is held back that others are to overtake.
pub const HELD: Duration = Duration::from_millis(30);

impl Fault {
    /// Nothing comes through.
    pub const fn cut(name: &'static str) -> Self {
        Self { name, loss: 1.0, delay: Duration::ZERO, jitter: Duration::ZERO, held: 0.0 }
    }

    /// 5 % are lost, the others take 100 ms with a jitter, and some are overtaken.
    pub const fn lossy(name: &'static str) -> Self {
        let (delay, jitter) = (Duration::from_millis(100), Duration::from_millis(10));
        Self { name, loss: 0.05, delay, jitter, held: 0.05 }
    }
}

/// What becomes of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on at once.
    Passed,
    /// It goes no further.
    Dropped,
    /// It goes on after this time.
    Delayed(Duration),
}

/// How often a fault happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets that went no further.
    pub dropped: u64,
    /// Packets that took longer.
    pub delayed: u64,
    /// Packets that left after one that had come later.
    pub reordered: u64,
}

/// The faults in force, and the counts of all that were.
#[derive(Default)]
pub struct Faults {
    in_force: BTreeMap<Way, (Fault, fastrand::Rng)>,
    counts: BTreeMap<&'static str, Count>,
}

impl Faults {
    /// Puts a fault on each of these ways, in place of what was there. A way draws from a seed of its own, so that what
    /// happens on one does not hang on how busy the others are.
    pub fn put(&mut self, ways: impl IntoIterator<Item = Way>, fault: Fault, seed: u64) {
        self.counts.entry(fault.name).or_default();
        for way in ways {
            let own = (way.0 * 31 + way.1) as u64;
            self.in_force.insert(way, (fault, fastrand::Rng::with_seed(seed.wrapping_mul(1_021).wrapping_add(own))));
        }
    }

    /// Takes all faults away.
    pub fn heal(&mut self) {
        self.in_force.clear();
    }

    /// Decides over a packet and counts it; tells by which fault.
    pub fn decide(&mut self, way: Way) -> (Fate, Option<&'static str>) {
        let Some((fault, random)) = self.in_force.get_mut(&way) else { return (Fate::Passed, None) };
        let count = self.counts.entry(fault.name).or_default();
        // The same number of draws for each packet, whatever becomes of it.
        let (lost, at, held) = (random.f64() < fault.loss, random.f64(), random.f64() < fault.held);
        let fate = if lost {
            count.dropped += 1;
            Fate::Dropped
        } else if fault.delay.is_zero() {
            Fate::Passed
        } else {
            count.delayed += 1;
            let delay = fault.delay.saturating_sub(fault.jitter) + fault.jitter.mul_f64(2.0 * at);
            Fate::Delayed(if held { delay + HELD } else { delay })
        };
        (fate, Some(fault.name))
    }

    /// Counts a packet that left after one that had come later.
    pub fn count_reordered(&mut self, name: &'static str) {
        self.counts.entry(name).or_default().reordered += 1;
    }

    /// How often each fault happened.
    pub fn counts(&self) -> &BTreeMap<&'static str, Count> {
        &self.counts
    }
}

/// Both ways between each of the one group and each of the other.
pub fn between(one: &[usize], other: &[usize]) -> Vec<Way> {
    let pairs = one.iter().flat_map(|&a| other.iter().map(move |&b| (a, b)));
    pairs.filter(|(a, b)| a != b).flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

/// The ways from each of the one group to each of the other.
pub fn from(one: &[usize], other: &[usize]) -> Vec<Way> {
    one.iter().flat_map(|&a| other.iter().map(move |&b| (a, b))).filter(|(a, b)| a != b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(seed: u64) -> (Vec<Fate>, Count) {
        let mut faults = Faults::default();
        faults.put([(0, 1)], Fault::lossy("lossy"), seed);
        let fates = (0..2_000).map(|_| faults.decide((0, 1)).0).collect();
        (fates, faults.counts()["lossy"])
    }

    #[test]
    fn a_seed_decides_and_what_is_counted_is_what_happened() {
        let (drawn, count) = fates(7);
        assert_eq!(fates(7).0, drawn);
        assert_ne!(fates(8).0, drawn);
        let dropped = drawn.iter().filter(|fate| **fate == Fate::Dropped).count();
        assert_eq!((count.dropped, count.dropped + count.delayed), (dropped as u64, 2_000));
        assert!((50..150).contains(&dropped), "{dropped} of 2,000 at 5 %");
        let all =
            drawn.iter().filter_map(|fate| if let Fate::Delayed(by) = fate { Some(by.as_millis()) } else { None });
        assert!(all.clone().all(|ms| (90..=140).contains(&ms)) && all.clone().any(|ms| ms > 110));
    }

    #[test]
    fn a_cut_lets_nothing_through_and_healed_lets_everything_through() {
        let mut faults = Faults::default();
        faults.put(from(&[0], &[1, 2]), Fault::cut("cut"), 1);
        assert!((0..100).all(|_| faults.decide((0, 1)).0 == Fate::Dropped));
        assert_eq!(faults.decide((1, 0)), (Fate::Passed, None), "one way only");
        faults.heal();
        assert_eq!(faults.decide((0, 1)), (Fate::Passed, None));
        assert_eq!(faults.counts()["cut"], Count { dropped: 100, ..Count::default() });
    }

    #[test]
    fn groups_are_parted_both_ways_or_one_way() {
        assert_eq!(between(&[0], &[0, 1]), [(0, 1), (1, 0)]);
        assert_eq!(from(&[0], &[0, 1, 2]), [(0, 1), (0, 2)]);
    }
}
