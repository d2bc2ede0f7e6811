//! The public channel: a post is kept before anybody is told, read once by each stream of those whom it is for, and bounded.

use prost::{Message as _, bytes::Bytes};
use socp::{
    channel::KeyName,
    id::ContentHash,
    inbox::Cursor,
    input::{CallId, Request},
    limits::{CHANNEL_MS, RSA_BYTES},
    output::Answer,
    v1::{ChannelKeyWrap, GetChannelKeyRequest, OutcomeKind, OutcomeStatement, Reason, SealedPost},
};

use crate::{checks::posts::BEGINNING, world::World};

fn hash(sealed: &SealedPost) -> ContentHash {
    ContentHash::of(&sealed.statement)
}

/// What the homes said of a post: kind and recipients of each.
fn words(world: &mut World, server: usize, call: CallId) -> Vec<(OutcomeKind, u32)> {
    let Ok(Answer::Posted(posted)) = world.answer(server, call) else { panic!("the post was taken") };
    let word = |statement: &Bytes| {
        let statement = OutcomeStatement::decode(&statement[..]).expect("a home signs what can be read");
        (statement.outcomes[0].kind(), statement.outcomes[0].recipients)
    };
    posted.outcomes.iter().map(|signed| word(&signed.statement)).collect()
}

/// Makes a post and waits until it is taken.
fn post(world: &mut World, from: usize) -> ContentHash {
    let sealed = world.sealed_post(from);
    let call = world.send_post(from, sealed.clone(), Vec::new(), 1);
    words(world, world.users.users[from].server, call);
    hash(&sealed)
}

fn attach_after(world: &mut World, user: usize, device: usize, cursor: &str) {
    world.users.users[user].devices[device].channel_cursor = cursor.to_owned();
    world.attach(user, device, "");
    world.run_for(1_000);
}

fn cursor(world: &World, user: usize, device: usize) -> String {
    world.users.users[user].devices[device].channel_cursor.clone()
}

#[test]
fn a_post_is_taken_only_once_it_is_on_disk_and_then_outlives_a_crash() {
    for home in [0, 1] {
        let mut world = World::calm(&[0, 1]);
        let alice = world.online_user(0, "alice");
        let bob = world.online_user(home, "bob");
        let address = world.address(bob);
        // Online by its grace, so that nobody has the post when the power goes.
        world.break_stream(bob, 0);
        let sealed = world.sealed_post(alice);
        let call = world.send_post(alice, sealed.clone(), Vec::new(), 9);
        while !world.servers[0].answers.contains_key(&call) {
            world.run_for(1);
        }
        assert_eq!(words(&mut world, 0, call), [(OutcomeKind::HandedOver, 0)]);
        world.crash(home, 500);
        world.run_for(10_000);
        let device = world.new_device(bob);
        attach_after(&mut world, bob, device, BEGINNING);
        assert_eq!(world.deliveries.count(&address, hash(&sealed)), 1, "it is there after the restart, home {home}");
        // And a retry is known, over the restart.
        if home == 0 {
            world.new_device(alice);
        }
        let call = world.send_post(alice, sealed.clone(), Vec::new(), 9);
        assert_eq!(words(&mut world, 0, call), [(OutcomeKind::Stored, 1)]);
        world.run_for(1_000);
        assert_eq!(world.deliveries.count(&address, hash(&sealed)), 1);
    }
}

#[test]
fn a_stream_that_comes_back_gets_the_posts_it_missed_once_and_no_others() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.online_user(1, "bob");
    let address = world.address(bob);
    let early = post(&mut world, alice);
    world.run_for(500);
    let since = cursor(&world, bob, 0);
    world.break_stream(bob, 0);
    let missed: Vec<ContentHash> = (0..12).map(|_| post(&mut world, alice)).collect();
    assert_eq!(world.posts.log(&address), [early]);
    attach_after(&mut world, bob, 0, &since);
    assert_eq!(world.posts.log(&address), [&[early], &missed[..]].concat());
    // Nobody of bob is online: it is not for him, whatever he asks for.
    world.detach(bob, 0);
    world.online_user(1, "carol");
    let not_his = post(&mut world, alice);
    attach_after(&mut world, bob, 0, BEGINNING);
    assert_eq!(world.posts.log(&address).len(), 13);
    assert_eq!(world.deliveries.count(&address, not_his), 0);
    for hash in &missed {
        assert_eq!(world.deliveries.count(&address, *hash), 2, "once by each stream that asked for it");
    }
    // One that asks for nothing gets what comes from now on, and one beside it the same.
    let newest = world.new_device(bob);
    attach_after(&mut world, bob, newest, "");
    assert_eq!(world.deliveries.count(&address, early), 2);
    let live = post(&mut world, alice);
    world.run_for(500);
    assert_eq!(world.deliveries.count(&address, live), 2);
    assert_eq!(cursor(&world, bob, 0), cursor(&world, bob, newest));
}

