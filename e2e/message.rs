//! Messages and posts between real clients, and what a sender by hand cannot get away with.

use std::time::Duration;

use prost::Message as _;
use rustix::process::Signal;
use socp::message::Message;
use socp::v1::{ListSessionsRequest, MessageStatement, SealedMessage, attach_response};

use crate::harness::{
    caller::{Caller, name},
    client::{Live, User},
    draft::{flipped, message_id, now_unix_ms, readdressed, resigned, sealed, send},
    keys,
    mesh::{self, Mesh},
    soon,
    wire::{WIRES, Wire, reason},
};

const DAY_MS: i64 = 24 * 3_600_000;

#[test]
fn tell_works_across_servers_the_moment_the_recipient_is_shown_in_both_directions() {
    let mesh = Mesh::started(&[0, 1]);
    let [alice, bob] = [("alice", 0), ("bob", 1)].map(|(name, at)| User::register(name, &mesh[at]));
    let mut alice = alice.chat();
    let mut bob = bob.chat();
    bob.shows("alice@server-a");
    alice.shows("bob@server-b");
    // Both speak before either has heard anything.
    alice.say("/tell bob@server-b from alice, with ü and 😀");
    bob.say("/tell alice@server-a from bob");
    assert_eq!(bob.message("from alice, with ü and 😀"), "alice@server-a");
    assert_eq!(alice.message("from bob"), "bob@server-b");
    // A bare name is enough while it means one user only.
    alice.tell("bob", "once more");
    bob.message("once more");
}

#[test]
fn a_post_reaches_every_other_user_who_is_online_and_never_the_sender() {
    let mesh = Mesh::started(&[0, 1, 2]);
    let users: Vec<User> =
        [("alice", 0), ("bob", 0), ("carol", 1), ("dave", 2)].map(|(name, at)| User::register(name, &mesh[at])).into();
    let _away = User::register("eve", &mesh[2]);
    let mut chats: Vec<Live> = users.iter().map(User::chat).collect();
    for chat in &mut chats {
        users.iter().for_each(|user| chat.shows(&user.label));
    }
    for (index, user) in users.iter().enumerate() {
        let text = format!("all, says {}", user.label);
        chats[index].say(&format!("/all {text}"));
        let sent = chats[index].answer();
        assert_eq!((&sent["outcome"], &sent["recipients"]), (&"handed_over".into(), &3.into()), "{sent}");
        for (other, chat) in chats.iter_mut().enumerate().filter(|(other, _)| *other != index) {
            assert_eq!(chat.post(&text), user.label, "{other}");
        }
    }
    for (chat, user) in chats.iter_mut().zip(&users) {
        // A message to oneself comes after whatever the server had for one before.
        chat.say(&format!("/tell {} a word to myself", user.label));
        chat.message("a word to myself");
        let told = chat.passed();
        let own = told.iter().find(|event| event["event"] == "post" && event["from"] == user.label.as_str());
        assert!(own.is_none(), "{own:?}");
    }
}

#[test]
fn a_member_whose_client_starts_again_reads_the_next_post() {
    let (_site, server) = mesh::alone();
    let (alice, bob) = (User::register("alice", &server), User::register("bob", &server));
    let (mut at_alices, mut at_bobs) = (alice.chat(), bob.chat());
    at_alices.shows(&bob.label);
    at_alices.say("/all one");
    assert_eq!(at_bobs.post("one"), alice.label);
    assert_eq!(at_alices.answer()["outcome"], "handed_over");
    // The channel key dies with bob's process; his next one is seen as another session, and gets it again.
    at_bobs.kill();
    let mut again = bob.chat();
    at_alices.expect("another session of bob's", |event| {
        event["event"] == "updated" && event["user"] == bob.label.as_str() && event["sessions"] == 2
    });
    at_alices.say("/all two");
    assert_eq!(again.post("two"), alice.label);
}

