//! One node, and an issuer of admissions that says anything: what is taken of it, how much, and for how long.

use std::collections::BTreeSet;

use socp::{
    admission::Admission,
    federation::v1::{
        Admissions, AdvertiseFrame, Hello, KeepAlive, NewcomerQuery, RemoveFrame, SignedAdmission, advertise_frame,
        remove_frame,
    },
    id::{ServerId, StartId},
    identity::Identity as _,
    inbox::Mail,
    input::{CallId, Frame, Input, Now, Request},
    limits::{
        ADMISSION_DAYS_MAX, ADMISSION_MS, ADMISSION_RENEW_MS, ADMISSIONS_FRAME_MAX, ADMISSIONS_KEPT_PER_ISSUER_MAX,
        ADMISSIONS_PER_ISSUER_MAX, ADMISSIONS_TAKEN_MAX, BLOCKED_MAX, DAY_MS,
    },
    name::ServerName,
    node::{Node, Pin, Settings, Start, Trust},
    operator::v1::Standing,
    output::{Answer, Note, Output, Refusal},
    v1::Reason,
};

use crate::{keys::SimIdentity, links::LINK};

const OWN: u64 = 1;
const ISSUER: u64 = 2;

fn id(seed: u64) -> ServerId {
    ServerId::of_key(&SimIdentity::new(seed).public_key())
}

fn name(text: &str) -> ServerName {
    ServerName::parse(text).unwrap()
}

const BEGIN: u64 = 1_800_000_000_000;

struct Alone {
    node: Node,
    now: Now,
    calls: u64,
}

impl Alone {
    /// A node whose clock shows [`BEGIN`], with one peer, which is pinned and linked.
    fn new() -> Self {
        let peers = vec![Pin { id: id(ISSUER), name: name("server-b"), is_dialled: false }];
        let mut alone = Self::with(Settings { introduces: false, peers, ..Settings::new(name("server-a")) });
        alone.input(Input::LinkUp { link: LINK, peer: id(ISSUER), dialled: false });
        let hello = Hello {
            version_major: 1,
            version_minor: 0,
            name: "server-b".into(),
            epoch: 1,
            start_id: vec![2; 16].into(),
            positions: Vec::new(),
        };
        alone.input(Input::Frame {
            link: LINK,
            frame: Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Hello(hello)) }),
        });
        alone
    }

    fn with(settings: Settings) -> Self {
        let start = Start {
            identity: Box::new(SimIdentity::new(OWN)),
            epoch: 1,
            start_id: StartId::from_bytes(&[1; 16]).unwrap(),
            seed: 1,
            accounts: Vec::new(),
            invites: Vec::new(),
            trust: Trust::default(),
            mail: Mail::default(),
        };
        let now = Now { monotonic_ms: 0, unix_ms: BEGIN };
        let mut alone = Self { node: Node::new(settings, start), now, calls: 0 };
        alone.input(Input::Tick);
        alone
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.node.handle(self.now, input)
    }

    /// Lets time pass while the peer says that it lives.
    fn later(&mut self, ms: u64) {
        for _ in 0..ms / 1_000 {
            self.now = Now { monotonic_ms: self.now.monotonic_ms + 1_000, unix_ms: self.now.unix_ms + 1_000 };
            let kind = Some(remove_frame::Kind::KeepAlive(KeepAlive::default()));
            self.input(Input::Frame { link: LINK, frame: Frame::Remove(RemoveFrame { kind }) });
        }
    }

    /// Lets time pass at once.
    fn pass(&mut self, ms: u64) -> Vec<Output> {
        self.now = Now { monotonic_ms: self.now.monotonic_ms + ms, unix_ms: self.now.unix_ms + ms };
        self.input(Input::Tick)
    }

    fn says(&mut self, said: &[&Admission]) -> Vec<Output> {
        self.input(Input::Frame { link: LINK, frame: admissions(said.iter().copied()) })
    }

    fn ask(&mut self, request: Request) -> Result<Answer, Reason> {
        self.calls += 1;
        let outputs = self.input(Input::Call { call: CallId(self.calls), request });
        let answer = outputs.into_iter().find_map(|output| match output {
            Output::Answer { result, .. } => Some(result),
            _ => None,
        });
        answer.expect("it is answered").map_err(|rejection| rejection.reason)
    }

    fn admitted(&mut self) -> BTreeSet<String> {
        let Ok(Answer::Peers(list)) = self.ask(Request::ListPeers) else { panic!("peers are listed") };
        let admitted = list.peers.into_iter().filter(|peer| peer.standing() == Standing::Admitted);
        admitted.map(|peer| peer.name).collect()
    }
}

