//! What a hostile home hands to its own users: none of it is shown as anything but unreadable, and none of it keeps what is true
//! from being shown.

use prost::{Message as _, bytes::Bytes};
use serde_json::Value;
use socp::{
    message::Address,
    signed::{Label, signing_input},
    v1::{
        AttachResponse, MessageHeader, Outcome, OutcomeKind, OutcomeStatement, PostStatement, ReceivedMessage,
        ReceivedOutcome, ReceivedPost, SealedMessage, SealedPost, SignedOutcome, attach_response::Event,
    },
};
use socp_client::public_key;

use crate::harness::{
    caller::{Caller, name},
    client::{Live, User},
    draft::{flipped, message_id, readdressed, resigned, sealed, send},
    hostile::Hostile,
    keys, mesh,
    wire::Wire,
};

fn message(sealed: &SealedMessage, cursor: &str) -> AttachResponse {
    let received = ReceivedMessage { message: Some(sealed.clone()), received_unix_ms: 1 };
    AttachResponse { event: Some(Event::Message(received)), cursor: cursor.into() }
}

/// The message that the true home had for the user.
#[track_caller]
fn taken(home: &mut Hostile) -> (SealedMessage, String) {
    match home.takes() {
        AttachResponse { event: Some(Event::Message(received)), cursor } => {
            (received.message.expect("it is in it"), cursor)
        }
        other => panic!("a message, not {other:?}"),
    }
}

/// A message with another header under the same signature.
fn with_header(sealed: &SealedMessage, change: impl FnOnce(&mut MessageHeader)) -> SealedMessage {
    let altered = readdressed(sealed, &keys::key("mallory"), change);
    SealedMessage { signature: sealed.signature.clone(), ..altered }
}

#[track_caller]
fn unreadable(chat: &mut Live, what: &str, kind: &str) {
    let is_shown = |event: &Value| {
        matches!(event["event"].as_str(), Some("unreadable" | "message" | "post" | "file" | "settled" | "key_changed"))
    };
    let shown = chat.expect(what, is_shown);
    assert_eq!((&shown["event"], &shown["kind"]), (&"unreadable".into(), &kind.into()), "{what}: {shown}");
}

#[test]
fn what_a_hostile_home_makes_of_messages_is_unreadable_and_a_replay_is_not_shown() {
    let (_site, server) = mesh::alone();
    let mut home = Hostile::before(&server);
    let bob = User::register_at("bob", &server, home.address);
    let mut chat = bob.chat();
    let [alice, mallory] = ["alice", "mallory"].map(|user| Caller::new(user, &server, Wire::H3));
    let (_alices, _mallorys) = (alice.attach(), mallory.attach());
    chat.shows("alice@server-a");
    chat.shows("mallory@server-a");
    let (to, key) = (Address { home: server.id, user: name("bob") }, keys::key("bob"));
    let from_alice = |text: &str| sealed(&alice, &to, key.public(), text);

    send(&alice, from_alice("once")).expect("it is good");
    let (once, cursor) = taken(&mut home);
    home.says(&message(&once, &cursor));
    assert_eq!(chat.message("once"), "alice@server-a");

    send(&alice, from_alice("the true one")).expect("it is good");
    let (honest, cursor) = taken(&mut home);
    let mallorys_key = keys::key("mallory");
    let other = sealed(&alice, &Address { home: server.id, user: name("mallory") }, key.public(), "to mallory");
    let to_mallory = sealed(&alice, &mallory.address, mallory.key.public(), "to mallory");
    let wrapped = |to: &socp::user_key::UserKey, plain: [u8; 32]| public_key::wrap(to, &plain).expect("the key wraps");
    let content_key = *key.unwrap(&honest.wrapped_key).expect("it is wrapped to bob");
    let forged = readdressed(&sealed(&mallory, &to, key.public(), "it is me, alice"), &mallorys_key, |header| {
        header.sender = "alice".into();
        header.sender_key_sha256 = alice.key.public().fingerprint().as_bytes().to_vec().into();
    });
    let re_signed = readdressed(&honest, &mallorys_key, |header| header.time_unix_ms += 1);
    let in_the_name_of_mallory = readdressed(&honest, &mallorys_key, |header| {
        header.sender = "mallory".into();
        header.sender_key_sha256 = mallorys_key.public().fingerprint().as_bytes().to_vec().into();
    });
    let end = honest.statement.len() - 1;
    let altered = SealedMessage { statement: flipped(&honest.statement, end), ..honest.clone() };
    for (what, hostile) in [
        ("a header altered", with_header(&honest, |header| header.time_unix_ms += 1)),
        ("a replay under another id", with_header(&once, |header| header.message_id = message_id())),
        ("a header altered and signed by another key", re_signed),
        ("a sender forged", forged),
        ("another sender's name on a message, signed by that sender", in_the_name_of_mallory),
        ("a message for another recipient, wrapped to this one", other),
        ("a message for another recipient", to_mallory),
        ("a message readdressed to this one", with_header(&honest, |header| header.recipient = "carol".into())),
        ("the content key wrapped to another key", {
            SealedMessage { wrapped_key: wrapped(mallorys_key.public(), content_key), ..honest.clone() }
        }),
        ("another content key wrapped", {
            SealedMessage { wrapped_key: wrapped(key.public(), [1; 32]), ..honest.clone() }
        }),
        ("no content key wrapped", SealedMessage { wrapped_key: Vec::new().into(), ..honest.clone() }),
        ("a ciphertext altered", altered),
        ("a file put beside the text", {
            let with_file = resigned(&honest, &mallorys_key, |said| {
                (said.file_nonce, said.file_ciphertext) = (said.nonce.clone(), said.ciphertext.clone());
            });
            SealedMessage { signature: honest.signature.clone(), ..with_file }
        }),
        ("nothing at all", SealedMessage::default()),
    ] {
        home.says(&message(&hostile, &cursor));
        unreadable(&mut chat, what, "message");
    }

    // None of them passes for the true one, which comes now; and what was shown is not shown again.
    home.says(&message(&honest, &cursor));
    assert_eq!(chat.message("the true one"), "alice@server-a");
    home.says(&message(&once, "another place"));
    home.says(&message(&honest, &cursor));
    send(&alice, from_alice("the end")).expect("it is good");
    let (last, cursor) = taken(&mut home);
    home.says(&message(&last, &cursor));
    chat.message("the end");
    let again = chat.passed().into_iter().find(|event| event["event"] == "message");
    assert!(again.is_none(), "a replay is not shown: {again:?}");
}

