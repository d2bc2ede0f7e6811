//! A second device: the key is carried over in a file, and both devices receive all.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    client::{User, command},
    mesh::Mesh,
    program::Program,
};

const PASSPHRASE: &str = "open sesame";

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

fn run(home: &Path, arguments: &[&str]) -> Output {
    command(home).env("SOCP_PASSPHRASE", PASSPHRASE).args(arguments).output().expect("socp runs")
}

#[track_caller]
fn json(home: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = run(home, &[&["--json"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("it prints text");
    text.lines().map(|line| serde_json::from_str(line).expect("it prints objects")).collect()
}

fn chat(home: &Path, what: &str) -> Program {
    let mut command = command(home);
    Program::start(what, command.env("SOCP_PASSPHRASE", PASSPHRASE).args(["--json", "chat"]))
}

#[track_caller]
fn shows(chat: &mut Program, texts: &[&str]) {
    for text in texts {
        let next = chat.expect(text, |event| event["event"] == "message");
        assert_eq!(next["text"], *text);
    }
}

#[track_caller]
fn refused(output: &Output, part: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains(part), "`{part}` in: {errors}");
}

#[test]
fn a_key_that_is_exported_and_imported_makes_a_second_device_and_both_receive_all() {
    let mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let [alice, bob] = [("alice", 0), ("bob", 1)].map(|(name, at)| User::register(name, &mesh[at]));
    let tell = |text: &str| assert!(alice.run(&["tell", &bob.label, text]).status.success());
    tell("one");
    let mut laptop = bob.start(&["chat"]);
    shows(&mut laptop, &["one"]);
    assert_eq!(bob.json(&["verify", &alice.label, "--confirm"])[0]["verified"], true);

    let place = folder();
    let file = place.path().join("bob.socp");
    let path = file.to_str().expect("the path is text");
    assert!(run(bob.home(), &["export", path]).status.success());
    let mode = fs::metadata(&file).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let text = fs::read_to_string(&file).expect("it is text");
    assert!(text.contains("BEGIN ENCRYPTED PRIVATE KEY") && !text.contains("server-b"), "{text}");
    refused(&run(bob.home(), &["export", path]), "already");
    assert_eq!(fs::read_to_string(&file).expect("it is text"), text, "and it is as it was");

    let phone_home = folder();
    let imported = &json(phone_home.path(), &["import", path])[0];
    assert_eq!(
        (&imported["user"], &imported["server_id"]),
        (&bob.label.as_str().into(), &mesh[1].id.to_string().into())
    );
    refused(&run(phone_home.path(), &["import", path]), "already");
    let profile = phone_home.path().join("profiles/bob");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&profile), mode(&profile.join("key.pem"))), (0o700, 0o600));
    assert!(!profile.join("device").exists() && !profile.join("inbox").exists() && !profile.join("token").exists());
    assert_eq!(json(phone_home.path(), &["verify", &alice.label])[0]["verified"], true, "what he compared came along");

    // What was there before it, and what comes to both, to one while the other is away, and after.
    let mut phone = chat(phone_home.path(), "bob's phone");
    shows(&mut phone, &["one"]);
    tell("two");
    shows(&mut laptop, &["two"]);
    shows(&mut phone, &["two"]);
    laptop.quit();
    tell("three");
    shows(&mut phone, &["three"]);
    let mut laptop = bob.start(&["chat"]);
    shows(&mut laptop, &["three"]);
    phone.say("/quit");
    assert!(phone.wait().success());
    tell("four");
    shows(&mut laptop, &["four"]);
    let mut phone = chat(phone_home.path(), "bob's phone");
    assert_eq!(phone.expect("how many came", |event| event["event"] == "unread")["messages"], 1);
    shows(&mut phone, &["four"]);
    let devices = [bob.profile(), profile].map(|of| fs::read_to_string(of.join("device")).expect("each has one"));
    assert_ne!(devices[0], devices[1]);
}

#[test]
fn an_export_without_its_passphrase_or_with_anything_changed_in_it_imports_nothing() {
    let (_site, server) = crate::harness::mesh::alone();
    let alice = User::register("alice", &server);
    let place = folder();
    let file = place.path().join("alice.socp");
    let path = file.to_str().expect("the path is text");
    // Her key is kept plain, and is not carried about so.
    refused(&alice.run(&["export", path]), "passphrase");
    assert!(!file.exists());
    assert!(run(alice.home(), &["export", path]).status.success());
    let home = folder();
    let wrong = command(home.path()).env("SOCP_PASSPHRASE", "open barley").args(["import", path]).output();
    refused(&wrong.expect("socp runs"), "does not open");
    let text = fs::read_to_string(&file).expect("it is text");
    let mut changed: Value = serde_json::from_str(&text).expect("it is an object");
    let ciphertext = changed["ciphertext"].as_str().expect("it is text");
    changed["ciphertext"] =
        ciphertext.replacen(&ciphertext[..1], if ciphertext.starts_with('0') { "1" } else { "0" }, 1).into();
    fs::write(&file, changed.to_string()).expect("the folder is ours");
    refused(&run(home.path(), &["import", path]), "(EXPORT_ALTERED)");
    refused(&run(home.path(), &["import", "/dev/null"]), "no exported profile");
    assert!(!home.path().join("profiles/alice").exists());
    fs::write(&file, text).expect("the folder is ours");
    assert!(run(home.path(), &["import", path]).status.success());
    assert!(run(home.path(), &["list"]).status.success());
}
