//! The command line of `socp bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    hostile::Group,
    machine::PROCESSES_MAX,
    servers::Servers,
    stand_in::{Kind, Part},
};

/// `socp bench`.
#[derive(Args, Debug)]
pub struct Bench {
    /// What to measure.
    #[command(subcommand)]
    pub workload: Workload,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Workload {
    /// How long it takes until watchers are told that somebody came or went.
    ///
    /// Watchers connect to some servers, a connection each; users come and go at others. The time of each change for each watcher
    /// is taken from just before the user's attach or detach is sent. Each change is counted: one that a watcher is not told, or is
    /// told twice, makes the run fail.
    ///
    /// `--with floor,plain` does the same with stand-ins on this machine, and prints the ratios:
    ///   floor  the same bytes over TLS through two bare processes to as many sockets, from one loop: what the machine can do;
    ///          a second process for each server that is watched
    ///   plain  one bare tonic server that encodes each message for each watcher
    #[command(verbatim_doc_comment)]
    Watch(Watch),
    /// How many messages are accepted in a second, and how soon they arrive.
    ///
    /// Pairs of users write across two servers, as fast as the servers take it, or at a rate. Messages are sealed and signed
    /// before, which takes some milliseconds for each. Each accepted one has to be received once, or the run fails.
    Tell(Tell),
    /// How fast a file crosses servers, and how late messages are meanwhile.
    ///
    /// The sender is at the first server, the recipient at the second, unless said. The time is from the first byte that is read to
    /// the last one on the recipient's disk, decrypted and checked. It is compared with a copy of the same bytes over plain TLS
    /// through two bare processes, which keep nothing. Others write messages at a rate, first alone, then beside the file.
    File(File),
    /// How soon posts to everybody reach every member.
    ///
    /// Members are online at the second server, the sender is at the first, unless said. Posts are encrypted and signed before.
    /// Each has to reach each member once, or the run fails.
    All(All),
    /// How long it takes to log in and go online.
    ///
    /// Users connect, check the server, log in and attach, each over a connection of their own. The signature of each login is made
    /// here, some milliseconds each; registrations are made before, the first time.
    Login(Login),
    /// How long it takes until watchers who lost their connections are in step again.
    ///
    /// All reconnect at once: first without a resume token, so that each gets the whole present state, then with one. Some users come
    /// and go while they are away, and what each watcher knows in the end is compared with what happened.
    Storm(Storm),
    /// What watchers and users cost a server while nothing happens: memory each, and processor time.
    ///
    /// Wants `--server-metrics`, or `--server-pid` on the same machine.
    Idle(Idle),
    /// Part of the tool itself.
    #[command(hide = true)]
    Worker,
    /// Part of the tool itself.
    #[command(hide = true)]
    StandIn {
        /// Which.
        #[command(subcommand)]
        part: Part,
    },
}

/// `socp bench watch`.
#[derive(Args, Clone, Debug)]
pub struct Watch {
    /// The servers.
    #[command(flatten)]
    pub servers: Servers,
    /// How many watch, spread over their servers.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count(50_000))]
    pub watchers: usize,
    /// How many users come and go, spread over theirs.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = count(10_000))]
    pub users: usize,
    /// Changes in a second, all users together.
    #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = rate)]
    pub rate: f64,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// In place of a rate: all users come at once, and when every watcher knows, all go at once.
    #[arg(long, conflicts_with_all = ["rate", "seconds"])]
    pub burst: bool,
    /// Watches with whole key statements, ten times the bytes; else with fingerprints only.
    #[arg(long)]
    pub keys: bool,
    /// How many watchers share a connection; real users share none.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=90))]
    pub per_connection: u8,
    /// Watches over HTTP/3; what it is compared with stays on TCP.
    #[arg(long, conflicts_with = "per_connection")]
    pub http3: bool,
    /// Threads that read for the watchers, of each process. One is enough until it is busy all the time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub threads: u8,
    /// Processes that the watchers are spread over; if not said, as few as may open so many connections.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=PROCESSES_MAX as i64))]
    pub processes: Option<u8>,
    /// What to compare with, in the same run.
    #[arg(long, value_name = "STAND-IN,...", value_delimiter = ',')]
    pub with: Vec<Kind>,
    /// Measures by turns without and beside hostile watchers, for as long each: `stopped=N` take 16 KiB and no more, `frozen=N` read
    /// and say nothing, `slow=N` read a byte a second, `looping=N` come and go ten times a second.
    #[arg(long, value_name = "KIND=N,...", value_delimiter = ',', conflicts_with = "burst")]
    pub hostile: Vec<Group>,
    /// Measures by turns without and beside a file of so many MiB, which a user sends from the first server of those who come and go
    /// to the first of the watchers, where it is fetched again and again. Twice as much is needed in the system's folder for temporary
    /// files, and three times as much at the sender's server.
    #[arg(long, value_name = "MIB", conflicts_with_all = ["burst", "hostile"], value_parser = count(64 * 1024))]
    pub beside_file: Option<usize>,
}

impl Watch {
    /// Whether it is measured by turns without and beside something.
    pub fn is_disturbed(&self) -> bool {
        !self.hostile.is_empty() || self.beside_file.is_some()
    }

