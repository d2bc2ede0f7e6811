//! `socp bench watch --hostile`: honest watchers by turns alone and beside hostile ones, in one run.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rustls::ClientConfig;
use serde_json::{Map, json};
use tokio::time::{Instant, sleep};

use super::{
    cli::Watch,
    hostile::{Deeds, Hostile},
    machine::{Share, Used},
    memory::{Memory, resident_kib},
    pace::Pace,
    plan::Aim,
    report::Line,
    tally::Tally,
};
use crate::failure::Failure;

/// How often both are measured, by turns, so that what else the machine does meanwhile hits both alike.
const PAIRS: usize = 3;

/// How long hostile watchers may take to be there.
const COMING_TIME_MAX: Duration = Duration::from_secs(30);

/// What comes is looked at so often while it is waited for.
const LOOKED: Duration = Duration::from_millis(20);

/// After so long a server has done with those who came, and freed what those who left had.
const SETTLED: Duration = Duration::from_secs(1);

/// Events of a slice: with each kind there are as many as the run has without hostile watchers.
pub(super) fn slice(options: &Watch) -> usize {
    options.events().div_ceil(PAIRS)
}

/// Events of all slices.
pub(super) fn events(slice: usize) -> usize {
    2 * PAIRS * slice
}

/// The hostile watchers' part of a run.
pub(super) struct Beside<'a> {
    /// Where they connect.
    pub(super) aims: Vec<Aim>,
    pub(super) tls: &'a ClientConfig,
    /// The servers that are looked at.
    pub(super) memory: Vec<Memory>,
}

/// What was measured while things happened.
#[derive(Debug)]
pub(super) struct Measured {
    /// Alone, and beside hostile watchers.
    shares: [Vec<Share>; 2],
    seconds: [f64; 2],
    deeds: Arc<Deeds>,
    /// Of the servers: before any hostile watcher came, the most at the end of a slice, and after they left.
    resident_kib: [Option<u64>; 3],
}

/// Has everybody come and go, slice by slice.
pub(super) async fn measure(pace: &Pace<'_>, beside: &Beside<'_>, processes: &[u32]) -> Result<Measured, Failure> {
    pace.wait_synced().await?;
    let tool = pace.watchers.processes();
    let (slice, deeds) = (slice(pace.options), Arc::<Deeds>::default());
    let (mut shares, mut seconds) = ([Vec::new(), Vec::new()], [0.0; 2]);
    sleep(SETTLED).await;
    let before = resident_kib(&beside.memory).await?;
    let mut most = before;
    for number in 0..2 * PAIRS {
        let is_disturbed = number % 2 == 1;
        let hostile = if is_disturbed { come(pace, beside, &deeds).await? } else { Vec::new() };
        let (used, began) = (Used::by(&tool, processes), Instant::now());
        let events = number * slice..(number + 1) * slice;
        let end = events.end;
        pace.steady(events).await?;
        seconds[usize::from(is_disturbed)] += began.elapsed().as_secs_f64();
        shares[usize::from(is_disturbed)].push(used.until(Used::by(&tool, processes)));
        pace.wait_for(end).await?;
        if is_disturbed {
            most = most.max(resident_kib(&beside.memory).await?);
            drop(hostile);
            sleep(SETTLED).await;
        }
    }
    let resident_kib = [before, most, resident_kib(&beside.memory).await?];
    Ok(Measured { shares, seconds, deeds, resident_kib })
}

/// Has hostile watchers come, and waits until each has asked.
async fn come(pace: &Pace<'_>, beside: &Beside<'_>, deeds: &Arc<Deeds>) -> Result<Vec<Hostile>, Failure> {
    let before = deeds.begun.load(Ordering::Relaxed);
    let groups = &pace.options.hostile;
    let hostile: Vec<_> = beside.aims.iter().map(|aim| Hostile::come(groups, aim, beside.tls, deeds)).collect();
    let all: u64 = hostile.iter().map(|hostile| hostile.count).sum();
    let deadline = Instant::now() + COMING_TIME_MAX;
    let begun = || deeds.begun.load(Ordering::Relaxed) - before;
    while begun() < all {
        if Instant::now() >= deadline {
            return Err(Failure::failed(format!("only {} of {all} hostile watchers are there", begun())));
        }
        pace.teller.tell(|| format!("{} of {all} hostile watchers are there", begun()));
        sleep(LOOKED).await;
    }
    // That they come costs handshakes once; what is measured is that they are there.
    sleep(SETTLED).await;
    Ok(hostile)
}

impl Measured {
    /// Beside hostile watchers, and alone. What was missed or repeated at any time stands with the first.
    pub(super) fn lines(&self, tally: &Tally) -> Vec<Line> {
        let [alone, disturbed] = &self.shares;
        let [before, most, after] = self.resident_kib;
        let [alone_s, disturbed_s] = self.seconds;
        let line = |name: &str, times: &hdrhistogram::Histogram<u64>, seconds: f64, shares: &[Share]| Line {
            name: name.into(),
            count: times.len(),
            per_second: times.len() as f64 / seconds.max(1e-3),
            times: times.clone(),
            missed: 0,
            repeated: 0,
            share: Share::mean(shares),
            more: Map::new(),
        };
        let more = [
            ("hostile_watches_begun", json!(self.deeds.begun.load(Ordering::Relaxed))),
            ("of_them_ended_by_the_server", json!(self.deeds.ended.load(Ordering::Relaxed))),
            ("resident_before_kib", json!(before)),
            ("resident_most_kib", json!(most)),
            ("resident_after_kib", json!(after)),
        ];
        let beside = Line {
            missed: tally.missed,
            repeated: tally.repeated + tally.strange,
            more: Map::from_iter(more.map(|(name, value)| (name.to_owned(), value))),
            ..line("beside hostile", &tally.disturbed, disturbed_s, disturbed)
        };
        vec![beside, line("watch", &tally.times, alone_s, alone)]
    }
}
