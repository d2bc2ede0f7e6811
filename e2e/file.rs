//! Files between real clients: what arrives is what was sent, whatever breaks on the way.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prost::bytes::Bytes;
use serde_json::Value;
use socp::v1::{CreateFileRequest, DownloadFileRequest, UploadBegin, UploadFileRequest, upload_file_request::Kind};
use tempfile::TempDir;
use tonic::Status;

use crate::{
    disk::bounded,
    harness::{
        DEADLINE, binaries,
        caller::Caller,
        client::{Live, User},
        draft::{sealed, send as send_message},
        mesh::{self, Mesh, Site},
        server::{self, Server},
        soon,
        wire::{WIRES, Wire, reason},
    },
};

const CHUNK: usize = 65_536;

/// Bytes that differ from place to place.
fn content(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

fn write(folder: &Path, name: &str, content: &[u8]) -> String {
    let path = folder.join(name);
    fs::write(&path, content).expect("the folder can be written to");
    path.display().to_string()
}

/// Names of all that is in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it can be read").file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().expect("it is text")).collect();
    names.sort();
    names
}

/// Sends a file by the command; gives the id of its message.
#[track_caller]
fn send(from: &User, to: &str, path: &str) -> String {
    let told = from.json(&["send-file", to, path]);
    let sent = told.last().expect("it tells what became of it");
    assert_eq!((&sent["event"], &sent["kind"]), (&"sent".into(), &"file".into()), "{sent}");
    sent["id"].as_str().expect("it has an id").to_owned()
}

/// Receives a file by the command; gives the path.
#[track_caller]
fn receive(user: &User, id: &str, into: &Path) -> PathBuf {
    let told = user.json(&["receive-file", id, "--into", &into.display().to_string()]);
    let saved = told.last().expect("it tells what became of it");
    assert_eq!(saved["event"], "file_saved", "{saved}");
    saved["path"].as_str().expect("it has a path").into()
}

#[test]
fn a_file_of_any_size_arrives_as_it_was_sent_and_nothing_else_does() {
    let (_site, server) = mesh::alone();
    let (alice, bob) = (User::register("alice", &server), User::register("bob", &server));
    let (out, kept, fetched) = (folder(), folder(), folder());
    let mut at_bobs = bob.chat_with(&["--files", &kept.path().display().to_string()]);
    for (number, bytes) in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 1_000_000].into_iter().enumerate() {
        let content = content(bytes);
        let id = send(&alice, &bob.label, &write(out.path(), "a file.bin", &content));
        let told = at_bobs.expect("that a file came", |event| event["event"] == "file");
        assert_eq!((&told["from"], &told["name"]), (&alice.label.clone().into(), &"a file.bin".into()));
        assert_eq!((&told["id"], &told["bytes"]), (&id.clone().into(), &bytes.into()));
        let saved = at_bobs.expect("that it was saved", |event| event["event"] == "file_saved");
        let name = if number == 0 { "a file.bin".to_owned() } else { format!("a file ({number}).bin") };
        assert_eq!(saved["path"], kept.path().join(&name).display().to_string(), "nothing is overwritten");
        assert_eq!(fs::read(kept.path().join(name)).expect("it is there"), content, "{bytes}");
        let path = receive(&bob, &id, fetched.path());
        assert_eq!(fs::read(path).expect("it is there"), content, "{bytes}");
    }
    assert_eq!((names(kept.path()).len(), names(fetched.path()).len()), (6, 6), "nothing is left beside them");
    // A name that leads elsewhere, and a command in the chat.
    let path = write(out.path(), "..\\..\\-evil\u{1b}[2J", b"harmless");
    let mut at_alices = alice.chat();
    at_alices.say(&format!("/file {} {path}", bob.label));
    assert_eq!(at_alices.answer()["kind"], "file");
    let saved = at_bobs.expect("that it was saved", |event| event["event"] == "file_saved");
    assert_eq!(saved["path"], kept.path().join("_-evil[2J").display().to_string());
}

