//! Servers that are killed while messages go both ways: `cargo run --release --example crash -- --seconds 60`.
//!
//! Three federated servers run as processes of their own, and one of them at a time is killed (SIGKILL) about once a second
//! and started again. Twenty users send messages over the public contract, each to users of all three servers, and write
//! down, outside the servers, what was accepted before they send the next one. Now and then they post to all, and write down for how
//! many users each home said that it has the post. Each user has two devices, of which the
//! second one comes and goes; at the end, with all servers up, a third one reads the whole inbox. Every device must have each
//! message that was accepted exactly once and in the order in which it was sent, and none that was rejected; and all devices of a
//! user the same posts, each once, as many users at each home as that said.
//!
//! Exits with 1 if that is not so, with 3 if too little happened to prove anything, and with 2 where it cannot run.

#[path = "../../e2e/harness/mod.rs"]
#[allow(dead_code, reason = "the end-to-end tests use the rest")]
mod harness;

mod device;
mod killer;
mod post;
mod report;
mod sender;
mod session;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use futures_util::future::join_all;
use harness::{caller, keys, mesh::Mesh, wire};
use socp::{id::ServerId, message::Address, v1::RegisterRequest};
use socp_client::private_key::PrivateKey;
use tokio::{runtime::Runtime, sync::watch};

use device::Device;
use killer::Killer;
use report::Report;
use sender::Sender;

/// Kills servers while messages are under way, and exits with 1 if any that was accepted is lost, repeated or out of order.
#[derive(Parser)]
#[command(name = "crash")]
struct Options {
    /// For how long servers are killed.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    seconds: u64,
    /// Which server is killed when, and who writes to whom. The processes' own timing is not drawn from it.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints the counts as one JSON object.
    #[arg(long)]
    json: bool,
}

const SERVERS: usize = 3;
const USERS: usize = 20;

/// Threads of senders and devices, each with a share of them.
const THREADS: usize = 2;

/// Whose key all users have: keys are slow to make.
const EVERYBODY: &str = "everybody";

/// How long senders and devices may take once nobody is killed any more.
const SETTLE_MAX: Duration = Duration::from_secs(90);

/// What all have in common.
struct World {
    places: Vec<Place>,
    users: Vec<User>,
    key: Arc<PrivateKey>,
    /// Where senders write down what was accepted.
    notes: PathBuf,
    /// Messages sent to inboxes at each server and not answered yet.
    unanswered: Vec<AtomicUsize>,
    /// True once nobody is killed any more: senders end with the message that they have.
    is_over: watch::Receiver<bool>,
    /// Devices that attached once all was over.
    here: watch::Sender<BTreeSet<(usize, usize)>>,
    /// Ids of the posts that are made once all devices are there.
    last_posts: Mutex<Vec<String>>,
}

/// Where a server is.
struct Place {
    id: ServerId,
    address: SocketAddr,
    ca: PathBuf,
}

struct User {
    address: Address,
    /// Place of the home.
    home: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()));
    let seed = options.seed.unwrap_or(clock);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match run(&runtime.expect("threads start"), &options, seed) {
        Ok(report) => {
            report.print(options.json);
            report.exit_code()
        }
        Err(code) => code,
    }
}

