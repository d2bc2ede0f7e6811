//! `socp bench tell`: pairs of users, one of whom writes to the other, across two servers.
//!
//! Messages are sealed and signed beforehand, since that is the senders' work and each would have a machine of their own. A message
//! counts as accepted when its call is answered, and has to be received once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use hdrhistogram::Histogram;
use prost::bytes::Bytes;
use serde_json::json;
use socp::v1::{
    AttachRequest, AttachResponse, OutcomeKind, OutcomeStatement, ReadInboxRequest, SealedMessage, SendMessageRequest,
    SignedOutcome, attach_response, message_service_client::MessageServiceClient,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tonic::Streaming;
use uuid::Uuid;

use super::{
    cli::Tell,
    clock,
    machine::{self, Share, Used},
    progress::Teller,
    report::{Line, Report, grouped},
    tally,
    users::{self, User},
};
use crate::{event::now_unix_ms, failure::Failure, private_key::PrivateKey, seal, sending::blocking, session::timed};

/// When nothing arrived for so long, nothing more will.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What comes is looked at so often while it is waited for.
const LOOKED: Duration = Duration::from_millis(10);

/// One message, from its sealing to its arrival.
#[derive(Debug, Default)]
struct Letter {
    begun_ns: AtomicU64,
    accepted: AtomicU64,
    received: AtomicU64,
}

/// All messages of a run, and what became of them.
struct Post {
    letters: Vec<Letter>,
    /// By signature.
    places: HashMap<Bytes, usize>,
    counts: Counts,
    to_outcome: Mutex<Histogram<u64>>,
    to_arrival: Mutex<Histogram<u64>>,
    failure: Mutex<Option<Failure>>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    arrived: AtomicUsize,
    refused: AtomicUsize,
    handed_over: AtomicUsize,
    stored: AtomicUsize,
    queued: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs it.
pub async fn run(options: &Tell) -> Result<Report, Failure> {
    prepare(options).await?.run().await
}

/// A run in which all are logged in, and all messages are sealed.
pub struct Ready<'a> {
    options: &'a Tell,
    title: String,
    senders: Vec<User>,
    recipients: Vec<User>,
    sealed: Vec<SealedMessage>,
    teller: Teller,
}

/// Does what is not measured.
pub async fn prepare(options: &Tell) -> Result<Ready<'_>, Failure> {
    machine::need_descriptors(2 * options.pairs)?;
    let teller = Teller::default();
    let places = options.servers.find().await?;
    let (homes, others) = options.servers.roles(&places)?;
    let (home, other) = (homes[0], others[0]);
    let key = users::key(&users::cache_folder()?).await?;
    let names = |role: &str| (0..options.pairs).map(|pair| format!("bench-{role}-{pair}")).collect::<Vec<_>>();
    teller.tell(|| format!("logging in {} users", 2 * options.pairs));
    let senders = users::log_in_all(home, names("sender"), &key, 1, || ()).await?;
    let recipients = users::log_in_all(other, names("recipient"), &key, 1, || ()).await?;
    let sealed = seal_all(options, &senders, &recipients, &key, &teller).await?;
    Ok(Ready { options, title: title(options, &home.name, &other.name), senders, recipients, sealed, teller })
}

impl Ready<'_> {
    /// Sends all, and waits for them to arrive.
    pub async fn run(self) -> Result<Report, Failure> {
        let Self { options, title, senders, recipients, sealed, teller } = self;
        let places = sealed.iter().enumerate().map(|(place, message)| (message.signature.clone(), place)).collect();
        let post = Arc::new(Post {
            letters: sealed.iter().map(|_| Letter::default()).collect(),
            places,
            counts: Counts::default(),
            to_outcome: Mutex::new(tally::histogram()),
            to_arrival: Mutex::new(tally::histogram()),
            failure: Mutex::default(),
        });
        let mut receiving = JoinSet::new();
        for recipient in recipients {
            let inbox = attach(&recipient).await?;
            let post = Arc::clone(&post);
            receiving.spawn(async move { post.receive(inbox).await });
        }
        let used = Used::now(&options.servers.pids);
        let began = Instant::now();
        post.send_all(options, &senders, sealed, &teller).await?;
        let seconds = began.elapsed().as_secs_f64();
        let share = used.until(Used::now(&options.servers.pids));
        post.wait(&teller).await?;
        receiving.abort_all();
        teller.done();
        Ok(Report {
            workload: "tell",
            title,
            unit: "messages",
            times: "times from SendMessage to its answer, and to the message being received",
            lines: post.lines(seconds, share),
            compares: false,
        })
    }
}

