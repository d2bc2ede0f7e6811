//! What it costs when a server joins a mesh in which many users are online: `cargo bench --bench join -- --users 50000`.
//!
//! Starts five real servers that all know each other. At four of them users register, log in and attach over the public
//! contract, all with one RSA key. Then the fifth starts with an empty disk; meanwhile one user sends messages to another,
//! from the first server to the second. Measured are how long it takes until the fifth shows everybody, the bytes that all
//! servers sent over the loopback interface in that time, and how long each message was on its way, before and meanwhile.
#![cfg(target_os = "linux")]

mod arguments;
#[path = "../e2e/harness/mod.rs"]
#[allow(dead_code, reason = "the end-to-end tests use the rest")]
mod harness;

use std::{
    collections::HashMap,
    fs,
    io::{IsTerminal as _, stderr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use harness::{
    caller::{self, Caller},
    draft, keys,
    mesh::Mesh,
    server::Server,
    wire::{Channel, Wire},
};
use prost::{Message as _, bytes::Bytes};
use socp::{
    federation::v1::Advert,
    id::ServerId,
    v1::{
        AttachRequest, AttachResponse, CreateChallengeRequest, KeyDetail, RegisterRequest, SealedMessage,
        SendMessageRequest, WatchDirectoryRequest, attach_response, message_service_client::MessageServiceClient,
    },
};
use tokio::{runtime::Runtime, task::JoinHandle, time::interval};
use tonic::Streaming;

const HELP: &str = "\
What it costs when a server joins a mesh in which many users are online.

usage: cargo bench --bench join [-- --users N]

  --users N   users online before, spread over four servers; default 2000, at most 200000";

/// Servers with users; one more joins.
const HOMES: usize = 4;

/// A server takes 100 calls on one connection: these stay, and one is for logging in.
const USERS_PER_CONNECTION: usize = 90;

/// Connections at work at once.
const AT_ONCE: usize = 16;

/// How often a message is sent.
const APART: Duration = Duration::from_millis(20);

/// For how long messages are sent before the join, to compare with.
const BEFORE: Duration = Duration::from_secs(5);

/// Messages at most: for a minute.
const LETTERS: usize = 3_000;

/// After so long each message has arrived that was sent meanwhile.
const SETTLED: Duration = Duration::from_millis(500);

/// Whose key all users have: keys are slow to make.
const EVERYBODY: &str = "everybody";

/// How often the server that joins is asked how far it is.
const ASKED: Duration = Duration::from_millis(50);

/// A join that takes longer is not going to end.
const JOIN_MAX: Duration = Duration::from_secs(40);

fn main() {
    let [users] = arguments::read(HELP, [("--users", 1..=200_000, 2_000)]);
    run(users);
}

fn run(users: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let mesh = Mesh::new(HOMES + 1);
    let start = |index: usize| Server::start_quiet(mesh.site(index));
    let homes: Vec<_> = (0..HOMES).map(start).collect();
    let begun = Instant::now();
    let crowd = come_online(&runtime, &homes, users);
    eprintln!("\r{users} users came online at {HOMES} servers in {:.0} s", begun.elapsed().as_secs_f64());

    let letters = Letters::begin(&runtime, &homes[0], &homes[1]);
    let (idle_bytes, idle_since) = (loopback_bytes(), Instant::now());
    thread::sleep(BEFORE);
    let idle_rate = (loopback_bytes() - idle_bytes) as f64 / idle_since.elapsed().as_secs_f64();
    let before = letters.taken();

    let (bytes, spawned) = (loopback_bytes(), Instant::now());
    let joining = start(HOMES);
    let listening = spawned.elapsed();
    // The recipient of the messages is online too.
    while shown_by_others(&joining) < users + 1 {
        assert!(spawned.elapsed() < JOIN_MAX, "{} of {users} are shown", shown_by_others(&joining));
        thread::sleep(ASKED);
    }
    let complete = spawned.elapsed();
    let carried = (loopback_bytes() - bytes) as f64 - idle_rate * complete.as_secs_f64();
    thread::sleep(SETTLED);
    let meanwhile = letters.taken();

    let asked = Instant::now();
    let shown = shown_to_watcher(&joining);
    let synced = asked.elapsed();
    letters.end();
    let (entries, ratio) = (crowd.bytes as f64, carried / crowd.bytes as f64);
    println!("users online             {users}, at {HOMES} servers");
    println!("the fifth server listens {:.2} s after its start", listening.as_secs_f64());
    println!("it shows everybody       {:.2} s after its start", complete.as_secs_f64());
    println!("a watcher there gets     {shown} users within {:.2} s of logging in", synced.as_secs_f64());
    println!("sent and received        {:.1} MB: {ratio:.2} times the entries' {:.1} MB", carried / 1e6, entries / 1e6);
    println!("messages between others  before:    {}", line(before));
    println!("                         meanwhile: {}", line(meanwhile));
    assert_eq!(shown, users + 1, "the fifth server shows everybody");
}

/// Users who are online as long as this lives.
#[derive(Default)]
struct Crowd {
    streams: Vec<Streaming<AttachResponse>>,
    /// Bytes of their entries as they travel: key statements and adverts.
    bytes: usize,
}

/// Registers, logs in and attaches so many users, spread over the servers.
fn come_online(runtime: &Runtime, homes: &[Server], users: usize) -> Crowd {
    let groups = users.div_ceil(USERS_PER_CONNECTION);
    let group = |group: usize| {
        let all = group * USERS_PER_CONNECTION..users.min((group + 1) * USERS_PER_CONNECTION);
        let home = &homes[group % HOMES];
        (home.id, runtime.block_on(Wire::Tcp.connect(home)), all)
    };
    let groups = Mutex::new((0..groups).map(group).collect::<Vec<_>>());
    let crowd = Mutex::new(Crowd::default());
    let work = || {
        let next = || groups.lock().expect("nobody panicked").pop();
        while let Some((home, channel, all)) = next() {
            for user in all {
                let (stream, bytes) = runtime.block_on(comes_online(home, &channel, &format!("user{user}")));
                let mut crowd = crowd.lock().expect("nobody panicked");
                crowd.streams.push(stream);
                crowd.bytes += bytes;
                if crowd.streams.len().is_multiple_of(100) && stderr().is_terminal() {
                    eprint!("\r{} of {users} users are online ", crowd.streams.len());
                }
            }
        }
    };
    thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    crowd.into_inner().expect("nobody panicked")
}

/// One user comes online; gives the stream that keeps them so, and the bytes of their entry.
async fn comes_online(home: ServerId, channel: &Channel, user: &str) -> (Streaming<AttachResponse>, usize) {
    let (key, name) = (keys::key(EVERYBODY), caller::name(user));
    let mut accounts = caller::accounts(channel);
    let statement = caller::sign_statement(&name, home, &key);
    let request = RegisterRequest { key_statement: Some(statement.clone()), ..RegisterRequest::default() };
    accounts.register(request).await.expect("the name is free");
    let challenge = accounts.create_challenge(CreateChallengeRequest { user: user.into() }).await;
    let nonce: [u8; 32] = challenge.expect("anybody may ask").into_inner().nonce[..].try_into().expect("32 bytes");
    let token = accounts.log_in(caller::login(home, user, &nonce, EVERYBODY)).await;
    let token = token.expect("the login is good").into_inner().token;
    let request = caller::with_token(&token, AttachRequest::default());
    let stream = MessageServiceClient::new(channel.clone()).attach(request).await.expect("the token is good");
    let mut stream = stream.into_inner();
    stream.message().await.expect("the stream goes on").expect("it says that it is attached");
    let key_statement_sha256 = Bytes::from_static(&[0; 32]);
    let advert =
        Advert { user: user.into(), key_statement_sha256, online_since: 1 << 14, sessions: 1, ..Advert::default() };
    (stream, statement.encoded_len() + advert.encoded_len())
}

/// Messages from one user to another, one after the other at a steady rate, whatever became of the one before.
struct Letters {
    delays: Arc<Mutex<Vec<Duration>>>,
    are_enough: Arc<AtomicBool>,
    sender: thread::JoinHandle<()>,
    recipient: JoinHandle<()>,
}

impl Letters {
    fn begin(runtime: &Runtime, from: &Server, to: &Server) -> Self {
        let alice = Caller::new("alice", from, Wire::Tcp);
        let bob = Caller::new("bob", to, Wire::Tcp);
        let mut inbox = bob.attach().0;
        let seal = |_| draft::sealed(&alice, &bob.address, bob.key.public(), "are you there?");
        let letters: Vec<SealedMessage> = (0..LETTERS).map(seal).collect();
        let delays = Arc::new(Mutex::new(Vec::new()));
        let posted: Arc<Mutex<HashMap<Bytes, Instant>>> = Arc::default();
        let (received, to_receive) = (Arc::clone(&delays), Arc::clone(&posted));
        let recipient = runtime.spawn(async move {
            while let Ok(Some(arrived)) = inbox.message().await {
                let Some(attach_response::Event::Message(received_message)) = arrived.event else { continue };
                let signature = received_message.message.unwrap_or_default().signature;
                if let Some(at) = to_receive.lock().expect("nobody panicked").remove(&signature) {
                    received.lock().expect("nobody panicked").push(at.elapsed());
                }
            }
        });
        let (handle, are_enough) = (runtime.handle().clone(), Arc::new(AtomicBool::new(false)));
        let enough = Arc::clone(&are_enough);
        let sender = thread::spawn(move || handle.block_on(send(&alice, letters, &posted, &enough)));
        Self { delays, are_enough, sender, recipient }
    }

    /// How long those took that arrived since the last time.
    fn taken(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.delays.lock().expect("nobody panicked"))
    }

    fn end(self) {
        assert!(!self.sender.is_finished(), "there are more messages than are sent");
        self.are_enough.store(true, Ordering::Relaxed);
        self.sender.join().expect("each message was taken");
        self.recipient.abort();
    }
}

/// Sends one message after the other, and does not wait for answers before the next.
async fn send(
    from: &Caller,
    letters: Vec<SealedMessage>,
    posted: &Mutex<HashMap<Bytes, Instant>>,
    are_enough: &AtomicBool,
) {
    let mut ticks = interval(APART);
    let mut under_way = FuturesUnordered::new();
    for letter in letters {
        if are_enough.load(Ordering::Relaxed) {
            break;
        }
        ticks.tick().await;
        posted.lock().expect("nobody panicked").insert(letter.signature.clone(), Instant::now());
        let request = from.request(SendMessageRequest { message: Some(letter) });
        let mut messages = from.messages();
        under_way.push(async move { messages.send_message(request).await });
        while let Some(Some(answer)) = under_way.next().now_or_never() {
            answer.expect("the recipient is online");
        }
    }
    while let Some(answer) = under_way.next().await {
        answer.expect("the recipient is online");
    }
}

/// Half of some delays, nearly all, and the longest.
fn line(mut delays: Vec<Duration>) -> String {
    delays.sort_unstable();
    let at = |share: f64| delays.get(((delays.len().max(1) - 1) as f64 * share) as usize).map_or(0.0, ms);
    format!("n {}, p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", delays.len(), at(0.5), at(0.99), at(1.0))
}

fn ms(delay: &Duration) -> f64 {
    delay.as_secs_f64() * 1e3
}

/// How many users of other servers a server shows, by its operator's command.
fn shown_by_others(server: &Server) -> usize {
    let peers = server.asked(&["peers"]);
    peers.iter().filter_map(|peer| peer["users_shown"].as_u64()).sum::<u64>() as usize
}

/// How many users a watcher is told of until the end mark.
fn shown_to_watcher(server: &Server) -> usize {
    let watcher = Caller::new("carol", server, Wire::Tcp);
    let request = WatchDirectoryRequest { keys: KeyDetail::Fingerprint.into(), ..WatchDirectoryRequest::default() };
    let mut watch = watcher.watch_as(request).expect("the token is good");
    let mut users = 0;
    loop {
        let told = watch.next();
        users += told.changes.len();
        if told.end_mark.is_some() {
            return users;
        }
    }
}

/// Bytes that went over the loopback interface so far, headers included.
fn loopback_bytes() -> u64 {
    let table = fs::read_to_string("/proc/net/dev").expect("Linux counts them");
    let line =
        table.lines().find_map(|line| line.trim_start().strip_prefix("lo:")).expect("there is a loopback interface");
    line.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).expect("the first column counts bytes")
}
