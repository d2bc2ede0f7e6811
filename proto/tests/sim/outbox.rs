//! Outboxes: what cannot be brought now is on disk, is brought later, once and in order, and its sender is told.

use prost::Message as _;
use socp::{
    federation::v1::{DeliverFrame, MessageDelivery, Voucher, deliver_frame},
    id::ContentHash,
    identity::Identity as _,
    input::{CallId, Frame},
    limits::{OUTBOX_PER_USER_MAX, QUEUED_MS, REFUSAL_REMEMBERED_MS},
    output::Answer,
    signed::{Label, signing_input},
    v1::{MessageHeader, OutcomeKind, OutcomeStatement, Reason, SealedMessage},
};

use crate::{inbox::message, world::World};

/// A calm network of two servers, with alice at the first and bob at the second, who is not attached; the servers are cut
/// apart, and know it.
fn apart() -> (World, usize, usize) {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.add_user(1, "bob");
    world.new_device(bob);
    world.cut([1].into(), 10 * 60_000);
    world.run_for(5_000);
    (world, alice, bob)
}

/// What the sender is told at once.
fn answer(world: &mut World, call: CallId) -> Result<OutcomeKind, Reason> {
    let answer = world.answer(0, call).map_err(|rejection| rejection.reason)?;
    let Answer::Sent(sent) = answer else { panic!("another answer: {answer:?}") };
    let statement = OutcomeStatement::decode(&sent.outcome.expect("an outcome").statement[..]).expect("readable");
    Ok(statement.outcomes[0].kind())
}

fn tell(world: &mut World, from: usize, to: usize) -> (ContentHash, Result<OutcomeKind, Reason>) {
    let sealed = message(world, from, to);
    let hash = ContentHash::of(&sealed.statement);
    let call = world.send(from, sealed, 9);
    let told = answer(world, call);
    (hash, told)
}

/// Bob reads everything with a new device.
fn reads(world: &mut World, user: usize) {
    let device = world.new_device(user);
    world.attach(user, device, "");
    world.run_for(2_000);
}

#[test]
fn what_is_queued_outlives_a_crash_and_is_brought_in_order_and_its_sender_is_told_once() {
    let (mut world, alice, bob) = apart();
    let mut sent = Vec::new();
    for _ in 0..5 {
        let sealed = message(&mut world, alice, bob);
        sent.push(ContentHash::of(&sealed.statement));
        let call = world.send(alice, sealed, 9);
        // Until the very moment of the answer.
        while !world.servers[0].answers.contains_key(&call) {
            world.run_for(1);
        }
        assert_eq!(answer(&mut world, call), Ok(OutcomeKind::Queued));
    }
    world.crash_losing_writes(0, 500);
    assert_eq!(world.servers[0].disk.mail.queued(), 5);
    world.heal();
    world.run_for(10_000);
    assert_eq!(world.servers[0].disk.mail.queued(), 0);
    reads(&mut world, bob);
    assert_eq!(world.deliveries.log(&world.address(bob)), sent);
    // The sender's devices, new ones too, are told of each.
    reads(&mut world, alice);
    reads(&mut world, alice);
    for hash in sent {
        assert_eq!(world.deliveries.settled(hash), Some(OutcomeKind::Stored));
    }
}

#[test]
fn what_a_home_does_not_answer_is_queued_and_delivered_once_whatever_was_lost() {
    for lost in ["message", "outcome"] {
        let mut world = World::calm(&[0, 1]);
        let alice = world.online_user(0, "alice");
        let bob = world.online_user(1, "bob");
        let sealed = message(&mut world, alice, bob);
        let hash = ContentHash::of(&sealed.statement);
        let call = world.send(alice, sealed.clone(), 9);
        if lost == "outcome" {
            while !world.is_writing(1) {
                world.run_for(1);
            }
        }
        world.cut([1].into(), 60_000);
        assert_eq!(answer(&mut world, call), Ok(OutcomeKind::Queued));
        // Sent again, it is known; with other content it is not the same.
        let again = world.send(alice, sealed, 9);
        assert_eq!(answer(&mut world, again), Ok(OutcomeKind::Queued));
        world.heal();
        world.run_for(30_000);
        assert_eq!(world.servers[0].disk.mail.queued(), 0, "{lost}");
        reads(&mut world, bob);
        assert_eq!(world.deliveries.log(&world.address(bob)), [hash], "{lost}");
        assert!(world.deliveries.settled(hash).is_some(), "{lost}");
    }
}

