//! `socp bench watch --hostile` and `--beside-file`: watchers by turns alone and beside hostile ones, or beside a file on its way, in
//! one run.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rustls::ClientConfig;
use serde_json::{Map, Value, json};
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
    traffic::{Traffic, UnderWay},
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

/// What disturbs a run.
pub(super) struct Beside {
    pub(super) what: Disturbance,
    /// The servers that are looked at.
    pub(super) memory: Vec<Memory>,
}

/// Which.
pub(super) enum Disturbance {
    /// Hostile watchers, who connect there.
    Hostile(Vec<Aim>, Box<ClientConfig>),
    /// A file.
    File(Box<Traffic>),
}

/// One of them at work.
enum Present {
    Hostile(Vec<Hostile>),
    File(UnderWay),
}

impl Present {
    async fn leave(self) {
        match self {
            Self::Hostile(all) => drop(all),
            Self::File(file) => file.leave().await,
        }
    }
}

/// What was measured while things happened.
#[derive(Debug)]
pub(super) struct Measured {
    /// Alone, and beside hostile watchers.
    shares: [Vec<Share>; 2],
    seconds: [f64; 2],
    name: &'static str,
    /// What the disturbance did.
    deeds: Vec<(&'static str, Value)>,
    /// Of the servers: before it came, the most at the end of a slice, and after it left.
    resident_kib: [Option<u64>; 3],
}

/// Has everybody come and go, slice by slice.
pub(super) async fn measure(pace: &Pace<'_>, beside: &Beside, processes: &[u32]) -> Result<Measured, Failure> {
    pace.wait_synced().await?;
    let tool = pace.watchers.processes();
    let (slice, deeds) = (slice(pace.options), Arc::<Deeds>::default());
    let (mut shares, mut seconds) = ([Vec::new(), Vec::new()], [0.0; 2]);
    sleep(SETTLED).await;
    let before = resident_kib(&beside.memory).await?;
    let mut most = before;
    for number in 0..2 * PAIRS {
        let is_disturbed = number % 2 == 1;
        let present = if is_disturbed { Some(come(pace, beside, &deeds).await?) } else { None };
        let (used, began) = (Used::by(&tool, processes), Instant::now());
        let events = number * slice..(number + 1) * slice;
        let end = events.end;
        pace.steady(events).await?;
        seconds[usize::from(is_disturbed)] += began.elapsed().as_secs_f64();
        shares[usize::from(is_disturbed)].push(used.until(Used::by(&tool, processes)));
        pace.wait_for(end).await?;
        if is_disturbed {
            most = most.max(resident_kib(&beside.memory).await?);
        }
        if let Some(present) = present {
            present.leave().await;
            sleep(SETTLED).await;
        }
    }
    let resident_kib = [before, most, resident_kib(&beside.memory).await?];
    let (name, deeds) = match &beside.what {
        Disturbance::Hostile(..) => {
            let [begun, ended] = [&deeds.begun, &deeds.ended].map(|deeds| json!(deeds.load(Ordering::Relaxed)));
            ("beside hostile", vec![("hostile_watches_begun", begun), ("of_them_ended_by_the_server", ended)])
        }
        Disturbance::File(traffic) => {
            traffic.failure().map_or(Ok(()), Err)?;
            let [sent, received] = traffic.mib();
            ("beside a file", vec![("mib_sent", json!(sent)), ("mib_received", json!(received))])
        }
    };
    Ok(Measured { shares, seconds, name, deeds, resident_kib })
}

/// Has what disturbs come, and waits until it is there.
async fn come(pace: &Pace<'_>, beside: &Beside, deeds: &Arc<Deeds>) -> Result<Present, Failure> {
    match &beside.what {
        Disturbance::Hostile(aims, tls) => hostile(pace, aims, tls, deeds).await.map(Present::Hostile),
        Disturbance::File(traffic) => Ok(Present::File(traffic.begin())),
    }
}

/// Has hostile watchers come, and waits until each has asked.
async fn hostile(
    pace: &Pace<'_>,
    aims: &[Aim],
    tls: &ClientConfig,
    deeds: &Arc<Deeds>,
) -> Result<Vec<Hostile>, Failure> {
    let before = deeds.begun.load(Ordering::Relaxed);
    let groups = &pace.options.hostile;
    let hostile: Vec<_> = aims.iter().map(|aim| Hostile::come(groups, aim, tls, deeds)).collect();
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
    /// Disturbed, and alone. What was missed or repeated at any time stands with the first.
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
        let resident = [("resident_before_kib", before), ("resident_most_kib", most), ("resident_after_kib", after)];
        let more = self.deeds.iter().cloned().chain(resident.map(|(name, kib)| (name, json!(kib))));
        let beside = Line {
            missed: tally.missed,
            repeated: tally.repeated + tally.strange,
            more: more.map(|(name, value)| (name.to_owned(), value)).collect(),
            ..line(self.name, &tally.disturbed, disturbed_s, disturbed)
        };
        vec![beside, line("watch", &tally.times, alone_s, alone)]
    }
}
