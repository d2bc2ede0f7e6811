//! Messages and posts over a quiet network.

use prost::{Message as _, bytes::Bytes};
use socp::{
    id::ContentHash,
    input::Request,
    limits::{MESSAGE_AGE_MS_MAX, MESSAGE_AHEAD_MS_MAX},
    output::Answer,
    v1::{MessageHeader, OutcomeKind, OutcomeStatement, Reason, SealedMessage},
};

use crate::world::World;

fn reason(world: &mut World, server: usize, call: socp::input::CallId) -> Reason {
    world.answer(server, call).unwrap_err().reason
}

/// What became of a message that was taken.
fn kind(world: &mut World, call: socp::input::CallId) -> OutcomeKind {
    let Ok(Answer::Sent(sent)) = world.answer(0, call) else { panic!("the message was taken") };
    let outcome = OutcomeStatement::decode(&sent.outcome.unwrap().statement[..]).unwrap();
    outcome.outcomes[0].kind()
}

fn hash(sealed: &SealedMessage) -> ContentHash {
    ContentHash::of(&sealed.statement)
}

#[test]
fn tell_works_across_servers_the_moment_the_recipient_is_shown_in_both_directions() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.add_user(1, "bob");
    let device = world.new_device(bob);
    world.attach(bob, device, "");
    let address = world.address(bob);
    while !world.servers[0].watch.addresses().any(|shown| shown == address) {
        world.run_for(1);
    }
    let call = world.tell(alice, bob);
    assert_eq!(kind(&mut world, call), OutcomeKind::HandedOver);
    let call = world.tell(bob, alice);
    assert!(world.answer(1, call).is_ok());
    assert_eq!(world.deliveries.of(&world.address(alice)), 1);
    assert_eq!(world.deliveries.of(&world.address(bob)), 1);
}

#[test]
fn a_post_reaches_every_other_user_who_is_online_and_never_the_sender() {
    let mut world = World::calm(&[0, 1, 2]);
    let users: Vec<usize> = (0..6).map(|index| world.online_user(index % 3, &format!("user{index}"))).collect();
    let away = world.online_user(1, "away");
    world.detach(away, 0);
    world.run_for(500);
    let call = world.post(users[0]);
    let Ok(Answer::Posted(posted)) = world.answer(0, call) else { panic!("the post was taken") };
    assert_eq!(posted.recipients, 5);
    assert_eq!(posted.outcomes.len(), 3);
    assert_eq!(posted.silent_home_ids, Vec::<String>::new());
    let got: Vec<usize> = users.iter().map(|user| world.deliveries.of(&world.address(*user))).collect();
    assert_eq!(got, [0, 1, 1, 1, 1, 1]);
    assert_eq!(world.deliveries.of(&world.address(away)), 0);
}

#[test]
fn with_nobody_else_online_a_post_says_so() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let call = world.post(alice);
    assert_eq!(reason(&mut world, 0, call), Reason::NobodyOnline);
}

#[test]
fn the_sender_of_a_message_to_someone_who_has_just_left_is_told_so_and_it_waits_for_them() {
    for home in [0, 1] {
        let mut world = World::calm(&[0, 1]);
        let alice = world.online_user(0, "alice");
        let bob = world.online_user(home, "bob");
        let header = world.header(alice, bob);
        let sealed = world.sealed(alice, &header);
        world.detach(bob, 0);
        let call = world.send(alice, sealed.clone(), 1);
        assert_eq!(kind(&mut world, call), OutcomeKind::Stored);
        assert_eq!(world.deliveries.count(&world.address(bob), hash(&sealed)), 0);
        world.attach(bob, 0, "");
        world.run_for(5_000);
        assert_eq!(world.deliveries.count(&world.address(bob), hash(&sealed)), 1);
    }
}

#[test]
fn a_message_for_somebody_who_is_online_only_is_refused_to_anybody_else_and_not_kept() {
    for home in [0, 1] {
        let mut world = World::calm(&[0, 1]);
        let alice = world.online_user(0, "alice");
        let bob = world.online_user(home, "bob");
        let mut header = world.header(alice, bob);
        header.require_online = true;
        let sealed = world.sealed(alice, &header);
        world.detach(bob, 0);
        let call = world.send(alice, sealed.clone(), 1);
        assert_eq!(reason(&mut world, 0, call), Reason::RecipientOffline);
        world.attach(bob, 0, "");
        world.run_for(5_000);
        assert_eq!(world.deliveries.count(&world.address(bob), hash(&sealed)), 0);
        let mut header = world.header(alice, bob);
        header.require_online = true;
        let anew = world.sealed(alice, &header);
        let call = world.send(alice, anew, 1);
        assert_eq!(kind(&mut world, call), OutcomeKind::HandedOver);
    }
}

#[test]
fn a_retry_never_delivers_twice_and_is_answered_as_the_first_was() {
    for home in [0, 1] {
        let mut world = World::calm(&[0, 1]);
        let alice = world.online_user(0, "alice");
        let bob = world.online_user(home, "bob");
        let header = world.header(alice, bob);
        let sealed = world.sealed(alice, &header);
        for _ in 0..3 {
            let call = world.send(alice, sealed.clone(), 1);
            assert!(matches!(world.answer(0, call), Ok(Answer::Sent(_))));
        }
        assert_eq!(world.deliveries.count(&world.address(bob), hash(&sealed)), 1);
    }
}