fn title(options: &Tell, home: &str, other: &str) -> String {
    let pace = match options.rate {
        None => format!("{} under way for each", options.in_flight),
        Some(rate) => format!("{rate} a second"),
    };
    format!(
        "{} users at {home} write {} messages of {} bytes to as many at {other}, {pace}",
        options.pairs,
        grouped(options.messages as u64),
        options.bytes
    )
}

/// Seals all messages, by turns of the pairs, on all cores.
async fn seal_all(
    options: &Tell,
    senders: &[User],
    recipients: &[User],
    key: &Arc<PrivateKey>,
    teller: &Teller,
) -> Result<Vec<SealedMessage>, Failure> {
    let text = "x".repeat(options.bytes);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let done = AtomicUsize::new(0);
    let work = (0..options.messages).map(|place| {
        let pair = place % options.pairs;
        let (sender, recipient) = (senders[pair].address.clone(), recipients[pair].address.clone());
        let (key, text, done) = (Arc::clone(key), text.clone(), &done);
        async move {
            let sealed = blocking(move || {
                let message_id = Uuid::now_v7().to_string();
                let draft = seal::Draft {
                    message_id: &message_id,
                    sender: &sender,
                    recipient: &recipient,
                    recipient_key: key.public(),
                    time_unix_ms: now_unix_ms(),
                    wants_receipts: false,
                    text: &text,
                    beside: &seal::Beside::Nothing,
                };
                seal::seal(&key, &draft)
            });
            let sealed = sealed.await;
            let done = 1 + done.fetch_add(1, Ordering::Relaxed);
            teller.tell(|| format!("{done} of {} messages are sealed and signed", options.messages));
            sealed
        }
    });
    use futures_util::TryStreamExt as _;
    stream::iter(work).buffered(cores).try_collect().await
}

/// Goes online after what is in the inbox already.
async fn attach(user: &User) -> Result<Streaming<AttachResponse>, Failure> {
    let mut messages = MessageServiceClient::new(user.transport.clone());
    let page = messages.read_inbox(user.request(ReadInboxRequest::default())).await?.into_inner();
    let cursor = page.entries.last().map(|entry| entry.cursor.clone()).unwrap_or_default();
    let request = AttachRequest { cursor, ..AttachRequest::default() };
    let mut inbox = messages.attach(user.request(request)).await?.into_inner();
    inbox.message().await?;
    Ok(inbox)
}

impl Post {
    async fn send_all(
        self: &Arc<Self>,
        options: &Tell,
        senders: &[User],
        sealed: Vec<SealedMessage>,
        teller: &Teller,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let places: Vec<_> = (0..options.pairs).map(|_| Arc::new(Semaphore::new(options.in_flight))).collect();
        let mut under_way = JoinSet::new();
        for (number, message) in sealed.into_iter().enumerate() {
            if let Some(rate) = options.rate {
                sleep_until(began + Duration::from_secs_f64(number as f64 / rate)).await;
            }
            let pair = number % options.pairs;
            let place = Arc::clone(&places[pair]).acquire_owned().await;
            let (post, sender) = (Arc::clone(self), senders[pair].clone());
            under_way.spawn(async move {
                post.send(&sender, number, message).await;
                drop(place);
            });
            while under_way.try_join_next().is_some() {}
            self.failed()?;
            teller.tell(|| format!("{} of {} messages are accepted", self.accepted(), options.messages));
        }
        while under_way.join_next().await.is_some() {}
        self.failed()
    }