#[test]
fn an_id_that_is_queued_cannot_be_used_for_another_message() {
    let (mut world, alice, bob) = apart();
    let header = world.header(alice, bob);
    let one = world.sealed(alice, &header);
    let other = world.sealed(alice, &MessageHeader { time_unix_ms: header.time_unix_ms + 1, ..header });
    let calls = [world.send(alice, one, 9), world.send(alice, other, 9)];
    assert_eq!(answer(&mut world, calls[0]), Ok(OutcomeKind::Queued));
    assert_eq!(answer(&mut world, calls[1]), Err(Reason::IdReused));
}

#[test]
fn a_message_does_not_overtake_one_that_is_queued_or_was_lost() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.online_user(1, "bob");
    let sealed: Vec<SealedMessage> = (0..6).map(|_| message(&mut world, alice, bob)).collect();
    let sent: Vec<ContentHash> = sealed.iter().map(|sealed| ContentHash::of(&sealed.statement)).collect();
    // The first ones are lost on the way, and nobody notices that the link was gone for a moment.
    world.cut([1].into(), 60_000);
    let mut calls: Vec<CallId> = sealed[..3].iter().map(|sealed| world.send(alice, sealed.clone(), 9)).collect();
    world.run_for(200);
    world.heal();
    calls.extend(sealed[3..].iter().map(|sealed| world.send(alice, sealed.clone(), 9)));
    for call in calls {
        assert!(answer(&mut world, call).is_ok());
    }
    world.run_for(10_000);
    assert_eq!(world.deliveries.log(&world.address(bob)), sent);
}

#[test]
fn what_is_refused_in_the_end_is_told_to_its_sender_and_holds_nothing_up() {
    let (mut world, alice, bob) = apart();
    let header = MessageHeader { recipient: "nobody".into(), ..world.header(alice, bob) };
    let refused = world.sealed(alice, &header);
    let hash = ContentHash::of(&refused.statement);
    let call = world.send(alice, refused, 9);
    assert_eq!(answer(&mut world, call), Ok(OutcomeKind::Queued));
    let (kept, _) = tell(&mut world, alice, bob);
    world.heal();
    world.run_for(10_000);
    reads(&mut world, alice);
    reads(&mut world, bob);
    assert_eq!(world.deliveries.settled(hash), Some(OutcomeKind::Rejected));
    assert_eq!(world.deliveries.settled(kept), Some(OutcomeKind::Stored));
}

/// A message as the first server passes it on to the second.
fn passed_on(world: &World, sealed: SealedMessage) -> Frame {
    let hash = ContentHash::of(&sealed.statement);
    let home = &world.servers[0].identity;
    let signature = home.sign(&signing_input(Label::Submission, hash.as_bytes())).to_vec().into();
    let voucher = Some(Voucher { home_key: home.public_key().to_vec().into(), signature });
    let home_epoch = world.servers[1].present_epoch();
    let delivery = MessageDelivery { message: Some(sealed), voucher, hops_left: 1, home_epoch, ..Default::default() };
    Frame::Deliver(DeliverFrame { kind: Some(deliver_frame::Kind::Message(delivery)) })
}

#[test]
fn a_slow_copy_of_what_was_refused_is_refused_too() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.add_user(1, "bob");
    let sealed = message(&mut world, alice, bob);
    let hash = ContentHash::of(&sealed.statement);
    let frame = passed_on(&world, sealed);
    let link = world.link_between(1, 0);
    world.forge(1, link, frame.clone());
    world.ask_to_register(bob);
    world.run_for(1_000);
    world.forge(1, link, frame.clone());
    reads(&mut world, bob);
    assert_eq!(world.deliveries.log(&world.address(bob)), [], "its sender was told that there is no such user");
    world.run_for(REFUSAL_REMEMBERED_MS + 20_000);
    world.forge(1, link, frame);
    world.run_for(1_000);
    assert_eq!(world.deliveries.log(&world.address(bob)), [hash], "no copy is as slow as that; this is a new try");
}

