//! `socp bench idle`: what watchers and users cost a server while nothing happens.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, json};
use socp::v1::KeyDetail;
use tokio::time::sleep;

use super::{
    cli::Idle,
    login,
    machine::{self, Share, Used},
    pace,
    plan::Plan,
    progress::Teller,
    report::{Line, Report, grouped, times_of},
    tally::Schedule,
    users, watch,
};
use crate::failure::Failure;

/// After so long a server has freed what it needed only to let somebody in.
const SETTLED: Duration = Duration::from_secs(3);

/// Runs it.
pub async fn run(options: &Idle) -> Result<Report, Failure> {
    let sessions = usize::try_from(options.sessions).unwrap_or(usize::MAX);
    let processes = machine::processes(if options.http3 { 0 } else { options.watchers }, sessions, options.processes)?;
    let teller = Teller::default();
    let places = options.servers.find().await?;
    let place = options.servers.roles(&places)?.0[0];
    let number = options.servers.users_at.first().map_or(0, |number| number - 1);
    let memory = options.servers.memory(number).ok_or_else(|| {
        Failure::failed("nobody told where the server's memory can be read")
            .hint("say `--server-metrics HOST:PORT` or `--server-pid PID` for each server, in the order of `--server`")
    })?;
    let looked_at: Vec<u32> = options.servers.pids.get(number).copied().into_iter().collect();
    let key = users::key(&users::cache_folder()?).await?;
    let names = login::names(sessions);
    login::register(place, &names, &key, &teller).await?;
    let user = users::log_in(place, place.connect().await?, "bench-watcher", &key).await?;
    watch::check(&user).await?;
    sleep(SETTLED).await;

    let before = memory.resident_kib().await?;
    let schedule = Arc::new(Schedule::new("bench-guest-", 1, 0));
    let aim = watch::aim(place, &user, KeyDetail::Fingerprint, options.watchers, 1);
    let plan = Plan { http3: options.http3, processes, ..Plan::here(vec![aim]) };
    let watchers = watch::start(plan, &schedule, &teller).await?;
    pace::wait_synced("idle", options.watchers, &watchers, &teller).await?;
    sleep(SETTLED).await;
    let share = rest(options, &watchers.processes(), &looked_at, &teller).await;
    let with_watchers = memory.resident_kib().await?;
    let mut lines = vec![line("watchers", options.watchers, before, with_watchers, share)];

    if sessions > 0 {
        let online = login::come_all(place, &names, 32, &key, &teller).await?;
        sleep(SETTLED).await;
        let share = rest(options, &watchers.processes(), &looked_at, &teller).await;
        lines.push(line("sessions", online.len(), with_watchers, memory.resident_kib().await?, share));
    }
    teller.done();
    watchers.stop()?;
    Ok(Report {
        workload: "idle",
        title: format!(
            "{} watchers at {} over {}, then {} attached sessions over TCP and TLS besides, a connection each, while nothing happens; memory by {}",
            grouped(options.watchers as u64),
            place.name,
            if options.http3 { "HTTP/3" } else { "TCP and TLS" },
            grouped(options.sessions),
            memory.word()
        ),
        unit: "connections",
        times: "no times; memory of the server's process",
        lines,
        compares: false,
    })
}

/// Lets some time pass; gives who used the machine meanwhile.
async fn rest(options: &Idle, tool: &[u32], servers: &[u32], teller: &Teller) -> Share {
    let used = Used::by(tool, servers);
    for second in 0..options.seconds {
        teller.tell(|| format!("idle: {second} of {} s", options.seconds));
        sleep(Duration::from_secs(1)).await;
    }
    used.until(Used::by(tool, servers))
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
