//! Who may register, where not everybody may.

use crate::harness::{
    caller::{register, statement},
    client::{command, registration},
    mesh::Site,
    soon,
    wire::{WIRES, reason},
};

#[test]
fn an_invite_is_good_for_one_registration() {
    let site = Site::new("server-a");
    site.configure("registration = \"invite\"");
    let server = site.start();
    let invite = server.asked(&["invite"])[0]["invite"].as_str().expect("it is printed").to_owned();
    let register_with = |user: &str, invite: &str| {
        let home = tempfile::tempdir().expect("a temporary folder can be made");
        let mut arguments = registration(user, server.client, server.id);
        if !invite.is_empty() {
            arguments.extend(["--invite".to_owned(), invite.to_owned()]);
        }
        let output = command(home.path()).args(arguments).output().expect("socp runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for wrong in ["", "welcome"] {
        let (code, errors) = register_with("alice", wrong);
        assert_eq!(code, Some(1), "{errors}");
        assert!(errors.contains("INVITE_REQUIRED") && errors.contains("hint: "), "{errors}");
    }
    assert_eq!(register_with("alice", &invite).0, Some(0));
    assert_eq!(register_with("bob", &invite).0, Some(1));
}

#[test]
fn a_closed_server_registers_nobody() {
    let site = Site::new("server-a");
    site.configure("registration = \"closed\"");
    let server = site.start();
    for wire in WIRES {
        let channel = soon(wire.connect(&server));
        assert_eq!(reason(register(&channel, statement("alice", server.id))), "REGISTRATION_CLOSED", "{wire}");
    }
}
