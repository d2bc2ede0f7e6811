//! What a large directory costs a server, and whoever begins to watch it: `cargo bench --bench directory -- --users 100000`.
//!
//! Starts one real server, and a peer made by hand that advertises the users to it, 256 in a batch. All have one RSA key, and a
//! key statement of their own whose signature is only as long as one: a server checks statements of others' users by their hash.
//! Measured are the time from the first batch until the server shows everybody, its resident memory before and after by its own
//! metrics, and how long a watcher takes from asking to the end of the present state, over TCP and TLS.
#![cfg(target_os = "linux")]

mod arguments;
#[path = "../e2e/harness/mod.rs"]
#[allow(dead_code, reason = "the end-to-end tests use the rest")]
mod harness;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use harness::{
    caller::{Caller, name},
    keys,
    mesh::Site,
    metrics::Scrape,
    peer::{Link, Peer},
    raw,
    server::Server,
    soon,
    wire::Wire,
};
use prost::{Message as _, bytes::Bytes};
use socp::{
    batch::{Advert, Batch, Content},
    digest::{DigestEntry, SetHash},
    limits::{BATCH_ENTRIES_MAX, RSA_BYTES, USERS_PER_ORIGIN_MAX},
    statement::KeyStatement,
    v1::{KeyDetail, SignedKeyStatement, WatchDirectoryRequest},
};
use socp_client::bench::delta;

const HELP: &str = "\
What a large directory costs a server, and whoever begins to watch it.

usage: cargo bench --bench directory [-- --users N]

  --users N   users online at another server; default 10000, at most 100000";

/// Whose key all users have: keys are slow to make.
const EVERYBODY: &str = "everybody";

/// Watchers who join, one after the other.
const JOINS: usize = 10;

/// How often the server is asked how far it is.
const ASKED: Duration = Duration::from_millis(50);

/// What takes longer is not going to end.
const SHOWN_MAX: Duration = Duration::from_secs(60);

/// After so long a server has freed what it needed only meanwhile.
const SETTLED: Duration = Duration::from_secs(2);

fn main() {
    let [users] = arguments::read(HELP, [("--users", 1..=USERS_PER_ORIGIN_MAX, 10_000)]);
    run(users);
}

fn run(users: usize) {
    let (site, peer) = (Site::new("server-a"), Peer::new("server-b"));
    site.configure(&peer.entry());
    let server = Server::start_quiet(&site);
    let watcher = Caller::new("alice", &server, Wire::Tcp);
    let batches = batches(&peer, users);
    thread::sleep(SETTLED);
    let before = resident(&server);
    let mut link = peer.dial(&server, peer.hello());
    link.hello();

    let begun = Instant::now();
    for (statements, batch) in batches {
        link.statements(statements);
        link.adverts(batch);
    }
    while Scrape::of(&server).number("socp_directory_users", &[]) < users as f64 {
        assert!(begun.elapsed() < SHOWN_MAX, "not all of {users} are shown");
        thread::sleep(ASKED);
    }
    let shown = begun.elapsed();
    thread::sleep(SETTLED);
    let after = resident(&server);
    println!("users online             {users}, at another server, each with a key statement of their own");
    println!("the server shows them    {:.2} s after the first batch", shown.as_secs_f64());
    println!("resident memory          {:.1} MB before, {:.1} MB after", before / 1e6, after / 1e6);
    for (what, keys) in [("with keys", KeyDetail::Statement), ("fingerprints only", KeyDetail::Fingerprint)] {
        let mut joins: Vec<_> = (0..JOINS).map(|_| join(&watcher, keys, users)).collect();
        joins.sort_unstable();
        let [least, half, most] = [joins[0].0, joins[JOINS / 2].0, joins[JOINS - 1].0].map(|time| time.as_secs_f64());
        let megabytes = joins[0].1 as f64 / 1e6;
        println!("{what:<24} {megabytes:.1} MB; least {least:.3} s, median {half:.3} s, most {most:.3} s of {JOINS}");
    }
    thread::sleep(SETTLED);
    println!("resident memory          {:.1} MB after the watchers", resident(&server) / 1e6);
    drop::<Link>(link);
}

fn resident(server: &Server) -> f64 {
    Scrape::of(server).number("process_resident_memory_bytes", &[])
}

/// All users in batches, each with the key statements it names.
fn batches(peer: &Peer, users: usize) -> Vec<(Vec<SignedKeyStatement>, socp::federation::v1::SignedBatch)> {
    let key = keys::key(EVERYBODY);
    let (mut set, mut all) = (SetHash::default(), Vec::new());
    let names: Vec<_> = (0..users).map(|user| name(&format!("user{user}"))).collect();
    for (place, names) in names.chunks(BATCH_ENTRIES_MAX).enumerate() {
        let number = place as u64 + 1;
        let (mut statements, mut adverts) = (Vec::new(), Vec::new());
        for user in names {
            let statement: Bytes = KeyStatement::encode(user, peer.id(), key.public(), 1, None).into();
            let signature = vec![7; RSA_BYTES].into();
            let signed = SignedKeyStatement { statement, signature, previous_signature: Bytes::new() };
            let hash = KeyStatement::parse(&signed).expect("it was made here").hash();
            set.insert(&DigestEntry {
                origin: peer.id(),
                epoch: peer.epoch.number,
                user,
                display_name: "",
                status: "",
                key_statement: hash,
                online_since: number,
                sessions: 1,
            });
            adverts.push(Arc::new(Advert {
                user: user.clone(),
                display_name: "".into(),
                status: "".into(),
                statement: hash,
                online_since: number,
                sessions: 1,
            }));
            statements.push(signed);
        }
        let content = Content::Adverts(adverts);
        all.push((statements, Batch::sign(&peer.identity, peer.epoch, number, set.digest(), 0, content).signed));
    }
    all
}

/// A watcher reads the present state; gives how long it took, and the bytes of its messages.
fn join(watcher: &Caller, keys: KeyDetail, users: usize) -> (Duration, usize) {
    let request = WatchDirectoryRequest { keys: keys.into(), ..WatchDirectoryRequest::default() };
    let (request, begun) = (Bytes::from(request.encode_to_vec()), Instant::now());
    soon(async {
        let path = "/socp.v1.DirectoryService/WatchDirectory";
        let watch = raw::begin(watcher.channel.clone(), path, &watcher.token, request).await;
        let (mut watch, mut shown, mut bytes) = (watch.expect("the token is good"), 0, 0);
        loop {
            let message = watch.message().await.expect("it goes on").expect("it goes on");
            bytes += message.len();
            let marks = delta::read(&message, &mut |_| shown += 1).expect("it is a message of a watch");
            if marks.end.is_some() {
                assert_eq!(shown, users, "everybody is shown");
                return (begun.elapsed(), bytes);
            }
        }
    })
}