#[test]
fn what_was_altered_at_the_server_is_not_saved() {
    let (_site, server) = mesh::alone();
    let (alice, bob) = (User::register("alice", &server), User::register("bob", &server));
    let (out, into) = (folder(), folder());
    let id = send(&alice, &bob.label, &write(out.path(), "a.bin", &content(3 * CHUNK)));
    let kept = server.data.join("files");
    let path = kept.join(&names(&kept)[0]);
    let mut bytes = fs::read(&path).expect("it is there");
    let beginning = &content(64)[..];
    assert!(!bytes.windows(64).any(|part| part == beginning), "it is encrypted");
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(&path, &bytes).expect("it can be written");
    let output = bob.run(&["receive-file", &id, "--into", &into.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("FILE_DAMAGED"), "{output:?}");
    assert_eq!(names(into.path()), Vec::<String>::new(), "nothing is left");
    let too_large = bob.run(&["receive-file", &id, "--max-bytes", "1000"]);
    assert!(String::from_utf8_lossy(&too_large.stderr).contains("TOO_LARGE"), "{too_large:?}");
}

#[test]
fn a_transfer_goes_on_where_it_was_after_the_home_was_killed_half_way() {
    let mut mesh = Mesh::started(&[0]);
    let (alice, bob) = (User::register("alice", &mesh[0]), User::register("bob", &mesh[0]));
    let (out, into) = (folder(), folder());
    let content = content(100 << 20);
    let path = write(out.path(), "large.bin", &content);
    let half = |event: &Value| {
        event["event"] == "file_progress" && event["bytes"].as_u64().is_some_and(|bytes| bytes >= 50 << 20)
    };
    let mut sending = alice.start(&["send-file", &bob.label, &path]);
    step(&mut sending, "that it is half-way", half);
    mesh.kill(0);
    let kept = mesh.site(0).data().join("files");
    assert!(names(&kept)[0].ends_with(".part"), "it is not whole");
    mesh.start(0);
    let sent = step(&mut sending, "that it was sent", |event| event["event"] == "sent");
    let id = sent["id"].as_str().expect("it has an id").to_owned();
    let mut receiving = bob.start(&["receive-file", &id, "--into", &into.path().display().to_string()]);
    step(&mut receiving, "that it is half-way", half);
    mesh.kill(0);
    assert!(!into.path().join("large.bin").exists(), "never half-written under its name");
    mesh.start(0);
    step(&mut receiving, "that it was saved", |event| event["event"] == "file_saved");
    assert!(fs::read(into.path().join("large.bin")).expect("it is there") == content, "it is what was sent");
    assert_eq!(names(into.path()), ["large.bin"]);
}

#[test]
fn a_backup_holds_the_files_that_are_kept_and_the_restored_server_gives_them() {
    let (site, server) = mesh::alone();
    let (alice, bob) = (User::register("alice", &server), User::register("bob", &server));
    let (out, into) = (folder(), folder());
    let content = content(3 << 20);
    let id = send(&alice, &bob.label, &write(out.path(), "a.bin", &content));
    let backup = out.path().join("backup").display().to_string();
    assert_eq!(server.asked(&["backup", &backup])[0]["files"], 1);
    server.stop();
    fs::rename(site.data(), out.path().join("lost")).expect("it can be moved away");
    for command in [&["restore", &backup][..], &["check"]] {
        let output = binaries::server().args(command).arg("--data").arg(site.data()).output().expect("it runs");
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("files: 1"), "{output:?}");
    }
    let _server = site.start();
    assert!(fs::read(receive(&bob, &id, into.path())).expect("it is there") == content);
    drop(alice);
}

fn create(caller: &Caller, id: &str, to: &Caller, bytes: u64) -> Result<u64, Status> {
    let request = CreateFileRequest {
        file_id: id.into(),
        recipient: to.address.user.to_string(),
        recipient_home_id: to.address.home.to_string(),
        bytes,
    };
    soon(caller.files().create_file(caller.request(request))).map(|answer| answer.into_inner().stored_bytes)
}

