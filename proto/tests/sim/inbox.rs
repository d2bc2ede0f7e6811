//! Inboxes: kept before anybody is told, read by every device alike, bounded.

use socp::{
    id::{ContentHash, TokenHash},
    inbox::Cursor,
    input::{CallId, Request},
    limits::{DAY_MS, DEVICES_PER_USER_MAX},
    output::Answer,
    v1::{AttachRequest, Reason, SealedMessage},
};

use crate::world::World;

/// A calm network of two servers, with alice at the first and bob at the second, who are not attached.
pub fn alice_and_bob() -> (World, usize, usize) {
    let mut world = World::calm(&[0, 1]);
    let [alice, bob] = [world.add_user(0, "alice"), world.add_user(1, "bob")];
    world.new_device(alice);
    world.new_device(bob);
    (world, alice, bob)
}

/// A new message of one user to another.
pub fn message(world: &mut World, from: usize, to: usize) -> SealedMessage {
    let header = world.header(from, to);
    world.sealed(from, &header)
}

/// Sends a new message and waits until it is taken or refused.
pub fn tell(world: &mut World, from: usize, to: usize) -> Result<(), Reason> {
    let server = world.users.users[from].server;
    let call = world.tell(from, to);
    world.answer(server, call).map(drop).map_err(|rejection| rejection.reason)
}

fn is_answered(world: &World, server: usize, call: CallId) -> bool {
    world.servers[server].answers.contains_key(&call)
}

/// How many messages a device has, by its cursor.
fn position(world: &World, user: usize, device: usize) -> u64 {
    Cursor::parse(&world.users.users[user].devices[device].cursor).expect("a cursor").position
}

#[test]
fn a_message_is_accepted_only_once_it_is_on_disk_and_then_outlives_a_crash() {
    for home in [0, 1] {
        let mut world = World::calm(&[0, 1]);
        let alice = world.online_user(0, "alice");
        let bob = world.add_user(home, "bob");
        world.new_device(bob);
        let address = world.address(bob);
        let sealed = message(&mut world, alice, bob);
        let hash = ContentHash::of(&sealed.statement);
        let call = world.send(alice, sealed.clone(), 9);
        // Until the very moment of the answer; and then the power goes.
        while !is_answered(&world, 0, call) {
            world.run_for(1);
        }
        assert!(matches!(world.answer(0, call), Ok(Answer::Sent(_))));
        world.crash_losing_writes(home, 500);
        world.run_for(10_000);
        let device = world.new_device(bob);
        world.attach(bob, device, "");
        world.run_for(1_000);
        assert_eq!(world.deliveries.count(&address, hash), 1, "it is there after the restart, home {home}");
        // And a retry is known, over the restart.
        if home == 0 {
            world.new_device(alice);
        }
        let call = world.send(alice, sealed, 9);
        assert!(matches!(world.answer(0, call), Ok(Answer::Sent(_))));
        world.run_for(1_000);
        assert_eq!(world.deliveries.count(&address, hash), 1);
    }
}

#[test]
fn what_was_not_accepted_when_the_power_went_is_taken_when_it_is_sent_again() {
    let (mut world, alice, bob) = alice_and_bob();
    let sealed = message(&mut world, alice, bob);
    let hash = ContentHash::of(&sealed.statement);
    world.send(alice, sealed.clone(), 9);
    while !world.is_writing(1) {
        world.run_for(1);
    }
    world.crash_losing_writes(1, 500);
    world.run_for(10_000);
    let call = world.send(alice, sealed, 9);
    assert!(matches!(world.answer(0, call), Ok(Answer::Sent(_))));
    let device = world.new_device(bob);
    world.attach(bob, device, "");
    world.run_for(1_000);
    assert_eq!(world.deliveries.count(&world.address(bob), hash), 1);
}