/// Two servers with alice at the first and bob at the second, and a message of hers that is for him only while he is online, as it
/// is passed on.
fn for_the_present() -> (World, usize, Frame) {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.online_user(1, "bob");
    let header = MessageHeader { require_online: true, ..world.header(alice, bob) };
    let sealed = world.sealed(alice, &header);
    let frame = passed_on(&world, sealed);
    (world, bob, frame)
}

#[test]
fn so_is_one_of_what_was_for_the_present_only() {
    let (mut world, bob, frame) = for_the_present();
    let link = world.link_between(1, 0);
    world.detach(bob, 0);
    world.forge(1, link, frame.clone());
    world.attach(bob, 0, "");
    world.forge(1, link, frame);
    world.run_for(5_000);
    assert_eq!(world.deliveries.log(&world.address(bob)), [], "its sender was told that nothing was kept");
}

#[test]
fn what_was_for_the_present_only_is_not_for_the_next_start_of_the_recipients_home() {
    let (mut world, bob, frame) = for_the_present();
    world.crash(1, 100);
    world.run_for(5_000);
    world.new_device(bob);
    let device = world.users.users[bob].devices.len() - 1;
    world.attach(bob, device, "");
    world.run_for(1_000);
    let link = world.link_between(1, 0);
    world.forge(1, link, frame);
    world.run_for(5_000);
    assert_eq!(world.deliveries.log(&world.address(bob)), [], "it may have been refused before");
}

#[test]
fn what_was_taken_for_the_present_is_not_refused_to_a_copy_from_before_the_next_start() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.online_user(1, "bob");
    let header = MessageHeader { require_online: true, ..world.header(alice, bob) };
    let sealed = world.sealed(alice, &header);
    let call = world.send(alice, sealed.clone(), 1);
    assert_eq!(answer(&mut world, call), Ok(OutcomeKind::HandedOver));
    let frame = passed_on(&world, sealed.clone());
    world.crash(1, 100);
    world.run_for(5_000);
    let link = world.link_between(1, 0);
    let call = world.send(alice, sealed, 1);
    // Its outcome overtakes that of the retry.
    for _ in 0..40 {
        world.forge(1, link, frame.clone());
        world.run_for(1);
    }
    assert!(answer(&mut world, call).is_ok(), "it is in the inbox");
}

#[test]
fn what_waited_for_three_days_is_given_up_and_its_sender_is_told() {
    let (mut world, alice, bob) = apart();
    let (hash, told) = tell(&mut world, alice, bob);
    assert_eq!(told, Ok(OutcomeKind::Queued));
    // The server is away for the most of it.
    world.servers[0].clock_ahead_ms = QUEUED_MS as i64 - 60_000;
    world.crash(0, 100);
    world.run_for(40_000);
    assert_eq!(world.servers[0].disk.mail.queued(), 1);
    world.run_for(30_000);
    assert_eq!(world.servers[0].disk.mail.queued(), 0);
    reads(&mut world, alice);
    assert_eq!(world.deliveries.settled(hash), Some(OutcomeKind::Expired));
}

#[test]
fn one_user_queues_so_many_and_outcomes_that_nobody_read_count() {
    let (mut world, alice, bob) = apart();
    world.detach(alice, 0);
    let calls: Vec<CallId> = (0..OUTBOX_PER_USER_MAX)
        .map(|_| {
            // More are not under way in one session.
            world.run_for(20);
            world.tell(alice, bob)
        })
        .collect();
    for call in calls {
        assert_eq!(answer(&mut world, call), Ok(OutcomeKind::Queued));
    }
    assert_eq!(tell(&mut world, alice, bob).1, Err(Reason::TooMany), "one past the limit");
    let carol = world.add_user(0, "carol");
    world.new_device(carol);
    assert_eq!(tell(&mut world, carol, bob).1, Ok(OutcomeKind::Queued), "nobody else is held up");
    world.heal();
    world.run_for(30_000);
    assert_eq!(world.servers[0].disk.mail.queued(), 0);
    world.cut([1].into(), 10 * 60_000);
    world.run_for(5_000);
    assert_eq!(tell(&mut world, alice, bob).1, Err(Reason::TooMany), "nobody read what became of them");
    world.attach(alice, 0, "");
    world.run_for(5_000);
    assert_eq!(tell(&mut world, alice, bob).1, Ok(OutcomeKind::Queued));
}
