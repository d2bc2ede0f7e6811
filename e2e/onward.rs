//! Onward: servers that reach each other through others only.

use crate::harness::{client::User, mesh::Mesh};

#[test]
fn a_chain_of_servers_works_for_users_messages_and_posts() {
    let mut mesh = Mesh::chain(3);
    (0..3).for_each(|index| mesh.start(index));
    let (alice, carol) = (User::register("alice", &mesh[0]), User::register("carol", &mesh[2]));
    let (mut alice_live, mut carol_live) = (alice.chat(), carol.chat());
    alice_live.shows("carol@server-c");
    carol_live.shows("alice@server-a");
    alice_live.tell("carol@server-c", "from one end to the other");
    assert_eq!(carol_live.message("from one end to the other"), "alice@server-a");
    carol_live.say("/all and back again");
    assert_eq!(alice_live.post("and back again"), "carol@server-c");
    carol_live.quit();
    alice_live.removed("carol@server-c", "left");
}

#[test]
fn users_behind_a_server_that_dies_leave_and_return_with_it() {
    let mut mesh = Mesh::chain(3);
    (0..3).for_each(|index| mesh.start(index));
    let (alice, carol) = (User::register("alice", &mesh[0]), User::register("carol", &mesh[2]));
    let mut alice_live = alice.chat();
    let _carol_live = carol.chat();
    alice_live.shows("carol@server-c");
    mesh.kill(1);
    alice_live.removed("carol@server-c", "unreachable");
    mesh.start(1);
    alice_live.added("carol@server-c");
}