fn upload(caller: &Caller, id: &str, offset: u64, bytes: &[u8]) -> Result<u64, Status> {
    let begin = Kind::Begin(UploadBegin { file_id: id.into(), offset });
    let kinds = [begin, Kind::Part(Bytes::copy_from_slice(bytes))];
    let messages = kinds.map(|kind| UploadFileRequest { kind: Some(kind) });
    let request = caller.request(tokio_stream::iter(messages));
    soon(caller.files().upload_file(request)).map(|answer| answer.into_inner().stored_bytes)
}

fn download(caller: &Caller, id: &str, home: &str, offset: u64) -> Result<Vec<u8>, Status> {
    let request = DownloadFileRequest { file_id: id.into(), home_id: home.into(), offset };
    soon(async {
        let mut stream = caller.files().download_file(caller.request(request)).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await? {
            bytes.extend_from_slice(&part.part);
        }
        Ok(bytes)
    })
}

#[test]
fn an_upload_for_which_the_disk_has_no_room_is_refused_and_goes_on_once_there_is() {
    let site = Site::new("server-a");
    site.configure("");
    let server = Server::start_by(&site, bounded(&server::command(&site)));
    let [alice, bob] = ["alice", "bob"].map(|name| Caller::new(name, &server, Wire::Tcp));
    let (id, bytes) = (&format!("{:032x}", 1), content(3 << 20));
    let part = |offset: u64| {
        let offset = usize::try_from(offset).expect("it fits");
        &bytes[offset..bytes.len().min(offset + (1 << 20))]
    };
    let mut stored = create(&alice, id, &bob, bytes.len() as u64).expect("there is room for it by the settings");
    let status = loop {
        match upload(&alice, id, stored, part(stored)) {
            Ok(more) => stored = more,
            Err(status) => break status,
        }
    };
    assert_eq!(reason(Err::<(), _>(status)), "SERVER_FAILED");
    server.log(&["the disk failed for a file", id]);
    // Messages have room still.
    send_message(&alice, sealed(&alice, &bob.address, bob.key.public(), "anyway")).expect("it is taken");
    server.stop();

    let server = site.start();
    let [alice, bob] = ["alice", "bob"].map(|name| Caller::new(name, &server, Wire::Tcp));
    let found = create(&alice, id, &bob, bytes.len() as u64).expect("it is known");
    assert!(found >= stored && found < bytes.len() as u64, "{found} of what was taken, {stored}");
    let mut stored = found;
    while stored < bytes.len() as u64 {
        stored = upload(&alice, id, stored, part(stored)).expect("there is room");
    }
    assert!(download(&bob, id, &server.id.to_string(), 0).expect("it is for bob") == bytes);
}

#[test]
fn a_file_is_for_its_sender_and_recipient_once_it_is_whole_and_every_wrong_call_gives_its_own_typed_error() {
    let (_site, server) = mesh::alone();
    for wire in WIRES {
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| Caller::new(name, &server, wire));
        let id = &format!("{:032x}", 1 + wire as u8);
        let home = &server.id.to_string();
        assert_eq!(create(&alice, id, &bob, 300_000).expect("there is room"), 0);
        assert_eq!(reason(create(&alice, id, &bob, 300_001)), "ID_REUSED");
        assert_eq!(reason(create(&carol, id, &bob, 300_000)), "ID_REUSED");
        assert_eq!(reason(create(&alice, "0", &bob, 16)), "STATEMENT_INVALID");
        assert_eq!(reason(create(&alice, &"0".repeat(32), &bob, 15)), "STATEMENT_INVALID");
        let bytes = content(300_000);
        assert_eq!(upload(&alice, id, 0, &bytes[..200_000]).expect("it is hers"), 200_000);
        assert_eq!(reason(download(&bob, id, home, 0)), "FILE_NOT_FOUND", "it is not whole");
        assert_eq!(create(&alice, id, &bob, 300_000).expect("it is known"), 200_000);
        assert_eq!(reason(upload(&bob, id, 200_000, &bytes[200_000..])), "FILE_NOT_FOUND");
        assert_eq!(reason(upload(&alice, id, 100_000, &bytes[100_000..])), "STATEMENT_INVALID");
        assert_eq!(reason(upload(&alice, id, 200_000, &bytes[..100_001])), "TOO_LARGE");
        assert_eq!(upload(&alice, id, 200_000, &bytes[200_000..]).expect("it is hers"), 300_000);
        assert!(download(&bob, id, home, 0).expect("it is for bob") == bytes);
        assert!(download(&alice, id, home, 299_999).expect("it is hers") == bytes[299_999..]);
        assert_eq!(reason(download(&bob, id, home, 300_001)), "STATEMENT_INVALID");
        assert_eq!(reason(download(&carol, id, home, 0)), "FILE_NOT_FOUND");
        assert_eq!(reason(download(&bob, &"f".repeat(32), home, 0)), "FILE_NOT_FOUND");
        assert_eq!(reason(download(&bob, id, "", 0)), "STATEMENT_INVALID");
        let nobody = Caller { token: "none".into(), ..bob.clone() };
        assert_eq!(reason(download(&nobody, id, home, 0)), "TOKEN_INVALID");
        assert_eq!(reason(create(&nobody, id, &bob, 16)), "TOKEN_INVALID");
    }
}

