//! What servers tell of themselves, while real clients use them.

use std::net::TcpListener;

use socp_server::metrics::families;

use crate::harness::{
    caller::Caller,
    client::User,
    mesh::{self, Mesh, Site},
    metrics::{Scrape, ask},
    server::Server,
    wire::Wire,
};

#[test]
fn every_metric_is_exported_with_its_kind_and_labels() {
    let (_site, server) = mesh::alone();
    let scrape = Scrape::of(&server);
    let exported: Vec<_> = scrape.families.iter().map(|(name, (kind, _))| (&**name, &**kind)).collect();
    let mut known: Vec<_> = families::ALL.iter().map(|family| (family.name, family.kind.name())).collect();
    known.sort_unstable();
    assert_eq!(exported, known);
    for (name, labels) in scrape.numbers.keys() {
        let family = families::ALL.iter().find(|family| name.starts_with(family.name)).expect("a known one");
        let mut expected = family.labels.to_vec();
        expected.sort_unstable();
        let found: Vec<_> = labels.iter().map(|(label, _)| &**label).filter(|label| *label != "le").collect();
        assert_eq!(found, expected, "{name}");
    }
    for name in
        ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "socp_driver_answered"]
    {
        assert!(scrape.number(name, &[]) > 0.0, "{name}");
    }
}

#[test]
fn what_happens_shows_in_the_numbers() {
    let mesh = Mesh::started(&[0, 1]);
    let before = Scrape::of(&mesh[0]);
    assert_eq!(before.number("socp_sessions", &[]), 0.0);
    assert_eq!(before.number("socp_directory_users", &[]), 0.0);
    let alice = User::register("alice", &mesh[0]);
    let mut alice = alice.chat();
    let bob = User::register("bob", &mesh[1]).chat();
    let _carol = User::register("carol", &mesh[0]).chat();
    alice.shows("bob@server-b");
    alice.shows("carol@server-a");
    let during = Scrape::until(&mesh[0], "two changes that alice was told", |scrape| {
        let told = |home| scrape.sum("socp_delta_latency_seconds_count", &[("home", home)]);
        scrape.number("socp_directory_users", &[]) == 3.0 && told("own") >= 1.0 && told("neighbour") >= 1.0
    });
    for (name, least) in [
        ("socp_accounts", 2.0),
        ("socp_sessions", 2.0),
        ("socp_attached_streams", 2.0),
        ("socp_watchers", 2.0),
        ("socp_directory_revision", 2.0),
        ("socp_revisions_total", 2.0),
        ("socp_ring_revisions", 2.0),
        ("socp_ring_bytes", 1.0),
        ("socp_driver_inputs_total", before.number("socp_driver_inputs_total", &[]) + 1.0),
        ("socp_peers_joined_total", 1.0),
    ] {
        assert!(during.number(name, &[]) >= least, "{name}: {during:#?}");
    }
    assert_eq!(during.sum("socp_delta_latency_seconds_count", &[("home", "far")]), 0.0, "both are neighbours");
    let b = ("server", "server-b");
    for name in ["socp_server_reachable", "socp_link_up"] {
        assert_eq!(during.number(name, &[b]), 1.0, "{name}");
    }
    for direction in ["received", "sent"] {
        for name in ["socp_link_frames_total", "socp_link_batches_total"] {
            assert!(during.number(name, &[b, ("direction", direction)]) > 0.0, "{name} {direction}");
        }
    }
    assert_eq!(during.number("socp_server_lag_batches", &[b]), 0.0);
    assert!(during.number("socp_link_clock_ahead_seconds", &[b]).abs() < 1.0, "one machine has one clock");
    assert!(during.number("socp_link_round_trip_seconds", &[b]) > 0.0);
    assert_eq!(during.number("socp_link_queued_frames", &[b]), 0.0);
    assert!(during.number("socp_disk_commit_seconds_count", &[]) > 0.0, "alice is registered");
    assert!(during.number("socp_disk_records_total", &[]) > 0.0);
    assert!(during.number("socp_driver_busy_seconds_total", &[]) > 0.0);
    assert!(during.number("socp_client_calls", &[]) >= 2.0, "a watch and an attached stream");
    assert!(during.sum("socp_client_connections", &[]) >= 1.0);
    assert_eq!(during.number("socp_watchers_joining", &[]), 0.0);
    drop(bob);
    alice.removed("bob@server-b", "left");
    Scrape::until(&mesh[0], "bob gone", |scrape| scrape.number("socp_directory_users", &[]) == 2.0);
}

