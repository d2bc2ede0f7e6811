//! `socp bench`: drives running servers over the public contract, and tells how fast they are and who was the bottleneck.
//!
//! One file for each workload ([`watch`], [`tell`], [`mod@file`], [`all`], [`login`], [`storm`], [`idle`]), and what they share:
//! [`users`] logs in, [`watchers`] reads many streams cheaply over HTTP/2 and [`http3`] over HTTP/3, [`tally`] counts what each was
//! told, `worker` is a process of its own for some of them, [`machine`] looks at who is busy, [`memory`] at what that takes,
//! [`report`] tells. What a watch is compared with is in [`stand_in`], who disturbs it in [`hostile`]. Nothing here knows how a
//! server works inside.

pub mod actors;
pub mod all;
pub mod call;
pub mod cli;
pub mod clock;
mod counts;
pub mod delta;
mod disturbed;
pub mod file;
pub mod floor;
mod folder;
pub mod frame;
pub mod hostile;
pub mod http3;
pub mod idle;
pub mod login;
pub mod machine;
pub mod memory;
pub mod metrics;
pub mod moments;
mod pace;
pub mod plain;
pub mod plan;
pub mod plot;
pub mod progress;
pub mod raw;
pub mod report;
pub mod seat;
pub mod servers;
mod socket;
pub mod stand_in;
pub mod storm;
pub mod tally;
pub mod tell;
mod traffic;
pub mod users;
pub mod watch;
pub mod watchers;
mod worker;
mod workers;

use self::{
    cli::{Bench, Workload},
    report::Report,
};
use crate::{failure::Failure, sending::blocking};

/// Runs a workload and prints what was measured. Fails if something was missed or came twice, after printing.
pub async fn run(bench: &Bench, json: bool) -> Result<(), Failure> {
    let (report, servers) = match &bench.workload {
        Workload::Watch(options) => (watch::run(options).await?, &options.servers),
        Workload::Tell(options) => (tell::run(options).await?, &options.servers),
        Workload::File(options) => (file::run(options).await?, &options.servers),
        Workload::All(options) => (all::run(options).await?, &options.servers),
        Workload::Login(options) => (login::run(options).await?, &options.servers),
        Workload::Idle(options) => (idle::run(options).await?, &options.servers),
        Workload::Storm(options) => (storm::run(options).await?, &options.servers),
        Workload::StandIn { part } => return stand_in::run(part.clone()).await,
        Workload::Worker => return blocking(worker::run).await,
    };
    print(&report, json);
    if let Some(path) = &servers.plot {
        let picture = plot::svg(&report.title, &report.lines);
        std::fs::write(path, picture).map_err(|error| Failure::file("write", path, &error))?;
    }
    if report.is_whole() {
        return Ok(());
    }
    Err(Failure::failed(format!("some {} were missed or came twice", report.unit)))
}

fn print(report: &Report, json: bool) {
    use std::io::Write as _;
    let text = if json { report.json().to_string() } else { report.table() };
    // Whoever closed standard output wants no more of it.
    let _ = writeln!(std::io::stdout(), "{text}");
}
