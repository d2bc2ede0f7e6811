//! Looking back through an inbox: pages meet without gap or repeat, are bounded, and say nothing of who is here or has what.

use prost::{Message as _, bytes::Bytes};
use socp::{
    id::TokenHash,
    inbox::Stored,
    input::{CallId, Request},
    limits::{REPLAY_BYTES, REPLAY_ENTRIES_MAX},
    output::{Answer, Page},
    signed::{Label, signing_input},
    v1::{MessageStatement, Reason, SealedMessage},
};

use crate::{inbox::alice_and_bob, keys::seal, world::World};

/// A message of which the parts take so many bytes.
fn of_bytes(world: &mut World, from: usize, to: usize, bytes: usize) -> SealedMessage {
    let header = world.header(from, to).encode_to_vec();
    let statement = |length| {
        MessageStatement {
            header: header.clone().into(),
            nonce: Bytes::from_static(&[0; 12]),
            ciphertext: vec![7; length].into(),
            key_commitment: Bytes::from_static(&[0; 32]),
            ..MessageStatement::default()
        }
        .encode_to_vec()
    };
    let room = bytes - 2 * 512;
    let length = (0..room).rev().find(|length| statement(*length).len() <= room).expect("it has room for its header");
    let statement = statement(length);
    assert_eq!(statement.len(), room);
    let signature = seal(&world.users.users[from].spki, &signing_input(Label::Message, &statement));
    SealedMessage { statement: statement.into(), signature, wrapped_key: vec![0; 512].into() }
}

fn sent(world: &mut World, from: usize, messages: Vec<SealedMessage>) {
    for messages in messages.chunks(100) {
        let calls: Vec<CallId> = messages.iter().map(|message| world.send(from, message.clone(), 1)).collect();
        for call in calls {
            assert!(world.answer(0, call).is_ok());
        }
    }
}

fn page(world: &mut World, user: usize, before: &str) -> Result<Page, Reason> {
    let server = world.users.users[user].server;
    let token = world.users.users[user].devices[0].token;
    let call = world.ask(server, Request::ReadInbox { token, before: before.into() });
    match world.answer(server, call) {
        Ok(Answer::InboxPage(page)) => Ok(page),
        Ok(other) => panic!("{other:?}"),
        Err(rejection) => Err(rejection.reason),
    }
}

/// What a shell reads of a page.
fn read(world: &World, page: &Page) -> Vec<Stored> {
    let stored = world.servers[1].disk.mail.page(&page.user, page.after, REPLAY_ENTRIES_MAX);
    stored.into_iter().filter(|stored| stored.position <= page.up_to).collect()
}

/// The sizes of all pages from the newest back, which hold every message once and in order.
fn sizes(world: &mut World, user: usize, first: u64, last: u64) -> Vec<usize> {
    let (mut sizes, mut before, mut next) = (Vec::new(), String::new(), last);
    loop {
        let page = page(world, user, &before).expect("the cursor is good");
        let stored = read(world, &page);
        let positions: Vec<u64> = stored.iter().map(|stored| stored.position).collect();
        assert_eq!(positions, (next + 1 - stored.len() as u64..=next).collect::<Vec<_>>());
        sizes.push(stored.len());
        next -= stored.len() as u64;
        if !page.has_older {
            assert_eq!(next + 1, first);
            return sizes;
        }
        before = stored[0].cursor().to_string();
    }
}

#[test]
fn pages_of_an_inbox_meet_without_gap_or_repeat_and_hold_128_at_most() {
    let (mut world, alice, bob) = alice_and_bob();
    let nothing = page(&mut world, bob, "").expect("an empty inbox is no error");
    assert!(nothing.up_to == nothing.after && !nothing.has_older);
    for (more, expected) in [(REPLAY_ENTRIES_MAX, vec![128]), (1, vec![128, 1]), (171, vec![128, 128, 44])] {
        let messages = (0..more).map(|_| of_bytes(&mut world, alice, bob, 1_500)).collect();
        sent(&mut world, alice, messages);
        let last = expected.iter().sum::<usize>() as u64;
        assert_eq!(sizes(&mut world, bob, 1, last), expected);
    }
}