#[test]
fn every_device_and_a_new_one_read_the_same_without_gap_or_repeat() {
    let (mut world, alice, bob) = alice_and_bob();
    let phone = world.new_device(bob);
    for count in 1..=12 {
        assert_eq!(tell(&mut world, alice, bob), Ok(()));
        if count == 5 {
            world.attach(bob, 0, "");
        }
    }
    world.run_for(1_000);
    assert_eq!(position(&world, bob, 0), 12, "what was there, and what came then");
    // Attached while messages come: the page from the disk and what is new meet without gap or repeat, which the checker
    // of deliveries looks at.
    world.attach(bob, phone, "");
    let calls: Vec<CallId> = (0..12).map(|_| world.tell(alice, bob)).collect();
    for call in calls {
        assert!(world.answer(0, call).is_ok());
    }
    world.run_for(1_000);
    // One that was away goes on after its cursor.
    world.detach(bob, 0);
    assert_eq!(tell(&mut world, alice, bob), Ok(()));
    assert_eq!(position(&world, bob, 0), 24);
    world.attach(bob, 0, "");
    let newest = world.new_device(bob);
    world.attach(bob, newest, "");
    world.run_for(1_000);
    for device in [0, phone, newest] {
        assert_eq!(position(&world, bob, device), 25);
    }
}

#[test]
fn the_messages_of_a_session_are_kept_in_the_order_in_which_they_were_sent() {
    for home in [0, 1] {
        let mut world = World::calm(&[0, 1]);
        let alice = world.online_user(0, "alice");
        let bob = world.online_user(home, "bob");
        let sealed: Vec<SealedMessage> = (0..30).map(|_| message(&mut world, alice, bob)).collect();
        let calls: Vec<CallId> = sealed.iter().map(|sealed| world.send(alice, sealed.clone(), 9)).collect();
        for call in calls {
            assert!(world.answer(0, call).is_ok());
        }
        let sent: Vec<ContentHash> = sealed.iter().map(|sealed| ContentHash::of(&sealed.statement)).collect();
        assert_eq!(world.deliveries.log(&world.address(bob)), sent);
    }
}

#[test]
fn a_full_inbox_refuses_more_and_one_sender_fills_an_eighth() {
    let (mut world, alice, bob) = alice_and_bob();
    world.restart_with(1, |settings| settings.inbox.entries_max = 16);
    world.run_for(10_000);
    for _ in 0..2 {
        assert_eq!(tell(&mut world, alice, bob), Ok(()));
    }
    assert_eq!(tell(&mut world, alice, bob), Err(Reason::InboxFull), "an eighth of 16 is 2");
    for other in 1..8 {
        let other = world.add_user(0, &format!("u{other}"));
        world.new_device(other);
        for _ in 0..2 {
            assert_eq!(tell(&mut world, other, bob), Ok(()));
        }
    }
    let last = world.online_user(0, "last");
    assert_eq!(tell(&mut world, last, bob), Err(Reason::InboxFull), "16 of 16");
    // And over a restart, with one more room.
    world.restart_with(1, |settings| settings.inbox.entries_max = 17);
    world.run_for(10_000);
    assert_eq!(tell(&mut world, last, bob), Ok(()));
    assert_eq!(tell(&mut world, last, bob), Err(Reason::InboxFull));
}

#[test]
fn an_inbox_takes_so_many_bytes_and_an_eighth_of_them_of_one_sender() {
    let (mut world, alice, bob) = alice_and_bob();
    let sealed = message(&mut world, alice, bob);
    let one = (sealed.statement.len() + sealed.signature.len() + sealed.wrapped_key.len()) as u64;
    world.restart_with(1, |settings| settings.inbox.bytes_max = 16 * one);
    world.run_for(10_000);
    assert_eq!(tell(&mut world, alice, bob), Ok(()));
    assert_eq!(tell(&mut world, alice, bob), Ok(()));
    assert_eq!(tell(&mut world, alice, bob), Err(Reason::InboxFull));
    let others: Vec<usize> = (0..8).map(|other| world.online_user(0, &format!("user{other}"))).collect();
    let taken = others.into_iter().filter(|other| tell(&mut world, *other, bob).is_ok()).count();
    assert_eq!(taken, 8, "there was room for so many");
}

