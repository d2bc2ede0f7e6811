//! `socp bench idle`: what watchers and users cost a server while nothing happens.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, json};
use socp::v1::KeyDetail;
use tokio::time::sleep;

use super::{
    cli::Idle,
    login,
    machine::{self, Share, Used},
    progress::Teller,
    report::{Line, Report, grouped, times_of},
    tally::Schedule,
    users, watch,
    watchers::Watchers,
};
use crate::{certificate, failure::Failure};

/// After so long a server has freed what it needed only to let somebody in.
const SETTLED: Duration = Duration::from_secs(3);

/// Runs it.
pub async fn run(options: &Idle) -> Result<Report, Failure> {
    machine::need_descriptors(options.watchers + options.sessions)?;
    let teller = Teller::default();
    let places = options.servers.find().await?;
    let place = options.servers.roles(&places)?.0[0];
    let number = options.servers.users_at.first().map_or(0, |number| number - 1);
    let process = *options.servers.pids.get(number).ok_or_else(|| {
        Failure::failed("the server's process is not known")
            .hint("say `--server-pid PID` for each server, in the order of `--server`")
    })?;
    let resident = || {
        machine::resident_kib(process)
            .ok_or_else(|| Failure::failed(format!("the memory of process {process} cannot be read")))
    };
    let key = users::key(&users::cache_folder()?).await?;
    let names = login::names(options.sessions);
    login::register(place, &names, &key, &teller).await?;
    let user = users::log_in(place, place.connect().await?, "bench-watcher", &key).await?;
    watch::check(&user).await?;
    sleep(SETTLED).await;

    let before = resident()?;
    let schedule = Arc::new(Schedule::new("bench-guest-", 1, 0));
    let aim = watch::aim(place, &user, KeyDetail::Fingerprint, options.watchers, 1);
    let watchers = Watchers::start(&[aim], 1, &certificate::tls(None)?, &schedule)?;
    watch::wait_synced("idle", options.watchers, &watchers, &teller).await?;
    sleep(SETTLED).await;
    let share = rest(options, process, &teller).await;
    let with_watchers = resident()?;
    let idle_watchers = line("watchers", options.watchers, before, with_watchers, share);

    let online = login::come_all(place, &names, 32, &key, &teller).await?;
    sleep(SETTLED).await;
    let share = rest(options, process, &teller).await;
    let with_sessions = resident()?;
    let idle_sessions = line("sessions", online.len(), with_watchers, with_sessions, share);
    teller.done();
    watchers.stop()?;
    Ok(Report {
        workload: "idle",
        title: format!(
            "{} watchers at {} over TCP and TLS, then {} attached sessions besides, a connection each, while nothing happens",
            grouped(options.watchers as u64),
            place.name,
            grouped(options.sessions as u64)
        ),
        unit: "connections",
        times: "no times; memory of the server's process",
        lines: vec![idle_watchers, idle_sessions],
        compares: false,
    })
}

/// Lets some time pass; gives who used the machine meanwhile.
async fn rest(options: &Idle, process: u32, teller: &Teller) -> Share {
    let used = Used::now(&[process]);
    for second in 0..options.seconds {
        teller.tell(|| format!("idle: {second} of {} s", options.seconds));
        sleep(Duration::from_secs(1)).await;
    }
    used.until(Used::now(&[process]))
}

fn line(name: &str, count: usize, before_kib: u64, after_kib: u64, share: Share) -> Line {
    let each = after_kib.saturating_sub(before_kib) as f64 / count.max(1) as f64;
    let more = [
        ("resident_before_kib", json!(before_kib)),
        ("resident_after_kib", json!(after_kib)),
        ("kib_each", json!((each * 10.0).round() / 10.0)),
    ];
    Line {
        name: name.into(),
        count: count as u64,
        per_second: 0.0,
        times: times_of([]),
        missed: 0,
        repeated: 0,
        share,
        more: Map::from_iter(more.map(|(name, value)| (name.to_owned(), value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_out_among_those_who_came() {
        let line = line("watchers", 4, 1_000, 1_130, Share::default());
        assert_eq!((line.count, &line.more["kib_each"]), (4, &json!(32.5)));
        let none = super::line("sessions", 0, 1_000, 990, Share::default());
        assert_eq!(none.more["kib_each"], json!(0.0));
    }
}
