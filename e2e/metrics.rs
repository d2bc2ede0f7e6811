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
    alice.shows("bob@server-b");
    let during =
        Scrape::until(&mesh[0], "two users online", |scrape| scrape.number("socp_directory_users", &[]) == 2.0);
    for (name, least) in [
        ("socp_accounts", 1.0),
        ("socp_sessions", 1.0),
        ("socp_attached_streams", 1.0),
        ("socp_watchers", 1.0),
        ("socp_directory_revision", 2.0),
        ("socp_revisions_total", 2.0),
        ("socp_ring_revisions", 2.0),
        ("socp_ring_bytes", 1.0),
        ("socp_driver_inputs_total", before.number("socp_driver_inputs_total", &[]) + 1.0),
        ("socp_peers_joined_total", 1.0),
    ] {
        assert!(during.number(name, &[]) >= least, "{name}: {during:#?}");
    }
    drop(bob);
    alice.removed("bob@server-b", "left");
    Scrape::until(&mesh[0], "one user online", |scrape| scrape.number("socp_directory_users", &[]) == 1.0);
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