pub fn admissions<'a>(said: impl IntoIterator<Item = &'a Admission>) -> Frame {
    let admissions = said.into_iter().map(|said| said.signed.clone()).collect();
    Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Admissions(Admissions { admissions })) })
}

/// What the server of one seed says of another.
fn word(issuer: u64, subject: u64, serial: u64, until_unix_ms: u64, is_revoked: bool) -> Admission {
    let called = name(&format!("server-{subject}"));
    Admission::sign(&SimIdentity::new(issuer), id(subject), called, serial, until_unix_ms, is_revoked)
}

fn refusals(outputs: &[Output]) -> Vec<Refusal> {
    let refusal = |output: &Output| match output {
        Output::Note(Note::FrameRefused { refusal, .. }) => Some(*refusal),
        _ => None,
    };
    outputs.iter().filter_map(refusal).collect()
}

/// The frames of the removals' stream that were sent.
fn sent(outputs: &[Output]) -> Vec<remove_frame::Kind> {
    let frame = |output: &Output| match output {
        Output::Send { frame: Frame::Remove(frame), .. } => frame.kind.clone(),
        _ => None,
    };
    outputs.iter().filter_map(frame).collect()
}

fn sent_admissions(outputs: &[Output]) -> Vec<Admission> {
    let of = |kind: remove_frame::Kind| match kind {
        remove_frame::Kind::Admissions(frame) => frame.admissions,
        _ => Vec::new(),
    };
    sent(outputs).into_iter().flat_map(of).map(|signed| Admission::parse(&signed).unwrap()).collect()
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_strangers_a_forged_an_expired_and_a_replayed_admission_let_nobody_in() {
    let until = BEGIN + DAY_MS;
    let mut alone = Alone::new();
    assert_eq!(refusals(&alone.says(&[&word(9, 10, 1, until, false)])), [], "of a stranger: it is ignored");
    let good = word(ISSUER, 10, 2, until, false);
    let mut forged = good.clone();
    forged.signed.signature = vec![0; 64].into();
    assert_eq!(refusals(&alone.says(&[&forged])), [Refusal::BadSignature]);
    let mut altered = good.clone();
    altered.signed.statement = word(ISSUER, 11, 2, until, false).signed.statement;
    assert_eq!(refusals(&alone.says(&[&altered])), [Refusal::BadSignature]);
    let by_another = Admission { signed: word(9, 10, 2, until, false).signed, ..good.clone() };
    alone.says(&[&by_another, &word(ISSUER, 12, 1, BEGIN, false)]);
    assert_eq!(alone.admitted(), names(&[]));
    // The good one does; taken back it is out, and the same or an older word does not bring it back.
    alone.says(&[&good]);
    assert_eq!(alone.admitted(), names(&["server-10"]));
    alone.says(&[&word(ISSUER, 10, 3, until, true)]);
    alone.says(&[&good, &word(ISSUER, 10, 1, until + DAY_MS, false), &word(ISSUER, 10, 3, until, false)]);
    assert_eq!(alone.admitted(), names(&[]));
    alone.says(&[&word(ISSUER, 10, 4, until, false)]);
    assert_eq!(alone.admitted(), names(&["server-10"]));
}

#[test]
fn an_admission_ends_at_its_end_and_not_a_millisecond_before() {
    let mut alone = Alone::new();
    alone.says(&[&word(ISSUER, 10, 1, BEGIN + 2_000, false)]);
    alone.pass(1_999);
    assert_eq!(alone.admitted(), names(&["server-10"]));
    let outputs = alone.pass(1);
    let admitted = outputs.iter().find_map(|output| match output {
        Output::Admit(admitted) => Some((**admitted).clone()),
        _ => None,
    });
    assert_eq!(admitted, Some(BTreeSet::from([id(ISSUER)])), "the handshake lets it through no more");
    assert_eq!(alone.admitted(), names(&[]));
}

#[test]
fn a_clock_that_jumps_forward_and_back_lets_nobody_in_whose_admission_was_taken_back() {
    let until = BEGIN + DAY_MS;
    let (first, taken_back) = (word(ISSUER, 10, 1, until, false), word(ISSUER, 10, 2, until, true));
    let mut alone = Alone::new();
    alone.says(&[&first, &taken_back, &word(ISSUER, 11, 1, until, false)]);
    alone.now.unix_ms = until + DAY_MS;
    alone.later(10_000);
    assert_eq!(alone.admitted(), names(&[]));
    alone.says(&[&word(ISSUER, 12, 1, until + 9 * DAY_MS, false)]);
    alone.now.unix_ms = BEGIN;
    alone.later(10_000);
    assert_eq!(alone.admitted(), names(&["server-11", "server-12"]));
    alone.says(&[&first]);
    assert_eq!(alone.admitted(), names(&["server-11", "server-12"]));
}

#[test]
fn an_issuer_vouches_for_64_and_not_for_one_more_until_it_takes_one_back() {
    let until = BEGIN + DAY_MS;
    let mut alone = Alone::new();
    let last = 100 + ADMISSIONS_PER_ISSUER_MAX as u64;
    let all: Vec<Admission> = (100..last).map(|subject| word(ISSUER, subject, 1, until, false)).collect();
    assert_eq!(refusals(&alone.says(&all.iter().collect::<Vec<_>>())), []);
    assert_eq!(alone.admitted().len(), ADMISSIONS_PER_ISSUER_MAX);
    let one_more = word(ISSUER, last, 1, until, false);
    assert_eq!(refusals(&alone.says(&[&one_more])), [Refusal::TooMany("admissions")]);
    assert_eq!(alone.admitted().len(), ADMISSIONS_PER_ISSUER_MAX);
    assert_eq!(refusals(&alone.says(&[&word(ISSUER, 100, 2, until + 1, false)])), [], "a renewal is no other");
    assert_eq!(refusals(&alone.says(&[&word(ISSUER, 100, 3, until, true), &one_more])), []);
    assert!(alone.admitted().contains(&format!("server-{last}")));
}

#[test]
fn what_an_issuer_takes_back_is_kept_up_to_a_limit_and_past_it_what_is_over_makes_room() {
    let mut alone = Alone::new();
    let limit = 1_000 + ADMISSIONS_KEPT_PER_ISSUER_MAX as u64;
    for subject in 1_000..limit {
        // The first is over soon.
        let until = if subject == 1_000 { BEGIN + 1 } else { BEGIN + DAY_MS };
        assert_eq!(refusals(&alone.says(&[&word(ISSUER, subject, 2, until, true)])), []);
    }
    let late = word(ISSUER, limit, 1, BEGIN + DAY_MS, false);
    assert_eq!(refusals(&alone.says(&[&late])), [Refusal::TooMany("admissions")]);
    alone.pass(1);
    assert_eq!(refusals(&alone.says(&[&late])), []);
    assert_eq!(alone.admitted(), BTreeSet::from([format!("server-{limit}")]));
}

#[test]
fn an_issuer_that_changes_its_word_without_end_is_taken_so_often_and_then_once_in_ten_seconds() {
    let mut alone = Alone::new();
    let words = |serial: u64| word(ISSUER, 10, serial, BEGIN + DAY_MS, false);
    for serial in 1..=ADMISSIONS_TAKEN_MAX as u64 {
        assert_eq!(refusals(&alone.says(&[&words(serial)])), []);
    }
    let next = ADMISSIONS_TAKEN_MAX as u64 + 1;
    assert_eq!(refusals(&alone.says(&[&words(next)])), [Refusal::TooMany("admissions")]);
    alone.later(10_000);
    assert_eq!(refusals(&alone.says(&[&words(next)])), []);
    assert_eq!(refusals(&alone.says(&[&words(next + 1)])), [Refusal::TooMany("admissions")]);
}

#[test]
fn a_frame_holds_so_many_admissions_and_not_one_more() {
    let mut alone = Alone::new();
    let signed: Vec<SignedAdmission> =
        (0..=ADMISSIONS_FRAME_MAX).map(|number| word(9, 100 + number as u64, 1, 1, false).signed).collect();
    let mut frame = |count: usize| {
        let admissions = signed[..count].to_vec();
        let kind = Some(remove_frame::Kind::Admissions(Admissions { admissions }));
        refusals(&alone.input(Input::Frame { link: LINK, frame: Frame::Remove(RemoveFrame { kind }) }))
    };
    assert_eq!(frame(ADMISSIONS_FRAME_MAX), []);
    assert_eq!(frame(ADMISSIONS_FRAME_MAX + 1), [Refusal::TooMany("admissions")]);
}

#[test]
fn in_one_frame_the_order_does_not_matter_and_what_was_ignored_is_asked_for_once_its_issuer_is_admitted() {
    let until = BEGIN + DAY_MS;
    let (near, far) = (word(ISSUER, 10, 1, until, false), word(10, 11, 1, until, false));
    let mut alone = Alone::new();
    alone.says(&[&far, &near]);
    assert_eq!(alone.admitted(), names(&["server-10", "server-11"]));
    let mut alone = Alone::new();
    alone.says(&[&far]);
    assert_eq!(alone.admitted(), names(&[]), "strangers fill nothing");
    let server_id = id(10).as_bytes().to_vec().into();
    let query = |with_admissions| {
        remove_frame::Kind::NewcomerQuery(NewcomerQuery { server_id: Clone::clone(&server_id), with_admissions })
    };
    let asked = sent(&alone.says(&[&near]));
    assert!(asked.contains(&query(true)), "{asked:?}");
    let mut alone = Alone::new();
    let asked = sent(&alone.says(&[&near]));
    assert!(asked.contains(&query(false)), "nothing was ignored: {asked:?}");
}

#[test]
fn a_server_vouches_for_its_pins_renews_in_time_and_takes_back_whom_it_does_not_pin_any_more() {
    let pins = |count: u64| -> Vec<Pin> {
        let pin = |seed| Pin { id: id(seed), name: name(&format!("server-{seed}")), is_dialled: false };
        (100..100 + count).map(pin).collect()
    };
    let limit = ADMISSIONS_PER_ISSUER_MAX as u64;
    for (count, expected) in [(limit, limit), (limit + 1, limit)] {
        let mut alone = Alone::with(Settings { peers: pins(count), ..Settings::new(name("server-a")) });
        let Ok(Answer::Peers(list)) = alone.ask(Request::ListPeers) else { panic!("peers are listed") };
        let vouched = list.peers.iter().filter(|peer| peer.vouched_until_unix_ms > 0).count();
        assert_eq!(vouched as u64, expected, "of {count} pins");
    }
    let mut alone = Alone::with(Settings { peers: pins(1), ..Settings::new(name("server-a")) });
    let until = |alone: &mut Alone| match alone.ask(Request::ListPeers) {
        Ok(Answer::Peers(list)) => u64::try_from(list.peers[0].vouched_until_unix_ms).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(until(&mut alone), BEGIN + ADMISSION_MS);
    alone.pass(ADMISSION_MS - ADMISSION_RENEW_MS - 1);
    assert_eq!(until(&mut alone), BEGIN + ADMISSION_MS);
    alone.pass(1);
    assert_eq!(until(&mut alone), alone.now.unix_ms + ADMISSION_MS);
    // One that is blocked is not vouched for; a word that the operator took back is not given again by itself.
    let server = id(100).to_string();
    alone.ask(Request::SetBlocked { server: server.clone(), is_blocked: true }).unwrap();
    assert_eq!(until(&mut alone), 0);
    alone.ask(Request::SetBlocked { server: server.clone(), is_blocked: false }).unwrap();
    assert_eq!(until(&mut alone), alone.now.unix_ms + ADMISSION_MS);
    alone.ask(Request::RevokeAdmission { server_id: server.clone() }).unwrap();
    alone.pass(2 * ADMISSION_MS);
    assert_eq!(until(&mut alone), 0);
    alone.ask(Request::Admit { name: "server-100".into(), server_id: server, days: 1 }).unwrap();
    assert_eq!(until(&mut alone), alone.now.unix_ms + DAY_MS);
}

#[test]
fn an_own_word_that_comes_back_from_an_old_disk_counts_and_the_next_one_is_above_it() {
    let mut alone = Alone::new();
    let serial = BEGIN + 5;
    alone.says(&[&word(OWN, 10, serial, BEGIN + DAY_MS, false)]);
    assert_eq!(alone.admitted(), names(&["server-10"]));
    let outputs = {
        let request = Request::RevokeAdmission { server_id: id(10).to_string() };
        alone.input(Input::Call { call: CallId(99), request })
    };
    let said = sent_admissions(&outputs);
    assert_eq!(said.len(), 1);
    assert!(said[0].is_revoked && said[0].serial > serial);
    assert_eq!(alone.admitted(), names(&[]));
}

#[test]
fn every_wrong_request_of_an_operator_gives_its_own_typed_error() {
    let mut alone = Alone::new();
    let stranger = id(10).to_string();
    let mut admit = |name: &str, server_id: &str, days| {
        let request = Request::Admit { name: name.into(), server_id: server_id.into(), days };
        alone.ask(request).map(|_| ())
    };
    assert_eq!(admit("Server C", &stranger, 30), Err(Reason::NameInvalid));
    assert_eq!(admit("server-c", "10", 30), Err(Reason::StatementInvalid));
    assert_eq!(admit("server-c", &id(OWN).to_string(), 30), Err(Reason::StatementInvalid));
    for days in [0, ADMISSION_DAYS_MAX + 1] {
        assert_eq!(admit("server-c", &stranger, days), Err(Reason::StatementInvalid));
    }
    for taken in ["server-a", "server-b"] {
        assert_eq!(admit(taken, &stranger, 30), Err(Reason::NameInUse), "{taken}");
    }
    assert_eq!(admit("server-x", &id(ISSUER).to_string(), 30), Err(Reason::NameInUse), "it has another name");
    for days in [1, ADMISSION_DAYS_MAX] {
        assert_eq!(admit("server-c", &stranger, days), Ok(()));
    }
    for seed in 101..100 + ADMISSIONS_PER_ISSUER_MAX as u64 {
        assert_eq!(admit(&format!("server-{seed}"), &id(seed).to_string(), 30), Ok(()));
    }
    assert_eq!(admit("server-200", &id(200).to_string(), 30), Err(Reason::TooMany));
    let revoke = |server_id: String| Request::RevokeAdmission { server_id };
    assert_eq!(alone.ask(revoke(id(ISSUER).to_string())).map(|_| ()), Err(Reason::UserNotFound));
    assert_eq!(alone.ask(revoke("x".into())).map(|_| ()), Err(Reason::UserNotFound));
    let block = |server: String| Request::SetBlocked { server, is_blocked: true };
    assert_eq!(alone.ask(block("server-y".into())).map(|_| ()), Err(Reason::UserNotFound));
    assert_eq!(alone.ask(block("server-a".into())).map(|_| ()), Err(Reason::StatementInvalid));
    for seed in 0..BLOCKED_MAX as u64 {
        alone.ask(block(id(10_000 + seed).to_string())).unwrap();
    }
    assert_eq!(alone.ask(block(id(9_999).to_string())).map(|_| ()), Err(Reason::TooMany));
    alone.ask(block(id(10_000).to_string())).expect("said again it is no other");
    let blocked = Request::Admit { name: "server-z".into(), server_id: id(10_000).to_string(), days: 1 };
    assert_eq!(alone.ask(blocked).map(|_| ()), Err(Reason::StatementInvalid));
}
