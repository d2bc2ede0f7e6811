//! A seeded network of real nodes, with faults, users who come and go, and checkers that do not trust the nodes.
//!
//! A seed replays a run exactly. Every fault kind is a field of [`faults::Faults`]; every promise has a checker in a
//! file of its own under `checks`. `SOCP_SIM_SEEDS=FROM..TO` runs other seeds than the small set of `cargo test`.

mod checks;
mod directory;
mod faults;
mod keys;
mod links;
mod message;
mod moves;
mod onward;
mod operator;
mod rogue;
mod session;
mod tally;
mod trust;
mod users;
mod wires;
mod world;

use std::ops::Range;

use faults::Faults;
use tally::Tally;
use world::World;

/// The seeds of `cargo test`: a few seconds in a debug build.
const SEEDS: Range<u64> = 0..60;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SOCP_SIM_SEEDS") else { return SEEDS };
    let (from, to) = text.split_once("..").expect("SOCP_SIM_SEEDS is FROM..TO");
    from.parse().expect("FROM is a number")..to.parse().expect("TO is a number")
}

/// Runs one seed to its quiet end and checks everything; a violation panics with the seed.
fn run(seed: u64) -> World {
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
