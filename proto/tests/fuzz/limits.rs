//! What a rogue peer or client could once use against a node, and the limits that stop them.

use socp::{
    federation::v1::{KeepAlive, advertise_frame, remove_frame},
    id::ContentHash,
    input::{Frame, Request},
    limits::{SENDS_PER_SESSION_MAX, SESSION_IDLE_MS, STRANGERS_CHECKS_MAX, WAITING_MAX},
    output::Refusal,
    v1::{ChannelKeyWrap, OutcomeKind, Reason},
};

use crate::{rogue, victim::Victim};

fn keep_alive() -> Frame {
    rogue::remove(remove_frame::Kind::KeepAlive(KeepAlive { positions: Vec::new(), time_unix_ms: 0 }))
}

#[test]
fn frames_that_overtake_the_hello_are_kept_up_to_64_and_taken_after_it() {
    let mut victim = Victim::new(1);
    let link = victim.link_up(false);
    (0..64).for_each(|_| victim.frame(link, keep_alive()));
    assert_eq!(victim.refusals, []);
    victim.frame(link, keep_alive());
    assert_eq!(victim.refusals, [Refusal::OutOfTurn]);
    let hello = victim.rogue.hello();
    victim.frame(link, hello);
    assert_eq!(victim.refusals.len(), 1);
}

#[test]
fn a_message_that_is_refused_because_too_many_wait_was_not_sent() {
    let mut victim = Victim::new(1);
    victim.link();
    let token = victim.log_in("alice");
    let mut rng = victim.rng.fork();
    for _ in 0..WAITING_MAX {
        let message = victim.rogue.message_out(&mut rng);
        let call = victim.send(token, message);
        assert_eq!(victim.reason(call), None);
    }
    let sent = victim.sent.len();
    let message = victim.rogue.message_out(&mut rng);
    let call = victim.send(token, message);
    assert_eq!(victim.reason(call), Some(Reason::TooMany));
    assert_eq!(victim.sent.len(), sent);
}

#[test]
fn a_retry_beyond_those_that_may_wait_for_one_message_is_refused_and_not_sent() {
    let mut victim = Victim::new(1);
    victim.link();
    let token = victim.log_in("alice");
    let mut rng = victim.rng.fork();
    let message = victim.rogue.message_out(&mut rng);
    for _ in 0..SENDS_PER_SESSION_MAX {
        let call = victim.send(token, message.clone());
        assert_eq!(victim.reason(call), None);
    }
    let sent = victim.sent.len();
    let call = victim.send(token, message);
    assert_eq!(victim.reason(call), Some(Reason::TooMany));
    assert_eq!(victim.sent.len(), sent);
}

#[test]
fn a_home_can_refuse_a_message_only_for_a_reason_that_is_a_homes() {
    let mut victim = Victim::new(1);
    let link = victim.link();
    let token = victim.log_in("alice");
    let mut rng = victim.rng.fork();
    let told = [
        ("RECIPIENT_OFFLINE", Reason::RecipientOffline),
        ("TOKEN_INVALID", Reason::UnknownType),
        ("SERVER_FAILED", Reason::UnknownType),
        ("NOT_A_REASON", Reason::UnknownType),
    ];
    for (name, expected) in told {
        let message = victim.rogue.message_out(&mut rng);
        let hash = ContentHash::of(&message.statement);
        let call = victim.send(token, message);
        let outcome = victim.rogue.outcome(Some(hash), OutcomeKind::Rejected.into(), name, 0);
        let frame = victim.rogue.outcome_frame(outcome);
        victim.frame(link, frame);
        assert_eq!(victim.reason(call), Some(expected), "{name}");
    }
}

#[test]
fn an_outcome_of_no_kind_is_refused_and_the_call_waits_on() {
    let mut victim = Victim::new(1);
    let link = victim.link();
    let token = victim.log_in("alice");
    let message = victim.rogue.message_out(&mut victim.rng);
    let hash = ContentHash::of(&message.statement);
    let call = victim.send(token, message);
    for kind in [0, 77] {
        let outcome = victim.rogue.outcome(Some(hash), kind, "", 1);
        let frame = victim.rogue.outcome_frame(outcome);
        victim.frame(link, frame);
    }
    assert_eq!(victim.refusals, [Refusal::Malformed("outcome.kind"); 2]);
    assert!(victim.answers[&call].is_empty());
}

