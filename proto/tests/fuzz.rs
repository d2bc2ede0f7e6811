//! Hostile input: at every decoder, and in long random runs at a whole node.
//!
//! In a run the one pinned peer is a rogue that owns its key: it sends frames of every kind, in any order, rightly
//! signed or not, while clients call with random fields and links come and go. What must hold is checked after every
//! input. `SOCP_FUZZ_SEEDS=FROM..TO` runs other seeds than the few of `cargo test`; a failure prints its seed.

#[path = "sim/channel_disk.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod channel_disk;
#[path = "fuzz/decoders.rs"]
mod decoders;
#[path = "fuzz/file.rs"]
mod file;
#[path = "sim/keys.rs"]
#[allow(dead_code, reason = "the simulation judges signatures; here they are judged at random")]
mod keys;
#[path = "fuzz/limits.rs"]
mod limits;
#[path = "sim/mail.rs"]
#[allow(dead_code, reason = "the simulation loses writes; here all reach the disk")]
mod mail;
#[path = "fuzz/rogue.rs"]
mod rogue;
#[path = "fuzz/victim.rs"]
mod victim;

use std::ops::Range;

use victim::Victim;

/// The seeds of `cargo test`: a few seconds in a debug build.
const SEEDS: Range<u64> = 0..8;

/// Inputs in one run.
const STEPS: usize = 1_200;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SOCP_FUZZ_SEEDS") else { return SEEDS };
    let (from, to) = text.split_once("..").expect("SOCP_FUZZ_SEEDS is FROM..TO");
    from.parse().expect("FROM is a number")..to.parse().expect("TO is a number")
}

#[test]
fn no_input_breaks_a_node_or_what_it_promises() {
    let mut taken = 0;
    for seed in seeds() {
        let mut victim = Victim::new(seed);
        for _ in 0..STEPS {
            victim.suffer();
        }
        taken += victim.revision;
        victim.end();
    }
    assert!(taken > 20 * (seeds().end - seeds().start), "{taken} revisions: most of what was sent came to nothing");
}
