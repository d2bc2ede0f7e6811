//! A user who changes homes: found again by their own word, under the same key, and by nobody else's word.

use std::{fs, process::Output};

use prost::bytes::Bytes;
use serde_json::Value;
use socp::{
    batch::{Batch, Content},
    digest::SetHash,
    id::ServerId,
    message::Address,
    moves::Move,
    statement::statement_hash,
    v1::SignedMove,
};

use crate::harness::{
    caller::{name, statement},
    client::User,
    keys,
    mesh::{Mesh, Site},
    peer::Peer,
    server::Server,
};

/// The line that moves a user to a server, under this name.
fn moving(user: &User, to: &Server, name: &str, more: &[&str]) -> Output {
    let (at, id) = (to.client.to_string(), to.id.to_string());
    user.run(&[&["--json", "move", name, "--server", &at, "--server-id", &id], more].concat())
}

#[track_caller]
fn told(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints one object")
}

/// What came of a command that is refused.
#[track_caller]
fn refused(output: &Output, reason: &str) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&format!("({reason})")), "{errors}");
    errors
}

#[test]
fn a_user_who_registers_on_another_home_with_the_same_key_and_says_so_is_shown_as_moved() {
    let mut mesh = Mesh::started(&[0, 1, 2]);
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        mesh.expect_link(one, other);
    }
    let (bob, alice) = (User::register("bob", &mesh[0]), User::register("alice", &mesh[1]));
    let (mut bobs_chat, mut alices_chat) = (bob.chat(), alice.chat());
    let mut carols_watch = User::register("carol", &mesh[2]).watch();
    alices_chat.shows("bob@server-a");
    carols_watch.shows("bob@server-a");
    alices_chat.tell("bob@server-a", "stay");

    // At the wrong place nothing happens; what was begun and interrupted goes on.
    assert_eq!(moving(&bob, &mesh[0], "bob", &[]).status.code(), Some(2), "to where he is");
    let half = bob.home().join("profiles").join("bob-server-c");
    fs::create_dir_all(&half).expect("the folder is ours");
    fs::copy(bob.profile().join("key.pem"), half.join("key.pem")).expect("the folder is ours");
    let moved = told(&moving(&bob, &mesh[2], "bob", &[]));
    assert_eq!((&moved["user"], &moved["moved_to"]), (&"bob@server-a".into(), &"bob@server-c".into()));
    assert_eq!(moved["profile"], "bob-server-c");
    assert_eq!(told(&moving(&bob, &mesh[2], "bob", &["--profile", "bob"])), moved, "the same line again");

    // Everybody is told, and finds the same key at the new address.
    for live in [&mut alices_chat, &mut carols_watch] {
        live.removed("bob@server-a", "moved");
        let event = live.expect("that he moved", |event| event["event"] == "moved");
        assert_eq!((&event["user"], &event["to"]), (&"bob@server-a".into(), &"bob@server-c".into()));
        assert_eq!((&event["pinned"], &event["server_id"]), (&true.into(), &mesh[2].id.to_string().into()));
        assert_eq!(event["fingerprint"], keys::key("bob").public().fingerprint().to_string());
    }
    bobs_chat.expect("why it ends", |event| event["event"] == "error" && event["reason"] == "USER_MOVED");
    assert_eq!(bobs_chat.wait().code(), Some(1));

    // The old address leads to the new one, now and after the old home started anew.
    let mut new_chat = bob.chat();
    alices_chat.added("bob@server-c");
    for restarts in [false, true] {
        if restarts {
            mesh.stop(0);
            mesh.start(0);
            mesh.expect_link(0, 1);
        }
        let errors = refused(&alice.run(&["tell", "bob@server-a", "where are you"]), "USER_MOVED");
        assert!(errors.contains("`bob@server-c`") && errors.contains("hint: "), "{errors}");
        alices_chat.say("/tell bob@server-a where are you");
        let answer = alices_chat.answer();
        assert_eq!(answer["reason"], "USER_MOVED", "{answer}");
        let listed = alice.json(&["list", "--user", "bob@server-a"]);
        assert!(listed.iter().any(|line| line["event"] == "moved" && line["to"] == "bob@server-c"), "{listed:?}");
        refused(&bob.run(&["--profile", "bob", "token"]), "USER_MOVED");
        let users = mesh[0].asked(&["users"]);
        assert!(users.iter().any(|user| user["moved_to"] == "bob@server-c"), "{users:?}");
    }
    alices_chat.tell("bob@server-c", "here you are");
    assert_eq!(new_chat.message("here you are"), "alice@server-b");
    refused(&moving(&bob, &mesh[1], "bob", &["--profile", "bob"]), "USER_MOVED");
}

