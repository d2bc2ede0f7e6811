//! A tally as numbers that one process can send to another.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::tally::{Tally, histogram};

/// What a tally counted: each time with how often it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    histograms: [Vec<(u64, u64)>; 4],
    numbers: [u64; 4],
    last_ns: [u64; 2],
}

impl Counts {
    /// Those of a tally.
    pub(super) fn of(tally: &Tally) -> Self {
        let times = |histogram: &Histogram<u64>| {
            histogram.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
        };
        let [returned, resumed] = &tally.returns;
        Self {
            histograms: [&tally.times, &tally.disturbed, returned, resumed].map(times),
            numbers: [tally.delivered, tally.missed, tally.repeated, tally.strange],
            last_ns: tally.last_ns,
        }
    }

    /// The tally that has them.
    pub(super) fn tally(&self) -> Tally {
        let [times, disturbed, returned, resumed] = self.histograms.each_ref().map(|times| {
            let mut histogram = histogram();
            times.iter().for_each(|(ns, count)| histogram.saturating_record_n(*ns, *count));
            histogram
        });
        let [delivered, missed, repeated, strange] = self.numbers;
        let (last_ns, returns) = (self.last_ns, [returned, resumed]);
        Tally { times, disturbed, delivered, missed, repeated, strange, last_ns, returns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_stays_the_same_on_its_way_to_another_process() {
        let mut tally = Tally { delivered: 5, missed: 3, repeated: 2, strange: 1, last_ns: [8, 9], ..Tally::default() };
        let minutes = 120_000_000_000;
        [1, 999, 123_456_789, minutes].iter().for_each(|ns| tally.times.saturating_record(*ns));
        tally.returns[1].saturating_record_n(5_000_001, 3);
        tally.disturbed.saturating_record(7);
        let sent = serde_json::to_string(&Counts::of(&tally)).unwrap();
        let arrived = serde_json::from_str::<Counts>(&sent).unwrap().tally();
        assert_eq!(Counts::of(&arrived), Counts::of(&tally));
        for (arrived, sent) in [
            (&arrived.times, &tally.times),
            (&arrived.disturbed, &tally.disturbed),
            (&arrived.returns[0], &tally.returns[0]),
            (&arrived.returns[1], &tally.returns[1]),
        ] {
            assert_eq!(arrived.len(), sent.len());
            for percentile in [0.0, 50.0, 99.0, 100.0] {
                assert_eq!(arrived.value_at_percentile(percentile), sent.value_at_percentile(percentile));
            }
        }
        assert_eq!((arrived.delivered, arrived.missed, arrived.repeated, arrived.strange), (5, 3, 2, 1));
        assert_eq!(arrived.last_ns, [8, 9]);
    }
}
