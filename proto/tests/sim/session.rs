//! Logins, sessions and presence.

use socp::{
    id::TokenHash,
    input::{AttachmentId, Request},
    limits::{NONCE_MS, SESSIONS_PER_USER_MAX},
    output::Answer,
    statement::encode_login,
    v1::{AttachRequest, Reason},
};

use crate::{checks, keys::seal, world::World};

fn is_shown(world: &World, label: &str) -> bool {
    world.servers[0].watch.labels().iter().any(|shown| shown == label)
}

#[test]
fn a_user_with_two_sessions_stays_online_until_the_last_one_ends() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let second = world.new_device(alice);
    world.attach(alice, second, "");
    world.detach(alice, 0);
    world.run_for(500);
    checks::at_rest(&world);
    assert!(is_shown(&world, "alice@server-a"));
    world.detach(alice, second);
    world.run_for(500);
    checks::at_rest(&world);
    assert!(!is_shown(&world, "alice@server-a"));
}

#[test]
fn an_old_session_closing_late_removes_nobody() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let old = world.users.users[alice].devices[0].attachment.unwrap();
    world.attach(alice, 0, "");
    world.input(0, socp::input::Input::AttachmentEnded { attachment: old });
    world.run_for(10_000);
    checks::at_rest(&world);
    assert!(is_shown(&world, "alice@server-a"));
}

#[test]
fn watching_does_not_make_a_user_online_and_receiving_does() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.add_user(0, "alice");
    let device = world.new_device(alice);
    let token = world.users.users[alice].devices[device].token;
    let call = world.ask(0, Request::Authorize { token });
    assert!(matches!(world.answer(0, call), Ok(Answer::Authorized)));
    world.run_for(1_000);
    assert!(!is_shown(&world, "alice@server-a"));
    world.attach(alice, device, "");
    assert!(is_shown(&world, "alice@server-a"));
}

#[test]
fn a_broken_stream_keeps_its_user_online_for_the_grace_and_no_longer() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let changes = world.servers[1].watch.changes.len();
    world.break_stream(alice, 0);
    world.run_for(1_900);
    assert!(is_shown(&world, "alice@server-a"));
    world.attach(alice, 0, "");
    world.run_for(5_000);
    assert_eq!(world.servers[1].watch.changes.len(), changes, "coming back within the grace is not seen");
    world.break_stream(alice, 0);
    world.run_for(2_100);
    assert!(!is_shown(&world, "alice@server-a"));
}

#[test]
fn the_grace_counts_from_the_latest_break() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    world.break_stream(alice, 0);
    world.run_for(1_500);
    world.attach(alice, 0, "");
    world.break_stream(alice, 0);
    world.run_for(1_500);
    assert!(is_shown(&world, "alice@server-a"), "the first grace is over, the second is not");
    world.run_for(600);
    assert!(!is_shown(&world, "alice@server-a"));
}

#[test]
fn logging_in_proves_possession_of_the_private_key() {
    let mut world = World::calm(&[0]);
    let alice = world.online_user(0, "alice");
    let mallory = world.online_user(0, "mallory");
    let nonce = world.challenge(alice);
    let user = world.users.users[alice].clone();
    let statement = encode_login(world.servers[0].id, &user.name, &nonce);
    let input = socp::signed::signing_input(socp::signed::Label::Login, &statement);
    let signature = seal(&world.users.users[mallory].spki, &input);
    let token = TokenHash::of("stolen");
    let session = socp::id::SessionId::from_bytes(&[1; 16]).unwrap();
    let request = Request::LogIn { statement: statement.into(), signature, device: String::new(), token, session };
    let call = world.ask(0, request);
    assert_eq!(world.answer(0, call).unwrap_err().reason, Reason::InvalidSig);
    let call = world.ask(0, Request::Authorize { token });
    assert_eq!(world.answer(0, call).unwrap_err().reason, Reason::TokenInvalid);
}

#[test]
fn a_login_cannot_be_replayed() {
    let mut world = World::calm(&[0]);
    let alice = world.online_user(0, "alice");
    let nonce = world.challenge(alice);
    let first = world.log_in_request(alice, &nonce, TokenHash::of("first"));
    let call = world.ask(0, first);
    assert!(world.answer(0, call).is_ok());
    let again = world.log_in_request(alice, &nonce, TokenHash::of("again"));
    let call = world.ask(0, again);
    assert_eq!(world.answer(0, call).unwrap_err().reason, Reason::NonceExpired);
}

