//! Who is online: attached devices, logins, and what becomes of a device that is gone without a word.

use std::time::Duration;

use rustix::process::Signal;
use socp::v1::{DetachRequest, ListSessionsRequest, LogOutRequest};

use crate::harness::{
    caller::{self, Caller, challenge, log_in, login},
    client::{Live, User, changes},
    forward::Forward,
    mesh::{self, Mesh},
    server::Server,
    soon,
    wire::{WIRES, Wire, reason},
};

/// What is promised of a device that is killed, frozen or cut off.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Someone who watches, and is online herself.
fn watcher(server: &Server) -> Live {
    User::register("alice", server).chat()
}

fn gone_in_time(watch: &mut Live, label: &str) {
    let what = format!("within {GONE_WITHIN:?} that {label} went");
    let is_it = |event: &serde_json::Value| event["event"] == "removed" && event["user"] == label;
    let removed = watch.expect_within(GONE_WITHIN, &what, is_it);
    assert_eq!(removed["reason"], "left");
}

#[test]
fn a_user_with_two_sessions_stays_online_until_the_last_one_ends() {
    let (_site, server) = mesh::alone();
    let mut alice = watcher(&server);
    let bob = User::register("bob", &server);
    let (mut first, mut second) = (bob.chat(), bob.chat());
    alice.shows("bob@server-a");
    alice.expect("both sessions", |event| event["event"] == "updated" && event["sessions"] == 2);
    // Both receive.
    alice.tell("bob@server-a", "to both");
    assert_eq!(first.message("to both"), "alice@server-a");
    assert_eq!(second.message("to both"), "alice@server-a");
    alice.passed();
    first.quit();
    alice.expect("one session less", |event| event["event"] == "updated" && event["sessions"] == 1);
    alice.tell("bob@server-a", "still there");
    second.message("still there");
    assert_eq!(changes(&alice.passed()), [], "he never went");
    second.quit();
    alice.removed("bob@server-a", "left");
}

#[test]
fn an_old_session_closing_late_removes_nobody() {
    let (_site, server) = mesh::alone();
    let mut alice = watcher(&server);
    for wire in WIRES {
        let bob = Caller::new("bob", &server, wire);
        let mut old = bob.attach();
        alice.added("bob@server-a");
        let new = Caller { channel: soon(wire.connect(&server)), ..bob.clone() };
        let mut stream = new.attach();
        assert_eq!(reason::<()>(Err(old.end())), "REPLACED", "{wire}");
        drop((old, bob));
        // Longer than any grace: somebody comes, and goes after a grace of his own, before bob would have.
        let eve = Caller::new("eve", &server, wire);
        drop(eve.attach());
        alice.added("eve@server-a");
        alice.removed("eve@server-a", "left");
        assert_eq!(changes(&alice.passed()), [], "{wire}: bob is online as before");
        soon(new.messages().detach(new.request(DetachRequest {}))).expect("the token is good");
        assert_eq!(stream.end().code(), tonic::Code::Ok, "{wire}");
        alice.removed("bob@server-a", "left");
    }
}

#[test]
fn watching_does_not_make_a_user_online_and_receiving_does() {
    let mesh = Mesh::started(&[0, 1]);
    let mut alice = watcher(&mesh[0]);
    let bob = User::register("bob", &mesh[1]);
    mesh.expect_link(0, 1);
    let mut watch = bob.watch();
    watch.shows("alice@server-a");
    let lists = bob.json(&["list"]);
    assert!(!lists.iter().any(|line| line["user"] == "bob@server-b"), "{lists:?}");
    let chat = bob.chat();
    alice.added("bob@server-b");
    watch.added("bob@server-b");
    assert_eq!(changes(&alice.passed()), [], "she was shown nothing of him before");
    chat.quit();
    watch.removed("bob@server-b", "left");
    alice.removed("bob@server-b", "left");
}

#[test]
fn a_broken_stream_keeps_its_user_online_for_the_grace_and_no_longer() {
    let (_site, server) = mesh::alone();
    let mut alice = watcher(&server);
    for wire in WIRES {
        let bob = Caller::new("bob", &server, wire);
        let stream = bob.attach();
        alice.added("bob@server-a");
        drop(stream);
        let again = bob.attach();
        // A second user breaks off after him and goes when the grace is over; bob's would have been over before.
        let eve = Caller::new("eve", &server, wire);
        drop(eve.attach());
        alice.added("eve@server-a");
        alice.removed("eve@server-a", "left");
        assert_eq!(changes(&alice.passed()), [], "{wire}: that he was away for a moment is not seen");
        drop(again);
        alice.removed("bob@server-a", "left");
    }
}