#[test]
fn messages_go_when_they_are_too_old_and_every_device_of_the_last_month_has_them() {
    let (mut world, alice, bob) = alice_and_bob();
    assert_eq!(tell(&mut world, alice, bob), Ok(()));
    world.attach(bob, 0, "");
    world.run_for(1_000);
    world.detach(bob, 0);
    assert_eq!(tell(&mut world, alice, bob), Ok(()));
    world.run_for(15_000);
    let starts_after = |world: &mut World, days: u64| {
        world.servers[1].clock_ahead_ms = (days * DAY_MS) as i64;
        world.restart_with(1, |settings| settings.inbox.days = 1);
        world.users.forget_sessions(1);
        world.run_for(5_000);
        world.servers[1].disk.mail.dropped(&world.address(bob).user)
    };
    assert_eq!(starts_after(&mut world, 0), 0);
    assert_eq!(starts_after(&mut world, 2), 1, "bob's device has the first only, and may come back for the other");
    assert_eq!(starts_after(&mut world, 40), 2, "it was not seen for a month");
    world.servers[1].clock_ahead_ms = 0;
    let cursor = world.users.users[bob].had.clone();
    let [old, new] = [world.new_device(bob), world.new_device(bob)];
    world.users.users[bob].devices[old].cursor = cursor;
    world.attach(bob, old, "");
    world.attach(bob, new, "");
    assert_eq!(tell(&mut world, alice, bob), Ok(()));
    world.run_for(1_000);
    assert_eq!(world.deliveries.missed(), [1], "a new device misses nothing");
    assert_eq!((position(&world, bob, old), position(&world, bob, new)), (3, 3));
}

/// Bob with two devices that say which they are, and an inbox of 16 messages.
fn two_devices() -> (World, usize, usize, [usize; 2]) {
    let (mut world, alice, bob) = alice_and_bob();
    world.restart_with(1, |settings| settings.inbox.entries_max = 16);
    world.users.forget_sessions(1);
    world.run_for(10_000);
    let devices = [world.new_device(bob), world.new_device(bob)];
    for device in devices {
        world.users.users[bob].devices[device].id = format!("{device:032x}");
        world.attach(bob, device, "");
    }
    world.run_for(500);
    (world, alice, bob, devices)
}

#[test]
fn what_every_device_has_makes_room_and_what_one_has_not_does_not() {
    let (mut world, alice, bob, [laptop, phone]) = two_devices();
    world.detach(bob, phone);
    for _ in 0..2 {
        assert_eq!(tell(&mut world, alice, bob), Ok(()));
    }
    let full = Err(Reason::InboxFull);
    assert_eq!(tell(&mut world, alice, bob), full, "the laptop was handed them, and has not said that it has them");
    assert_eq!(world.acknowledge(bob, laptop), Ok(()));
    assert_eq!(tell(&mut world, alice, bob), full, "the phone has not even been handed them");
    // A restart forgets neither device.
    world.run_for(15_000);
    let had = world.users.users[bob].devices[laptop].cursor.clone();
    world.restart_with(1, |settings| settings.inbox.entries_max = 16);
    world.users.forget_sessions(1);
    world.run_for(10_000);
    assert_eq!(tell(&mut world, alice, bob), full);
    let [laptop, phone] = [world.new_device(bob), world.new_device(bob)];
    for (device, cursor) in [(laptop, had), (phone, String::new())] {
        world.users.users[bob].devices[device].id = format!("{device:032x}");
        world.users.users[bob].devices[device].cursor = cursor;
        world.attach(bob, device, "");
    }
    world.run_for(500);
    assert_eq!(tell(&mut world, alice, bob), full);
    assert_eq!(world.acknowledge(bob, phone), Ok(()));
    // As long as both keep up, there is room for any number, and the latest 16 are there for a new device.
    for _ in 0..30 {
        assert_eq!(tell(&mut world, alice, bob), Ok(()));
        for device in [laptop, phone] {
            assert_eq!(world.acknowledge(bob, device), Ok(()));
        }
    }
    world.run_for(1_000);
    assert_eq!(world.servers[1].disk.mail.dropped(&world.address(bob).user), 32 - 16);
    let new = world.new_device(bob);
    world.attach(bob, new, "");
    world.run_for(1_000);
    assert_eq!(position(&world, bob, new), 32);
    assert!(world.deliveries.missed().is_empty());
}

