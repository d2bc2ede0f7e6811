//! A user's next key, over real sockets, and what it means to those who know the one before.

use std::fs;

use prost::bytes::Bytes;
use socp::{
    message::Message,
    signed::Label,
    statement::KeyStatement,
    v1::{GetUserRequest, ListSessionsRequest, RotateKeyRequest, SignedKeyStatement, attach_response},
};
use socp_client::{private_key::PrivateKey, seal};

use crate::harness::{
    caller::{self, Caller, Stream, challenge, log_in},
    client::User,
    keys,
    mesh::Mesh,
    soon,
    wire::{Wire, reason},
};

/// The statement that follows another, signed by the new key and the old one.
fn next(alice: &Caller, before: &SignedKeyStatement, key: &PrivateKey) -> SignedKeyStatement {
    let before = KeyStatement::parse(before).expect("it is good");
    let (user, home, number) = (&alice.address.user, alice.address.home, before.number + 1);
    let statement: Bytes = KeyStatement::encode(user, home, key.public(), number, Some(before.hash())).into();
    let sign = |key: &PrivateKey| key.sign(Label::KeyStatement, &statement).expect("a key signs");
    SignedKeyStatement { signature: sign(key), previous_signature: sign(&alice.key), statement }
}

#[test]
fn those_who_know_the_old_key_follow_to_the_new_one_and_those_who_verified_it_are_told() {
    let mut mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let mut alice = Caller::new("alice", &mesh[0], Wire::H3);
    let mut inbox = alice.attach();
    let [bob, carol] = ["bob", "carol"].map(|name| User::register(name, &mesh[1]));
    let (mut at_bobs, mut at_carols) = (bob.chat(), carol.chat());
    for chat in [&mut at_bobs, &mut at_carols] {
        chat.shows("alice@server-a");
        chat.tell("alice@server-a", "to the old key");
    }
    assert_eq!(bob.json(&["verify", "alice@server-a", "--confirm"])[0]["verified"], true);

    let key = keys::key("alice-next");
    let first = caller::statement("alice", mesh[0].id);
    let request = |key_statement| alice.request(RotateKeyRequest { key_statement: Some(key_statement) });
    let unproven = SignedKeyStatement { previous_signature: Bytes::from(vec![1; 512]), ..next(&alice, &first, &key) };
    assert_eq!(reason(soon(alice.accounts().rotate_key(request(unproven)))), "INVALID_SIG");
    let second = next(&alice, &first, &key);
    let answer = soon(alice.accounts().rotate_key(request(second.clone()))).expect("it follows").into_inner();
    assert_eq!(answer.key_fingerprint, key.public().fingerprint().to_string());

    // They see it without asking; her session, by which she is online, went on.
    for chat in [&mut at_bobs, &mut at_carols] {
        let is_it = |event: &serde_json::Value| event["fingerprint"] == answer.key_fingerprint;
        let updated = chat.expect("the new key", is_it);
        assert_eq!((&updated["event"], &updated["user"]), (&"updated".into(), &"alice@server-a".into()));
    }
    let sessions = soon(alice.accounts().list_sessions(alice.request(ListSessionsRequest {})));
    assert_eq!(sessions.expect("the token is good").into_inner().sessions.len(), 1);
    at_carols.tell("alice@server-a", "to the new key");
    at_bobs.say("/tell alice@server-a not before I compared it");
    assert_eq!(at_bobs.answer()["reason"], "VERIFICATION_LAPSED");
    assert_eq!(bob.json(&["verify", "alice@server-a", "--confirm"])[0]["lapsed"], false);
    at_bobs.tell("alice@server-a", "compared");
    let carol_key = keys::key("carol");
    let carols = Caller::new("carol", &mesh[1], Wire::H3).address;
    assert_eq!(text_under(&mut inbox, &key, &alice, &carol_key, &carols), "to the new key");

    // Only the new key logs in, and that outlives the server.
    mesh.kill(0);
    mesh.start(0);
    alice.channel = soon(Wire::H3.connect(&mesh[0]));
    let nonce = challenge(&alice.channel, "alice");
    let by_old = caller::login(mesh[0].id, "alice", &nonce, "alice");
    assert_eq!(reason(log_in(&alice.channel, by_old)), "INVALID_SIG");
    let nonce = challenge(&alice.channel, "alice");
    alice.token =
        log_in(&alice.channel, caller::login(mesh[0].id, "alice", &nonce, "alice-next")).expect("it is in force");
    let found = soon(alice.directory().get_user(alice.request(GetUserRequest { user: "alice".into() })));
    assert_eq!(found.expect("she is here").into_inner().key_statements, [first, second]);
}

