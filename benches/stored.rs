//! What stored messages cost those who attach and send: `cargo bench --bench stored -- --messages 1000000`.
//!
//! Two real servers of the same kind. In the inboxes of one many messages are stored, written to its database by the server's own
//! store before the start; in those of the other none. At each a user attaches again and again after the newest message, and
//! another sends to that user, one message after the other and alternately at both servers, so that whatever else the machine does
//! meets both alike. All goes over the public contract.
#![cfg(target_os = "linux")]

mod arguments;
#[path = "../e2e/harness/mod.rs"]
#[allow(dead_code, reason = "the end-to-end tests use the rest")]
mod harness;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use harness::{
    caller::{self, Caller},
    draft, keys,
    mesh::Site,
    server::Server,
    soon,
    wire::Wire,
};
use prost::Message as _;
use socp::{
    id::ServerId,
    inbox::{Content, Entry},
    limits::ID_REMEMBERED_MS,
    message::{Message, SUITE},
    output::Record,
    v1::{AttachResponse, MessageHeader, MessageStatement, RegisterRequest, SealedMessage, attach_response},
};
use socp_server::{storage::Storage as _, store::Store};

const HELP: &str = "\
What stored messages cost those who attach and send.

usage: cargo bench --bench stored [-- --messages N] [--rounds N]

  --messages N   messages stored before, 5000 in each inbox; default 100000, at most 2000000, 2.3 kB of disk each in the
                 temporary folder (TMPDIR)
  --rounds N     messages sent, and times that a user attaches, at each server; default 500, at most 1000";

/// In each inbox: half of what one holds by default, so that none is full.
const PER_INBOX: usize = 5_000;

/// Bytes of a message's text.
const BODY_BYTES: usize = 200;

/// Records in one commit of the preparation.
const TOGETHER: usize = 5_000;

/// Whose key all users have whose inboxes are filled: keys are slow to make.
const EVERYBODY: &str = "everybody";

/// Rounds that are not counted: connections and caches are new.
const FIRST: usize = 20;

fn main() {
    let known = [("--messages", 1..=2_000_000, 100_000), ("--rounds", 1..=1_000, 500)];
    let [messages, rounds] = arguments::read(HELP, known);
    run(messages, rounds);
}

fn run(messages: usize, rounds: usize) {
    let (empty, full) = (Home::prepare("empty", 0), Home::prepare("full", messages));
    let mut homes = [empty.start(), full.start()];
    let drafts: Vec<[SealedMessage; 2]> = (0..FIRST + rounds).map(|_| [homes[0].draft(), homes[1].draft()]).collect();
    let mut sends = [Vec::new(), Vec::new()];
    let mut attaches = [Vec::new(), Vec::new()];
    for (round, drafts) in drafts.into_iter().enumerate() {
        let mut drafts: Vec<_> = drafts.into_iter().enumerate().collect();
        // The first of both finds the machine at rest.
        drafts.rotate_left(round % 2);
        for (place, draft) in drafts {
            let (sent, attached) = (homes[place].send(draft), homes[place].attach());
            if round >= FIRST {
                sends[place].push(sent);
                attaches[place].push(attached);
            }
        }
    }
    println!("{:<22} {:>12} {:>12} {:>8}", "messages stored", 0, messages, "ratio");
    row("started, s", homes[0].started.as_secs_f64(), homes[1].started.as_secs_f64());
    row("memory, MB", homes[0].megabytes(), homes[1].megabytes());
    for (what, times) in [("send", sends), ("attach", attaches)] {
        let [empty, full] = times.map(sorted);
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
            row(&format!("{what} {name}, ms"), at(&empty, share), at(&full, share));
        }
    }
}

fn row(what: &str, empty: f64, full: f64) {
    println!("{what:<22} {empty:>12.3} {full:>12.3} {:>8.2}", full / empty);
}

fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort_unstable();
    times
}

fn at(sorted: &[Duration], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
}

/// A server that does not run yet.
struct Home(Site);

