//! `socp bench all`: posts to the public channel, each handed to every member who is online.
//!
//! Posts are encrypted and signed beforehand, and carry no wraps, as in the steady state where every member has the key.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use prost::bytes::Bytes;
use serde_json::{Map, json};
use socp::v1::{
    AttachResponse, PostToChannelRequest, SealedPost, attach_response, message_service_client::MessageServiceClient,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

use super::{
    cli::All,
    clock, login,
    login::Online,
    machine::{self, Used},
    progress::Teller,
    report::{Line, Report, grouped, times_of},
    tally,
    users::{self, User},
};
use crate::{
    content, event::now_unix_ms, failure::Failure, post, private_key::PrivateKey, sending::blocking, session::timed,
};

/// When nothing arrived for so long, nothing more will.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What comes is looked at so often while it is waited for.
const LOOKED: Duration = Duration::from_millis(10);

/// What members were handed, together.
struct Shared {
    /// By signature.
    places: HashMap<Bytes, usize>,
    begun_ns: Vec<AtomicU64>,
    arrived: AtomicUsize,
    failure: Mutex<Option<Failure>>,
}

/// What one member was handed: how often each post, and the nanoseconds of the first time.
#[derive(Debug)]
struct Handed {
    counts: Vec<u32>,
    times: Vec<u64>,
}

/// Runs it.
pub async fn run(options: &All) -> Result<Report, Failure> {
    machine::need_descriptors(options.members + 1)?;
    let teller = Teller::default();
    let places = options.servers.find().await?;
    let (homes, others) = options.servers.roles(&places)?;
    let (home, other) = (homes[0], others[0]);
    let key = users::key(&users::cache_folder()?).await?;
    let names = login::names(options.members);
    login::register(other, &names, &key, &teller).await?;
    let sender = users::log_in(home, home.connect().await?, "bench-sender-0", &key).await?;
    let posts = seal_all(options, &sender, &key, &teller).await?;
    let members = login::come_all(other, &names, 32, &key, &teller).await?;
    wait_for_members(&sender, options.members, &teller).await?;

    let shared = Arc::new(Shared {
        places: posts.iter().enumerate().map(|(place, post)| (post.signature.clone(), place)).collect(),
        begun_ns: posts.iter().map(|_| AtomicU64::new(0)).collect(),
        arrived: AtomicUsize::new(0),
        failure: Mutex::default(),
    });
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut receiving = JoinSet::new();
    for (member, _) in members {
        let (shared, mut stopped) = (Arc::clone(&shared), stopped.clone());
        receiving.spawn(async move {
            let mut handed = Handed { counts: vec![0; shared.begun_ns.len()], times: Vec::new() };
            tokio::select! {
                () = shared.receive(member, &mut handed) => {}
                _ = stopped.changed() => {}
            }
            handed
        });
    }
    let used = Used::now(&options.servers.pids);
    let began = Instant::now();
    let (mut answers, mut recipients) = (tally::histogram(), 0);
    for (number, post) in posts.into_iter().enumerate() {
        sleep_until(began + Duration::from_secs_f64(number as f64 / options.rate)).await;
        let begun = clock::now_ns();
        shared.begun_ns[number].store(begun, Ordering::Release);
        let request = PostToChannelRequest { post: Some(post), wraps: Vec::new() };
        let mut messages = MessageServiceClient::new(sender.transport.clone());
        let answer = messages.post_to_channel(sender.authorized(timed(request))).await?.into_inner();
        answers.saturating_record(clock::now_ns().saturating_sub(begun).max(1));
        recipients += u64::from(answer.recipients);
        shared.failed()?;
        teller.tell(|| format!("{} of {} posts are answered", number + 1, options.posts));
    }
    let seconds = began.elapsed().as_secs_f64();
    let share = used.until(Used::now(&options.servers.pids));
    shared.wait(options.posts * options.members, &teller).await?;
    // Those who receive look at it until the end.
    let _ = stop.send(true);
    let handed = receiving.join_all().await;
    teller.done();
    let (missed, repeated) = verdict(&handed);
    let times = times_of(handed.iter().flat_map(|handed| handed.times.iter().copied()));
    let line = |name: &str, count: u64, times| Line {
        name: name.into(),
        count,
        per_second: count as f64 / seconds.max(1e-3),
        times,
        missed: 0,
        repeated: 0,
        share,
        more: Map::new(),
    };
    let mut answered = line("answered", options.posts as u64, answers);
    answered.more.insert("recipients".into(), json!(recipients));
    let received = Line { missed, repeated, ..line("received", times.len(), times) };
    Ok(Report {
        workload: "all",
        title: format!(
            "{} posts by one user at {} to {} members at {}, {} a second at most",
            grouped(options.posts as u64),
            home.name,
            grouped(options.members as u64),
            other.name,
            options.rate
        ),
        unit: "posts",
        times: "times from PostToChannel to its answer, and to each member's receiving the post",
        lines: vec![answered, received],
        compares: false,
    })
}

async fn seal_all(
    options: &All,
    sender: &User,
    key: &Arc<PrivateKey>,
    teller: &Teller,
) -> Result<Vec<SealedPost>, Failure> {
    let (key_id, channel_key) = (content::random::<16>()?, content::random_key()?);
    let mut posts = Vec::new();
    for counter in 0..options.posts {
        let (key, sender, channel_key) = (Arc::clone(key), sender.address.clone(), channel_key.clone());
        let text = "x".repeat(options.bytes);
        let sealed = blocking(move || {
            let message_id = Uuid::now_v7().to_string();
            let draft = post::Draft {
                message_id: &message_id,
                sender: &sender,
                key_id,
                channel_key: &channel_key,
                counter: counter as u64,
                time_unix_ms: now_unix_ms(),
                text: &text,
            };
            post::seal(&key, &draft)
        });
        posts.push(sealed.await?);
        teller.tell(|| format!("{} of {} posts are sealed and signed", posts.len(), options.posts));
    }
    Ok(posts)
}

/// Waits until the sender's home shows all members, so that each post is for all of them.
async fn wait_for_members(sender: &User, members: usize, teller: &Teller) -> Result<(), Failure> {
    use socp::v1::{DirectoryFilter, KeyDetail, WatchDirectoryRequest, directory_change::Change};
    let filter = DirectoryFilter { name_prefix: "bench-login-".into(), ..DirectoryFilter::default() };
    let request =
        WatchDirectoryRequest { filter: Some(filter), keys: KeyDetail::Fingerprint.into(), ..Default::default() };
    let mut directory = socp::v1::directory_service_client::DirectoryServiceClient::new(sender.transport.clone());
    let mut watch = directory.watch_directory(sender.request(request)).await?.into_inner();
    let mut shown = std::collections::BTreeSet::new();
    let deadline = Instant::now() + SILENCE_MAX;
    while shown.len() < members {
        let next = tokio::time::timeout_at(deadline, watch.message()).await;
        let told = next.map_err(|_| {
            Failure::failed(format!("the sender's home shows only {} of {members} members", shown.len()))
                .hint("are the servers linked?")
        })?;
        for change in told?.unwrap_or_default().changes {
            match change.change {
                Some(Change::Added(entry) | Change::Updated(entry)) => drop(shown.insert(entry.user)),
                Some(Change::Removed(gone)) => drop(shown.remove(&gone.user)),
                None => {}
            }
        }
        teller.tell(|| format!("{} of {members} members are shown to the sender", shown.len()));
    }
    Ok(())
}

impl Shared {
    async fn receive(&self, mut member: Online, handed: &mut Handed) {
        loop {
            match member.next().await {
                Ok(Some(AttachResponse { event: Some(attach_response::Event::Post(received)), .. })) => {
                    let signature = received.post.unwrap_or_default().signature;
                    let Some(&place) = self.places.get(&signature) else { continue };
                    handed.counts[place] += 1;
                    if handed.counts[place] == 1 {
                        let begun = self.begun_ns[place].load(Ordering::Acquire);
                        handed.times.push(clock::now_ns().saturating_sub(begun));
                        self.arrived.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return self.fail(Failure::failed("a member's stream ended")),
                Err(status) => return self.fail(status.into()),
            }
        }
    }

    fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    fn failed(&self) -> Result<(), Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    async fn wait(&self, all: usize, teller: &Teller) -> Result<(), Failure> {
        let arrived = || self.arrived.load(Ordering::Relaxed);
        let (mut last, mut since) = (arrived(), Instant::now());
        while arrived() < all && since.elapsed() < SILENCE_MAX {
            self.failed()?;
            if arrived() != last {
                (last, since) = (arrived(), Instant::now());
            }
            teller.tell(|| format!("{} of {} have arrived", grouped(arrived() as u64), grouped(all as u64)));
            sleep(LOOKED).await;
        }
        Ok(())
    }
}

/// How many posts members never got, and how many they got once too often.
fn verdict(members: &[Handed]) -> (u64, u64) {
    let counts = members.iter().flat_map(|handed| &handed.counts);
    counts.fold((0, 0), |(missed, repeated), count| match count {
        0 => (missed + 1, repeated),
        more => (missed, repeated + u64::from(more - 1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_has_to_get_each_post_once() {
        let handed = |counts: &[u32]| Handed { counts: counts.into(), times: Vec::new() };
        assert_eq!(verdict(&[handed(&[1, 1]), handed(&[1, 1])]), (0, 0));
        assert_eq!(verdict(&[handed(&[0, 1]), handed(&[3, 0])]), (2, 2));
    }
}