/// Servers end with the values in here, so it is left by its end only.
fn run(runtime: &Runtime, options: &Options, seed: u64) -> Result<Report, ExitCode> {
    let mesh = Mesh::new(SERVERS);
    let mut killer = Killer::start(&mesh, seed);
    let (over, is_over) = watch::channel(false);
    let notes = tempfile::tempdir().expect("a temporary folder can be made");
    let world = Arc::new(World {
        places: (0..SERVERS).map(|index| place(&mesh, index)).collect(),
        users: (0..USERS).map(|number| user(&mesh, number)).collect(),
        key: keys::key(EVERYBODY),
        notes: notes.path().to_owned(),
        unanswered: (0..SERVERS).map(|_| AtomicUsize::new(0)).collect(),
        is_over,
        here: watch::Sender::default(),
        last_posts: Mutex::default(),
    });
    runtime.block_on(register(&world));
    let spacing = Duration::from_millis(options.seconds).max(Duration::from_millis(5));
    let threads: Vec<JoinHandle<Option<Crowd>>> = (0..THREADS)
        .map(|thread| {
            let world = Arc::clone(&world);
            thread::spawn(move || live(&world, thread, seed, spacing))
        })
        .collect();

    // Processes end with the values that hold them, so an interrupt must not end this one at once.
    let interrupted = interrupted(runtime);
    let begun = Instant::now();
    let was_interrupted = killer.kill_for(Duration::from_secs(options.seconds), &world, &interrupted);
    let took = begun.elapsed();
    over.send_replace(true);
    if was_interrupted {
        eprintln!("interrupted");
        return Err(ExitCode::from(130));
    }
    killer.start_all();
    let mut crowd = Crowd::default();
    let is_settled = threads.into_iter().all(|thread| {
        let part = thread.join().expect("a sender or device does not panic");
        part.map(|part| crowd.extend(part)).is_some()
    });
    if !is_settled {
        eprintln!("error: not all was decided and read within {SETTLE_MAX:?} of the last kill (seed {seed})");
        return Err(ExitCode::FAILURE);
    }
    let until = tokio::time::Instant::now() + SETTLE_MAX / 2;
    // One that has nothing yet reads all of it.
    crowd.devices.extend((0..USERS).map(|user| Device::new(user, 2, seed)));
    let Crowd { senders, devices } = crowd;
    let count = devices.len();
    let drains = devices.into_iter().map(|device| {
        let expected = senders.iter().map(|sender| sender.accepted_for(device.user)).sum();
        device.drain(&world, expected, until)
    });
    let drains = join_all(drains);
    let devices = runtime.block_on(async {
        let last = async {
            // Each is for everybody but its author.
            tokio::join!(post::make_last(&world, 0, count), post::make_last(&world, 1, count))
        };
        let bounded = tokio::time::timeout_at(until, last);
        let (devices, _) = tokio::join!(drains, bounded);
        devices
    });
    Ok(Report::new(seed, took, &killer.tally, &senders, &devices, &world))
}

/// Senders and devices.
#[derive(Default)]
struct Crowd {
    senders: Vec<Sender>,
    devices: Vec<Device>,
}

impl Crowd {
    fn extend(&mut self, part: Self) {
        self.senders.extend(part.senders);
        self.devices.extend(part.devices);
    }
}

/// Runs one thread's share of the senders and devices until it is over and each sender knows what became of its last
/// message; nothing if that takes too long.
fn live(world: &World, thread: usize, seed: u64, spacing: Duration) -> Option<Crowd> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let users = || (thread..USERS).step_by(THREADS);
    let senders = users().map(|user| Sender::new(user, seed, spacing).send(world));
    let devices = users().flat_map(|user| [0, 1].map(|number| Device::new(user, number, seed).receive(world)));
    let all = async {
        let (senders, devices) = tokio::join!(join_all(senders), join_all(devices));
        Crowd { senders, devices }
    };
    let too_late = async {
        // The other end is there as long as threads are waited for.
        let _ = world.is_over.clone().wait_for(|is_over| *is_over).await;
        tokio::time::sleep(SETTLE_MAX).await;
    };
    runtime.block_on(async {
        tokio::select! {
            crowd = all => Some(crowd),
            () = too_late => None,
        }
    })
}

fn place(mesh: &Mesh, index: usize) -> Place {
    let site = mesh.site(index);
    Place { id: site.id, address: site.client, ca: site.data().join("ca.pem") }
}

fn user(mesh: &Mesh, number: usize) -> User {
    let home = number % SERVERS;
    User { address: Address { home: mesh.site(home).id, user: caller::name(&format!("user{number}")) }, home }
}

async fn register(world: &World) {
    for user in &world.users {
        let place = &world.places[user.home];
        let channel = wire::tcp(place.address, &place.ca).await.expect("the server answers");
        let statement = caller::sign_statement(&user.address.user, place.id, &world.key);
        let request = RegisterRequest { key_statement: Some(statement), ..RegisterRequest::default() };
        caller::accounts(&channel).register(request).await.expect("the name is free");
    }
}

fn interrupted(runtime: &Runtime) -> std::sync::mpsc::Receiver<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            // Whoever has it may be gone.
            let _ = sender.send(());
        }
    });
    receiver
}

/// Counts a message that waits for its answer as long as it lives.
struct Unanswered<'a>(&'a AtomicUsize);

impl<'a> Unanswered<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
