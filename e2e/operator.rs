//! What the operator is told of a network: how peers are reached, and why a user is shown or not.

use serde_json::Value;

use crate::harness::{client::User, mesh::Mesh, server::Server};

/// How a server sees another.
#[track_caller]
fn seen(server: &Server, other: &str) -> Value {
    let peers = server.asked(&["peers"]);
    let names: Vec<_> = peers.iter().map(|peer| peer["name"].as_str().expect("a name")).collect();
    assert!(names.is_sorted(), "{names:?}");
    peers.into_iter().find(|peer| peer["name"] == other).expect("every pinned server is listed")
}

#[test]
fn the_operator_sees_which_servers_are_linked_and_through_whom_the_others_are_reached() {
    let mut mesh = Mesh::chain(3);
    (0..3).for_each(|index| mesh.start(index));
    let (alice, carol) = (User::register("alice", &mesh[0]), User::register("carol", &mesh[2]));
    let mut alice = alice.chat();
    let _carol = carol.chat();
    alice.shows("carol@server-c");
    let (near, far) = (seen(&mesh[0], "server-b"), seen(&mesh[0], "server-c"));
    assert_eq!((&near["reach"], &near["linked_by_own_dial"]), (&"linked".into(), &false.into()), "{near}");
    assert!(near["linked_unix_ms"].is_u64() && near["heard_unix_ms"].is_u64(), "{near}");
    assert_eq!((&far["reach"], &far["next_hop"]), (&"through".into(), &"server-b".into()), "{far}");
    assert_eq!((&far["users_shown"], &far["dialled"]), (&1.into(), &false.into()), "{far}");
    assert_eq!(seen(&mesh[1], "server-a")["linked_by_own_dial"], true);

    let table = String::from_utf8(mesh[0].operator(&["peers"]).stdout).expect("it prints text");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("NAME      STATE"), "{table}");
    assert!(lines[1].starts_with("server-b  linked since ") && lines[1].contains("dialled there"), "{table}");
    assert!(lines[2].starts_with("server-c  through server-b"), "{table}");

    mesh.kill(2);
    alice.removed("carol@server-c", "unreachable");
    let far = seen(&mesh[0], "server-c");
    assert_eq!((&far["reach"], &far["users_shown"]), (&"unreachable".into(), &0.into()), "{far}");
    let near = seen(&mesh[1], "server-c");
    assert_eq!((&near["reach"], &near["dial"]), (&"unreachable".into(), &"idle".into()), "{near}");
    assert!(near["last_error"].is_string() && near["last_error_unix_ms"].is_u64(), "{near}");
}

#[test]
fn the_operator_is_told_why_a_user_is_online_offline_or_unreachable() {
    let mut mesh = Mesh::chain(3);
    (0..3).for_each(|index| mesh.start(index));
    let (alice, carol) = (User::register("alice", &mesh[0]), User::register("carol", &mesh[2]));
    let mut alice = alice.chat();
    let carol_live = carol.chat();
    alice.shows("carol@server-c");
    let explained = |mesh: &Mesh| mesh[0].asked(&["explain", "carol@server-c"]).remove(0);
    let online = explained(&mesh);
    assert_eq!((&online["presence"], &online["next_hop"]), (&"online".into(), &"server-b".into()), "{online}");
    assert_eq!((&online["word"]["online"], &online["word"]["sessions"]), (&true.into(), &1.into()), "{online}");
    carol_live.quit();
    alice.removed("carol@server-c", "left");
    let offline = explained(&mesh);
    let cause = &offline["last_removal"]["cause"];
    assert_eq!((&offline["presence"], cause), (&"offline".into(), &"batch".into()), "{offline}");
    let _again = carol.chat();
    alice.added("carol@server-c");
    mesh.kill(2);
    alice.removed("carol@server-c", "unreachable");
    let away = explained(&mesh);
    let cause = &away["last_removal"]["cause"];
    assert_eq!((&away["presence"], cause), (&"unreachable".into(), &"unreachable".into()), "{away}");
    assert_eq!((&away["reach"], &away["home_state"]), (&"unreachable".into(), &"away".into()), "{away}");
    let text = String::from_utf8(mesh[0].operator(&["explain", "carol"]).stdout).expect("it prints text");
    assert!(text.starts_with("carol@server-c is shown as unreachable: there is no way to its home.\n"), "{text}");
    assert!(text.contains("since this server started"), "{text}");

    let own = mesh[0].asked(&["explain", "alice"]).remove(0);
    let sessions = own["sessions"].as_array().expect("a list of sessions");
    let attached = sessions.iter().filter(|session| session["attached"] == true).count();
    assert_eq!((&own["presence"], attached), (&"online".into(), 1), "{own}");
    let unknown = mesh[0].operator(&["explain", "nobody"]);
    let errors = String::from_utf8_lossy(&unknown.stderr);
    assert_eq!(unknown.status.code(), Some(1), "{errors}");
    assert!(errors.contains("`nobody`") && errors.contains("hint: "), "{errors}");
}
