//! Users with the real client, each on the machine of their server.

use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    harness::{client, mesh::Site, program::Program},
    network,
};

/// Somebody who is registered.
pub struct User {
    /// `name@server-name`.
    pub label: String,
    server: usize,
    home: TempDir,
}

impl User {
    /// Registers with the key that belongs to the name; keys are kept from one run to the next.
    pub fn register(name: &str, server: usize, site: &Site) -> Self {
        let name = format!("{name}-{}", network::letter(server));
        let home = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = client::command(home.path());
        command.args(client::registration(&name, site.client, site.id));
        let output = network::inside(server, &command).output().expect("socp runs");
        assert!(output.status.success(), "`{name}` is not registered: {}", String::from_utf8_lossy(&output.stderr));
        Self { label: format!("{name}@{}", site.name), server, home }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = client::command(self.home.path());
        command.arg("--json").args(arguments);
        network::inside(self.server, &command)
    }

    /// Goes online, and stays so until it quits or is dropped.
    pub fn chat(&self) -> Chat {
        let mut program = Program::start(format!("`socp chat` of {}", self.label), &mut self.command(&["chat"]));
        let attached = program.expect("that it is attached", |event| event["event"] == "attached");
        let asked_ns = attached["asked_unix_ns"].as_u64().expect("it tells when it asked");
        Chat { program, asked_ns }
    }

    /// Watches everybody.
    pub fn watch(&self) -> Program {
        Program::start(format!("`socp watch` of {}", self.label), &mut self.command(&["watch"]))
    }
}

/// A `socp chat` that runs.
pub struct Chat {
    /// The process.
    pub program: Program,
    /// When it asked to be online, Unix nanoseconds.
    pub asked_ns: u64,
}

impl Chat {
    /// Goes offline; gives when it asked to, Unix nanoseconds.
    pub fn quit(mut self) -> u64 {
        self.program.say("/quit");
        let detached = self.program.expect("that it is detached", |event| event["event"] == "detached");
        self.program.wait();
        detached["asked_unix_ns"].as_u64().expect("it tells when it asked")
    }
}

/// Ends a watch as a user does.
pub fn end(program: &mut Program) {
    program.signal(Signal::TERM);
    program.wait();
}