impl Home {
    /// Registers users over the contract, and then fills their inboxes.
    fn prepare(name: &str, messages: usize) -> Self {
        let site = Site::new(name);
        site.configure("");
        let users: Vec<String> = (0..messages.div_ceil(PER_INBOX)).map(inbox_of).collect();
        let server = Server::start_quiet(&site);
        let channel = soon(Wire::Tcp.connect(&server));
        for user in &users {
            // Bob's is the one that he registers with again when he logs in.
            let statement = match user.as_str() {
                "bob" => caller::statement("bob", server.id),
                user => caller::sign_statement(&caller::name(user), server.id, &keys::key(EVERYBODY)),
            };
            let request = RegisterRequest { key_statement: Some(statement), ..RegisterRequest::default() };
            soon(caller::accounts(&channel).register(request)).expect("the name is free");
        }
        let (home, data) = (server.id, server.data.clone());
        server.stop();
        let begun = Instant::now();
        let mut store = Store::open(&data.join("socp.db")).expect("it opens");
        let mut records = Vec::with_capacity(TOGETHER);
        for number in 0..messages {
            let (user, position) = (&users[number / PER_INBOX], number % PER_INBOX + 1);
            records.push(Record::Entry(Arc::new(entry(home, user, position as u64, number))));
            if records.len() == TOGETHER || number + 1 == messages {
                store.commit(&records).expect("there is room on the disk");
                records.clear();
            }
        }
        drop(store);
        let bytes = fs::metadata(data.join("socp.db")).map_or(0, |database| database.len());
        eprintln!("{messages} messages stored, {} MB, in {:.0} s", bytes >> 20, begun.elapsed().as_secs_f64());
        Self(site)
    }

    fn start(&self) -> Live {
        let begun = Instant::now();
        let server = Server::start_quiet(&self.0);
        let started = begun.elapsed();
        let [alice, bob] = ["alice", "bob"].map(|name| Caller::new(name, &server, Wire::Tcp));
        let mut live = Live { server, alice, bob, started, cursor: String::new() };
        // Where bob's inbox ends is known by a message that ends it.
        let last = live.draft();
        live.send(last.clone());
        let mut stream = live.bob.attach();
        live.cursor = loop {
            let AttachResponse { event, cursor, .. } = stream.next();
            if matches!(event, Some(attach_response::Event::Message(of)) if of.message.as_ref() == Some(&last)) {
                break cursor;
            }
        };
        live
    }
}

/// The first inbox is that of the user who attaches.
fn inbox_of(number: usize) -> String {
    if number == 0 { "bob".to_owned() } else { format!("user{number}") }
}

/// A message as it is on disk; only clients would find that it was never sealed.
fn entry(home: ServerId, user: &str, position: u64, number: usize) -> Entry {
    let now = draft::now_unix_ms();
    let header = MessageHeader {
        suite: SUITE,
        message_id: format!("{:08x}-{:04x}-7abc-9def-{number:012x}", now >> 16, now & 0xffff),
        sender: format!("sender{}", number % 1_000),
        sender_home_id: home.to_string(),
        sender_key_sha256: vec![1; 32].into(),
        recipient: user.to_owned(),
        recipient_home_id: home.to_string(),
        recipient_key_sha256: vec![2; 32].into(),
        time_unix_ms: now,
        ..MessageHeader::default()
    };
    let statement = MessageStatement {
        header: header.encode_to_vec().into(),
        nonce: vec![0; 12].into(),
        ciphertext: vec![3; BODY_BYTES].into(),
        key_commitment: vec![0; 32].into(),
        ..MessageStatement::default()
    };
    let sealed = SealedMessage {
        statement: statement.encode_to_vec().into(),
        signature: vec![4; 512].into(),
        wrapped_key: vec![5; 512].into(),
    };
    let now = u64::try_from(now).expect("it is after 1970");
    let message = Box::new(Message::parse(&sealed).expect("it has the form of one"));
    let content = Content::Message { message, id_until_unix_ms: now + ID_REMEMBERED_MS };
    Entry { user: caller::name(user), position, received_unix_ms: now, content }
}

/// A running server, and those who are measured.
struct Live {
    server: Server,
    alice: Caller,
    bob: Caller,
    started: Duration,
    /// Where bob reads from.
    cursor: String,
}

impl Live {
    fn draft(&self) -> SealedMessage {
        draft::sealed(&self.alice, &self.bob.address, self.bob.key.public(), &"x".repeat(BODY_BYTES))
    }

    /// Sends a message; it is on disk then.
    fn send(&self, message: SealedMessage) -> Duration {
        let begun = Instant::now();
        draft::send(&self.alice, message).expect("it is taken");
        begun.elapsed()
    }

    /// Attaches and reads the one message that is new.
    fn attach(&mut self) -> Duration {
        let begun = Instant::now();
        let mut stream = self.bob.attach_after(&self.cursor);
        self.cursor = loop {
            let AttachResponse { event, cursor, .. } = stream.next();
            if matches!(event, Some(attach_response::Event::Message(_))) {
                break cursor;
            }
        };
        begun.elapsed()
    }

    fn megabytes(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.program.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux counts them");
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kilobytes / 1_000.0
    }
}