    async fn send(&self, sender: &User, number: usize, message: SealedMessage) {
        let mut messages = MessageServiceClient::new(sender.transport.clone());
        let request = sender.authorized(timed(SendMessageRequest { message: Some(message) }));
        let begun = clock::now_ns();
        self.letters[number].begun_ns.store(begun, Ordering::Release);
        match messages.send_message(request).await {
            Ok(answer) => {
                lock(&self.to_outcome).saturating_record(clock::now_ns().saturating_sub(begun).max(1));
                self.counts.accepted.fetch_add(1, Ordering::Relaxed);
                self.letters[number].accepted.fetch_add(1, Ordering::Relaxed);
                let count = match kind(answer.into_inner().outcome.unwrap_or_default()) {
                    Some(OutcomeKind::HandedOver) => &self.counts.handed_over,
                    Some(OutcomeKind::Queued) => &self.counts.queued,
                    _ => &self.counts.stored,
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(status) => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                self.fail(status.into());
            }
        }
    }

    async fn receive(&self, mut inbox: Streaming<AttachResponse>) {
        loop {
            match inbox.message().await {
                Ok(Some(AttachResponse { event: Some(attach_response::Event::Message(arrived)), .. })) => {
                    let signature = arrived.message.unwrap_or_default().signature;
                    // What is not of this run is left over from another.
                    let Some(&place) = self.places.get(&signature) else { continue };
                    let letter = &self.letters[place];
                    let begun = letter.begun_ns.load(Ordering::Acquire);
                    if letter.received.fetch_add(1, Ordering::Relaxed) == 0 {
                        lock(&self.to_arrival).saturating_record(clock::now_ns().saturating_sub(begun).max(1));
                        self.counts.arrived.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    return self.fail(Failure::failed("a recipient's stream ended"));
                }
                Err(status) => return self.fail(status.into()),
            }
        }
    }

    fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    fn fail(&self, failure: Failure) {
        lock(&self.failure).get_or_insert(failure);
    }

    fn failed(&self) -> Result<(), Failure> {
        lock(&self.failure).clone().map_or(Ok(()), Err)
    }

    /// Waits until all have arrived, or nothing comes any more.
    async fn wait(&self, teller: &Teller) -> Result<(), Failure> {
        let arrived = || self.counts.arrived.load(Ordering::Relaxed);
        let (mut last, mut since) = (arrived(), Instant::now());
        while arrived() < self.accepted() && since.elapsed() < SILENCE_MAX {
            self.failed()?;
            if arrived() != last {
                (last, since) = (arrived(), Instant::now());
            }
            teller.tell(|| format!("{} of {} messages have arrived", arrived(), self.accepted()));
            sleep(LOOKED).await;
        }
        Ok(())
    }

    fn lines(&self, seconds: f64, share: Share) -> Vec<Line> {
        let verdict = verdict(&self.letters);
        let line = |name: &str, count: usize, times: &Mutex<Histogram<u64>>| Line {
            name: name.into(),
            count: count as u64,
            per_second: count as f64 / seconds.max(1e-3),
            times: lock(times).clone(),
            missed: 0,
            repeated: 0,
            share,
            more: serde_json::Map::new(),
        };
        let number = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let Counts { handed_over, stored, queued, refused, arrived, .. } = &self.counts;
        let mut accepted = line("accepted", self.accepted(), &self.to_outcome);
        for (name, count) in
            [("handed_over", handed_over), ("stored", stored), ("queued", queued), ("refused", refused)]
        {
            accepted.more.insert(name.into(), json!(number(count)));
        }
        let arrived = line("received", number(arrived), &self.to_arrival);
        vec![accepted, Line { missed: verdict.0, repeated: verdict.1, ..arrived }]
    }
}

/// How many accepted messages never arrived, and how many arrived more often than they should.
fn verdict(letters: &[Letter]) -> (u64, u64) {
    let each = letters.iter().map(|letter| {
        let (accepted, received) = (letter.accepted.load(Ordering::Relaxed), letter.received.load(Ordering::Relaxed));
        (accepted.saturating_sub(received), received.saturating_sub(accepted.min(1)))
    });
    each.fold((0, 0), |(missed, repeated), (one, other)| (missed + one, repeated + other))
}

/// What became of a message by the signed word of a home; the word is not verified here.
fn kind(outcome: SignedOutcome) -> Option<OutcomeKind> {
    use prost::Message as _;
    let statement = OutcomeStatement::decode(&outcome.statement[..]).ok()?;
    OutcomeKind::try_from(statement.outcomes.first()?.kind).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_accepted_has_to_arrive_once_and_what_was_not_never() {
        let letter = |accepted: u64, received: u64| Letter {
            accepted: accepted.into(),
            received: received.into(),
            ..Letter::default()
        };
        assert_eq!(verdict(&[letter(1, 1), letter(0, 0)]), (0, 0));
        assert_eq!(verdict(&[letter(1, 0), letter(1, 0)]), (2, 0));
        assert_eq!(verdict(&[letter(1, 3), letter(0, 1)]), (0, 3));
    }
}
