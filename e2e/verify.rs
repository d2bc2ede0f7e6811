//! Keys that two people compare over another way than this.

use std::fs;

use serde_json::Value;

use crate::harness::{client::User, mesh::Mesh};

#[track_caller]
fn verify(user: &User, arguments: &[&str]) -> Value {
    user.json(&[&["verify"], arguments].concat()).pop().expect("it tells one thing")
}

#[test]
fn both_sides_compute_one_safety_number_and_what_was_compared_shows_until_the_key_is_another() {
    let mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let [alice, bob] = [("alice", 0), ("bob", 1)].map(|(name, at)| User::register(name, &mesh[at]));
    let [at_alices, at_bobs] = [verify(&alice, &[&bob.label]), verify(&bob, &[&alice.label])];
    let number = at_alices["safety_number"].as_str().expect("it has one");
    assert_eq!(at_bobs["safety_number"], number);
    assert!(number.len() == 60 && number.bytes().all(|digit| digit.is_ascii_digit()), "{number}");
    assert_eq!((&at_bobs["verified"], &at_bobs["fingerprint"]), (&false.into(), &at_alices["own_fingerprint"]));

    // As text: three lines of four groups, and no code where nobody looks.
    let output = bob.run(&["verify", &alice.label]);
    let lines = String::from_utf8(output.stdout).expect("it prints text");
    assert_eq!(lines.split_whitespace().collect::<String>(), number);
    assert_eq!(lines.lines().map(|line| line.split(' ').count()).collect::<Vec<_>>(), [4, 4, 4]);

    // A number that is another one marks nothing; the right one does, however it is grouped.
    let wrong = format!("{}{}", &number[..59], if number.ends_with('0') { "1" } else { "0" });
    let output = bob.run(&["verify", &alice.label, "--number", &wrong]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && errors.contains("(SAFETY_NUMBER_DIFFERS)"), "{errors}");
    assert_eq!(verify(&bob, &[&alice.label])["verified"], false);
    assert_eq!(verify(&bob, &[&alice.label, "--number", &lines])["verified"], true);
    assert_eq!(verify(&bob, &[&alice.label])["verified"], true, "it is kept");

    let mut chat = bob.chat();
    let mut next = |text: &str| {
        assert!(alice.run(&["tell", &bob.label, text]).status.success());
        chat.expect(text, |event| event["event"] == "message" && event["text"] == text)["verified"].clone()
    };
    assert_eq!(next("one"), true);
    assert_eq!(verify(&bob, &[&alice.label, "--undo"])["verified"], false);
    assert_eq!(next("two"), false, "a chat that runs hears of it");
    assert_eq!(verify(&bob, &[&alice.label, "--confirm"])["verified"], true);
    assert_eq!(next("three"), true);
    chat.quit();
    let past = bob.json(&["history", "-n", "1"]);
    assert_eq!((&past[0]["text"], &past[0]["verified"]), (&"three".into(), &true.into()));

    // As if he had compared another key, which hers replaced since.
    let marks = bob.profile().join("verified.jsonl");
    let fingerprint = at_bobs["fingerprint"].as_str().expect("it is text");
    let text = fs::read_to_string(&marks).expect("it is there");
    fs::write(&marks, text.replace(fingerprint, &"ab".repeat(32))).expect("the folder is ours");
    let mut chat = bob.chat();
    assert!(alice.run(&["tell", &bob.label, "four"]).status.success());
    chat.expect("that the mark is gone", |event| event["event"] == "verification_lapsed");
    assert_eq!(chat.expect("four", |event| event["text"] == "four")["verified"], false);
    chat.say(&format!("/tell {} hi", alice.label));
    assert_eq!(chat.answer()["reason"], "VERIFICATION_LAPSED", "nothing is sent to it");
    let told = verify(&bob, &[&alice.label]);
    assert_eq!((&told["verified"], &told["lapsed"]), (&false.into(), &true.into()));
    assert_eq!(verify(&bob, &[&alice.label, "--confirm"])["lapsed"], false);
    chat.say(&format!("/tell {} hi", alice.label));
    assert_eq!(chat.answer()["event"], "sent");
}