#[test]
fn a_rejection_counts_by_its_reason_and_a_lost_link_shows() {
    let mut mesh = Mesh::started(&[0, 1]);
    let (alice, carol) = (Caller::new("alice", &mesh[0], Wire::H3), User::register("carol", &mesh[1]));
    let reason = [("reason", "TOKEN_INVALID")];
    let before = Scrape::of(&mesh[0]).number("socp_rejections_total", &reason);
    let nobody = Caller { token: "nobody".into(), ..alice.clone() };
    assert!(nobody.watch("").is_err(), "the token is nobody's");
    let after =
        Scrape::until(&mesh[0], "a rejection", |scrape| scrape.number("socp_rejections_total", &reason) > before);
    assert_eq!(
        after.number("socp_rejections_total", &[("reason", "INBOX_FULL")]),
        0.0,
        "one that was never told is there"
    );

    let inbox = after.number("socp_inbox_messages", &[]);
    carol.run(&["tell", "alice@server-a", "hello"]);
    Scrape::until(&mesh[0], "a message in an inbox", |scrape| scrape.number("socp_inbox_messages", &[]) == inbox + 1.0);
    mesh.kill(1);
    let b = [("server", "server-b")];
    Scrape::until(&mesh[0], "a lost link", |scrape| scrape.number("socp_link_up", &b) == 0.0);
    Scrape::until(&mesh[0], "a server out of reach", |scrape| scrape.number("socp_server_reachable", &b) == 0.0);
}

#[test]
fn the_second_server_of_a_machine_goes_on_without_metrics_unless_their_address_was_named() {
    let site = Site::new("server-a");
    site.configure("");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it has an address").to_string();
    let mut command = crate::harness::binaries::server();
    command.args(["--metrics-listen", &address, "--config"]).arg(site.config());
    let output = command.output().expect("socp-server runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains(&address) && errors.contains("--metrics-listen"), "{errors}");

    // Whoever has the port that is there by default: this test, or another server of this machine.
    let _taken = TcpListener::bind("127.0.0.1:7480");
    let mut command = crate::harness::binaries::server();
    command.env("NO_COLOR", "1").args(["--json", "--config"]).arg(site.config());
    let mut program = crate::harness::program::Program::start("`server-a`", &mut command);
    let told = program.expect("that it listens", |event| event["event"] == "listening");
    assert_eq!(told["metrics"], serde_json::Value::Null, "{told}");
    let line = program.expect_log(&["metrics are off", "127.0.0.1:7480"]);
    assert!(line.contains("`metrics_listen`"), "{line}");
}

#[test]
fn a_stranger_is_told_nothing_else_at_the_address_of_the_metrics() {
    let (_site, server) = mesh::alone();
    let alice = Caller::new("alice", &server, Wire::H3);
    let host = server.metrics.to_string();
    let status = |line: &str, host: &str| {
        let (head, body) =
            ask(server.metrics, &format!("{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"));
        assert!(!body.contains("socp_"), "{body}");
        head.split(' ').nth(1).expect("a status").to_owned()
    };
    assert_eq!(status("GET /", &host), "404");
    assert_eq!(status("GET /metrics/../socp.db", &host), "404");
    assert_eq!(status("POST /metrics", &host), "405");
    assert_eq!(status("GET /metrics", "page.example"), "403");
    let text = Scrape::text(&server);
    for secret in [&*alice.token, "alice"] {
        assert!(!text.contains(secret), "no user and no token is in a label");
    }
    assert_links_nothing(&server);
}

/// A server without peers has no numbers of any.
#[track_caller]
fn assert_links_nothing(server: &Server) {
    let scrape = Scrape::of(server);
    let of_servers = scrape.numbers.keys().filter(|(_, labels)| labels.iter().any(|(label, _)| label == "server"));
    assert_eq!(of_servers.count(), 0);
}
