//! What was received before, as the client reads it back.

use prost::bytes::Bytes;
use serde_json::Value;
use socp::v1::SealedMessage;

use crate::harness::{
    caller::Caller,
    client::User,
    draft::{flipped, sealed, send},
    mesh::Mesh,
    wire::Wire,
};

/// What `socp history` tells, each message in a word, and its last line.
#[track_caller]
fn history(user: &User, arguments: &[&str]) -> (Vec<String>, Value) {
    let mut events = user.json(&[&["history"], arguments].concat());
    let end = events.pop().expect("it sums up");
    assert_eq!(end["event"], "history_end");
    (events.iter().map(told).collect(), end)
}

fn told(event: &Value) -> String {
    let text = match event["event"].as_str() {
        Some("history") => event["text"].as_str(),
        Some("history_unreadable") => event["why"].as_str(),
        _ => None,
    };
    let mark = if event["unread"] == true { "*" } else { "" };
    format!("{mark}{}", text.unwrap_or_else(|| panic!("neither text nor why: {event}")))
}

#[track_caller]
fn tell(from: &User, to: &User, text: &str) {
    assert_eq!(from.json(&["tell", &to.label, text])[0]["event"], "sent");
}

#[test]
fn history_shows_what_was_received_verified_with_unreadable_ones_as_such_and_goes_online_for_nobody() {
    let mut mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let [alice, carol, bob] =
        [("alice", 0), ("carol", 0), ("bob", 1)].map(|(name, at)| User::register(name, &mesh[at]));
    tell(&alice, &bob, "one");
    // Signed by her, and made unreadable where it is not signed.
    let by_hand = Caller::new("alice", &mesh[0], Wire::H3);
    let to_bob = Caller::new("bob", &mesh[1], Wire::H3);
    let message = sealed(&by_hand, &to_bob.address, to_bob.key.public(), "spoilt");
    let wrapped_key: Bytes = flipped(&message.wrapped_key, 100);
    send(&by_hand, SealedMessage { wrapped_key, ..message }).expect("no server can tell");
    tell(&carol, &bob, "two");
    tell(&alice, &bob, "three");
    let (shown, end) = history(&bob, &[]);
    assert_eq!(shown, ["*one", "*unreadable", "*two", "*three"]);
    assert_eq!((&end["shown"], &end["unread"], &end["has_older"]), (&4.into(), &4.into(), &false.into()));
    let (shown, end) = history(&bob, &["alice", "-n", "2"]);
    assert_eq!((shown, &end["has_older"]), (vec!["*unreadable".into(), "*three".into()], &true.into()));
    let first = &bob.json(&["history", "-n", "4"])[0];
    assert_eq!((&first["from"], first["received_unix_ms"].is_i64()), (&alice.label.as_str().into(), true), "{first}");
    assert_eq!(alice.json(&["list"])[0]["entries"], 0, "nobody came online");

    // While alice's and carol's home is away, what was verified once is verified again; of dave nothing is known.
    let dave = User::register("dave", &mesh[0]);
    tell(&dave, &bob, "four");
    mesh.kill(0);
    mesh[1].log(&["peer lost"]);
    assert_eq!(history(&bob, &[]).0, ["*one", "*unreadable", "*two", "*three", "*unverified"]);
    assert_eq!(history(&bob, &["carol"]).0, ["*two"], "of the two carol is pinned");
    mesh.start(0);
    mesh.expect_link(1, 0);
    assert_eq!(history(&bob, &["-n", "1"]).0, ["*four"]);
}

#[test]
fn a_chat_says_how_many_came_while_the_device_was_away_and_marks_them() {
    let mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let [alice, bob] = [("alice", 0), ("bob", 1)].map(|(name, at)| User::register(name, &mesh[at]));
    for text in ["one", "two"] {
        tell(&alice, &bob, text);
    }
    let mut chat = bob.start(&["chat"]);
    let mut expect = |what: &str| {
        let is_it = |event: &Value| matches!(event["event"].as_str(), Some("unread" | "message"));
        chat.expect(what, is_it)
    };
    assert_eq!(expect("how many came")["messages"], 2);
    for text in ["one", "two"] {
        let event = expect(text);
        assert_eq!((&event["text"], &event["unread"]), (&text.into(), &true.into()));
    }
    tell(&alice, &bob, "three");
    let event = expect("three");
    assert_eq!((&event["text"], &event["unread"]), (&"three".into(), &false.into()));
    chat.say("/history alice 2");
    let end = chat.expect("the end", |event| event["event"] == "history_end");
    assert_eq!((&end["shown"], &end["has_older"]), (&2.into(), &true.into()));
    let past = chat.passed().into_iter().filter(|event| event["event"] == "history");
    assert_eq!(past.map(|event| event["text"].clone()).collect::<Vec<_>>(), ["two", "three"]);
    chat.quit();
    assert_eq!(history(&bob, &["--unread"]).0, Vec::<String>::new());
    tell(&alice, &bob, "four");
    for _ in 0..2 {
        let (shown, end) = history(&bob, &["--unread"]);
        assert_eq!((shown, &end["unread"]), (vec!["*four".to_owned()], &1.into()), "looking does not mark it as read");
    }
    let mut chat = bob.start(&["chat"]);
    let unread = chat.expect("how many came", |event| event["event"] == "unread");
    assert_eq!(unread["messages"], 1);
    assert_eq!(chat.message("four"), alice.label);
    chat.quit();
    let mut chat = bob.chat();
    tell(&alice, &bob, "five");
    chat.message("five");
    assert!(chat.passed().iter().all(|event| event["event"] != "unread"), "nothing came meanwhile");
}