#[test]
fn a_page_of_an_inbox_holds_256_kib_at_most_or_a_single_message() {
    let (mut world, alice, bob) = alice_and_bob();
    let quarter = REPLAY_BYTES / 4;
    let sizes_of = |world: &mut World, bytes: &[usize], expected: &[usize]| {
        let (alice, bob) = (alice, bob);
        let last = world.servers[1].disk.mail.page(&world.address(bob).user, 0, usize::MAX).len() as u64;
        let messages = bytes.iter().map(|bytes| of_bytes(world, alice, bob, *bytes)).collect();
        sent(world, alice, messages);
        let all = sizes(world, bob, 1, last + bytes.len() as u64);
        assert_eq!(all[..expected.len()], *expected);
    };
    sizes_of(&mut world, &[quarter; 4], &[4]);
    // The newest first: with one byte more than fits, the oldest is left for the next page.
    sizes_of(&mut world, &[quarter, quarter, quarter, quarter + 1], &[3, 4]);
}

#[test]
fn looking_back_makes_nobody_online_and_acknowledges_nothing() {
    let (mut world, alice, bob) = alice_and_bob();
    world.restart_with(1, |settings| settings.inbox.entries_max = 16);
    world.users.forget_sessions(1);
    world.run_for(10_000);
    world.new_device(bob);
    let messages = (0..2).map(|_| of_bytes(&mut world, alice, bob, 1_500)).collect();
    sent(&mut world, alice, messages);
    let newest = page(&mut world, bob, "").expect("it has one");
    assert_eq!(read(&world, &newest).len(), 2);
    let call = world.tell(alice, bob);
    assert_eq!(world.answer(0, call).unwrap_err().reason, Reason::InboxFull, "they count as unread still");
    let node = world.servers[0].node.as_ref().expect("it runs");
    assert!(node.directory().entries().all(|entry| entry.address != world.address(bob)));
}

#[test]
fn a_page_is_given_to_its_owner_only_and_before_a_cursor_of_that_inbox_only() {
    let (mut world, alice, bob) = alice_and_bob();
    let messages = (0..3).map(|_| of_bytes(&mut world, alice, bob, 1_500)).collect();
    sent(&mut world, alice, messages);
    let all = page(&mut world, bob, "").expect("it has one");
    let stored = read(&world, &all);
    let second = page(&mut world, bob, &stored[1].cursor().to_string()).expect("it is in it");
    assert_eq!((second.after, second.up_to, second.has_older), (0, 1, false));
    let first = page(&mut world, bob, &stored[0].cursor().to_string()).expect("it is in it");
    assert!(first.up_to <= first.after && !first.has_older);
    for wrong in ["x", "4-0000000000000000", "3-0000000000000000"] {
        assert_eq!(page(&mut world, bob, wrong), Err(Reason::CursorUnknown), "{wrong}");
    }
    let call = world.ask(1, Request::ReadInbox { token: TokenHash::of("x"), before: String::new() });
    assert_eq!(world.answer(1, call).unwrap_err().reason, Reason::TokenInvalid);
    // Of an inbox of which all up to the first is gone, nothing before it is left.
    let own = page(&mut world, alice, "").expect("an empty inbox is no error");
    assert!(own.up_to == own.after, "another user's messages are not in it");
}

#[test]
fn one_who_attaches_is_told_how_many_are_unread() {
    let (mut world, alice, bob) = alice_and_bob();
    let messages = (0..3).map(|_| of_bytes(&mut world, alice, bob, 1_500)).collect();
    sent(&mut world, alice, messages);
    let all = page(&mut world, bob, "").expect("it has one");
    let cursors: Vec<String> = read(&world, &all).iter().map(|stored| stored.cursor().to_string()).collect();
    for (cursor, unread) in [("", 3), (&cursors[0], 2), (&cursors[2], 0)] {
        let device = world.new_device(bob);
        world.users.users[bob].devices[device].cursor = cursor.into();
        world.attach(bob, device, "");
        let answers = world.servers[1].answers.values().rev();
        let told = answers.filter_map(|answer| if let Ok(Answer::Attached(told)) = answer { Some(told) } else { None });
        assert_eq!(told.map(|told| told.unread).next(), Some(unread), "after `{cursor}`");
    }
}