#[test]
fn a_home_that_invents_a_move_is_shown_loudly_and_not_believed() {
    let rogue = Peer::new("server-b");
    let site = Site::new("server-a");
    site.configure(&rogue.entry());
    let server = site.start();
    let mut alice = User::register("alice", &server).chat();
    let mut link = rogue.dial(&server, rogue.hello());
    link.hello();
    let signed = statement("bob", rogue.id());
    link.statements(vec![signed.clone()]);
    link.adverts(rogue.batch(&signed));
    alice.added("bob@server-b");
    // Bob is said to be mallory now, in a move that nobody signed but mallory.
    let from = Address { home: rogue.id(), user: name("bob") };
    let to = Address { home: ServerId::of_key(&[3; 32]), user: name("mallory") };
    let word: Bytes = Move::encode(&from, statement_hash(&signed), &to, 1_750_000_000_000).into();
    let signature = keys::key("mallory").sign(socp::signed::Label::Move, &word).expect("a key signs");
    let moved = Move::parse(&SignedMove { statement: word, signature }).expect("it is well formed");
    let (nobody, content) = (SetHash::default().digest(), Content::Moved(moved.into()));
    link.removals(Batch::sign(&rogue.identity, rogue.epoch, 2, nobody, 0, content).signed);
    alice.removed("bob@server-b", "moved");
    let told = |event: &Value| matches!(event["event"].as_str(), Some("moved" | "move_refused"));
    let event = alice.expect("what came of it", told);
    assert_eq!((&event["event"], &event["user"]), (&"move_refused".into(), &"bob@server-b".into()), "{event}");
    assert!(event["message"].as_str().is_some_and(|text| text.contains("THEIR KEY DID NOT SIGN THAT")), "{event}");
}

#[test]
fn a_move_that_was_interrupted_goes_on_and_one_that_is_refused_leaves_everything_as_it_was() {
    let mut mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let bob = User::register("bob", &mesh[0]);
    let new = bob.home().join("profiles").join("bob-server-b");
    // Somebody else has the name there.
    let _dave = User::register("dave", &mesh[1]);
    refused(&moving(&bob, &mesh[1], "dave", &[]), "NAME_IN_USE");
    assert!(!bob.home().join("profiles").join("dave-server-b").exists(), "no copy of the key is left");
    // The old server cannot be told: then nothing is begun at the new one.
    mesh.stop(0);
    let output = moving(&bob, &mesh[1], "bob", &["--transport", "tcp"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let names = |server: &Server| -> Vec<String> {
        server.asked(&["users"]).iter().map(|user| user["name"].to_string()).collect()
    };
    assert_eq!(names(&mesh[1]), ["\"dave\""]);
    mesh.start(0);
    // The name is claimed, and the old server has not been told.
    let key = keys::file("bob").display().to_string();
    let (at, id) = (mesh[1].client.to_string(), mesh[1].id.to_string());
    let claim = ["register", "bob", "--server", &at, "--server-id", &id, "--key", &key, "--no-passphrase"];
    let claimed = bob.run(&[&claim[..], &["--profile", "bob-server-b"]].concat());
    assert!(claimed.status.success() && new.exists(), "{}", String::from_utf8_lossy(&claimed.stderr));
    assert_eq!(bob.json(&["whoami"])[0]["server_id"], mesh[0].id.to_string(), "he is where he was");
    let moved = told(&moving(&bob, &mesh[1], "bob", &[]));
    assert_eq!((&moved["moved_to"], &moved["profile"]), (&"bob@server-b".into(), &"bob-server-b".into()));
    assert_eq!(bob.json(&["whoami"])[0]["server_id"], mesh[1].id.to_string(), "the new profile is the default");
    // The answer was lost: the old server knows, and the client does not.
    let default = bob.home().join("default");
    fs::write(&default, "bob").expect("the folder is ours");
    assert_eq!(told(&moving(&bob, &mesh[1], "bob", &[])), moved);
    assert_eq!(fs::read_to_string(&default).expect("it is there"), "bob-server-b");
}
