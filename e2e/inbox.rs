//! Inboxes of real servers: what was accepted is on disk, and every device reads it.

use std::{sync::mpsc, thread};

use socp::v1::{AttachRequest, AttachResponse, SealedMessage, attach_response};

use crate::harness::{
    caller::{Caller, Stream},
    client::User,
    draft::{sealed, send},
    mesh::{self, Mesh},
    wire::{Wire, reason},
};

/// The next so many messages of a stream, with their cursors.
#[track_caller]
fn read(stream: &mut Stream<AttachResponse>, count: usize) -> Vec<(SealedMessage, String)> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let response = stream.next();
        if let Some(attach_response::Event::Message(received)) = response.event {
            messages.push((received.message.expect("it is in it"), response.cursor));
        }
    }
    messages
}

#[test]
fn what_was_accepted_outlives_the_kill_of_the_recipients_home_once_and_in_order() {
    let mut mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let mut watch = User::register("carol", &mesh[1]).watch();
    for home in [0, 1] {
        let name = format!("bob{home}");
        let mut alice = Caller::new("alice", &mesh[0], Wire::Tcp);
        let bob = Caller::new(&name, &mesh[home], Wire::Tcp);
        let drafts: Vec<SealedMessage> =
            (0..60).map(|count| sealed(&alice, &bob.address, bob.key.public(), &format!("number {count}"))).collect();
        // Senders write down what was accepted; in the midst of it the home is killed.
        let (accepts, accepted) = mpsc::channel();
        let count = thread::scope(|scope| {
            scope.spawn(|| {
                let taken = drafts.iter().take_while(|draft| send(&alice, (*draft).clone()).is_ok());
                taken.for_each(|_| accepts.send(()).expect("it is written down"));
                drop(accepts);
            });
            for _ in 0..20 {
                accepted.recv().expect("so many are accepted");
            }
            mesh.kill(home);
            20 + accepted.iter().count()
        });
        // What the sender's home accepts for the other one meanwhile is queued there.
        assert_eq!(count < drafts.len(), home == 0, "home {home}, {count} accepted");
        mesh.start(home);
        let bob = Caller::new(&name, &mesh[home], Wire::Tcp);
        let mut stream = bob.attach();
        for ((message, _), draft) in read(&mut stream, count).iter().zip(&drafts) {
            assert_eq!(message, draft, "home {home}, {count} accepted");
        }
        // The others are sent again, byte for byte, and whether one of them was on disk makes no difference.
        if home == 0 {
            alice = Caller::new("alice", &mesh[0], Wire::Tcp);
        } else {
            watch = User::register("dave", &mesh[0]).watch();
            watch.shows(&format!("{name}@server-b"));
        }
        drafts[count - 1..].iter().for_each(|draft| send(&alice, draft.clone()).expect("it is good"));
        let mut other = bob.other_session().attach();
        let all = read(&mut other, drafts.len());
        assert_eq!(all.iter().map(|(message, _)| message).collect::<Vec<_>>(), drafts.iter().collect::<Vec<_>>());
        // One who has most of it reads the rest, and then goes on with what is new.
        let mut after = bob.other_session().attach_after(&all[49].1);
        send(&alice, sealed(&alice, &bob.address, bob.key.public(), "the last")).expect("it is good");
        let rest = read(&mut after, 11);
        assert_eq!(rest[..10], all[50..]);
    }
    drop(watch);
}

#[test]
fn a_cursor_that_is_of_no_message_is_out_of_range() {
    let (_site, server) = mesh::alone();
    let bob = Caller::new("bob", &server, Wire::H3);
    for cursor in ["1-0000000000000000", "nonsense"] {
        let request = AttachRequest { cursor: cursor.into(), ..AttachRequest::default() };
        let status = bob.try_attach(request).expect_err("it is of no message");
        assert_eq!((status.code(), reason(Err::<(), _>(status)).as_str()), (tonic::Code::OutOfRange, "CURSOR_UNKNOWN"));
    }
}

#[test]
fn a_client_that_starts_again_shows_what_came_meanwhile_and_nothing_twice() {
    let mesh = Mesh::started(&[0, 1]);
    let [alice, bob] = [("alice", 0), ("bob", 1)].map(|(name, at)| User::register(name, &mesh[at]));
    let (mut at_alices, mut at_bobs) = (alice.chat(), bob.chat());
    at_alices.shows(&bob.label);
    at_alices.tell(&bob.label, "while he is here");
    at_bobs.message("while he is here");
    at_bobs.quit();
    at_alices.removed(&bob.label, "left");
    for text in ["one", "two", "three"] {
        at_alices.say(&format!("/tell {} {text}", bob.label));
        assert_eq!(at_alices.answer()["outcome"], "stored");
    }
    // Before or after the present state; so nothing is passed over.
    let mut at_bobs = bob.start(&["chat"]);
    assert_eq!(at_bobs.message("three"), alice.label);
    let before = at_bobs.passed();
    let texts = before.iter().filter(|event| event["event"] == "message").map(|event| &event["text"]);
    assert_eq!(texts.collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn who_asks_is_told_by_the_recipient_alone_that_a_message_was_delivered_or_read() {
    let mesh = Mesh::started(&[0, 1]);
    let [alice, bob] = [("alice", 0), ("bob", 1)].map(|(name, at)| User::register(name, &mesh[at]));
    let mut at_alices = alice.start(&["chat", "--receipts", "read"]);
    let mut at_bobs = bob.start(&["chat", "--receipts", "delivered"]);
    at_alices.shows(&bob.label);
    let mut sent = Vec::new();
    for text in ["one", "two"] {
        at_alices.say(&format!("/tell {} {text}", bob.label));
        sent.push(at_alices.answer()["id"].clone());
        at_bobs.message(text);
    }
    let mut told = Vec::new();
    while told.len() < sent.len() {
        let receipt = at_alices.expect("a receipt", |event| event["event"] == "receipt");
        assert_eq!(
            (&receipt["from"], &receipt["kind"]),
            (&bob.label.as_str().into(), &"delivered".into()),
            "{receipt}"
        );
        told.extend(receipt["ids"].as_array().expect("ids").clone());
    }
    assert_eq!(told, sent);
    // One who was away is told as well: the receipt waits in the inbox.
    at_bobs.say(&format!("/tell {} three", alice.label));
    let third = at_bobs.answer()["id"].clone();
    at_alices.message("three");
    at_bobs.quit();
    at_alices.quit();
    let mut at_bobs = bob.start(&["chat"]);
    let receipt = at_bobs.expect("a receipt", |event| event["event"] == "receipt");
    assert_eq!((&receipt["kind"], &receipt["ids"]), (&"read".into(), &vec![third].into()));
    at_bobs.quit();
    let mut at_alices = alice.start(&["chat"]);
    at_alices.say("/history");
    let end = at_alices.expect("the end of the history", |event| event["event"] == "history_end");
    assert_eq!(end["shown"], 1, "a receipt is no message");
}
