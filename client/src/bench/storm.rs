//! `socp bench storm`: all watchers lose their connections, and come back at once: first with a present state each, then after
//! what they know.
//!
//! While they are away some users come and go, and one witness stays, so that it is known when the server shows it. Whoever comes
//! back is compared with what happened.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, json};
use socp::v1::KeyDetail;
use tokio::time::{Instant, sleep};

use super::{
    actors::Actors,
    cli::Storm,
    clock,
    machine::{self, Used},
    pace,
    plan::{Aim, Plan},
    progress::Teller,
    report::{Line, Report, grouped},
    tally::{Schedule, Tally},
    users,
    watch::{self, PREFIX},
    watchers::Watchers,
};
use crate::failure::Failure;

/// What comes is looked at so often while it is waited for.
const LOOKED: Duration = Duration::from_millis(5);

/// What does not come in this time does not come.
const WAITED_MAX: Duration = Duration::from_secs(60);

/// Runs it.
pub async fn run(options: &Storm) -> Result<Report, Failure> {
    let processes = machine::processes(options.watchers, 1 + options.users / 8, options.processes)?;
    let teller = Teller::default();
    let places = options.servers.find().await?;
    let (homes, posts) = options.servers.roles(&places)?;
    let post = posts[0];
    let key = users::key(&users::cache_folder()?).await?;
    let schedule = Arc::new(Schedule::new(PREFIX, options.users, options.users + 2 * options.changes));
    let guests = watch::log_in_guests(&homes, &schedule, &key, &teller).await?;
    let user = users::log_in(post, post.connect().await?, "bench-watcher", &key).await?;
    watch::check(&user).await?;

    let one = watch::aim(post, &user, KeyDetail::Fingerprint, 1, 1);
    let all = Aim { watchers: options.watchers, keeps_token: true, ..one.clone() };
    let witness = Watchers::start(&Plan::here(vec![one]), &schedule)?;
    let plan = Plan { threads: usize::from(options.threads), processes, ..Plan::here(vec![all]) };
    let watchers = watch::start(plan, &schedule, &teller).await?;
    let actors = Actors::of_users(guests.clone(), &schedule);
    let measured =
        Run { options, schedule: &schedule, witness: &witness, watchers: &watchers, actors: &actors, teller: &teller };
    let measured = measured.storms().await;
    // Before the users leave, of which no watcher is to be told.
    let (witnessed, told) = (witness.stop(), watchers.stop());
    watch::leave(&guests).await;
    let measured = measured?;
    witnessed?;
    let told = told?;
    teller.done();
    Ok(Report {
        workload: "storm",
        title: format!(
            "{} watchers at {} reconnect at once over TCP and TLS, a connection each, with {} users online and {} changes missed",
            grouped(options.watchers as u64),
            post.name,
            grouped(options.users as u64),
            grouped(options.changes as u64)
        ),
        unit: "watchers",
        times: "times from the beginning of the storm to each watcher being in step again",
        lines: measured.into_iter().map(|measured| line(measured, &told)).collect(),
        compares: false,
    })
}

/// One storm that was measured.
struct Measured {
    resume: bool,
    share: machine::Share,
    seconds: f64,
}

fn line(measured: Measured, told: &Tally) -> Line {
    let times = told.returns[usize::from(measured.resume)].clone();
    let seconds = (measured.seconds * 1e3).round() / 1e3;
    Line {
        name: if measured.resume { "with a token" } else { "without" }.into(),
        count: times.len(),
        per_second: times.len() as f64 / measured.seconds.max(1e-3),
        times,
        // What each was told is counted once for both.
        missed: if measured.resume { told.missed } else { 0 },
        repeated: if measured.resume { told.repeated + told.strange } else { 0 },
        share: measured.share,
        more: Map::from_iter([("all_in_step_after_s".to_owned(), json!(seconds))]),
    }
}

struct Run<'a> {
    options: &'a Storm,
    schedule: &'a Schedule,
    witness: &'a Watchers,
    watchers: &'a Watchers,
    actors: &'a Actors,
    teller: &'a Teller,
}

impl Run<'_> {
    async fn storms(&self) -> Result<[Measured; 2], Failure> {
        pace::wait_synced("witness", 1, self.witness, self.teller).await?;
        pace::wait_synced("storm", self.options.watchers, self.watchers, self.teller).await?;
        let mut events = self.happen(0, self.options.users).await?;
        let all = (self.options.users * self.options.watchers) as u64;
        self.wait("watchers to be told", || self.watchers.told() >= all).await?;
        let mut storm = async |resume| {
            self.watchers.leave()?;
            self.wait("connections to end", || self.watchers.open() == 0).await?;
            events = self.happen(events, events + self.options.changes).await?;
            let used = self.used();
            let began = clock::now_ns();
            self.watchers.come_back(resume)?;
            pace::wait_synced("storm", self.options.watchers, self.watchers, self.teller).await?;
            let share = used.until(self.used());
            Ok::<_, Failure>(Measured { resume, share, seconds: (clock::now_ns() - began) as f64 / 1e9 })
        };
        Ok([storm(false).await?, storm(true).await?])
    }

    /// Lets some events happen, and waits until the watchers' server shows them; gives where the next begin.
    async fn happen(&self, from: usize, to: usize) -> Result<usize, Failure> {
        (from..to).for_each(|event| self.actors.act(self.schedule, event));
        self.wait("users to come and go", || self.witness.told() >= to as u64).await?;
        self.wait("calls to be answered", || self.actors.done() >= to).await?;
        Ok(to)
    }

    fn used(&self) -> Used {
        Used::by(&self.watchers.processes(), &self.options.servers.pids)
    }

    async fn wait(&self, what: &str, is_so: impl Fn() -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + WAITED_MAX;
        while !is_so() {
            let failures = [self.witness.failure(), self.watchers.failure(), self.actors.failure()];
            failures.into_iter().flatten().next().map_or(Ok(()), Err)?;
            if Instant::now() >= deadline {
                return Err(Failure::failed(format!("waited in vain for {what}")));
            }
            self.teller.tell(|| format!("storm: waiting for {what}"));
            sleep(LOOKED).await;
        }
        Ok(())
    }
}