#[test]
fn a_member_who_misses_a_post_by_a_broken_stream_reads_the_next_one() {
    let site = mesh::Site::new("server-a");
    // A grace that lasts for the whole test.
    site.configure("[timing]\nattach_grace_ms = 60000");
    let server = site.start();
    let mut alice = User::register("alice", &server).chat();
    let bob = Caller::new("bob", &server, Wire::Tcp);
    drop(bob.attach());
    alice.shows("bob@server-a");
    // The server has noticed.
    soon(async {
        let sessions = async || bob.accounts().list_sessions(bob.request(ListSessionsRequest {})).await;
        while sessions().await.expect("the token is good").into_inner().sessions[0].attached {}
    });
    alice.say("/all one");
    assert_eq!(alice.answer()["recipients"], 0);
    // His entry is the same all the time.
    let mut inbox = bob.attach();
    alice.say("/all two");
    assert_eq!(alice.answer()["recipients"], 1);
    let Some(attach_response::Event::Post(received)) = inbox.next().event else { panic!("a post came") };
    assert!(bob.key.unwrap(&received.wrapped_channel_key).is_some(), "he got the channel key with it");
}

#[test]
fn with_nobody_else_online_a_post_says_so() {
    let (_site, server) = mesh::alone();
    let alice = User::register("alice", &server);
    let mut chat = alice.chat();
    chat.say("/all is anybody there?");
    assert_eq!(chat.answer()["reason"], "NOBODY_ONLINE");
    let output = alice.run(&["all", "is anybody there?"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody else is online"));
}

/// What bob's home hands to him when alice's client tells him something.
fn captured(text: &str) -> SealedMessage {
    let mesh = Mesh::started(&[0, 1]);
    let mut alice = User::register("alice", &mesh[0]).chat();
    let bob = Caller::new("bob", &mesh[1], Wire::H3);
    let mut inbox = bob.attach();
    alice.added("bob@server-b");
    alice.tell("bob@server-b", text);
    let Some(attach_response::Event::Message(received)) = inbox.next().event else { panic!("a message came") };
    received.message.expect("it is in it")
}

#[test]
fn servers_route_and_cannot_read() {
    let text = "the plaintext that no server sees";
    let envelope = captured(text);
    let bytes = envelope.encode_to_vec();
    let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    assert!(!holds(text.as_bytes()) && !holds(b"plaintext"));
    assert!(holds(b"alice") && holds(b"bob"), "whom it is from and for, servers can read");
    assert_eq!((envelope.signature.len(), envelope.wrapped_key.len()), (512, 512), "RSA-4096, both");
    let mallory = keys::key("mallory");
    assert!(mallory.unwrap(&envelope.wrapped_key).is_none(), "the key is for bob alone");
    assert!(keys::key("bob").unwrap(&envelope.wrapped_key).is_some());
}

#[test]
fn the_recipient_verifies_the_very_bytes_that_the_sender_signed_against_a_key_known_independently_of_the_message() {
    let mesh = Mesh::started(&[0, 1]);
    let alice = Caller::new("alice", &mesh[0], Wire::H3);
    let bob = User::register("bob", &mesh[1]);
    let mut chat = bob.chat();
    let (to, key) = (socp::message::Address { home: mesh[1].id, user: name("bob") }, keys::key("bob"));
    mesh.expect_link(0, 1);
    let good = || sealed(&alice, &to, key.public(), "as it was signed");
    // What is signed is checked where it is submitted, and not one bit may differ.
    let bits = good().statement.len();
    for index in [2, bits / 2, bits - 1] {
        let altered = SealedMessage { statement: flipped(&good().statement, index), ..good() };
        let name = reason(send(&alice, altered));
        assert!(["INVALID_SIG", "SENDER_MISMATCH", "STATEMENT_INVALID"].contains(&&name[..]), "{index}: {name}");
    }
    let altered = |change: fn(&mut MessageStatement)| {
        let message = good();
        let statement = resigned(&message, &alice.key, change).statement;
        SealedMessage { statement, ..message }
    };
    let ciphertext = altered(|statement| statement.ciphertext = flipped(&statement.ciphertext, 0));
    assert_eq!(reason(send(&alice, ciphertext)), "INVALID_SIG", "another ciphertext under the same signature");
    let message = good();
    let later = readdressed(&message, &alice.key, |header| header.time_unix_ms += 1).statement;
    let header = SealedMessage { statement: later, ..message };
    assert_eq!(reason(send(&alice, header)), "INVALID_SIG", "another time under the same signature");
    let signature = SealedMessage { signature: flipped(&good().signature, 100), ..good() };
    assert_eq!(reason(send(&alice, signature)), "INVALID_SIG");
    // What is not signed, and what a dishonest sender signed, the recipient's own client finds out.
    let swapped = SealedMessage { wrapped_key: good().wrapped_key, ..good() };
    let relabelled = readdressed(&good(), &alice.key, |header| header.time_unix_ms -= 1);
    let mixed = resigned(&good(), &alice.key, |statement| statement.ciphertext = flipped(&statement.ciphertext, 0));
    for bad in [swapped, relabelled, mixed] {
        send(&alice, bad).expect("no server can tell");
        let shown = chat.expect("something unreadable", |event| event["event"] != "added");
        assert_eq!((&shown["event"], &shown["kind"]), (&"unreadable".into(), &"message".into()), "{shown}");
    }
    send(&alice, good()).expect("it is good");
    assert_eq!(chat.message("as it was signed"), "alice@server-a");
}

#[test]
fn the_sender_of_a_message_to_someone_who_has_just_left_is_told_so_and_it_waits_for_them() {
    let mesh = Mesh::started(&[0, 1]);
    let [alice, bob] = [("alice", 0), ("bob", 1)].map(|(name, at)| User::register(name, &mesh[at]));
    let (mut alice, mut at_bobs) = (alice.chat(), bob.chat());
    alice.shows("bob@server-b");
    alice.tell("bob@server-b", "hello");
    at_bobs.message("hello");
    at_bobs.quit();
    alice.removed("bob@server-b", "left");
    let notice = alice.expect("the notice", |event| event["event"] == "recipient_offline");
    assert_eq!(notice["user"], "bob@server-b");
    alice.say("/tell bob@server-b are you there?");
    let sent = alice.answer();
    assert_eq!((&sent["event"], &sent["outcome"]), (&"sent".into(), &"stored".into()), "{sent}");
    let mut at_bobs = bob.chat();
    alice.added("bob@server-b");
    alice.tell("bob@server-b", "welcome back");
    at_bobs.message("are you there?");
    at_bobs.message("welcome back");
}

#[test]
fn every_wrong_message_gives_its_own_typed_error() {
    let mesh = Mesh::started(&[0, 1]);
    for (wire, home) in [(WIRES[0], 0), (WIRES[1], 0), (WIRES[0], 1), (WIRES[1], 1)] {
        let alice = Caller::new("alice", &mesh[0], wire);
        let bob = Caller::new("bob", &mesh[home], wire);
        mesh.expect_link(0, 1);
        let key = bob.key.public();
        let good = || sealed(&alice, &bob.address, key, "hello");
        let refused = |message: SealedMessage| reason(send(&alice, message));
        let of = |change: fn(&mut socp::v1::MessageHeader)| readdressed(&good(), &alice.key, change);
        assert_eq!(refused(of(|header| header.require_online = true)), "RECIPIENT_OFFLINE", "{wire}, {home}");
        let _inbox = bob.attach();
        assert_eq!(refused(of(|header| header.recipient = "nobody".into())), "USER_NOT_FOUND");
        assert_eq!(refused(of(|header| header.recipient_home_id = "ab".repeat(32))), "USER_NOT_FOUND");
        assert_eq!(refused(of(|header| header.recipient_key_sha256 = vec![1; 32].into())), "RECIPIENT_KEY_CHANGED");
        assert_eq!(refused(of(|header| header.sender = "bob".into())), "SENDER_MISMATCH");
        assert_eq!(refused(of(|header| header.sender_key_sha256 = vec![1; 32].into())), "SENDER_MISMATCH");
        assert_eq!(refused(of(|header| header.recipient = "Bob".into())), "NAME_INVALID");
        assert_eq!(refused(of(|header| header.suite = 2)), "UNKNOWN_TYPE");
        assert_eq!(refused(of(|header| header.message_id = "1".into())), "STATEMENT_INVALID");
        assert_eq!(refused(of(|header| header.time_unix_ms = now_unix_ms() - 8 * DAY_MS)), "TIME_OUT_OF_RANGE");
        assert_eq!(refused(of(|header| header.time_unix_ms = now_unix_ms() + 600_000)), "TIME_OUT_OF_RANGE");
        assert_eq!(refused(SealedMessage::default()), "INVALID_SIG");
        assert_eq!(refused(resigned(&good(), &keys::key("mallory"), |_| {})), "INVALID_SIG");
        let short = SealedMessage { wrapped_key: vec![1; 256].into(), ..good() };
        assert_eq!(refused(short), "STATEMENT_INVALID");
        let oversized = sealed(&alice, &bob.address, key, &"x".repeat(66 * 1024));
        assert_eq!(refused(oversized), "TOO_LARGE");
        let stranger = Caller { token: "0".repeat(64), ..alice.clone() };
        assert_eq!(reason(send(&stranger, good())), "TOKEN_INVALID");
        send(&alice, good()).expect("nothing of this was counted against her");
    }
}

#[test]
fn a_retry_never_delivers_twice_and_is_answered_as_the_first_was() {
    let mesh = Mesh::started(&[0, 1]);
    let alice = Caller::new("alice", &mesh[0], Wire::H3);
    let bob = User::register("bob", &mesh[1]);
    let mut chat = bob.chat();
    mesh.expect_link(0, 1);
    let to = socp::message::Address { home: mesh[1].id, user: name("bob") };
    let key = keys::key("bob");
    let message = sealed(&alice, &to, key.public(), "once");
    for _ in 0..3 {
        send(&alice, message.clone()).expect("a retry is answered alike");
    }
    let other = sealed(&alice, &to, key.public(), "under the same id");
    let id = message_id();
    let reused = [message_of(&alice, &other, &id), message_of(&alice, &sealed(&alice, &to, key.public(), "2"), &id)];
    send(&alice, reused[0].clone()).expect("the id is new");
    assert_eq!(reason(send(&alice, reused[1].clone())), "ID_REUSED");
    send(&alice, sealed(&alice, &to, key.public(), "the last")).expect("it is good");
    chat.message("the last");
    let told = chat.passed();
    assert_eq!(told.iter().filter(|event| event["event"] == "message" && event["text"] == "once").count(), 1);
}

fn message_of(from: &Caller, sealed: &SealedMessage, id: &str) -> SealedMessage {
    readdressed(sealed, &from.key, |header| header.message_id = id.into())
}

#[test]
fn what_a_home_does_not_answer_is_queued_and_brought_later_unless_it_is_for_the_present_only() {
    let mesh = Mesh::started(&[0, 1]);
    let alice = Caller::new("alice", &mesh[0], Wire::H3);
    let mut watch = User::register("carol", &mesh[0]).watch();
    let bob = Caller::new("bob", &mesh[1], Wire::H3);
    let mut inbox = bob.attach();
    watch.shows("bob@server-b");
    mesh[1].program.signal(Signal::STOP);
    let good = |text: &str| sealed(&alice, &bob.address, bob.key.public(), text);
    let present = || readdressed(&good("now or never"), &alice.key, |header| header.require_online = true);
    assert_eq!(reason(send(&alice, present())), "TIMEOUT");
    let drafts = [good("one"), good("two"), good("three")];
    send(&alice, drafts[0].clone()).expect("it is queued after a while");
    let is_gone = |event: &serde_json::Value| event["event"] == "removed" && event["reason"] == "unreachable";
    watch.expect_within(Duration::from_secs(10), "that bob went", is_gone);
    assert_eq!(reason(send(&alice, present())), "HOME_UNREACHABLE");
    send(&alice, drafts[1].clone()).expect("it is queued at once");
    mesh[1].program.signal(Signal::CONT);
    watch.added("bob@server-b");
    send(&alice, drafts[2].clone()).expect("it comes after those that are queued");
    let mut received = Vec::new();
    while received.len() < drafts.len() {
        if let Some(attach_response::Event::Message(message)) = inbox.next().event {
            received.extend(message.message.filter(|message| drafts.contains(message)));
        }
    }
    assert_eq!(received, drafts);
    // The sender is told what became of what was queued.
    let mut told = alice.attach();
    let mut ids = Vec::new();
    while ids.len() < 2 {
        if let Some(attach_response::Event::Outcome(outcome)) = told.next().event {
            assert_eq!((&*outcome.recipient, outcome.recipient_home_id), ("bob", bob.address.home.to_string()));
            ids.push(outcome.message_id);
        }
    }
    let id = |message: &SealedMessage| Message::parse(message).expect("it is well-formed").authorship.id.to_string();
    assert_eq!(ids, [id(&drafts[0]), id(&drafts[1])]);
}