#[test]
fn the_client_renews_its_key_and_reads_what_was_sealed_to_and_signed_by_both() {
    let mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let [alice, bob] = [("alice", 0), ("bob", 1)].map(|(name, at)| User::register(name, &mesh[at]));
    let tell = |from: &User, to: &User, text: &str| assert!(from.run(&["tell", &to.label, text]).status.success());
    tell(&alice, &bob, "to the first key");
    tell(&bob, &alice, "by the first key");
    let mut watch = alice.watch();
    let mut chat = bob.chat();
    watch.shows(&bob.label);
    let before = fs::read_to_string(bob.profile().join("profile.toml")).expect("it is there");
    let renewed = &bob.json(&["rotate-key"])[0];
    let fingerprint = renewed["fingerprint"].as_str().expect("it is text").to_owned();
    assert_eq!(bob.json(&["whoami"])[0]["fingerprint"], *fingerprint);
    // A chat under the old key is of no use: it says so and ends.
    chat.expect("why it ends", |event| event["reason"] == "OWN_KEY_RENEWED");
    assert_eq!(chat.wait().code(), Some(1));
    // That he went may overtake the new key on its way here, which is then shown to nobody; his return shows it.
    watch.removed(&bob.label, "left");
    let chat = bob.chat();
    assert_eq!(watch.added(&bob.label)["fingerprint"], *fingerprint);
    chat.quit();
    watch.removed(&bob.label, "left");

    tell(&alice, &bob, "to the second key");
    tell(&bob, &alice, "by the second key");
    let texts = |user: &User| -> Vec<String> {
        let events = user.json(&["history"]).into_iter();
        events.filter_map(|event| event["text"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(texts(&bob), ["to the first key", "to the second key"]);
    assert_eq!(texts(&alice), ["by the first key", "by the second key"]);
    let mut chat = alice.start(&["chat"]);
    assert_eq!(chat.message("by the first key"), bob.label, "in a chat, too");
    assert_eq!(chat.message("by the second key"), bob.label);

    // Interrupted before the profile named the new key: the same line again finds that it is in force, and makes no third.
    let profile = bob.profile().join("profile.toml");
    let after = fs::read_to_string(&profile).expect("it is there");
    for token_is_lost in [false, true] {
        fs::write(&profile, &before).expect("the folder is ours");
        if token_is_lost {
            fs::remove_file(bob.profile().join("token")).expect("it is there");
        }
        assert_eq!(bob.json(&["rotate-key"])[0]["fingerprint"], *fingerprint);
        assert_eq!(fs::read_to_string(&profile).expect("it is there"), after);
    }
    bob.json(&["rotate-key"]);
    assert_eq!(alice.json(&["fingerprint", &bob.label])[0]["statements"], 3);
    assert_eq!(texts(&bob), ["to the first key", "to the second key"]);
}

/// The text of the first message to come that this key opens.
fn text_under(
    inbox: &mut Stream<socp::v1::AttachResponse>,
    key: &PrivateKey,
    me: &Caller,
    sender_key: &PrivateKey,
    sender: &socp::message::Address,
) -> String {
    loop {
        let Some(attach_response::Event::Message(received)) = inbox.next().event else { continue };
        let message = Message::parse(&received.message.expect("it is in it")).expect("it is good");
        if message.authorship.sender == *sender
            && let Some(text) = seal::open(key, &me.address, sender_key.public(), &message)
        {
            return text;
        }
    }
}