#[test]
fn a_device_that_does_not_say_which_it_is_has_what_it_was_handed() {
    let (mut world, alice, bob) = alice_and_bob();
    world.restart_with(1, |settings| settings.inbox.entries_max = 16);
    world.users.forget_sessions(1);
    world.run_for(10_000);
    assert_eq!(tell(&mut world, alice, bob), Ok(()));
    let device = world.new_device(bob);
    world.attach(bob, device, "");
    for _ in 0..40 {
        assert_eq!(tell(&mut world, alice, bob), Ok(()));
    }
    world.detach(bob, device);
    for _ in 0..2 {
        assert_eq!(tell(&mut world, alice, bob), Ok(()));
    }
    assert_eq!(tell(&mut world, alice, bob), Err(Reason::InboxFull));
}

#[test]
fn one_device_more_than_are_remembered_pushes_out_the_one_seen_longest_ago() {
    let (mut world, alice, bob, [laptop, phone]) = two_devices();
    assert_eq!(tell(&mut world, alice, bob), Ok(()));
    for device in [laptop, phone] {
        world.detach(bob, device);
    }
    // The session is that of the laptop, which attaches as one device after the other.
    for other in 0..DEVICES_PER_USER_MAX {
        world.run_for(1_000);
        world.users.users[bob].devices[laptop].id = format!("{:032x}", 0x1000 + other);
        world.attach(bob, laptop, "");
        world.run_for(500);
        assert_eq!(world.acknowledge(bob, laptop), Ok(()));
    }
    assert_eq!(tell(&mut world, alice, bob), Ok(()), "the two that had not read it are forgotten");
    assert_eq!(tell(&mut world, alice, bob), Ok(()));
    assert_eq!(tell(&mut world, alice, bob), Err(Reason::InboxFull));
    let call = world.ask(1, Request::AcknowledgeMessages { token: TokenHash::of("x"), cursor: String::new() });
    assert_eq!(world.answer(1, call).unwrap_err().reason, Reason::TokenInvalid);
    let token = world.users.users[bob].devices[laptop].token;
    let call = world.ask(1, Request::AcknowledgeMessages { token, cursor: "9-0000000000000000".into() });
    assert_eq!(world.answer(1, call).unwrap_err().reason, Reason::CursorUnknown);
    let attach = AttachRequest { device_id: "phone".into(), ..AttachRequest::default() };
    let attachment = socp::input::AttachmentId(world.handle());
    let call = world.ask(1, Request::Attach { token, attachment, attach });
    assert_eq!(world.answer(1, call).unwrap_err().reason, Reason::StatementInvalid);
}

#[test]
fn a_cursor_of_another_inbox_is_refused_and_the_device_reads_anew() {
    let (mut world, alice, bob) = alice_and_bob();
    for _ in 0..3 {
        assert_eq!(tell(&mut world, alice, bob), Ok(()));
    }
    world.attach(bob, 0, "");
    world.run_for(1_000);
    let had = world.users.users[bob].had.clone();
    let refused = |world: &mut World, cursor: String| {
        let device = world.new_device(bob);
        let token = world.users.users[bob].devices[device].token;
        let attachment = socp::input::AttachmentId(world.handle());
        let attach = AttachRequest { cursor, ..AttachRequest::default() };
        let request = Request::Attach { token, attachment, attach };
        let call = world.ask(1, request);
        world.answer(1, call).map(drop).map_err(|rejection| rejection.reason)
    };
    for wrong in ["x", "4-0000000000000000", "3-0000000000000000", &("4".to_owned() + &had[1..])] {
        assert_eq!(refused(&mut world, wrong.into()), Err(Reason::CursorUnknown), "{wrong}");
    }
    assert_eq!(refused(&mut world, had.clone()), Ok(()));
    // The home lost its disk, and other messages have the same positions now.
    world.restart_with_empty_disk(1);
    world.run_for(10_000);
    world.new_device(bob);
    for _ in 0..3 {
        assert_eq!(tell(&mut world, alice, bob), Ok(()));
    }
    assert_eq!(refused(&mut world, had), Err(Reason::CursorUnknown));
    let device = world.new_device(bob);
    world.attach(bob, device, "");
    world.run_for(1_000);
    assert_eq!(position(&world, bob, device), 3);
}
