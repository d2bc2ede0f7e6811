//! Links between servers: which peers are taken, and what both sides say of those that are not.

use socp::{federation::v1::Hello, v1::Reason};

use crate::harness::{
    client::User,
    mesh::{Mesh, Site},
    peer::Peer,
    server::Server,
    wire::reason,
};

fn server_with(peers: &[&Peer]) -> (Site, Server) {
    let site = Site::new("server-a");
    site.configure(&peers.iter().map(|peer| peer.entry()).collect::<String>());
    let server = site.start();
    (site, server)
}

#[test]
fn a_peer_of_another_major_version_is_refused_with_both_versions() {
    let peer = Peer::new("server-b");
    let (_site, server) = server_with(&[&peer]);
    let mut link = peer.dial(&server, Hello { version_major: 2, version_minor: 3, ..peer.hello() });
    let status = link.end();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status:?}");
    assert_eq!(reason::<()>(Err(status.clone())), socp::rejection::name(Reason::VersionMismatch));
    use tonic_types::StatusExt as _;
    let info = status.get_details_error_info().expect("it has a reason");
    let metadata = ["ours", "theirs"].map(|key| info.metadata.get(key).map(String::as_str));
    assert_eq!(metadata, [Some("1.0"), Some("2.3")], "what the refused one puts into its log");
    let line = server.log(&["link closed", "VERSION_MISMATCH", &peer.id().to_string()]);
    assert!(line.contains("1.0") && line.contains("2.3"), "{line}");
    // The same peer with the same major and another minor is taken.
    peer.dial(&server, Hello { version_minor: 9, ..peer.hello() }).hello();
    server.log(&["peer joined", &peer.id().to_string()]);
}

#[test]
fn a_peer_that_bears_another_name_than_its_pin_is_refused() {
    let peer = Peer::new("server-b");
    let (_site, server) = server_with(&[&peer]);
    let mut link = peer.dial(&server, Hello { name: "server-z".into(), ..peer.hello() });
    assert_eq!(reason::<()>(Err(link.end())), "STATEMENT_INVALID");
    server.log(&["link closed", "another name", &peer.id().to_string()]);
}

#[test]
fn a_peer_that_falls_silent_is_given_up_and_its_users_go_once() {
    use rustix::process::Signal;
    let mesh = Mesh::started(&[0, 1]);
    let mut alice = User::register("alice", &mesh[0]).chat();
    let _bob = User::register("bob", &mesh[1]).chat();
    alice.shows("bob@server-b");
    alice.passed();
    mesh[1].program.signal(Signal::STOP);
    alice.removed("bob@server-b", "unreachable");
    mesh[1].program.signal(Signal::CONT);
    alice.added("bob@server-b");
    assert_eq!(crate::harness::client::changes(&alice.passed()), [], "once gone, once back");
}

#[test]
fn a_server_that_dies_has_its_users_removed_and_they_return_with_it() {
    let mut mesh = Mesh::started(&[0, 1]);
    let mut alice = User::register("alice", &mesh[0]).chat();
    let bob = User::register("bob", &mesh[1]);
    let _bob = bob.chat();
    alice.shows("bob@server-b");
    alice.passed();
    mesh.kill(1);
    alice.removed("bob@server-b", "unreachable");
    mesh.start(1);
    alice.added("bob@server-b");
    assert_eq!(crate::harness::client::changes(&alice.passed()), [], "once gone, once back");
    alice.tell("bob@server-b", "as before");
}
