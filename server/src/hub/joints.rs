//! Messages in which several revisions are joined, shared by watchers that are at the same revision.
//!
//! Under load a message joins tens or hundreds of revisions. The first watcher to need one joins it, and those who have the same so
//! far take it as it is, even if more was published since. So watchers who were told the same once are told the same again, and
//! what a burst costs for each of thousands is what its bytes do.

use std::{collections::VecDeque, sync::Arc};

use prost::bytes::Bytes;
use tokio::time::Instant;

use super::{
    Age,
    filter::Detail,
    latency::{Handed, Latencies},
};

/// How many are kept in each form: enough for a few groups of watchers, each a little behind the other. A megabyte each at most.
const KEPT_MAX: usize = 4;

/// Watchers who are further behind than this come to a multiple of it, if so much fits into a message: so do most of those who are
/// about as far, and share the next.
const STEP: u64 = 32;

/// How many revisions to join for who has all up to one.
pub fn count(from: u64, latest: u64) -> usize {
    let to = if latest - from > STEP { latest - latest % STEP } else { latest };
    usize::try_from(to - from).unwrap_or(usize::MAX)
}

/// A message for all that have every revision up to one, and nothing after it.
#[derive(Debug)]
pub struct Joint {
    /// Up to this.
    pub from: u64,
    /// With the message they have all up to this.
    pub to: u64,
    /// The message in its frame.
    pub frame: Bytes,
    /// When each of its changes was published here, and how old it was then.
    pub published: Vec<(Instant, Age)>,
}

impl Joint {
    /// Counts the message as handed to a transport that asked at this time.
    pub fn count(&self, asked: Instant, latencies: &Latencies) {
        let mut handed = Handed::new(asked);
        self.published.iter().for_each(|(published, age)| handed.take(*published, *age, latencies));
        handed.count(latencies);
    }
}

/// The latest of them.
#[derive(Debug, Default)]
pub struct Joints {
    statement: VecDeque<Arc<Joint>>,
    fingerprint: VecDeque<Arc<Joint>>,
}

impl Joints {
    fn of(&mut self, detail: Detail) -> &mut VecDeque<Arc<Joint>> {
        match detail {
            Detail::Statement => &mut self.statement,
            Detail::Fingerprint => &mut self.fingerprint,
        }
    }

    /// The longest for who has all up to a revision.
    pub fn after(&mut self, from: u64, detail: Detail) -> Option<Arc<Joint>> {
        self.of(detail).iter().filter(|joint| joint.from == from).max_by_key(|joint| joint.to).cloned()
    }

    /// Keeps one for others, in place of the oldest. Two may have joined the same at a time.
    pub fn keep(&mut self, joint: Joint, detail: Detail) {
        let kept = self.of(detail);
        if kept.iter().any(|other| other.from == joint.from && other.to >= joint.to) {
            return;
        }
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Arc::new(joint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joint(from: u64, to: u64) -> Joint {
        Joint { from, to, frame: Bytes::from_static(b"x"), published: Vec::new() }
    }

    #[test]
    fn who_is_far_behind_comes_to_where_others_come_and_who_is_not_gets_all() {
        assert_eq!([count(0, 1), count(7, 7 + STEP), count(31, 33)], [1, STEP as usize, 2]);
        assert_eq!(
            [count(0, STEP + 1), count(7, 2 * STEP + 3), count(1, 2 * STEP)].map(|count| count as u64),
            [STEP, 2 * STEP - 7, 2 * STEP - 1]
        );
    }

    #[test]
    fn a_few_are_kept_for_those_who_are_exactly_there_and_in_their_form() {
        let mut joints = Joints::default();
        (0..9).for_each(|_| joints.keep(joint(1, 3), Detail::Fingerprint));
        assert_eq!(joints.fingerprint.len(), 1);
        joints.keep(joint(1, 4), Detail::Fingerprint);
        let mut to = |from, detail| joints.after(from, detail).map(|joint| joint.to);
        assert_eq!(to(1, Detail::Fingerprint), Some(4));
        assert_eq!((to(2, Detail::Fingerprint), to(1, Detail::Statement)), (None, None));
        (2..).take(KEPT_MAX).for_each(|from| joints.keep(joint(from, 9), Detail::Fingerprint));
        assert!(joints.after(1, Detail::Fingerprint).is_none() && joints.after(2, Detail::Fingerprint).is_some());
    }
}