#[test]
fn a_nonce_is_good_for_a_minute() {
    for (wait_ms, is_good) in [(NONCE_MS - 1_000, true), (NONCE_MS, false)] {
        let mut world = World::calm(&[0]);
        let alice = world.online_user(0, "alice");
        let nonce = world.challenge(alice);
        world.run_for(wait_ms);
        let request = world.log_in_request(alice, &nonce, TokenHash::of("late"));
        let call = world.ask(0, request);
        assert_eq!(world.answer(0, call).is_ok(), is_good, "after {wait_ms} ms");
    }
}

#[test]
fn a_relaying_server_cannot_log_in_elsewhere_with_a_signature_that_it_was_given() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    // A rogue server B wants to be alice at A: it gets a nonce of A, and gives it to alice as its own. She signs for B.
    let nonce = world.challenge(alice);
    let user = world.users.users[alice].clone();
    let statement = encode_login(world.servers[1].id, &user.name, &nonce);
    let input = socp::signed::signing_input(socp::signed::Label::Login, &statement);
    let signature = seal(&user.spki, &input);
    let (token, session) = (TokenHash::of("relayed"), socp::id::SessionId::from_bytes(&[1; 16]).unwrap());
    let request = Request::LogIn { statement: statement.into(), signature, device: String::new(), token, session };
    let call = world.ask(0, request);
    assert_eq!(world.answer(0, call).unwrap_err().reason, Reason::WrongServer);
}

#[test]
fn a_session_ends_with_log_out_and_its_token_is_void() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let token = world.users.users[alice].devices[0].token;
    let call = world.ask(0, Request::LogOut { token, session: String::new() });
    assert!(matches!(world.answer(0, call), Ok(Answer::LoggedOut)));
    world.run_for(500);
    assert!(world.servers.iter().all(|server| server.watch.labels().is_empty()));
    let call = world.ask(0, Request::ListSessions { token });
    assert_eq!(world.answer(0, call).unwrap_err().reason, Reason::TokenInvalid);
}

#[test]
fn a_disabled_user_goes_offline_at_once_and_cannot_log_in() {
    let mut world = World::calm(&[0, 1]);
    let alice = world.online_user(0, "alice");
    let call = world.ask(0, Request::SetDisabled { user: "alice".into(), disabled: true });
    assert!(matches!(world.answer(0, call), Ok(Answer::DisabledSet)));
    world.run_for(500);
    assert!(world.servers[1].watch.labels().is_empty());
    let call = world.ask_to_log_in(alice);
    assert_eq!(world.answer(0, call).unwrap_err().reason, Reason::UserDisabled);
}

#[test]
fn the_oldest_idle_session_makes_room_and_attached_ones_do_not() {
    let mut world = World::calm(&[0]);
    let alice = world.online_user(0, "alice");
    while world.users.users[alice].devices.len() < SESSIONS_PER_USER_MAX {
        world.new_device(alice);
    }
    let idle = world.users.users[alice].devices[1].token;
    world.new_device(alice);
    let call = world.ask(0, Request::Authorize { token: idle });
    assert_eq!(world.answer(0, call).unwrap_err().reason, Reason::TokenInvalid);
    world.users.users[alice].devices.remove(1);
    for device in 1..SESSIONS_PER_USER_MAX {
        world.attach(alice, device, "");
    }
    let call = world.ask_to_log_in(alice);
    assert_eq!(world.answer(0, call).unwrap_err().reason, Reason::TooMany);
}

#[test]
fn a_status_at_its_limit_is_shown_and_one_past_it_is_too_large() {
    let mut world = World::calm(&[0]);
    let alice = world.add_user(0, "alice");
    let device = world.new_device(alice);
    let token = world.users.users[alice].devices[device].token;
    for (bytes, is_good) in [(socp::limits::STATUS_BYTES_MAX, true), (socp::limits::STATUS_BYTES_MAX + 1, false)] {
        let attachment = AttachmentId(world.handle());
        let call = world.ask(
            0,
            Request::Attach {
                token,
                attachment,
                attach: AttachRequest { status: "x".repeat(bytes), ..AttachRequest::default() },
            },
        );
        assert_eq!(world.answer(0, call).is_ok(), is_good, "{bytes} bytes");
    }
}
