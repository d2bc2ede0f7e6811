//! A server whose disk has no more room: it says so, takes nothing more, and has all that it accepted.

use std::{path::Path, process::Command};

use socp::v1::{SealedMessage, attach_response};
use tonic::Code;

use crate::harness::{
    binaries,
    caller::Caller,
    draft::{sealed, send},
    mesh::Site,
    server::{self, Server},
    wire::{Wire, reason},
};

/// Blocks of 512 bytes that the largest file of the server may have: what is written beyond is refused by the system, as on a full
/// disk.
const BLOCKS_MAX: u32 = 2_048;

/// The same command, in a shell that bounds how large files may become. A signal at the bound would kill the server.
pub fn bounded(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    let line = format!("trap '' XFSZ; ulimit -f {BLOCKS_MAX}; exec \"$@\"");
    shell.args(["-c", &line, "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    shell
}

fn check(data: &Path) {
    let output = binaries::server().arg("check").arg("--data").arg(data).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_server_whose_disk_is_full_says_so_takes_nothing_more_and_has_all_that_it_accepted() {
    let site = Site::new("server-a");
    site.configure("");
    let mut server = Server::start_by(&site, bounded(&server::command(&site)));
    let [alice, bob] = ["alice", "bob"].map(|name| Caller::new(name, &server, Wire::Tcp));
    // What was accepted is written down here, outside the server.
    let mut accepted: Vec<SealedMessage> = Vec::new();
    let (refused, status) = loop {
        let text = format!("number {}: {}", accepted.len(), "x".repeat(4_000));
        let draft = sealed(&alice, &bob.address, bob.key.public(), &text);
        match send(&alice, draft.clone()) {
            Ok(_) => accepted.push(draft),
            Err(status) => break (draft, status),
        }
        assert!(accepted.len() < 2_000, "the disk is never full");
    };
    assert!(accepted.len() > 20, "{} were accepted", accepted.len());
    assert_eq!((status.code(), reason(Err::<(), _>(status)).as_str()), (Code::Internal, "SERVER_FAILED"));
    send(&alice, refused.clone()).expect_err("it takes nothing more");
    let ended = server.program.wait();
    let log = server.program.log();
    assert_eq!(ended.code(), Some(2), "{log}");
    assert!(
        log.contains("error: the server has stopped") && log.contains("socp.db") && log.contains("hint: "),
        "{log}"
    );
    assert!(!log.contains("panicked"), "{log}");
    check(&site.data());

    // With room again, and in order. Of the one that was refused nobody was told that it is kept, nor that it is not.
    let server = site.start();
    let bob = Caller::new("bob", &server, Wire::Tcp);
    let mut stream = bob.attach();
    let alice = Caller::new("alice", &server, Wire::Tcp);
    send(&alice, refused.clone()).expect("there is room again");
    accepted.push(refused);
    for (number, expected) in accepted.iter().enumerate() {
        let received = loop {
            if let Some(attach_response::Event::Message(received)) = stream.next().event {
                break received.message.expect("it is in it");
            }
        };
        assert!(received == *expected, "message {number} of {}", accepted.len());
    }
    server.stop();
    check(&site.data());
}
