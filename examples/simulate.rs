//! Many servers on a simulated network with every fault, from seeds: `cargo run --release --example simulate`.
//!
//! Each seed draws a network of 3 to 200 real nodes, its shape, its users and its faults, lets them act, heals the
//! network, and checks that nothing is shown that is not so and nobody is missing. A violation prints its seed, and
//! `--seed` replays it exactly. The simulation itself is the one of `proto/tests/sim`.

#[path = "../proto/tests/sim/byzantine.rs"]
mod byzantine;
#[path = "../proto/tests/sim/calm.rs"]
#[allow(dead_code, reason = "the tests that tell stories use the rest")]
mod calm;
#[path = "../proto/tests/sim/channel_disk.rs"]
#[allow(dead_code, reason = "the tests that tell stories use the rest")]
mod channel_disk;
#[path = "../proto/tests/sim/checks/mod.rs"]
#[allow(dead_code, reason = "the tests that tell stories use the rest")]
mod checks;
#[path = "../proto/tests/sim/disk.rs"]
#[allow(dead_code, reason = "the tests that tell stories use the rest")]
mod disk;
#[path = "../proto/tests/sim/faults.rs"]
mod faults;
#[path = "../proto/tests/sim/floods.rs"]
mod floods;
#[path = "../proto/tests/sim/introducer.rs"]
mod introducer;
#[path = "../proto/tests/sim/keys.rs"]
mod keys;
#[path = "../proto/tests/sim/lies.rs"]
mod lies;
#[path = "../proto/tests/sim/mail.rs"]
mod mail;
#[path = "../proto/tests/sim/network.rs"]
#[allow(dead_code, reason = "the tests that tell stories use the rest")]
mod network;
#[path = "../proto/tests/sim/restarts.rs"]
#[allow(dead_code, reason = "the tests that tell stories use the rest")]
mod restarts;
#[path = "../proto/tests/sim/server.rs"]
#[allow(dead_code, reason = "the tests that tell stories use the rest")]
mod server;
#[path = "../proto/tests/sim/tally.rs"]
mod tally;
#[path = "../proto/tests/sim/users.rs"]
#[allow(dead_code, reason = "the tests that tell stories use the rest")]
mod users;
#[path = "../proto/tests/sim/wires.rs"]
mod wires;
#[path = "../proto/tests/sim/world.rs"]
#[allow(dead_code, reason = "the tests that tell stories use the rest")]
mod world;
#[path = "../proto/tests/sim/writes.rs"]
#[allow(dead_code, reason = "the tests that tell stories use the rest")]
mod writes;

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use clap::Parser;

use faults::Faults;
use tally::Tally;
use world::World;

/// Runs simulated networks with faults, and exits with 1 if any of them shows what is not so.
#[derive(Parser)]
#[command(name = "simulate")]
struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 200, conflicts_with_all = ["minutes", "seed"])]
    seeds: u64,
    /// Run seeds for so long instead.
    #[arg(long, conflicts_with = "seed")]
    minutes: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    from: u64,
    /// Replays one seed.
    #[arg(long)]
    seed: Option<u64>,
}

/// How often progress is told at a terminal.
const PROGRESS: Duration = Duration::from_secs(1);
/// And elsewhere, so that a log tells where a run was when somebody ended it.
const LOGGED_PROGRESS: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let options = Options::parse();
    let begun = Instant::now();
    let until = options.minutes.map(|minutes| begun + Duration::from_secs(60 * minutes));
    let (from, count) = match (options.seed, until) {
        (Some(seed), _) => (seed, 1),
        (None, Some(_)) => (options.from, u64::MAX - options.from),
        (None, None) => (options.from, options.seeds),
    };
    let mut sum = Tally::default();
    let mut servers = Vec::new();
    let mut violations = Vec::new();
    let mut told = begun;
    for seed in (from..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
        match run(seed) {
            Ok(world) => sum.add(&world.tally),
            // What was violated is on standard error already.
            Err(()) => violations.push(seed),
        }
        servers.push(Faults::draw_wide(seed).servers);
        let (every, line) = if stderr().is_terminal() { (PROGRESS, '\r') } else { (LOGGED_PROGRESS, '\n') };
        if told.elapsed() >= every {
            told = Instant::now();
            let (seeds, bad, seconds) = (servers.len(), violations.len(), begun.elapsed().as_secs());
            eprint!("{line}{seeds} seeds, {bad} violations, {seconds} s; seed {} is next ", seed + 1);
            let _ = stderr().flush();
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
    }
    report(from, begun.elapsed(), &mut servers, &sum, &violations);
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(seed: u64) -> Result<World, ()> {
    let run = || {
        let mut world = World::new(seed, Faults::draw_wide(seed));
        world.run_with_faults();
        world.run_until_quiet();
        checks::at_rest(&world);
        world
    };
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
        eprintln!(
            "\nviolation in seed {seed} at commit {}; to see it again: cargo run --release --example simulate -- --seed {seed}",
            commit()
        );
    })
}

fn report(from: u64, took: Duration, servers: &mut [usize], sum: &Tally, violations: &[u64]) {
    servers.sort_unstable();
    let count = servers.len();
    let large = servers.iter().filter(|servers| **servers > 100).count();
    println!("\ncommit      {}", commit());
    println!(
        "seeds       {from}..{} in {:.1} s, {:.3} s each",
        from + count as u64,
        took.as_secs_f64(),
        took.as_secs_f64() / count.max(1) as f64
    );
    println!("servers     median {}, most {}, {large} networks above 100", servers[count / 2], servers[count - 1]);
    println!("violations  {} {violations:?}", violations.len());
    print!("{sum}");
    let idle = sum.kinds_that_never_happened();
    if !idle.is_empty() {
        println!("these never happened, so the seeds prove nothing about them: {idle:?}");
    }
}

/// What is checked out, for whoever replays a seed later.
fn commit() -> String {
    let asked =
        Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let told = asked
        .ok()
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    told.unwrap_or_else(|| "unknown".into())
}