    /// How many changes there are, undisturbed.
    pub fn events(&self) -> usize {
        if self.burst { 2 * self.users } else { ((self.rate * self.seconds as f64) as usize).max(1) }
    }
}

/// `socp bench tell`.
#[derive(Args, Clone, Debug)]
pub struct Tell {
    /// The servers: senders are at the first, recipients at the second, unless said.
    #[command(flatten)]
    pub servers: Servers,
    /// Pairs of a sender and a recipient, each with a connection of their own.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = count(5_000))]
    pub pairs: usize,
    /// Messages, all pairs together. Each inbox keeps what it gets for its time.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = count(1_000_000))]
    pub messages: usize,
    /// Bytes of each text.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = count(32 * 1024))]
    pub bytes: usize,
    /// Messages under way at once for each pair.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count(64))]
    pub in_flight: usize,
    /// Messages in a second, all pairs together; as fast as they are taken if not said.
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,
}

/// `socp bench file`.
#[derive(Args, Clone, Debug)]
pub struct File {
    /// The servers: the sender is at the first, the recipient at the second, unless said.
    #[command(flatten)]
    pub servers: Servers,
    /// How large the file is. Twice as much is needed in the folder, and as much again at each server.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = count(64 * 1024))]
    pub mib: usize,
    /// Where the file is made and received, in a folder that is removed again; the system's for temporary files if not said.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Messages in a second, of ten pairs together.
    #[arg(long, value_name = "N", default_value_t = 50.0, value_parser = rate)]
    pub rate: f64,
    /// For how long messages are written: before the file, and again from when it begins.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
}

impl File {
    /// How many bytes the file has.
    pub fn bytes(&self) -> u64 {
        (self.mib as u64) << 20
    }

    /// The messages, those before the file as those beside it.
    pub fn messages(&self) -> Tell {
        let messages = ((self.rate * self.seconds as f64) as usize).max(1);
        Tell { servers: self.servers.clone(), pairs: 10, messages, bytes: 200, in_flight: 8, rate: Some(self.rate) }
    }
}

/// `socp bench all`.
#[derive(Args, Clone, Debug)]
pub struct All {
    /// The servers: the sender is at the first, members at the second, unless said.
    #[command(flatten)]
    pub servers: Servers,
    /// Members who are online, each with a connection of their own.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count(20_000))]
    pub members: usize,
    /// Posts.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count(100_000))]
    pub posts: usize,
    /// Bytes of each text.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = count(32 * 1024))]
    pub bytes: usize,
    /// Posts in a second at most; one is answered before the next is sent.
    #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = rate)]
    pub rate: f64,
}

/// `socp bench login`.
#[derive(Args, Clone, Debug)]
pub struct Login {
    /// The servers; the first is logged in at, unless said.
    #[command(flatten)]
    pub servers: Servers,
    /// Logins.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = count(20_000))]
    pub logins: usize,
    /// How many at a time.
    #[arg(long, value_name = "K", default_value_t = 32, value_parser = count(1_000))]
    pub at_once: usize,
}

/// `socp bench idle`.
#[derive(Args, Clone, Debug)]
pub struct Idle {
    /// The servers; the first is looked at, unless `--users-at` says another.
    #[command(flatten)]
    pub servers: Servers,
    /// Watchers, a connection each.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = count(50_000))]
    pub watchers: usize,
    /// Watches over HTTP/3; sessions stay on TCP.
    #[arg(long)]
    pub http3: bool,
    /// Processes that the watchers are spread over; if not said, as few as may open so many connections.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=PROCESSES_MAX as i64))]
    pub processes: Option<u8>,
    /// Attached sessions after those, a connection each.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=20_000))]
    pub sessions: u64,
    /// How long their processor time is looked at.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
}

/// `socp bench storm`.
#[derive(Args, Clone, Debug)]
pub struct Storm {
    /// The servers.
    #[command(flatten)]
    pub servers: Servers,
    /// Watchers, a connection each.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = count(50_000))]
    pub watchers: usize,
    /// Users who are online meanwhile.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count(10_000))]
    pub users: usize,
    /// Changes that the watchers miss, each time.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = count(1_000))]
    pub changes: usize,
    /// Threads that read for the watchers, of each process.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub threads: u8,
    /// Processes that the watchers are spread over; if not said, as few as may open so many connections.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=PROCESSES_MAX as i64))]
    pub processes: Option<u8>,
}

/// A number from 1 on.
fn count(most: u64) -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::value_parser!(u64).range(1..=most).map(|count| usize::try_from(count).unwrap_or(usize::MAX))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=100_000.0).contains(&rate) { Ok(rate) } else { Err("from 0.1 to 100000".to_owned()) }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    pub(in super::super) fn parse(arguments: &str) -> Result<Watch, String> {
        let line = format!("socp bench watch --server a:1 --server-id {} {arguments}", "0".repeat(64));
        match Cli::try_parse_from(line.split_whitespace()) {
            Ok(Cli { command: Command::Bench(Bench { workload: Workload::Watch(watch) }), .. }) => Ok(watch),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn what_is_out_of_range_or_does_not_fit_is_refused() {
        for wrong in [
            "--watchers 0",
            "--watchers 50001",
            "--users 0",
            "--users 10001",
            "--rate 0",
            "--rate 100001",
            "--rate x",
            "--seconds 0",
            "--seconds 3601",
            "--per-connection 0",
            "--per-connection 91",
            "--threads 0",
            "--processes 0",
            "--processes 17",
            "--with ceiling",
            "--burst --rate 5",
            "--burst --hostile slow=1",
            "--burst --beside-file 1",
            "--beside-file 1 --hostile slow=1",
            "--beside-file 0",
            "--hostile slow",
            "--http3 --per-connection 2",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let most = "--watchers 50000 --users 10000 --rate 100000 --seconds 3600 --per-connection 90 --with floor,plain";
        assert_eq!(parse(most).unwrap().with, [Kind::Floor, Kind::Plain]);
    }

    #[test]
    fn the_number_of_changes_follows_from_the_pace() {
        assert_eq!(parse("--rate 20 --seconds 3").unwrap().events(), 60);
        assert_eq!(parse("--rate 0.1 --seconds 1").unwrap().events(), 1);
        assert_eq!(parse("--burst --users 7").unwrap().events(), 14);
    }
}
