//! In which form this runs, and what it judges by.
//!
//! The long form judges by what is promised. The short one runs beside other work, on a machine of which nothing is known,
//! so its bounds say only that it happened at all in time that is seconds; the figures are printed either way.

use std::{env, time::Duration};

/// How long anything may take that must come: for machines under load, no claim about speed.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// How often, and how strictly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Few repetitions, generous bounds.
    Short,
    /// Many repetitions, the promised bounds.
    Long,
}

/// What is promised of time.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// Users of a server that fell silent are gone, at default settings.
    Gone,
    /// The same at tight settings.
    GoneTight,
    /// Users of a server that said goodbye are gone.
    Goodbye,
    /// Links are back after the network is.
    Links,
    /// Views are equal after the links are back.
    Views,
}

impl Form {
    /// The form that `chaos/run` asked for.
    pub fn asked() -> Self {
        match env::var("SOCP_CHAOS_FORM").as_deref() {
            Ok("short") => Self::Short,
            Ok("long") => Self::Long,
            _ => panic!("`chaos/run` says in which form this runs"),
        }
    }

    /// How often something is done in the long form that is done once in the short one.
    pub fn times(self, long: usize) -> usize {
        match self {
            Self::Short => 1,
            Self::Long => long,
        }
    }

    /// How long it may take, for 99 of 100.
    pub fn bound(self, bound: Bound) -> Duration {
        let (long_ms, short_ms) = match bound {
            Bound::Gone => (4_000, 15_000),
            Bound::GoneTight => (1_000, 10_000),
            Bound::Goodbye => (100, 5_000),
            Bound::Links => (3_000, 15_000),
            Bound::Views => (2_000, 15_000),
        };
        Duration::from_millis(if self == Self::Long { long_ms } else { short_ms })
    }
}

/// The seed that the network's faults are drawn from.
pub fn seed() -> u64 {
    let seed = env::var("SOCP_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    seed.expect("`chaos/run` says from which seed the faults are drawn")
}