#[test]
fn a_client_that_quits_is_removed_at_once() {
    // With a grace of a minute, who goes within the deadline did not wait for one.
    let site = mesh::Site::new("server-a");
    site.configure("[timing]\nattach_grace_ms = 60000");
    let server = site.start();
    let mut alice = watcher(&server);
    let bob = User::register("bob", &server);
    for transport in ["h3", "tcp"] {
        for signal in [None, Some(Signal::TERM), Some(Signal::INT)] {
            let mut chat = bob.chat_with(&["--transport", transport]);
            alice.added("bob@server-a");
            match signal {
                None => chat.quit(),
                Some(signal) => {
                    chat.signal(signal);
                    assert_eq!(chat.wait().code(), Some(0), "{transport}, {signal:?}");
                }
            }
            alice.removed("bob@server-a", "left");
        }
    }
    let mut chat = bob.chat();
    alice.added("bob@server-a");
    chat.close_input();
    assert_eq!(chat.wait().code(), Some(0), "the end of its input ends a chat");
    alice.removed("bob@server-a", "left");
}

#[test]
fn a_client_that_is_killed_is_removed_within_ten_seconds_on_both_transports() {
    let mesh = Mesh::started(&[0, 1]);
    let mut alice = watcher(&mesh[0]);
    let mut gone: Vec<(Live, String)> = Vec::new();
    for (name, transport) in [("bob", "h3"), ("carol", "tcp")] {
        let user = User::register(name, &mesh[1]);
        gone.push((user.chat_with(&["--transport", transport]), user.label.clone()));
        alice.shows(&user.label);
    }
    for (chat, label) in &mut gone {
        chat.kill();
        gone_in_time(&mut alice, label);
    }
}

#[test]
fn a_client_that_is_frozen_is_removed_within_ten_seconds_on_both_transports() {
    let (_site, server) = mesh::alone();
    let mut alice = watcher(&server);
    let mut frozen = Vec::new();
    for (name, transport) in [("bob", "h3"), ("carol", "tcp")] {
        let user = User::register(name, &server);
        let chat = user.chat_with(&["--transport", transport]);
        alice.shows(&user.label);
        frozen.push((chat, user));
    }
    frozen.iter().for_each(|(chat, _)| chat.signal(Signal::STOP));
    let mut left: Vec<&str> = frozen.iter().map(|(_, user)| &user.label[..]).collect();
    while !left.is_empty() {
        let removed = alice.expect_within(GONE_WITHIN, "that the frozen went", |event| event["event"] == "removed");
        left.retain(|label| removed["user"] != *label);
    }
    // Thawed, they are back by themselves.
    frozen.iter().for_each(|(chat, _)| chat.signal(Signal::CONT));
    let mut back: Vec<&str> = frozen.iter().map(|(_, user)| &user.label[..]).collect();
    while !back.is_empty() {
        let added = alice.expect("that the thawed came", |event| event["event"] == "added");
        back.retain(|label| added["user"] != *label);
    }
}

#[test]
fn a_client_that_is_cut_off_is_removed_within_ten_seconds_on_both_transports() {
    let (_site, server) = mesh::alone();
    let mut alice = watcher(&server);
    let forward = Forward::to(server.client);
    let mut chats = Vec::new();
    for (name, transport) in [("bob", "h3"), ("carol", "tcp")] {
        let user = User::register_at(name, &server, forward.address);
        chats.push(user.chat_with(&["--transport", transport]));
        alice.shows(&user.label);
    }
    forward.cut();
    let mut left = vec!["bob@server-a", "carol@server-a"];
    while !left.is_empty() {
        let removed = alice.expect_within(GONE_WITHIN, "that those cut off went", |event| event["event"] == "removed");
        left.retain(|label| removed["user"] != *label);
    }
    for chat in &mut chats {
        chat.expect("that it lost the connection", |event| event["event"] == "disconnected");
    }
}

