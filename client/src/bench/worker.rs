//! A process that has some of the watchers of a run, where one process may not open so many connections.
//!
//! It is told what to do on its standard input and reports on its standard output, a JSON object to a line: first a [`Job`], then
//! [`Order`]s; back come [`Report`]s, the last of them with all that its watchers were told. When its standard input ends, so does it:
//! whatever becomes of the process that started it, no watcher stays.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    counts::Counts,
    moments::Moments,
    plan::Plan,
    tally::{Schedule, Tally},
    watchers::Watchers,
};
use crate::failure::Failure;

/// How often it reports, if there is anything new.
const REPORTED: Duration = Duration::from_millis(5);

/// What a process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) plan: Plan,
    pub(super) prefix: String,
    pub(super) actors: usize,
    pub(super) events: usize,
    pub(super) slice: usize,
    /// Where it can be read when events began.
    pub(super) moments: PathBuf,
}

/// What it is told later.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// To drop all connections.
    Leave,
    /// To make them anew.
    Return { resume: bool, begun_ns: u64 },
    /// To tell all, and end.
    Stop,
}

/// How far its watchers are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// How many orders were carried out before.
    pub(super) orders: u64,
    pub(super) synced: usize,
    pub(super) told: u64,
    pub(super) open: usize,
    /// Why they cannot go on, with what to do about it.
    pub(super) failure: Option<(String, Option<String>)>,
    /// In the last one.
    pub(super) counts: Option<Counts>,
}

/// Does what it is told.
pub(super) fn run() -> Result<(), Failure> {
    let mut input = BufReader::new(io::stdin());
    let mut job = String::new();
    input.read_line(&mut job).map_err(|error| unclear(&error))?;
    let Job { plan, prefix, actors, events, slice, moments } =
        serde_json::from_str(&job).map_err(|error| unclear(&error))?;
    let moments = Moments::read(&moments, events).map_err(|error| Failure::file("read", &moments, &error))?;
    let schedule = Arc::new(Schedule::of_moments(&prefix, actors, moments).sliced(slice));
    let watchers = Watchers::start_here(&plan, &schedule)?;
    let (orders, due) = channel();
    thread::spawn(move || {
        for line in input.lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else { break };
            if orders.send(order).is_err() {
                break;
            }
        }
    });
    // Nobody listens any more: then nobody waits for the rest.
    let _ = work(watchers, &due);
    Ok(())
}

fn unclear(error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format!("a load process was not told what to do: {error}"))
        .hint("`socp bench` starts such processes itself")
}

fn work(watchers: Watchers, due: &Receiver<Order>) -> io::Result<()> {
    let mut told = Report::default();
    tell(&told)?;
    loop {
        match due.recv_timeout(REPORTED) {
            Ok(Order::Stop) => break,
            Ok(Order::Leave) => watchers.leave().map_err(|failure| io::Error::other(failure.message))?,
            Ok(Order::Return { resume, begun_ns }) => {
                watchers.come_back_since(resume, begun_ns).map_err(|failure| io::Error::other(failure.message))?;
            }
            Err(RecvTimeoutError::Timeout) => {
                let now = report(&watchers, told.orders);
                if now != told {
                    tell(&now)?;
                    told = now;
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        told.orders += 1;
        tell(&report(&watchers, told.orders))?;
    }
    let last = report(&watchers, told.orders);
    match watchers.stop() {
        Ok(tally) => tell(&Report { counts: Some(Counts::of(&tally)), ..last }),
        Err(failure) => tell(&Report { failure: Some((failure.message, failure.hint)), ..last }),
    }
}

fn report(watchers: &Watchers, orders: u64) -> Report {
    let failure = watchers.failure().map(|failure| (failure.message, failure.hint));
    let (synced, told, open) = (watchers.synced(), watchers.told(), watchers.open());
    Report { orders, synced, told, open, failure, counts: None }
}

fn tell(report: &Report) -> io::Result<()> {
    let mut output = io::stdout().lock();
    serde_json::to_writer(&mut output, report)?;
    writeln!(output)?;
    output.flush()
}

impl Report {
    /// What was counted, of the last one.
    pub(super) fn tally(self) -> Option<Result<Tally, Failure>> {
        match (self.counts, self.failure) {
            (Some(counts), _) => Some(Ok(counts.tally())),
            (None, Some((message, hint))) => Some(Err(Failure { hint, ..Failure::failed(message) })),
            (None, None) => None,
        }
    }
}
