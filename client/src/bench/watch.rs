//! `socp bench watch`: users come and go at some servers, and watchers at others are told.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use prost::Message as _;
use serde_json::json;
use socp::v1::{DetachRequest, KeyDetail, WatchDirectoryRequest, message_service_client::MessageServiceClient};
use tokio::time::Instant;

use super::{
    actors::Actors,
    call::Request,
    cli::Watch,
    clock::ms,
    disturbed::{self, Beside, Disturbance},
    hostile::Group,
    machine::{self, Used},
    pace::Pace,
    plan::{Aim, Plan},
    progress::Teller,
    report::{Line, Report, grouped},
    stand_in::{Door, Kind, StandIn},
    tally::{Schedule, Tally},
    traffic::Traffic,
    users::{self, Place, USERS_PER_CONNECTION, User},
    watchers::Watchers,
};
use crate::{certificate, failure::Failure, private_key::PrivateKey, sending::blocking};

const WATCH: &str = "/socp.v1.DirectoryService/WatchDirectory";

/// The names of those who come and go.
pub(super) const PREFIX: &str = "bench-guest-";

/// Where watchers of a user connect.
pub(super) fn aim(place: &Place, user: &User, keys: KeyDetail, watchers: usize, per_connection: usize) -> Aim {
    let (authority, token) = (place.server.clone(), user.token.clone());
    let message = WatchDirectoryRequest { keys: keys.into(), ..WatchDirectoryRequest::default() }.encode_to_vec();
    Aim {
        address: place.address,
        certificate: place.certificate.clone(),
        request: Request { authority, path: WATCH.into(), token, message },
        watchers,
        per_connection,
        keeps_token: false,
    }
}

/// Runs it, and what it is compared with.
pub async fn run(options: &Watch) -> Result<Report, Failure> {
    let hostile: usize = options.hostile.iter().map(Group::count).sum();
    let connections = options.watchers.div_ceil(usize::from(options.per_connection.max(1)));
    let sockets = if options.http3 { 0 } else { connections };
    let processes = machine::processes(sockets, options.users / 8 + hostile, options.processes)?;
    let teller = Teller::default();
    let places = options.servers.find().await?;
    let (homes, posts) = options.servers.roles(&places)?;
    let key = users::key(&users::cache_folder()?).await?;

    let schedule = if !options.is_disturbed() {
        Schedule::new(PREFIX, options.users, options.events())
    } else {
        let slice = disturbed::slice(options);
        Schedule::new(PREFIX, options.users, disturbed::events(slice)).sliced(slice)
    };
    let schedule = Arc::new(schedule);
    let guests = log_in_guests(&homes, &schedule, &key, &teller).await?;

    let mut aims = Vec::new();
    let detail = if options.keys { KeyDetail::Statement } else { KeyDetail::Fingerprint };
    let (mut watching, mut uninvited) = (Vec::new(), Vec::new());
    for (turn, post) in posts.iter().enumerate() {
        let user = users::log_in(post, post.connect().await?, "bench-watcher", &key).await?;
        check(&user).await?;
        let watchers = (turn..options.watchers).step_by(posts.len()).count();
        aims.push(aim(post, &user, detail, watchers, usize::from(options.per_connection)));
        watching.push(user);
        if hostile > 0 {
            let user = users::log_in(post, post.connect().await?, "bench-hostile", &key).await?;
            uninvited.push(aim(post, &user, KeyDetail::Statement, hostile, 1));
            watching.push(user);
        }
    }

    let what = match options.beside_file {
        Some(mib) => Some(Disturbance::File(Traffic::prepare(homes[0], posts[0], &key, mib).await?.into())),
        None if hostile > 0 => Some(Disturbance::Hostile(uninvited, certificate::tls(None)?.into())),
        None => None,
    };
    let plan = Plan { aims, http3: options.http3, threads: usize::from(options.threads), processes };
    let watchers = start(plan, &schedule, &teller).await?;
    let actors = Actors::of_users(guests.clone(), &schedule);
    let run = Run { name: "watch", options, actors: &actors, schedule: &schedule, teller: &teller };
    let lines = match what {
        None => run.perform(watchers, &options.servers.pids).await.map(|line| vec![line]),
        Some(what) => {
            let memory = (0..places.len()).filter_map(|server| options.servers.memory(server)).collect();
            run.perform_disturbed(watchers, &Beside { what, memory }).await
        }
    };
    leave(&guests).await;
    let mut lines = lines?;
    for kind in &options.with {
        lines.push(compare(*kind, options, posts.len(), &teller).await?);
    }
    teller.done();
    Ok(Report {
        workload: "watch",
        title: title(options, &homes, &posts),
        unit: "changes",
        times: "times from attach or detach being sent to the change being received, for each watcher",
        lines,
        compares: true,
    })
}

