//! Sample clients in other languages: each holds the exchange of `interop/README.md` with our own client.
//!
//! What a sample did is known from its exit status and from what our client opened of it; what it prints is for people.

mod channel;
mod file;
mod partner;
mod receipt;

use serde_json::{Value, json};

use self::partner::{Partner, RETURN_TIME_MAX, START_TIME_MAX, Sample, folder, nonce};
use crate::harness::{caller::Caller, client::User, forward::Forward, mesh::Mesh, wire::Wire};

/// The whole exchange.
#[track_caller]
fn exchange(language: &str) {
    let mut mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let way = Forward::to(mesh[0].client);
    let alice = Caller::new("alice", &mesh[0], Wire::H3);
    let [carol, dave] = [("carol", 0), ("dave", 1)].map(|(name, at)| Caller::new(name, &mesh[at], Wire::H3));
    let carols = carol.attach();
    let bob = User::register("bob", &mesh[1]);
    let mut partner = Partner::new(&bob, format!("{language}@server-a"));
    let kept = folder();

    let mut sample = Sample::start(language, mesh.site(0), &way, &bob.label, kept.path());
    partner.meets(START_TIME_MAX);
    partner.exchanges_pings(|_, nonce| nonce.to_owned());
    file::exchange(&mut partner, kept.path());
    let first = partner.expects_view("the present state", &alice, |_| true);
    assert_eq!((&first["resumed"], &first["started_over"]), (&json!(0), &json!(0)), "it was never cut off");

    way.break_off();
    drop(carols);
    let _daves = dave.attach();
    let label = partner.sample.clone();
    partner.live.shows("dave@server-b");
    partner.misses("carol@server-a");
    partner.misses(&label);
    way.heal();
    partner.meets(RETURN_TIME_MAX);
    let resumed = |view: &Value| view["resumed"].as_u64() >= Some(1);
    let again = partner.expects_view("the state after a break", &alice, resumed);
    assert_eq!(again["started_over"], 0, "its token was good: {again}");

    mesh.stop(0);
    partner.live.removed(&label, "unreachable");
    mesh.start(0);
    partner.meets(RETURN_TIME_MAX);
    let alice = Caller::new("alice", &mesh[0], Wire::H3);
    let started_over = |view: &Value| view["started_over"].as_u64() >= Some(1);
    partner.expects_view("the state at another start of the server", &alice, started_over);

    let refusals = partner.asks("refusals").expect("nothing is refused");
    let expected = json!({
        "login_replayed": "NONCE_EXPIRED",
        "wrong_signature": "INVALID_SIG",
        "unknown_user": "USER_NOT_FOUND",
        "no_token": "TOKEN_INVALID",
    });
    assert_eq!(refusals, expected);

    // What is sent to one whose home is away is queued, and settled later. The sample posts that its home has taken it.
    let late = nonce();
    let mut erin = User::register("erin", &mesh[0]).chat();
    partner.tell(&format!("later {late}"));
    partner.asks("view").expect("nothing is refused");
    mesh.stop(1);
    assert_eq!(erin.post(&format!("accepted {late}")), label);
    erin.quit();
    mesh.start(1);
    let heard = partner.next().expect("nothing is refused");
    assert_eq!((&*heard.word, heard.argument), ("later", late));
    partner.live.shows(&label);
    partner.expects_settled();

    partner.parts_from(&mut sample);
    partner.live.removed(&label, "left");

    // The next run reads what came meanwhile, and nothing of what the first one had: that ended with `bye`.
    let (meanwhile, _first) = (nonce(), sample);
    partner.tell(&format!("ping {meanwhile}"));
    let mut sample = Sample::start(language, mesh.site(0), &way, &bob.label, kept.path());
    partner.meets(START_TIME_MAX);
    partner.exchanges_more_pings(vec![meanwhile], |_, nonce| nonce.to_owned());
    partner.parts_from(&mut sample);
    partner.live.quit();
}

#[test]
fn the_python_sample_exchanges_sealed_messages_with_our_client_and_keeps_a_correct_watch() {
    exchange("python");
}

#[test]
fn the_go_sample_exchanges_sealed_messages_with_our_client_and_keeps_a_correct_watch() {
    exchange("go");
}

#[test]
fn the_node_sample_exchanges_sealed_messages_with_our_client_and_keeps_a_correct_watch() {
    exchange("node");
}

#[test]
fn the_java_sample_exchanges_sealed_messages_with_our_client_and_keeps_a_correct_watch() {
    exchange("java");
}

#[test]
fn the_python_sample_fails_if_a_nonce_of_its_own_does_not_come_back() {
    let mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let way = Forward::to(mesh[0].client);
    let bob = User::register("bob", &mesh[1]);
    let mut partner = Partner::new(&bob, "python@server-a".into());
    let kept = folder();
    let mut sample = Sample::start("python", mesh.site(0), &way, &bob.label, kept.path());
    partner.meets(START_TIME_MAX);
    partner.exchanges_pings(|kind, own| if kind == "post" { nonce() } else { own.to_owned() });
    partner.tell("bye");
    assert_eq!(sample.0.wait().code(), Some(1));
}