#[test]
fn posts_that_come_while_a_stream_is_given_others_are_given_after_them() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.online_user(1, "bob");
    world.break_stream(bob, 0);
    for _ in 0..9 {
        post(&mut world, alice);
    }
    world.attach(bob, 0, "");
    let calls: Vec<CallId> = (0..9).map(|_| world.post(alice)).collect();
    calls.into_iter().for_each(|call| drop(words(&mut world, 0, call)));
    world.run_for(1_000);
    // In order, which the checker of posts looks at.
    assert_eq!(world.posts.log(&world.address(bob)).len(), 18);
}

#[test]
fn the_log_holds_so_many_posts_and_so_many_bytes_and_each_for_a_day_and_who_comes_late_is_told() {
    let mut world = World::calm(&[0, 1]);
    world.restart_with(1, |settings| settings.channel.posts_max = 5);
    world.run_for(2_000);
    let alice = world.online_user(0, "alice");
    let bob = world.online_user(1, "bob");
    let all: Vec<ContentHash> = (0..5).map(|_| post(&mut world, alice)).collect();
    world.run_for(1_000);
    assert_eq!(world.servers[1].disk.mail.channel.count(), 5, "at the limit nothing goes");
    let sixth = post(&mut world, alice);
    world.run_for(1_000);
    assert_eq!(world.servers[1].disk.mail.channel.count(), 5);
    world.posts = Default::default();
    attach_after(&mut world, bob, 0, BEGINNING);
    assert_eq!(world.posts.missed(), [1]);
    assert_eq!(world.posts.log(&world.address(bob)), [&all[1..], &[sixth]].concat());

    let bytes = {
        let sealed = world.sealed_post(alice);
        u64::from(socp::channel::bytes(&sealed)) + "bob\n".len() as u64
    };
    world.restart_with(1, |settings| settings.channel.bytes_max = bytes);
    world.run_for(2_000);
    let device = world.new_device(bob);
    attach_after(&mut world, bob, device, "");
    post(&mut world, alice);
    world.run_for(1_000);
    assert_eq!(world.servers[1].disk.mail.channel.count(), 1, "as many bytes as there is room for");
    world.run_for(CHANNEL_MS - 60_000);
    assert_eq!(world.servers[1].disk.mail.channel.count(), 1);
    world.run_for(120_000);
    assert_eq!(world.servers[1].disk.mail.channel.count(), 0);
    assert_eq!(world.servers[1].disk.mail.channel.log().wrapped, []);
}

#[test]
fn a_channel_key_is_given_again_to_the_member_it_was_wrapped_to_and_to_nobody_else() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let [bob, carol] = ["bob", "carol"].map(|name| world.online_user(1, name));
    let header = world.header(alice, bob);
    let wrap = |to: &str, key: &Bytes, byte: u8| ChannelKeyWrap {
        recipient: to.into(),
        recipient_home_id: header.recipient_home_id.clone(),
        recipient_key_sha256: key.clone(),
        wrapped_key: vec![byte; RSA_BYTES].into(),
    };
    let carols_key = world.header(alice, carol).recipient_key_sha256;
    let wraps = vec![
        wrap("bob", &header.recipient_key_sha256, 7),
        // Of a key that carol has not.
        wrap("carol", &header.recipient_key_sha256, 8),
        wrap("dave", &carols_key, 9),
    ];
    let sealed = world.sealed_post(alice);
    let call = world.send_post(alice, sealed, wraps, 1);
    assert_eq!(words(&mut world, 0, call), [(OutcomeKind::HandedOver, 2)]);
    let ask = |world: &mut World, user: usize, key_id: Vec<u8>| {
        let token = world.users.users[user].devices[0].token;
        let (sender, sender_home_id) = (header.sender.clone(), header.sender_home_id.clone());
        let wanted = GetChannelKeyRequest { sender, sender_home_id, key_id: key_id.into() };
        let call = world.ask(1, Request::GetChannelKey { token, wanted });
        world.answer(1, call)
    };
    let key = KeyName { sender: world.address(alice), id: [1; 16] };
    for (user, wrapped) in [(bob, Some(7)), (carol, None)] {
        let Ok(Answer::ChannelKey { user, key: named }) = ask(&mut world, user, vec![1; 16]) else { panic!("refused") };
        assert_eq!(named, key);
        let found = world.servers[1].disk.mail.channel.key(&user, &named);
        assert_eq!(found.map(|found| found[0]), wrapped, "{user}");
    }
    let refused = ask(&mut world, bob, vec![1; 15]).unwrap_err();
    assert_eq!(refused.reason, Reason::StatementInvalid);
}

#[test]
fn a_cursor_of_another_log_is_refused_by_name() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let bob = world.online_user(1, "bob");
    post(&mut world, alice);
    world.run_for(500);
    let token = world.users.users[bob].devices[0].token;
    let other = Cursor::of(1, &ContentHash::of(b"another post")).to_string();
    for wrong in [&other, "2-0000000000000000", "x"] {
        let attach = socp::v1::AttachRequest { channel_cursor: wrong.into(), ..Default::default() };
        let attachment = socp::input::AttachmentId(world.handle());
        let call = world.ask(1, Request::Attach { token, attachment, attach });
        let refused = world.answer(1, call).unwrap_err();
        assert_eq!(refused.reason, Reason::CursorUnknown, "{wrong}");
        assert_eq!(refused.metadata, [("field", "channel_cursor".to_owned())]);
    }
}
