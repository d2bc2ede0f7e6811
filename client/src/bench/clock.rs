//! One clock for all processes of a machine: CLOCK_MONOTONIC, which neither jumps nor differs between processes.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since some moment before this machine's processes began; never 0.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    (seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)).max(1)
}

/// Milliseconds, for people.
pub fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}
