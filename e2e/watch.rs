//! The watch as the contract has it: present state, end mark, deltas, and going on after a break.

use std::collections::BTreeSet;

use socp::v1::{
    AttachRequest, DirectoryChange, DirectoryFilter, KeyDetail, ListUsersRequest, WatchDirectoryRequest,
    WatchDirectoryResponse, directory_change::Change,
};

use crate::harness::{
    caller::{Caller, Stream},
    client::User,
    mesh::{self, Mesh},
    metrics::Scrape,
    soon,
    wire::{WIRES, Wire, reason},
};

/// What a change says, in short.
fn told(change: &DirectoryChange) -> String {
    match change.change.as_ref().expect("a change says something") {
        Change::Added(entry) => format!("+{}", entry.user),
        Change::Updated(entry) => format!("={}", entry.user),
        Change::Removed(entry) => format!("-{}", entry.user),
    }
}

/// Reads until the end mark; gives it with the labels of the present state and the resume token.
#[track_caller]
fn present(watch: &mut Stream<WatchDirectoryResponse>) -> (socp::v1::EndMark, Vec<String>, String) {
    let mut labels = Vec::new();
    loop {
        let message = watch.next();
        labels.extend(message.changes.iter().map(told));
        if let Some(mark) = message.end_mark {
            return (mark, labels, message.resume_token);
        }
    }
}

/// Reads so many changes; gives them with their revisions and the last resume token.
#[track_caller]
fn changes(watch: &mut Stream<WatchDirectoryResponse>, count: usize) -> (Vec<(u64, String)>, String) {
    let (mut found, mut token) = (Vec::new(), String::new());
    while found.len() < count {
        let message = watch.next();
        assert_eq!(message.end_mark, None, "the present state is behind us");
        found.extend(message.changes.iter().map(|change| (change.revision, told(change))));
        if !message.resume_token.is_empty() {
            token = message.resume_token;
        }
    }
    (found, token)
}

#[test]
fn a_watcher_gets_the_present_state_then_an_end_mark_then_deltas() {
    let (_site, server) = mesh::alone();
    for wire in WIRES {
        let alice = Caller::new("alice", &server, wire);
        let mut watch = alice.watch("").expect("the token is good");
        let (empty, labels, token) = present(&mut watch);
        assert_eq!((empty.entries, &labels[..]), (0, &[][..]), "{wire}: empty, and said to be so");
        assert_eq!(empty.digest.len(), 32);
        assert!(!token.is_empty());
        let bob = Caller::new("bob", &server, wire);
        let stream = bob.attach();
        let (one, _) = changes(&mut watch, 1);
        assert_eq!(one, [(empty.revision + 1, "+bob@server-a".to_owned())], "{wire}");
        let mut second = alice.watch("").expect("the token is good");
        let (mark, labels, _) = present(&mut second);
        assert_eq!((mark.entries, mark.revision), (1, empty.revision + 1), "{wire}");
        assert_eq!(labels, ["+bob@server-a"]);
        assert_ne!(mark.digest, empty.digest);
        drop(stream);
        let gone = [(empty.revision + 2, "-bob@server-a".to_owned())];
        assert_eq!(changes(&mut watch, 1).0, gone, "{wire}");
        assert_eq!(changes(&mut second, 1).0, gone, "{wire}");
    }
}