/// Starts watchers, and tells by which processes.
pub(super) async fn start(plan: Plan, schedule: &Arc<Schedule>, teller: &Teller) -> Result<Watchers, Failure> {
    let schedule = Arc::clone(schedule);
    let watchers = blocking(move || Watchers::start(&plan, &schedule)).await?;
    teller.tell_processes(&watchers.processes());
    Ok(watchers)
}

/// Logs in those who come and go, in the order of their numbers, by turns at their homes.
pub(super) async fn log_in_guests(
    homes: &[&Place],
    schedule: &Schedule,
    key: &Arc<PrivateKey>,
    teller: &Teller,
) -> Result<Vec<User>, Failure> {
    let mut guests = Vec::new();
    for (turn, home) in homes.iter().enumerate() {
        let names: Vec<_> = (turn..schedule.actors()).step_by(homes.len()).map(|actor| schedule.name(actor)).collect();
        let done = AtomicUsize::new(0);
        let (all, name) = (names.len(), &home.name);
        let told = || {
            let done = 1 + done.fetch_add(1, Ordering::Relaxed);
            teller.tell(|| format!("{done} of {all} users are logged in at {name}"));
        };
        let users = users::log_in_all(home, names, key, USERS_PER_CONNECTION, told).await?;
        guests.extend(users.into_iter().enumerate().map(|(number, user)| (turn + number * homes.len(), user)));
    }
    guests.sort_by_key(|(actor, _)| *actor);
    Ok(guests.into_iter().map(|(_, user)| user).collect())
}

fn title(options: &Watch, homes: &[&Place], posts: &[&Place]) -> String {
    let names = |places: &[&Place]| places.iter().map(|place| place.name.clone()).collect::<Vec<_>>().join(", ");
    let (users, watchers) = (grouped(options.users as u64), grouped(options.watchers as u64));
    let pace = if options.burst {
        "all at once".to_owned()
    } else {
        format!("{} changes a second for {} s", options.rate, options.seconds)
    };
    let keys = if options.keys { "with keys" } else { "fingerprints only" };
    let connections = match options.per_connection {
        1 => "a connection each".to_owned(),
        count => format!("{count} to a connection"),
    };
    let groups: Vec<_> = options.hostile.iter().map(ToString::to_string).collect();
    let hostile = if let Some(mib) = options.beside_file {
        format!("; by turns without and beside a file of {mib} MiB")
    } else if groups.is_empty() {
        String::new()
    } else {
        format!("; by turns without and beside hostile watchers: {}", groups.join(", "))
    };
    format!(
        "{watchers} watchers at {} over {}, {connections}, {keys}; {users} users come and go at {}, {pace}{hostile}",
        names(posts),
        if options.http3 { "HTTP/3" } else { "TCP and TLS" },
        names(homes)
    )
}

/// Learns by an ordinary call why a watch would be refused.
pub(super) async fn check(user: &User) -> Result<(), Failure> {
    let mut directory = socp::v1::directory_service_client::DirectoryServiceClient::new(user.transport.clone());
    let request = user.request(WatchDirectoryRequest::default());
    directory.watch_directory(request).await?.into_inner().message().await?;
    Ok(())
}

/// Takes all users offline, whatever became of the run.
pub(super) async fn leave(users: &[User]) {
    for user in users {
        let mut messages = MessageServiceClient::new(user.transport.clone());
        // The server finds out by itself, only later.
        let _ = messages.detach(user.request(DetachRequest {})).await;
    }
}