#[test]
fn a_hostile_home_can_neither_alter_posts_nor_make_up_outcomes_of_another_home() {
    let (_site, server) = mesh::alone();
    let mut home = Hostile::before(&server);
    let bob = User::register_at("bob", &server, home.address);
    let mut chat = bob.chat();
    let mut alice = User::register("alice", &server).chat();
    alice.shows(&bob.label);
    chat.shows("alice@server-a");
    alice.say("/all to all");
    let AttachResponse { event: Some(Event::Post(honest)), .. } = home.takes() else { panic!("a post came") };
    let mallory = keys::key("mallory");
    let event = |post| AttachResponse { event: Some(Event::Post(post)), cursor: String::new() };
    let key = keys::key("bob");
    let channel_key = *key.unwrap(&honest.wrapped_channel_key).expect("it is wrapped to bob");
    let wrapped = |to: &socp::user_key::UserKey, plain: [u8; 32]| public_key::wrap(to, &plain).expect("the key wraps");
    let post = honest.post.clone().expect("it is in it");
    let altered = {
        let mut statement = PostStatement::decode(&post.statement[..]).expect("it is encoded");
        statement.ciphertext = flipped(&statement.ciphertext, 0);
        SealedPost { statement: statement.encode_to_vec().into(), ..post.clone() }
    };
    let mut hostile = vec![
        ("the channel key wrapped to another key", honest.clone()),
        ("another channel key wrapped", honest.clone()),
        ("a post altered", honest.clone()),
        ("a post signed by another key", honest.clone()),
    ];
    hostile[0].1.wrapped_channel_key = wrapped(mallory.public(), channel_key);
    hostile[1].1.wrapped_channel_key = wrapped(key.public(), [1; 32]);
    hostile[2].1.post = Some(altered);
    let signature = mallory.sign(Label::Post, &post.statement).expect("a key signs");
    hostile[3].1.post = Some(SealedPost { signature, ..post });
    for (what, post) in hostile {
        home.says(&event(post));
        unreadable(&mut chat, what, "post");
    }

    // An outcome that some other home is said to have given, signed by whom it can: a key of its own.
    let other = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
    let home_key = aws_lc_rs::signature::KeyPair::public_key(&other).as_ref().to_vec();
    let elsewhere = socp::id::ServerId::of_key(&[9; 32]);
    let outcome = Outcome {
        statement_sha256: vec![5; 32].into(),
        kind: OutcomeKind::Stored.into(),
        reason: String::new(),
        recipients: 1,
    };
    let statement =
        OutcomeStatement { home_id: elsewhere.to_string(), time_unix_ms: 1, outcomes: vec![outcome] }.encode_to_vec();
    let signature = other.sign(&signing_input(Label::Outcome, &statement)).as_ref().to_vec();
    let signed = SignedOutcome { statement: statement.into(), signature: signature.into(), home_key: home_key.into() };
    let received = ReceivedOutcome {
        outcome: Some(signed),
        message_id: message_id(),
        recipient: "carol".into(),
        recipient_home_id: elsewhere.to_string(),
        received_unix_ms: 1,
    };
    home.says(&AttachResponse { event: Some(Event::Outcome(received)), cursor: "somewhere".into() });
    unreadable(&mut chat, "an outcome made up", "outcome");

    // A key that is taken away on the way is asked for.
    home.says(&event(ReceivedPost { wrapped_channel_key: Bytes::new(), ..honest.clone() }));
    assert_eq!(chat.post("to all"), "alice@server-a");
    home.says(&event(honest));
    alice.say("/all the end");
    let last = takes_post(&mut home);
    home.says(&last);
    chat.post("the end");
    let again = chat.passed().into_iter().find(|event| event["event"] == "post" && event["text"] == "to all");
    assert!(again.is_none(), "a replay is not shown: {again:?}");
}

#[track_caller]
fn takes_post(home: &mut Hostile) -> AttachResponse {
    let taken = home.takes();
    assert!(matches!(taken.event, Some(Event::Post(_))), "{taken:?}");
    taken
}
