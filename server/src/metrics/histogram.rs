//! How long things took, counted by size as they happen: one atomic for the count and one for the sum, nobody waits.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A histogram of durations.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds in microseconds, rising.
    bounds_us: &'static [u64],
    /// One for each bound, and one for all above.
    counts: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts in buckets with these upper bounds, in microseconds, rising.
    pub fn new(bounds_us: &'static [u64]) -> Self {
        debug_assert!(bounds_us.is_sorted());
        Self {
            bounds_us,
            counts: (0..=bounds_us.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_ns: AtomicU64::new(0),
        }
    }

    /// Counts so many that took so long each.
    pub fn record(&self, duration: Duration, count: u64) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds_us.partition_point(|bound| bound.saturating_mul(1_000) < ns);
        self.counts[bucket].fetch_add(count, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns.saturating_mul(count), Ordering::Relaxed);
    }

    /// How many were counted in each bucket alone, by its bound in seconds (`None`: above all), and the sum in seconds.
    pub fn read(&self) -> (Vec<(Option<f64>, u64)>, f64) {
        let bounds = self.bounds_us.iter().map(|us| Some(*us as f64 / 1e6)).chain([None]);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        (bounds.zip(counts).collect(), self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_smallest_bucket_that_it_fits() {
        let histogram = Histogram::new(&[1_000, 2_000]);
        for us in [0, 1_000, 1_001, 2_000, 2_001, 9_000_000] {
            histogram.record(Duration::from_micros(us), 1);
        }
        let (counts, sum) = histogram.read();
        assert_eq!(counts, [(Some(0.001), 2), (Some(0.002), 2), (None, 2)]);
        assert!((sum - 9.006_002).abs() < 1e-9, "{sum}");
    }
}
