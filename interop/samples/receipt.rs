//! Receipts between the samples and our client: given to who asks for them, and asked for.

use std::time::Instant;

use serde_json::json;

use super::partner::{Partner, RETURN_TIME_MAX, START_TIME_MAX, Sample, folder};
use crate::harness::{client::User, forward::Forward, mesh::Mesh};

/// The sample says that it has what it is told, and our client that it was read.
#[track_caller]
fn exchange(language: &str) {
    let mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let way = Forward::to(mesh[0].client);
    let bob = User::register("bob", &mesh[1]);
    let mut partner = Partner::with(&bob, format!("{language}@server-a"), &["--receipts", "read"]);
    let kept = folder();
    let more = ["--receipts", "delivered"];
    let mut sample = Sample::start_with(language, mesh.site(0), &way, &bob.label, kept.path(), &more);
    partner.meets(START_TIME_MAX);
    partner.exchanges_pings(|_, nonce| nonce.to_owned());

    // Anybody who asks is answered, and who does not is not.
    let mut carol = User::register("carol", &mesh[1]).chat();
    carol.shows(&partner.sample);
    carol.tell(&partner.sample, "hello");
    let mut dave = User::register("dave", &mesh[1]).chat_with(&["--receipts", "read"]);
    dave.shows(&partner.sample);
    dave.say(&format!("/tell {} hello", partner.sample));
    let sent = dave.answer();
    let receipt = dave.expect("a receipt", |event| event["event"] == "receipt");
    assert_eq!((&receipt["from"], &receipt["kind"]), (&json!(partner.sample), &json!("delivered")));
    assert_eq!(receipt["ids"], json!([sent["id"]]));
    dave.quit();
    carol.say("/list");
    carol.expect("the list's end", |event| event["event"] == "listed");
    assert!(carol.passed().iter().all(|event| event["event"] != "receipt"), "carol asked for none");
    carol.quit();

    // Its pings were read, its answers are.
    let deadline = Instant::now() + RETURN_TIME_MAX;
    loop {
        let told = partner.asks("receipts").expect("nothing is refused");
        assert_eq!(told["delivered"], 0, "our client said that all was read: {told}");
        if told["read"].as_u64() >= Some(2) {
            break;
        }
        assert!(Instant::now() < deadline, "{told}");
    }
    partner.parts_from(&mut sample);
    partner.live.quit();
}

#[test]
fn the_python_sample_gives_receipts_and_counts_those_of_our_client() {
    exchange("python");
}

#[test]
fn the_go_sample_gives_receipts_and_counts_those_of_our_client() {
    exchange("go");
}

#[test]
fn the_node_sample_gives_receipts_and_counts_those_of_our_client() {
    exchange("node");
}

#[test]
fn the_java_sample_gives_receipts_and_counts_those_of_our_client() {
    exchange("java");
}