#[test]
fn a_watch_that_breaks_resumes_where_it_was_or_is_told_plainly_to_start_over() {
    let mut mesh = Mesh::started(&[0, 1]);
    let mut tokens = Vec::new();
    for wire in WIRES {
        let alice = Caller::new("alice", &mesh[0], wire);
        let [bob, carol] = [("bob", 0), ("carol", 1)].map(|(name, at)| Caller::new(name, &mesh[at], wire));
        mesh.expect_link(0, 1);
        let mut whole = alice.watch("").expect("the token is good");
        let mut broken = alice.watch("").expect("the token is good");
        present(&mut whole);
        let (_, _, at_mark) = present(&mut broken);
        let inbox = bob.attach();
        let (before, token) = changes(&mut broken, 1);
        drop(broken);
        // Meanwhile, and nobody reads it.
        let far = carol.attach();
        drop(inbox);
        let expected = changes(&mut whole, 3).0;
        assert_eq!(before, expected[..1], "{wire}");
        let mut resumed = alice.watch(&token).expect("the token is fresh");
        assert_eq!(changes(&mut resumed, 2).0, expected[1..], "{wire}: no repeat and no gap");
        let mut from_mark = alice.watch(&at_mark).expect("the token is fresh");
        assert_eq!(changes(&mut from_mark, 3).0, expected, "{wire}: a token may be used again");
        // It goes on from there.
        drop(far);
        let (last, token) = changes(&mut resumed, 1);
        assert_eq!(last[0].1, "-carol@server-b", "{wire}");
        for garbage in ["garbage", "00", &token[1..]] {
            let refused = alice.watch(garbage).map(|mut watch| watch.end());
            assert_eq!(reason(refused.and_then(Err::<(), _>)), "RESUME_TOKEN_INVALID", "{wire}");
        }
        let other = WatchDirectoryRequest {
            resume_token: token.clone(),
            keys: KeyDetail::Fingerprint.into(),
            ..WatchDirectoryRequest::default()
        };
        let refused = alice.watch_as(other).map(|mut watch| watch.end());
        assert_eq!(reason(refused.and_then(Err::<(), _>)), "RESUME_TOKEN_INVALID", "{wire}");
        tokens.push(token);
    }
    // Of the start before this one, nothing is kept.
    mesh.stop(0);
    mesh.start(0);
    for (wire, token) in WIRES.into_iter().zip(tokens) {
        let alice = Caller::new("alice", &mesh[0], wire);
        let refused = alice.watch(&token).map(|mut watch| watch.end());
        assert_eq!(reason(refused.and_then(Err::<(), _>)), "REVISION_COMPACTED", "{wire}");
        present(&mut alice.watch("").expect("started over, it goes on"));
    }
}

#[test]
fn a_filtered_watch_shows_what_passes_and_nothing_else() {
    let mesh = Mesh::started(&[0, 1]);
    let alice = Caller::new("alice", &mesh[0], Wire::H3);
    mesh.expect_link(0, 1);
    let filtered = |filter: DirectoryFilter| {
        let request = WatchDirectoryRequest { filter: Some(filter), ..WatchDirectoryRequest::default() };
        let mut watch = alice.watch_as(request).expect("the filter is good");
        assert_eq!(present(&mut watch).0.digest.len(), 0, "a part of the directory has no digest");
        watch
    };
    let mut of_b = filtered(DirectoryFilter { servers: vec!["server-b".into()], ..DirectoryFilter::default() });
    let mut c = filtered(DirectoryFilter { name_prefix: "c".into(), ..DirectoryFilter::default() });
    let mut bob_only = filtered(DirectoryFilter { users: vec!["bob".into()], ..DirectoryFilter::default() });
    let callers = [("bob", 0), ("carol", 0), ("carol", 1), ("bob", 1)];
    let callers = callers.map(|(name, at)| Caller::new(name, &mesh[at], Wire::H3));
    let _inboxes = callers.each_ref().map(|caller| caller.attach());
    let labels = |watch: &mut Stream<WatchDirectoryResponse>| -> BTreeSet<String> {
        changes(watch, 2).0.into_iter().map(|(_, label)| label).collect()
    };
    assert_eq!(labels(&mut of_b), BTreeSet::from(["+carol@server-b", "+bob@server-b"].map(String::from)));
    assert_eq!(labels(&mut c), BTreeSet::from(["+carol@server-a", "+carol@server-b"].map(String::from)));
    assert_eq!(labels(&mut bob_only), BTreeSet::from(["+bob@server-a", "+bob@server-b"].map(String::from)));
}

#[test]
fn a_server_that_stops_ends_every_watch_with_a_token_to_resume_by() {
    let mut mesh = Mesh::started(&[0]);
    let callers = WIRES.map(|wire| Caller::new("alice", &mesh[0], wire));
    let mut watches = callers.each_ref().map(|caller| caller.watch("").expect("the token is good"));
    let tokens = watches.each_mut().map(|watch| present(watch).2);
    mesh.stop(0);
    for (mut watch, token) in watches.into_iter().zip(tokens) {
        let status = watch.end();
        assert_eq!(crate::harness::wire::refusal(&status), (tonic::Code::Unavailable, "DRAINING".to_owned()));
        use tonic_types::StatusExt as _;
        let info = status.get_details_error_info().expect("it has a reason");
        assert_eq!(info.metadata.get("resume_token"), Some(&token));
    }
}