#[test]
fn logging_in_proves_possession_of_the_private_key() {
    let (_site, server) = mesh::alone();
    for wire in WIRES {
        let alice = Caller::new("alice", &server, wire);
        let nonce = challenge(&alice.channel, "alice");
        let stolen = log_in(&alice.channel, login(server.id, "alice", &nonce, "mallory"));
        assert_eq!(reason(stolen), "INVALID_SIG", "{wire}");
        let nonce = challenge(&alice.channel, "alice");
        let mut other = login(server.id, "alice", &nonce, "alice");
        other.statement = login(server.id, "mallory", &nonce, "mallory").statement;
        assert_eq!(reason(log_in(&alice.channel, other)), "NONCE_EXPIRED", "{wire}: the nonce is another user's");
        let unknown = challenge(&alice.channel, "nobody");
        assert_eq!(reason(log_in(&alice.channel, login(server.id, "nobody", &unknown, "alice"))), "USER_NOT_FOUND");
    }
}

#[test]
fn a_login_cannot_be_replayed() {
    let (_site, server) = mesh::alone();
    for wire in WIRES {
        let alice = Caller::new("alice", &server, wire);
        let nonce = challenge(&alice.channel, "alice");
        let request = login(server.id, "alice", &nonce, "alice");
        log_in(&alice.channel, request.clone()).expect("the first time it is good");
        assert_eq!(reason(log_in(&alice.channel, request)), "NONCE_EXPIRED", "{wire}");
        let made_up = login(server.id, "alice", &[9; 32], "alice");
        assert_eq!(reason(log_in(&alice.channel, made_up)), "NONCE_EXPIRED", "{wire}");
    }
}

#[test]
fn a_relaying_server_cannot_log_in_elsewhere_with_a_signature_that_it_was_given() {
    let mesh = Mesh::started(&[0, 1]);
    for wire in WIRES {
        // Alice is at home on A, and B has her at its door with the challenge that A gave to B.
        let alice = Caller::new("alice", &mesh[0], wire);
        let nonce = challenge(&alice.channel, "alice");
        let given_to_b = login(mesh[1].id, "alice", &nonce, "alice");
        assert_eq!(reason(log_in(&alice.channel, given_to_b)), "WRONG_SERVER", "{wire}");
    }
}

#[test]
fn a_session_ends_with_log_out_and_its_token_is_void() {
    let (_site, server) = mesh::alone();
    let mut alice = watcher(&server);
    let bob = User::register("bob", &server);
    for wire in WIRES {
        let channel = soon(wire.connect(&server));
        let token = bob.token();
        let mut chat = bob.chat();
        alice.added("bob@server-a");
        let sessions = bob.json(&["sessions"]);
        let attached = sessions.iter().find(|session| session["attached"] == true).expect("the chat's session");
        let log_out = |more: &[&str]| {
            let output = bob.run(&[&["logout"], more].concat());
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        };
        log_out(&["--session", attached["session_id"].as_str().expect("an id is text")]);
        alice.removed("bob@server-a", "left");
        log_out(&[]);
        let request = caller::with_token(&token, ListSessionsRequest {});
        let refused = soon(caller::accounts(&channel).list_sessions(request));
        assert_eq!(reason(refused), "TOKEN_INVALID", "{wire}");
        chat.wait();
    }
}

#[test]
fn a_user_sees_and_ends_sessions_of_the_same_user_only() {
    let (_site, server) = mesh::alone();
    let [alice, other, bob] = ["alice", "alice", "bob"].map(|name| Caller::new(name, &server, Wire::H3));
    let sessions = |caller: &Caller| {
        let answer = soon(caller.accounts().list_sessions(caller.request(ListSessionsRequest {})));
        answer.map(|answer| answer.into_inner().sessions)
    };
    let listed = sessions(&alice).expect("the token is good");
    assert_eq!(listed.iter().map(|session| session.current).collect::<Vec<_>>(), [true, false]);
    let second = listed[1].session_id.clone();
    let end = |caller: &Caller| {
        let request = caller.request(LogOutRequest { session_id: second.clone() });
        soon(caller.accounts().log_out(request)).expect("a session that is not the user's is answered alike");
    };
    end(&bob);
    assert_eq!(sessions(&alice).expect("the token is good").len(), 2, "it is not bob's to end");
    end(&alice);
    assert_eq!(reason(sessions(&other)), "TOKEN_INVALID");
}
