//! Files by the samples: what arrives is what was sent, whatever breaks on the way.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::partner::{Partner, RETURN_TIME_MAX, START_TIME_MAX, Sample, folder};
use crate::harness::{client::User, forward::Forward, mesh::Mesh};

/// Bytes of the file that is exchanged: some chunks, and a part of one.
const BYTES: usize = 300_001;

/// Bytes of one that breaks off half-way: many times what sockets hold.
const LARGE_BYTES: usize = 32 << 20;

/// A name that leads elsewhere on another system, and what is left of that.
const NAME: &str = "..\\..\\-a file\u{1b}.bin";
const SAVED_AS: &str = "_-a file.bin";

/// Sends a file, which the sample saves in this folder and sends back.
#[track_caller]
pub fn exchange(partner: &mut Partner, samples: &Path) {
    let content = send(partner, BYTES);
    expect_back(partner, samples, &content);
}

#[track_caller]
fn send(partner: &mut Partner, bytes: usize) -> Vec<u8> {
    let content: Vec<u8> = (0..bytes).map(|_| fastrand::u8(..)).collect();
    let path = partner.out.path().join(NAME);
    fs::write(&path, &content).expect("the folder can be written to");
    partner.live.say(&format!("/file {} {}", partner.sample, path.display()));
    content
}

#[track_caller]
fn expect_back(partner: &mut Partner, samples: &Path, content: &[u8]) {
    let is_end = |event: &Value| matches!(event["event"].as_str(), Some("file_saved" | "error" | "unreadable"));
    let saved = partner.live.expect_within(RETURN_TIME_MAX, "that it came back", is_end);
    let back = partner.saved.path().join(SAVED_AS);
    assert_eq!((&saved["event"], &saved["path"]), (&json!("file_saved"), &json!(back)), "{saved}");
    assert!(fs::read(back).expect("it is there") == content, "it is as it was");
    assert!(fs::read(samples.join(SAVED_AS)).expect("the sample saved it") == content, "the sample's, too");
    let part = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".part");
    let left = fs::read_dir(samples).expect("it is there").flatten().any(|entry| part(&entry));
    assert!(!left, "nothing is left under a temporary name");
}

/// The sample's home is killed when half of a file has come, and the way to it breaks when half of it has gone back.
#[track_caller]
fn goes_on(language: &str) {
    let mut mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let way = Forward::to(mesh[0].client);
    let bob = User::register("bob", &mesh[1]);
    let mut partner = Partner::new(&bob, format!("{language}@server-a"));
    let kept = folder();
    let mut sample = Sample::start(language, mesh.site(0), &way, &bob.label, kept.path());
    partner.meets(START_TIME_MAX);
    partner.exchanges_pings(|_, nonce| nonce.to_owned());

    let (before, bytes) = (way.passed(), u64::try_from(LARGE_BYTES).expect("it is small enough"));
    way.break_after(bytes / 2);
    let content = send(&mut partner, LARGE_BYTES);
    way.broke();
    mesh.kill(0);
    assert!(!kept.path().join(SAVED_AS).exists(), "never half-written under its name");
    mesh.start(0);
    // What sockets held is lost and comes again: less than half of the file.
    way.break_after(bytes);
    way.heal();
    way.broke();
    assert!(fs::read(kept.path().join(SAVED_AS)).expect("it came") == content, "it is what was sent");
    way.heal();
    expect_back(&mut partner, kept.path(), &content);
    assert!(way.passed() - before < 2 * bytes + bytes / 2, "it went on where it was, both times");
    partner.parts_from(&mut sample);
    partner.live.quit();
}

#[test]
fn the_python_sample_goes_on_with_a_file_after_its_home_was_killed_and_after_its_way_broke() {
    goes_on("python");
}

#[test]
fn the_go_sample_goes_on_with_a_file_after_its_home_was_killed_and_after_its_way_broke() {
    goes_on("go");
}

#[test]
fn the_node_sample_goes_on_with_a_file_after_its_home_was_killed_and_after_its_way_broke() {
    goes_on("node");
}

#[test]
fn the_java_sample_goes_on_with_a_file_after_its_home_was_killed_and_after_its_way_broke() {
    goes_on("java");
}