#[test]
fn each_member_gets_the_first_wrap_for_its_own_key_and_no_other() {
    let mut victim = Victim::new(1);
    let link = victim.link();
    let home = victim.node.id();
    let wrap = |recipient: &str, key: &str, byte: u8| ChannelKeyWrap {
        recipient: recipient.into(),
        recipient_home_id: home.to_string(),
        recipient_key_sha256: rogue::fingerprint(key),
        wrapped_key: vec![byte; 512].into(),
    };
    let cases = [
        (vec![wrap("anchor", "anchor", 1), wrap("anchor", "anchor", 2)], vec![1; 512]),
        (vec![wrap("anchor", "alice", 1), wrap("anchor", "anchor", 2)], vec![2; 512]),
        (vec![wrap("alice", "anchor", 1), wrap("alice", "alice", 2)], Vec::new()),
    ];
    for (wraps, expected) in cases {
        let post = rogue::seal_post(&mut victim.rng, victim.rogue.id(), "eve", rogue::UNIX_MS);
        let frame = victim.rogue.post_frame(post, wraps);
        victim.frame(link, frame);
        assert_eq!(victim.wrapped.pop(), Some(expected));
    }
}

#[test]
fn a_session_that_was_attached_for_a_month_outlives_a_broken_stream() {
    let mut victim = Victim::new(1);
    let token = victim.log_in("alice");
    let attachment = victim.attach(token, "own");
    victim.pass(SESSION_IDLE_MS + 1);
    victim.break_stream(attachment);
    victim.pass(60_000);
    let call = victim.call(Request::Authorize { token });
    assert_eq!(victim.reason(call), None);
    victim.pass(SESSION_IDLE_MS + 10_000);
    let call = victim.call(Request::Authorize { token });
    assert_eq!(victim.reason(call), Some(Reason::TokenInvalid), "unused for a month, it ends");
}

#[test]
fn registrations_of_strangers_never_keep_a_user_from_sending() {
    let mut victim = Victim::new(1);
    victim.link();
    let token = victim.log_in("alice");
    let home = victim.node.id();
    let register = |victim: &mut Victim, number: usize| {
        let statement = rogue::key_statement(home, &format!("stranger{number}"));
        let call = victim.call(Request::Register { statement, invite: String::new(), display_name: String::new() });
        victim.reason(call)
    };
    for number in 0..STRANGERS_CHECKS_MAX {
        assert_eq!(register(&mut victim, number), None);
    }
    assert_eq!(register(&mut victim, STRANGERS_CHECKS_MAX), Some(Reason::TooMany));
    let message = victim.rogue.message_out(&mut victim.rng);
    let call = victim.send(token, message);
    assert_eq!(victim.reason(call), None);
    assert_eq!(victim.sent.iter().filter(|(_, frame)| matches!(frame, Frame::Deliver(_))).count(), 1);
}

#[test]
fn a_peer_that_says_it_is_ahead_and_sends_nothing_is_asked_ever_less_often() {
    let mut victim = Victim::new(1);
    let link = victim.link();
    let mut asked_ms = Vec::new();
    for step in 0..1_200_u64 {
        victim.sent.clear();
        let ahead = victim.rogue.keep_alive_ahead();
        victim.frame(link, ahead);
        let is_request = |frame: &Frame| matches!(frame, Frame::Advertise(frame) if matches!(frame.kind, Some(advertise_frame::Kind::CatchUpRequest(_))));
        victim.pass(100);
        asked_ms.extend(victim.sent.iter().any(|(_, frame)| is_request(frame)).then_some(100 * step));
    }
    let gaps: Vec<u64> = asked_ms.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.is_sorted_by(|one, next| *next + 200 >= *one), "{gaps:?}");
    // It is waited for up to 24 s, and then asked again after 8 s.
    assert!((30_000..=34_000).contains(gaps.last().expect("it was asked more than once")), "{gaps:?}");
    assert!(asked_ms.len() < 20, "{asked_ms:?}");
}
