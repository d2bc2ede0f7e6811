//! Runs from seeds. `SOCP_SIM_SEEDS=FROM..TO` runs other seeds than the small set of `cargo test`.

use std::ops::Range;

use crate::{checks, faults::Faults, tally::Tally, world::World};

/// The seeds of `cargo test`: a few seconds in a debug build.
const SEEDS: Range<u64> = 0..70;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SOCP_SIM_SEEDS") else { return SEEDS };
    let (from, to) = text.split_once("..").expect("SOCP_SIM_SEEDS is FROM..TO");
    from.parse().expect("FROM is a number")..to.parse().expect("TO is a number")
}

/// Says which seed it was if a run ends in a panic.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("violation in seed {}", self.0);
        }
    }
}

/// Runs one seed to its quiet end and checks everything; a violation panics and tells the seed.
fn run(seed: u64) -> World {
    let _told = Told(seed);
    let mut world = World::new(seed, Faults::draw(seed));
    world.run_with_faults();
    world.run_until_quiet();
    checks::at_rest(&world);
    world
}

#[test]
fn every_view_is_right_once_the_network_is_quiet() {
    let mut sum = Tally::default();
    for seed in seeds() {
        sum.add(&run(seed).tally);
    }
    println!("{sum}");
    let idle = sum.kinds_that_never_happened();
    assert!(idle.is_empty(), "these never happened, so the seeds prove nothing about them: {idle:?}");
}

#[test]
fn a_seed_replays_a_run() {
    for seed in [3, 7] {
        assert_eq!(run(seed).trace, run(seed).trace, "seed {seed}");
    }
}
