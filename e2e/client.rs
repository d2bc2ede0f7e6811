//! The client as its user meets it: exit codes, hints, whom it talks to, and what it prints.

use std::{fs, process::Output};

use crate::harness::{
    client::{User, command, registration},
    forward::Forward,
    mesh::{self, Mesh},
};

#[track_caller]
fn fails(output: &Output, code: i32, parts: &[&str]) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(output.stdout.is_empty(), "data and errors do not mix: {}", String::from_utf8_lossy(&output.stdout));
    for part in ["error: "].iter().chain(parts) {
        assert!(errors.contains(part), "`{part}` in: {errors}");
    }
}

#[test]
fn exit_codes_tell_done_refused_and_failed_apart() {
    let (_site, server) = mesh::alone();
    let alice = User::register("alice", &server);
    assert_eq!(alice.run(&["whoami"]).status.code(), Some(0));
    assert_eq!(alice.run(&["list"]).status.code(), Some(0));
    fails(&alice.run(&["tell", "nobody", "hi"]), 1, &["`nobody`", "(USER_NOT_FOUND)", "hint: "]);
    let to_herself = alice.run(&["tell", "alice", "hi"]);
    assert_eq!(to_herself.status.code(), Some(0), "it waits for her: {}", String::from_utf8_lossy(&to_herself.stderr));
    fails(&alice.run(&["--profile", "other", "list"]), 2, &["`other`", "hint: "]);
    server.stop();
    // Over QUIC nobody refuses, and it takes a while to be sure.
    fails(&alice.run(&["--transport", "tcp", "list"]), 2, &["cannot connect", "hint: "]);
    let nobody = tempfile::tempdir().expect("a temporary folder can be made");
    fails(&command(nobody.path()).arg("list").output().expect("socp runs"), 2, &["no profile", "hint: "]);
    let usage = command(nobody.path()).arg("frobnicate").output().expect("socp runs");
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn a_client_talks_to_the_server_that_it_pinned_and_to_no_other() {
    let mesh = Mesh::started(&[0, 1]);
    for transport in ["h3", "tcp", "auto"] {
        let home = tempfile::tempdir().expect("a temporary folder can be made");
        let mut arguments = registration("alice", mesh[0].client, mesh[1].id);
        arguments.extend(["--transport".to_owned(), transport.to_owned()]);
        let output = command(home.path()).args(arguments).output().expect("socp runs");
        fails(&output, 1, &[&mesh[1].id.to_string(), "hint: "]);
    }
    assert!(mesh[0].asked(&["users"]).is_empty(), "nothing was said before the id was checked");
    // A profile whose address comes to lead to another server.
    let alice = User::register("alice", &mesh[0]);
    let profile = alice.profile().join("profile.toml");
    let text = fs::read_to_string(&profile).expect("it is there");
    let (here, there) = (mesh[0].client.to_string(), mesh[1].client.to_string());
    fs::write(&profile, text.replace(&here, &there)).expect("the folder is ours");
    fails(&alice.run(&["list"]), 1, &[&mesh[0].id.to_string(), "hint: "]);
}

#[test]
fn a_client_with_a_ca_learns_the_servers_id_and_keeps_to_it() {
    let mesh = Mesh::started(&[0, 1]);
    let ca = mesh[0].ca.display().to_string();
    let register_at = |index: usize| {
        let home = tempfile::tempdir().expect("a temporary folder can be made");
        let mut arguments = registration("alice", mesh[index].client, mesh[index].id);
        arguments[4] = "--ca".into();
        arguments[5] = ca.clone();
        let output = command(home.path()).args(arguments).output().expect("socp runs");
        (home, output)
    };
    let (home, output) = register_at(0);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let told = command(home.path()).args(["--json", "whoami"]).output().expect("socp runs");
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("it prints an object");
    assert_eq!(told["server_id"], mesh[0].id.to_string());
    fails(&register_at(1).1, 2, &["certificate", "hint: "]);
}

#[test]
fn a_key_is_kept_encrypted_and_only_its_passphrase_opens_it() {
    let (_site, server) = mesh::alone();
    let home = tempfile::tempdir().expect("a temporary folder can be made");
    let mut arguments = registration("alice", server.client, server.id);
    assert_eq!(arguments.pop().as_deref(), Some("--no-passphrase"));
    let output = command(home.path()).args(&arguments).output().expect("socp runs");
    fails(&output, 2, &["passphrase", "hint: "]);
    let output = command(home.path()).args(&arguments).env("SOCP_PASSPHRASE", "open sesame").output();
    let output = output.expect("socp runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let key = fs::read_to_string(home.path().join("profiles/alice/key.pem")).expect("it is there");
    assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    let bob = User::register("bob", &server);
    let mut chat = bob.chat();
    let tell = |passphrase: &str| {
        let mut command = command(home.path());
        command.args(["tell", "bob", "by passphrase"]).env("SOCP_PASSPHRASE", passphrase).output().expect("socp runs")
    };
    fails(&tell("open barley"), 2, &["does not open", "hint: "]);
    assert_eq!(tell("open sesame").status.code(), Some(0));
    assert_eq!(chat.message("by passphrase"), "alice@server-a");
    let file = home.path().join("passphrase");
    fs::write(&file, "open sesame\n").expect("the folder is ours");
    let output = command(home.path()).arg("--passphrase-file").arg(&file).args(["tell", "bob", "by file"]).output();
    assert_eq!(output.expect("socp runs").status.code(), Some(0));
    chat.message("by file");
}

#[test]
fn the_commands_that_answer_once_print_their_data_as_json() {
    let (_site, server) = mesh::alone();
    let (alice, bob) = (User::register("alice", &server), User::register("bob", &server));
    let mut chat = bob.chat_with(&["--status", "at her desk"]);
    let who = &alice.json(&["whoami"])[0];
    assert_eq!((&who["user"], &who["server_id"]), (&"alice@server-a".into(), &server.id.to_string().into()));
    let list = alice.json(&["list"]);
    assert_eq!((&list[0]["user"], &list[0]["status"]), (&"bob@server-a".into(), &"at her desk".into()));
    assert_eq!(list[1]["entries"], 1);
    let sent = &alice.json(&["tell", "bob", "two", "words"])[0];
    assert_eq!((&sent["event"], &sent["outcome"]), (&"sent".into(), &"handed_over".into()));
    chat.message("two words");
    let sent = &alice.json(&["all", "to", "everybody"])[0];
    assert_eq!((&sent["kind"], &sent["recipients"]), (&"post".into(), &1.into()));
    assert_eq!(chat.post("to everybody"), "alice@server-a");
    let own = &alice.json(&["fingerprint"])[0]["fingerprint"];
    let seen = &bob.json(&["fingerprint", "alice"])[0]["fingerprint"];
    assert_eq!((own, seen), (seen, &who_shows(&mut chat).into()));
    let sessions = alice.json(&["sessions"]);
    assert_eq!(sessions.iter().filter(|session| session["current"] == true).count(), 1, "{sessions:?}");
    assert_eq!(alice.token().len(), 64);
}

fn who_shows(chat: &mut crate::harness::client::Live) -> String {
    chat.say("/who alice");
    let who = chat.expect("who she is", |event| event["event"] == "who");
    assert_eq!((&who["user"], &who["online"]), (&"alice@server-a".into(), &false.into()));
    who["fingerprint"].as_str().expect("it has a key").to_owned()
}

#[test]
fn a_chat_prints_for_people_who_comes_and_goes() {
    let (_site, server) = mesh::alone();
    let (alice, bob) = (User::register("alice", &server), User::register("bob", &server));
    let mut watch = alice.watch();
    let mut process = command(bob.home());
    process.arg("chat").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut chat = process.spawn().expect("socp runs");
    watch.added("bob@server-a");
    let at_alices = alice.chat();
    watch.added("alice@server-a");
    at_alices.quit();
    watch.removed("alice@server-a", "left");
    // The end of its input ends the chat after what came before.
    drop(chat.stdin.take());
    let text = String::from_utf8(chat.wait_with_output().expect("it ends").stdout).expect("it prints text");
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("`{part}` in: {text}"));
    let added = place("[user added] alice@server-a is now available for messaging");
    assert!(added < place("[user removed] alice@server-a"), "{text}");
}

#[test]
fn the_transport_that_connects_is_used_and_remembered() {
    let (_site, server) = mesh::alone();
    let alice = User::register("alice", &server);
    for transport in ["h3", "tcp"] {
        let mut chat = alice.start(&["--transport", transport, "chat"]);
        let attached = chat.expect("that it is attached", |event| event["event"] == "attached");
        assert_eq!(attached["transport"], transport);
        chat.quit();
    }
    let remembered = fs::read_to_string(alice.profile().join("transport")).expect("it is kept");
    assert!(["h3", "tcp"].contains(&remembered.trim()), "{remembered}");
    // Where UDP does not get through, TCP does.
    let forward = Forward::tcp_only(server.client);
    let bob = User::register_at("bob", &server, forward.address);
    let mut chat = bob.start(&["chat"]);
    let attached = chat.expect("that it is attached", |event| event["event"] == "attached");
    assert_eq!(attached["transport"], "tcp");
    chat.quit();
}

#[test]
fn a_command_that_is_done_leaves_no_connection_behind() {
    let (_site, server) = mesh::alone();
    let alice = User::register("alice", &server);
    assert!(alice.run(&["--transport", "h3", "list"]).status.success());
    // Not by the idle timeout: the client said that it goes.
    server.log(&["a connection ended", "closed by the peer"]);
}
