//! Admission: servers that take each other on the word of others, and as their operators say.

use serde_json::Value;

use crate::harness::{client::User, mesh::Site, server::Server};

/// How a server sees another; null if it knows nothing of it.
fn seen(server: &Server, other: &str) -> Value {
    server.asked(&["peers"]).into_iter().find(|peer| peer["name"] == other).unwrap_or_default()
}

/// Three sites, of which the first and the last know only the one between, which dials both.
fn chain() -> [Site; 3] {
    let sites = ["server-a", "server-b", "server-c"].map(Site::new);
    let [a, b, c] = &sites;
    a.configure(&b.known());
    b.configure(&(a.entry() + &c.entry()));
    c.configure(&b.known());
    sites
}

#[test]
fn a_server_is_taken_and_shown_on_the_word_of_a_chain_that_starts_at_a_pin() {
    let sites = chain();
    let servers = sites.each_ref().map(Site::start);
    let (alice, carol) = (User::register("alice", &servers[0]), User::register("carol", &servers[2]));
    let (mut alice, mut carol) = (alice.chat(), carol.chat());
    alice.shows("carol@server-c");
    carol.shows("alice@server-a");
    alice.tell("carol@server-c", "we have not met");
    assert_eq!(carol.message("we have not met"), "alice@server-a");
    let (near, far) = (seen(&servers[0], "server-b"), seen(&servers[0], "server-c"));
    assert_eq!((&near["standing"], &near["admitted_by"]), (&"pinned".into(), &Value::Null), "{near}");
    assert!(near["vouched_until_unix_ms"].is_u64(), "{near}");
    assert_eq!((&far["standing"], &far["admitted_by"]), (&"admitted".into(), &"server-b".into()), "{far}");
    assert!(far["admitted_until_unix_ms"].is_u64(), "{far}");
    let table = String::from_utf8(servers[0].operator(&["peers"]).stdout).expect("it prints text");
    assert!(table.contains("admitted by server-b until "), "{table}");
}

#[test]
fn a_blocked_server_is_gone_with_all_that_its_word_let_in_and_stays_so_over_a_restart() {
    let sites = chain();
    let [a, b, c] = sites.each_ref().map(Site::start);
    let (alice, bob, carol) = (User::register("alice", &a), User::register("bob", &b), User::register("carol", &c));
    let (_bob, _carol) = (bob.chat(), carol.chat());
    let mut live = alice.chat();
    live.shows("bob@server-b");
    live.shows("carol@server-c");
    let blocked = a.asked(&["block", "server-b"]).remove(0);
    assert_eq!((&blocked["blocked"], &blocked["server_id"]), (&true.into(), &b.id.to_string().into()), "{blocked}");
    live.removed("bob@server-b", "unreachable");
    if live.online().contains("carol@server-c") {
        live.removed("carol@server-c", "unreachable");
    }
    a.log(&["refused a server in the federation handshake", &b.id.to_string()]);
    assert_eq!(seen(&a, "server-b")["standing"], "blocked");
    assert_eq!(seen(&a, "server-c"), Value::Null);
    live.quit();
    a.stop();
    let a = sites[0].start();
    a.log(&["refused a server in the federation handshake", &b.id.to_string()]);
    assert_eq!(seen(&a, "server-b")["standing"], "blocked");
    let mut live = alice.chat();
    live.lists(&["alice@server-a"]);
    let table = String::from_utf8(a.operator(&["block", "server-b", "--undo"]).stdout).expect("it prints text");
    assert!(table.starts_with("not blocked any more: `server-b`"), "{table}");
    live.shows("bob@server-b");
    live.shows("carol@server-c");
}

#[test]
fn a_server_that_an_operator_admits_takes_part_until_that_is_taken_back_for_good() {
    let sites = chain();
    let late = Site::new("server-d");
    late.configure(&sites[1].entry());
    let [a, b, _c] = sites.each_ref().map(Site::start);
    let d = late.start();
    let (alice, dave) = (User::register("alice", &a), User::register("dave", &d));
    let (mut live, mut of_dave) = (alice.chat(), dave.chat());
    b.log(&["refused a server in the federation handshake", &d.id.to_string()]);
    assert_eq!(seen(&a, "server-d"), Value::Null);
    let id = d.id.to_string();
    let admitted = b.asked(&["admit", "server-d", &id, "--days", "7"]).remove(0);
    assert!(admitted["until_unix_ms"].is_u64(), "{admitted}");
    live.shows("dave@server-d");
    of_dave.shows("alice@server-a");
    of_dave.tell("alice@server-a", "let me in");
    assert_eq!(live.message("let me in"), "dave@server-d");
    assert_eq!(seen(&b, "server-d")["admitted_by"], "server-b", "by its own word");
    b.asked(&["admit", "--revoke", &id]);
    live.removed("dave@server-d", "unreachable");
    assert_eq!(seen(&a, "server-d"), Value::Null);
    // The disk remembers, on both servers.
    live.quit();
    a.stop();
    b.stop();
    let (a, b) = (sites[0].start(), sites[1].start());
    let mut live = alice.chat();
    let bob = User::register("bob", &b);
    let _bob = bob.chat();
    live.shows("bob@server-b");
    b.log(&["refused a server in the federation handshake", &id]);
    assert_eq!((seen(&a, "server-d"), seen(&b, "server-d")), (Value::Null, Value::Null));
    let again = b.operator(&["admit", "--revoke", &id]);
    let errors = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{errors}");
    assert!(errors.contains("admitted no server") && errors.contains("hint: "), "{errors}");
    let taken = b.operator(&["admit", "server-c", &id]);
    assert!(String::from_utf8_lossy(&taken.stderr).contains("`server-c` is the name of server"), "{taken:?}");
}
