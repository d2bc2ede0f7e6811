//! Files by the samples: what arrives is what was sent.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::partner::{Partner, RETURN_TIME_MAX};

/// Bytes of the file that is exchanged: some chunks, and a part of one.
const BYTES: usize = 300_001;

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