#[test]
fn a_list_comes_in_pages_of_the_size_asked_for() {
    let (_site, server) = mesh::alone();
    let names = ["alice", "bob", "carol"];
    let callers = names.map(|name| Caller::new(name, &server, Wire::Tcp));
    let _inboxes = callers.each_ref().map(|caller| caller.attach());
    for wire in WIRES {
        let alice = Caller::new("alice", &server, wire);
        let page = |page_token: &str, page_size: u32| {
            let page_token = page_token.to_owned();
            let request = ListUsersRequest { page_size, page_token, ..ListUsersRequest::default() };
            soon(alice.directory().list_users(alice.request(request))).map(|page| page.into_inner())
        };
        let first = page("", 2).expect("the first page");
        let labels =
            |users: &[socp::v1::DirectoryEntry]| users.iter().map(|user| user.name.clone()).collect::<Vec<_>>();
        assert_eq!(labels(&first.users), ["alice", "bob"], "{wire}");
        let second = page(&first.next_page_token, 2).expect("the second page");
        assert_eq!((&labels(&second.users)[..], &second.next_page_token[..]), (&["carol".to_owned()][..], ""));
        assert_eq!(reason(page("garbage", 2)), "STATEMENT_INVALID");
        assert_eq!(reason(page("", 1_001)), "TOO_MANY", "{wire}: one past the limit");
        assert_eq!(page("", 1_000).expect("the limit").users.len(), 3);
    }
}

#[test]
fn a_client_whose_server_returns_goes_on_and_tells_only_the_difference() {
    let mut mesh = Mesh::started(&[0]);
    let [alice, bob] = ["alice", "bob"].map(|name| User::register(name, &mesh[0]));
    let mut watch = alice.watch();
    let chat = bob.chat();
    watch.added("bob@server-a");
    mesh.stop(0);
    watch.expect("that the connection is lost", |event| event["event"] == "disconnected");
    drop(chat);
    mesh.start(0);
    watch.expect("the end mark again", |event| event["event"] == "synced");
    let told = crate::harness::client::changes(&watch.passed());
    assert_eq!(told, [("removed".to_owned(), "bob@server-a".to_owned())], "he went meanwhile, and nothing else");
    let _again = bob.chat();
    watch.added("bob@server-a");
}

/// Watches of one hostile client that are never read, and times that it begins one and drops it.
const STOPPED: usize = 16;

/// Changes: with keys they come to more than the windows and buffers of a stream that nobody reads, half a megabyte.
const ROUNDS: usize = 500;

#[test]
fn watchers_that_stop_reading_or_come_and_go_in_a_loop_cost_the_others_nothing() {
    let (_site, server) = mesh::alone();
    let watching = |count: usize| {
        Scrape::until(&server, "so many watches", |scrape| scrape.number("socp_watchers", &[]) == count as f64)
    };
    for wire in WIRES {
        let (alice, bob) = (Caller::new("alice", &server, wire), Caller::new("bob", &server, wire));
        let mut watch = alice.watch("").expect("the token is good");
        let (mark, _, _) = present(&mut watch);
        let before = watching(1).number("process_resident_memory_bytes", &[]);
        let hostile = Caller::new("carol", &server, wire);
        let with_keys =
            || WatchDirectoryRequest { keys: KeyDetail::Statement.into(), ..WatchDirectoryRequest::default() };
        let stopped: Vec<_> = (0..STOPPED).map(|_| hostile.watch_as(with_keys()).expect("the token is good")).collect();
        let coming_and_going = Caller::new("carol", &server, wire);
        let mut streams = Vec::new();
        for round in 0..ROUNDS {
            let request = bob.request(AttachRequest { status: format!("round {round}"), ..AttachRequest::default() });
            let mut stream = Stream(soon(bob.messages().attach(request)).expect("the token is good").into_inner());
            stream.next();
            streams = vec![stream];
            drop(coming_and_going.watch("").expect("the token is good"));
        }
        let (told, _) = changes(&mut watch, ROUNDS);
        let expected = (0..ROUNDS).map(|round| {
            let what = if round == 0 { "+bob@server-a" } else { "=bob@server-a" };
            (mark.revision + 1 + round as u64, what.to_owned())
        });
        assert_eq!(told, expected.collect::<Vec<_>>(), "{wire}: each change once and in order");
        let lags = |scrape: &Scrape| scrape.number("socp_watchers_lagging", &[]) >= 1.0;
        let during = Scrape::until(&server, "watches that lag", lags);
        let more = during.number("process_resident_memory_bytes", &[]) - before;
        assert!(more < 64.0 * 1024.0 * 1024.0, "{wire}: {more} bytes for {STOPPED} that stopped");
        drop((stopped, hostile, coming_and_going));
        watching(1);
        drop((streams, watch));
        watching(0);
        Scrape::until(&server, "no call left behind", |scrape| scrape.number("socp_client_calls", &[]) <= 1.0);
        Scrape::until(&server, "bob gone", |scrape| scrape.number("socp_directory_users", &[]) == 0.0);
    }
}
