//! A running `socp-server`, and its operator's commands.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output},
};

use rustix::process::Signal;
use serde_json::Value;
use socp::id::ServerId;

use super::{binaries, mesh::Site, program::Program};

/// A server that listens.
pub struct Server {
    /// The process.
    pub program: Program,
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: ServerId,
    /// Where clients reach it, as it told.
    pub client: SocketAddr,
    /// Where servers reach it, as it told.
    pub federation: SocketAddr,
    /// Where metrics can be read, as it told.
    pub metrics: SocketAddr,
    /// The CA of its certificate.
    pub ca: PathBuf,
    /// Its data folder.
    pub data: PathBuf,
}

/// The command that runs a server with this site's configuration.
pub fn command(site: &Site) -> Command {
    let mut command = binaries::server();
    command.env("NO_COLOR", "1").args(["--json", "--metrics-listen", "127.0.0.1:0", "--config"]).arg(site.config());
    command
}

impl Server {
    /// Starts it and waits until it listens.
    pub fn start(site: &Site) -> Self {
        Self::start_by(site, command(site))
    }

    /// The same, and it logs nothing but errors.
    #[allow(dead_code, reason = "the benches use it")]
    pub fn start_quiet(site: &Site) -> Self {
        let mut command = command(site);
        command.args(["--log", "error"]);
        Self::start_by(site, command)
    }

    /// The same by a command of the caller's, which comes to [`command`] in the end.
    pub fn start_by(site: &Site, mut command: Command) -> Self {
        let mut program = Program::start(format!("`{}`", site.name), &mut command);
        let told = program.expect("that it listens", |event| event["event"] == "listening");
        let text = |key: &str| told[key].as_str().unwrap_or_else(|| panic!("`{key}` in {told}")).to_owned();
        let address = |key: &str| text(key).parse().unwrap_or_else(|_| panic!("`{key}` in {told}"));
        Self {
            program,
            name: text("name"),
            id: ServerId::parse(&text("server_id")).expect("it tells its id"),
            client: address("client"),
            federation: address("federation"),
            metrics: address("metrics"),
            ca: text("ca").into(),
            data: text("data").into(),
        }
    }

    /// Waits for a line of its log with all these parts.
    #[track_caller]
    pub fn log(&self, parts: &[&str]) -> String {
        self.program.expect_log(parts)
    }

    /// Runs an operator's command against it.
    pub fn operator(&self, arguments: &[&str]) -> Output {
        let mut command = binaries::server();
        command.args(arguments).arg("--data").arg(&self.data).output().expect("socp-server runs")
    }

    /// The lines of an operator's command that must succeed, as JSON.
    #[track_caller]
    pub fn asked(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.operator(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("it prints text");
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }

    /// Stops it with SIGTERM; it must end well.
    #[track_caller]
    pub fn stop(self) {
        self.program.signal(Signal::TERM);
        self.ends_well();
    }

    /// Waits for its end, after a signal that it was sent; a second one would hurry it.
    #[track_caller]
    pub fn ends_well(mut self) {
        let status = self.program.wait();
        assert_eq!(status.code(), Some(0), "{}", self.program.log());
    }
}