/// The same with a stand-in in place of the servers.
async fn compare(kind: Kind, options: &Watch, places: usize, teller: &Teller) -> Result<Line, Failure> {
    // A process of a stand-in may have as many descriptors as one of the tool.
    let least = machine::processes(options.watchers, 0, None)?;
    let processes = machine::processes(options.watchers, 0, options.processes)?;
    let stand_in = StandIn::start(kind, places.max(least))?;
    let schedule = Arc::new(Schedule::new(PREFIX, options.users, options.events()));
    let request =
        Request { authority: "localhost".into(), path: WATCH.into(), token: "none".into(), message: Vec::new() };
    let aim = |(turn, door): (usize, &Door)| Aim {
        address: door.address,
        certificate: door.certificate.clone(),
        request: request.clone(),
        watchers: (turn..options.watchers).step_by(stand_in.watches.len()).count(),
        per_connection: 1,
        keeps_token: false,
    };
    let aims = stand_in.watches.iter().enumerate().map(aim).collect();
    let plan = Plan { aims, http3: false, threads: usize::from(options.threads), processes };
    let watchers = start(plan, &schedule, teller).await?;
    let actors = Actors::of_feed(&stand_in.feed, &schedule).await?;
    let run = Run { name: kind.name(), options, actors: &actors, schedule: &schedule, teller };
    run.perform(watchers, &stand_in.ids()).await
}

/// Those who act in a run, and what they do.
struct Run<'a> {
    name: &'a str,
    options: &'a Watch,
    actors: &'a Actors,
    schedule: &'a Schedule,
    teller: &'a Teller,
}

impl Run<'_> {
    fn pace<'a>(&'a self, watchers: &'a Watchers) -> Pace<'a> {
        let Self { name, options, actors, schedule, teller } = *self;
        Pace { name, options, watchers, actors, schedule, teller }
    }

    /// Has everybody come and go, once all watchers have the present state.
    async fn perform(&self, watchers: Watchers, processes: &[u32]) -> Result<Line, Failure> {
        let Self { options, schedule, .. } = self;
        let outcome = measure(&self.pace(&watchers), processes).await;
        let tally = watchers.stop();
        let (share, seconds) = outcome?;
        let tally = tally?;
        let per_second = if options.burst { burst_rate(&tally, schedule) } else { tally.delivered as f64 / seconds };
        let mut line = Line::of_tally(self.name, &tally, per_second, share);
        if options.burst {
            let (first, last) = schedule.began(0..options.users);
            let told = tally.last_ns[0];
            line.more.insert("all_told_after_first_ms".into(), json!(ms(told.saturating_sub(first))));
            line.more.insert("all_told_after_last_ms".into(), json!(ms(told.saturating_sub(last))));
        }
        Ok(line)
    }

    /// The same by turns without and beside what disturbs.
    async fn perform_disturbed(&self, watchers: Watchers, beside: &Beside) -> Result<Vec<Line>, Failure> {
        let measured = disturbed::measure(&self.pace(&watchers), beside, &self.options.servers.pids).await;
        let tally = watchers.stop();
        Ok(measured?.lines(&tally?))
    }
}

/// Changes told in a second while all came, or while all went, whichever was faster.
fn burst_rate(tally: &Tally, schedule: &Schedule) -> f64 {
    let half = tally.delivered as f64 / 2.0;
    let phases = [0..schedule.actors(), schedule.actors()..schedule.events()];
    let rates = phases.into_iter().zip(tally.last_ns).map(|(events, last)| {
        let seconds = last.saturating_sub(schedule.began(events).0) as f64 / 1e9;
        if seconds > 0.0 { half / seconds } else { 0.0 }
    });
    rates.fold(0.0, f64::max)
}

async fn measure(pace: &Pace<'_>, processes: &[u32]) -> Result<(machine::Share, f64), Failure> {
    pace.wait_synced().await?;
    let tool = pace.watchers.processes();
    let used = Used::by(&tool, processes);
    let began = Instant::now();
    let (users, events) = (pace.options.users, pace.schedule.events());
    if pace.options.burst {
        pace.burst(0..users).await?;
        pace.burst(users..events).await?;
    } else {
        pace.steady(0..events).await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let share = used.until(Used::by(&tool, processes));
    pace.wait_for(events).await?;
    Ok((share, seconds.max(1e-3)))
}