#[test]
fn files_have_so_much_room_and_not_a_byte_more() {
    let site = Site::new("server-a");
    site.configure("[files]\nfile_bytes_max = 100\nuser_bytes_max = 250\nbytes_max = 300");
    let server = site.start();
    let [alice, bob] = ["alice", "bob"].map(|name| Caller::new(name, &server, Wire::H3));
    let id = |number: u8| format!("{number:032x}");
    assert_eq!(reason(create(&alice, &id(1), &bob, 117)), "TOO_LARGE", "encryption adds 16");
    create(&alice, &id(1), &bob, 116).expect("there is room");
    create(&alice, &id(2), &bob, 116).expect("there is room");
    assert_eq!(reason(create(&alice, &id(3), &bob, 19)), "FILES_FULL", "no more for her");
    create(&alice, &id(3), &bob, 18).expect("there is room");
    assert_eq!(reason(create(&bob, &id(4), &alice, 51)), "FILES_FULL", "no more for anybody");
    create(&bob, &id(4), &alice, 50).expect("there is room");
    create(&alice, &id(1), &bob, 116).expect("what is there needs no more room");
}

/// Waits for a step of a large transfer, which takes its time on a busy machine.
#[track_caller]
fn step(live: &mut Live, what: &str, is_it: impl FnMut(&Value) -> bool) -> Value {
    live.expect_within(6 * DEADLINE, what, is_it)
}

#[test]
fn a_file_crosses_servers_whichever_side_dialled_over_others_and_for_its_recipient_only() {
    let mut mesh = Mesh::chain(3);
    (0..3).for_each(|index| mesh.start(index));
    let (alice, carol) = (User::register("alice", &mesh[0]), User::register("carol", &mesh[2]));
    let (out, into) = (folder(), folder());
    let saves = ["--files", &into.path().display().to_string()];
    let (mut at_alices, mut at_carols) = (alice.chat_with(&saves), carol.chat_with(&saves));
    at_alices.shows(&carol.label);
    at_carols.shows(&alice.label);
    for (number, bytes) in [0, 1, 1_000_000].into_iter().enumerate() {
        let content = content(bytes);
        for (from, to, name) in [
            (&alice, (&carol, &mut at_carols), format!("there {number}.bin")),
            (&carol, (&alice, &mut at_alices), format!("back {number}.bin")),
        ] {
            send(from, &to.0.label, &write(out.path(), &name, &content));
            to.1.expect("that it was saved", |event| event["event"] == "file_saved");
            assert!(fs::read(into.path().join(&name)).expect("it is there") == content, "{name}");
        }
    }
    let [erin, dave, frank] =
        [("erin", 0), ("dave", 2), ("frank", 2)].map(|(name, at)| Caller::new(name, &mesh[at], Wire::H3));
    let (id, home) = (&format!("{:032x}", 7), &mesh[0].id.to_string());
    create(&erin, id, &dave, 100).expect("there is room");
    assert_eq!(reason(download(&dave, id, home, 0)), "FILE_NOT_FOUND", "it is not whole");
    upload(&erin, id, 0, &[7; 100]).expect("it is hers");
    assert_eq!(download(&dave, id, home, 40).expect("it is for dave"), [7; 60]);
    assert_eq!(reason(download(&frank, id, home, 0)), "FILE_NOT_FOUND", "it is not for frank");
    assert_eq!(reason(download(&dave, id, home, 101)), "STATEMENT_INVALID", "beyond its end");
    let nowhere = &"0".repeat(64);
    assert_eq!(reason(download(&dave, id, nowhere, 0)), "HOME_UNREACHABLE");
}