#[test]
fn the_same_id_with_other_content_is_refused() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.online_user(1, "bob");
    let mut header = world.header(alice, bob);
    let first = world.sealed(alice, &header);
    let call = world.send(alice, first, 1);
    assert!(world.answer(0, call).is_ok());
    header.time_unix_ms += 1;
    let second = world.sealed(alice, &header);
    let call = world.send(alice, second, 1);
    assert_eq!(reason(&mut world, 0, call), Reason::IdReused);
}

#[test]
fn every_wrong_message_gives_its_own_typed_error() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.online_user(1, "bob");
    let mallory = world.online_user(0, "mallory");
    let mut try_with = |change: &dyn Fn(&mut socp::v1::MessageHeader)| {
        let mut header = world.header(alice, bob);
        change(&mut header);
        let sealed = world.sealed(alice, &header);
        let call = world.send(alice, sealed, 9);
        world.answer(0, call).map(|_| ()).map_err(|rejection| rejection.reason)
    };
    assert_eq!(try_with(&|_| {}), Ok(()));
    assert_eq!(try_with(&|header| header.recipient = "nobody".into()), Err(Reason::UserNotFound));
    assert_eq!(try_with(&|header| header.recipient_home_id = "ab".repeat(32)), Err(Reason::UserNotFound));
    assert_eq!(try_with(&|header| header.recipient = "NOBODY".into()), Err(Reason::NameInvalid));
    assert_eq!(try_with(&|header| header.sender = "bob".into()), Err(Reason::SenderMismatch));
    let other_key = |header: &mut socp::v1::MessageHeader| header.recipient_key_sha256 = Bytes::from_static(&[9; 32]);
    assert_eq!(try_with(&other_key), Err(Reason::RecipientKeyChanged));
    assert_eq!(try_with(&|header| header.suite = 2), Err(Reason::UnknownType));
    let (too_old, too_new) = (MESSAGE_AGE_MS_MAX as i64 + 1_000, MESSAGE_AHEAD_MS_MAX as i64 + 1_000);
    assert_eq!(try_with(&|header| header.time_unix_ms -= too_old), Err(Reason::TimeOutOfRange));
    assert_eq!(try_with(&|header| header.time_unix_ms += too_new), Err(Reason::TimeOutOfRange));
    let stranger = socp::id::TokenHash::of("");
    let call = world.ask(0, Request::SendMessage { token: stranger, message: SealedMessage::default() });
    assert_eq!(reason(&mut world, 0, call), Reason::TokenInvalid, "who asks is looked at first");
    let header = world.header(alice, bob);
    let forged = world.sealed(mallory, &header);
    let call = world.send(alice, forged, 9);
    assert_eq!(reason(&mut world, 0, call), Reason::InvalidSig);
}

#[test]
fn a_message_for_the_present_only_is_a_timeout_or_unreachable_where_any_other_is_queued() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.online_user(1, "bob");
    world.cut([1].into(), 60_000);
    let send = |world: &mut World, require_online| {
        let header = MessageHeader { require_online, ..world.header(alice, bob) };
        let sealed = world.sealed(alice, &header);
        world.send(alice, sealed, 9)
    };
    let calls = [send(&mut world, true), send(&mut world, false)];
    assert_eq!(reason(&mut world, 0, calls[0]), Reason::Timeout);
    assert_eq!(kind(&mut world, calls[1]), OutcomeKind::Queued);
    world.run_for(5_000);
    let calls = [send(&mut world, true), send(&mut world, false)];
    assert_eq!(reason(&mut world, 0, calls[0]), Reason::HomeUnreachable);
    assert_eq!(kind(&mut world, calls[1]), OutcomeKind::Queued);
}

#[test]
fn a_user_is_found_online_or_not_on_any_server() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.online_user(1, "bob");
    world.online_user(1, "alice");
    world.detach(bob, 0);
    world.run_for(500);
    let token = world.users.users[alice].devices[0].token;
    let mut find = |user: &str| {
        let call = world.ask(0, Request::GetUser { token, user: user.into() });
        match world.answer(0, call) {
            Ok(Answer::User(user)) => Ok((user.user, user.online, user.key_statements.len())),
            Ok(other) => panic!("another answer: {other:?}"),
            Err(rejection) => Err(rejection.reason),
        }
    };
    assert_eq!(find("bob@server-b"), Ok(("bob@server-b".into(), false, 1)));
    assert_eq!(find("alice@server-b"), Ok(("alice@server-b".into(), true, 1)));
    assert_eq!(find("alice"), Err(Reason::UserAmbiguous));
    assert_eq!(find("bob"), Err(Reason::UserNotFound));
    assert_eq!(find("carol@server-b"), Err(Reason::UserNotFound));
    assert_eq!(find("carol@nowhere"), Err(Reason::UserNotFound));
    assert_eq!(find("a b"), Err(Reason::NameInvalid));
}
