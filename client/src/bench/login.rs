//! `socp bench login`: users log in and go online, some at a time, each over a connection of their own.
//!
//! What is timed is all that a client does: connect, check who the server is, ask for a nonce, sign it, log in, attach. The
//! signature costs some milliseconds of this machine, which a user's own machine would bear.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Map, json};
use socp::{
    name::UserName,
    v1::{AttachRequest, AttachResponse, message_service_client::MessageServiceClient},
};
use tonic::Streaming;

use super::{
    cli::Login,
    clock,
    machine::{self, Used},
    progress::Teller,
    report::{Line, Report, grouped, times_of},
    users::{self, Place, USERS_PER_CONNECTION},
};
use crate::{failure::Failure, private_key::PrivateKey, transport::Transport};

/// A user who is online as long as this lives.
pub(super) struct Online {
    _transport: Transport,
    stream: Streaming<AttachResponse>,
}

impl Online {
    /// Logs in and attaches over a connection of their own.
    async fn come(place: &Place, name: &str, key: &Arc<PrivateKey>) -> Result<Self, Failure> {
        let user = users::log_in_registered(place, place.connect().await?, name, key).await?;
        let mut messages = MessageServiceClient::new(user.transport.clone());
        let mut stream = messages.attach(user.request(AttachRequest::default())).await?.into_inner();
        stream.message().await?;
        Ok(Self { _transport: user.transport, stream })
    }

    /// The next thing for them.
    pub(super) async fn next(&mut self) -> Result<Option<AttachResponse>, tonic::Status> {
        self.stream.message().await
    }
}

/// The names of those who log in.
pub(super) fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("bench-login-{number}")).collect()
}

/// Registers them, unless the last one is registered: they are registered in order.
pub(super) async fn register(
    place: &Place,
    names: &[String],
    key: &Arc<PrivateKey>,
    teller: &Teller,
) -> Result<(), Failure> {
    let Some(last) = names.last() else { return Ok(()) };
    let transport = place.connect().await?;
    if users::prove(place, &transport, &UserName::parse(last)?, key).await.is_ok() {
        return Ok(());
    }
    let done = AtomicUsize::new(0);
    let registrations = names.iter().map(|name| {
        let (transport, done) = (transport.clone(), &done);
        async move {
            users::register(place, &transport, &UserName::parse(name)?, key).await?;
            let done = 1 + done.fetch_add(1, Ordering::Relaxed);
            teller.tell(|| format!("{done} of {} users are registered", names.len()));
            Ok::<_, Failure>(())
        }
    });
    stream::iter(registrations).buffered(USERS_PER_CONNECTION).try_collect().await
}

/// Has them come, so many at a time; gives them with the nanoseconds that each took.
pub(super) async fn come_all(
    place: &Place,
    names: &[String],
    at_once: usize,
    key: &Arc<PrivateKey>,
    teller: &Teller,
) -> Result<Vec<(Online, u64)>, Failure> {
    let done = AtomicUsize::new(0);
    let logins = names.iter().map(|name| {
        let done = &done;
        async move {
            let begun = clock::now_ns();
            let online = Online::come(place, name, key).await?;
            let done = 1 + done.fetch_add(1, Ordering::Relaxed);
            teller.tell(|| format!("{done} of {} users are online", names.len()));
            Ok::<_, Failure>((online, clock::now_ns() - begun))
        }
    });
    stream::iter(logins).buffer_unordered(at_once).try_collect().await
}

/// Runs it.
pub async fn run(options: &Login) -> Result<Report, Failure> {
    machine::need_descriptors(options.logins)?;
    let teller = Teller::default();
    let places = options.servers.find().await?;
    let place = options.servers.roles(&places)?.0[0];
    let key = users::key(&users::cache_folder()?).await?;
    let names = names(options.logins);
    register(place, &names, &key, &teller).await?;
    let used = Used::now(&options.servers.pids);
    let began = Instant::now();
    let all = come_all(place, &names, options.at_once, &key, &teller).await?;
    let seconds = began.elapsed().as_secs_f64();
    let share = used.until(Used::now(&options.servers.pids));
    teller.done();
    let line = Line {
        name: "login".into(),
        count: all.len() as u64,
        per_second: all.len() as f64 / seconds.max(1e-3),
        times: times_of(all.iter().map(|(_, ns)| *ns)),
        missed: 0,
        repeated: 0,
        share,
        more: Map::from_iter([("all_online_after_s".to_owned(), json!((seconds * 1e3).round() / 1e3))]),
    };
    Ok(Report {
        workload: "login",
        title: format!(
            "{} users log in and attach at {}, {} at a time, a connection each",
            grouped(options.logins as u64),
            place.name,
            options.at_once
        ),
        unit: "logins",
        times: "times from connecting to being online, own signature included",
        lines: vec![line],
        compares: false,
    })
}