#[test]
fn a_large_file_crosses_servers_though_each_of_them_is_killed_on_its_way() {
    let mut mesh = Mesh::chain(3);
    (0..3).for_each(|index| mesh.start(index));
    let (alice, carol) = (User::register("alice", &mesh[0]), User::register("carol", &mesh[2]));
    // There is a way between them once one is shown to the other, in each direction.
    let (mut at_alices, mut at_carols) = (alice.chat(), carol.chat());
    at_alices.shows(&carol.label);
    at_carols.shows(&alice.label);
    at_carols.quit();
    at_alices.quit();
    let (out, into) = (folder(), folder());
    let content = content(100 << 20);
    let id = send(&alice, &carol.label, &write(out.path(), "large.bin", &content));
    let mut receiving = carol.start(&["receive-file", &id, "--into", &into.path().display().to_string()]);
    for server in 0..3 {
        let quarter = (server as u64 + 1) * (25 << 20);
        step(&mut receiving, "that it is on its way", |event| {
            event["event"] == "file_progress" && event["bytes"].as_u64().is_some_and(|bytes| bytes >= quarter)
        });
        mesh.kill(server);
        assert!(!into.path().join("large.bin").exists(), "never half-written under its name");
        mesh.start(server);
    }
    step(&mut receiving, "that it was saved", |event| event["event"] == "file_saved");
    assert!(fs::read(into.path().join("large.bin")).expect("it is there") == content, "it is what was sent");
    assert_eq!(names(into.path()), ["large.bin"]);
}

#[test]
fn files_that_nobody_takes_hold_up_neither_messages_nor_presence() {
    let mut mesh = Mesh::chain(2);
    (0..2).for_each(|index| mesh.start(index));
    let (alice, bob) = (User::register("alice", &mesh[0]), User::register("bob", &mesh[1]));
    let (mut at_alices, mut at_bobs) = (alice.chat(), bob.chat());
    at_alices.shows(&bob.label);
    let (erin, dave) = (Caller::new("erin", &mesh[0], Wire::H3), Caller::new("dave", &mesh[1], Wire::H3));
    let (id, bytes) = (&format!("{:032x}", 9), content(16 << 20));
    create(&erin, id, &dave, bytes.len() as u64).expect("there is room");
    for (number, part) in bytes.chunks(1 << 20).enumerate() {
        upload(&erin, id, (number as u64) << 20, part).expect("it is hers");
    }
    // As many as a user may have, and as a link takes at once; of each the first part is read, and nothing after it.
    let request = DownloadFileRequest { file_id: id.clone(), home_id: mesh[0].id.to_string(), offset: 0 };
    let stalled: Vec<_> = (0..8)
        .map(|_| {
            soon(async {
                let download = dave.files().download_file(dave.request(request.clone())).await;
                let mut stream = download.expect("it is for dave").into_inner();
                stream.message().await.expect("it comes").expect("it comes");
                stream
            })
        })
        .collect();
    assert_eq!(reason(download(&dave, id, &request.home_id, 0)), "TOO_MANY");
    at_alices.tell(&bob.label, "between the files");
    assert_eq!(at_bobs.message("between the files"), alice.label);
    at_bobs.tell(&alice.label, "and back");
    assert_eq!(at_alices.message("and back"), bob.label);
    at_bobs.quit();
    at_alices.removed(&bob.label, "left");
    drop(stalled);
    assert!(download(&dave, id, &request.home_id, 0).expect("there is room again") == bytes);
}
