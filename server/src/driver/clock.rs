//! How far a peer's clock is from this one's, estimated from its keep-alives and the round-trip time of the link.
//!
//! A keep-alive names the time at which it was sent. It comes with a delay of half a round trip at the least, and mostly
//! with a little more; of the last [`SAMPLES`] the one that came with the least delay is believed, and half the smallest
//! round trip is taken off. What is wrong with that is half the difference of the two ways' delays, at most half a round
//! trip; times are in whole milliseconds, of which the least delay of many leaves some hundredths. After a clock has
//! jumped, it takes [`SAMPLES`] keep-alives until only new ones count. Nothing is decided by it.

use std::{collections::VecDeque, time::Duration};

/// Keep-alives that count: half a minute of them at the default interval.
const SAMPLES: usize = 64;

/// The clock of one peer.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// For each keep-alive, this side's time of its arrival less the peer's of its start, and the round-trip time, both in
    /// microseconds. Oldest first.
    samples: VecDeque<(i64, i64)>,
}

impl Clock {
    /// Takes a keep-alive that was sent at a time by the peer's clock and came at one by this side's.
    pub(super) fn heard(&mut self, sent_unix_ms: i64, unix_us: i64, round_trip: Duration) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        let round_trip = i64::try_from(round_trip.as_micros()).unwrap_or(i64::MAX);
        self.samples.push_back((unix_us.saturating_sub(sent_unix_ms.saturating_mul(1_000)), round_trip));
    }

    /// How many microseconds the peer's clock is ahead; `None` before the first keep-alive.
    pub(super) fn ahead_us(&self) -> Option<i64> {
        let least = self.samples.iter().map(|(difference, _)| *difference).min()?;
        let round_trip = self.samples.iter().map(|(_, round_trip)| *round_trip).min()?;
        Some((round_trip / 2).saturating_sub(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer whose clock is so far ahead, over ways with these delays, in microseconds.
    fn estimated(ahead_us: i64, there_us: i64, back_us: i64, count: usize) -> i64 {
        let mut clock = Clock::default();
        for number in 0..count {
            let sent_us = 1_700_000_000_000_000 + number as i64 * 500_137;
            // Now and then one waits for something.
            let waits_us = if number % 3 == 0 { 0 } else { 40_000 };
            let sent_by_peer_ms = (sent_us + ahead_us).div_euclid(1_000);
            let round_trip = Duration::from_micros((there_us + back_us).try_into().unwrap());
            clock.heard(sent_by_peer_ms, sent_us + there_us + waits_us, round_trip);
        }
        clock.ahead_us().unwrap()
    }

    #[test]
    fn a_clock_that_is_ahead_or_behind_is_estimated_within_half_a_millisecond_where_both_ways_are_alike() {
        for ahead_us in [0, 3_000_000, -3_000_000, 1_234, -777] {
            let error = estimated(ahead_us, 20_000, 20_000, SAMPLES) - ahead_us;
            assert!(error.abs() <= 500, "{ahead_us}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_at_most_half_a_round_trip() {
        for (there, back) in [(40_000, 0), (0, 40_000), (30_000, 10_000)] {
            let error = estimated(5_000_000, there, back, SAMPLES) - 5_000_000;
            assert!(error.abs() <= 20_500, "{there} and {back}: {error}");
        }
    }

    #[test]
    fn a_clock_that_jumped_is_known_once_only_new_keep_alives_count() {
        let mut clock = Clock::default();
        assert_eq!(clock.ahead_us(), None);
        let mut hear = |sent_ms: i64, ahead_ms: i64| {
            clock.heard(sent_ms + ahead_ms, sent_ms * 1_000, Duration::ZERO);
            clock.ahead_us().unwrap()
        };
        for number in 0..SAMPLES as i64 {
            hear(number * 500, 9_000);
        }
        for number in 0..SAMPLES as i64 - 1 {
            assert_eq!(hear(100_000 + number * 500, 0), 9_000_000);
        }
        assert_eq!(hear(200_000, 0), 0);
        let any = [i64::MIN, i64::MAX].map(|sent| {
            clock.heard(sent, 0, Duration::MAX);
            clock.ahead_us()
        });
        assert!(any.iter().all(Option::is_some), "a peer may say what it likes");
        assert_eq!(clock.samples.len(), SAMPLES);
    }
}
