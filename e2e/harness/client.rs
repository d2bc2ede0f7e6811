//! The real client, as a process of its own for each command.

use std::{
    net::SocketAddr,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use serde_json::Value;
use socp::id::ServerId;
use tempfile::TempDir;

use super::{binaries, keys, program::Program, server::Server};

/// A user who is registered, with a profile in a folder of its own.
pub struct User {
    /// `name@server-name`.
    pub label: String,
    home: Arc<TempDir>,
}

/// `socp` with an empty environment of its own.
pub fn command(home: &Path) -> Command {
    let mut command = binaries::client();
    command.env_remove("SOCP_PROFILE").env_remove("SOCP_PASSPHRASE").env("NO_COLOR", "1").env("SOCP_HOME", home);
    command
}

/// The arguments that register `name` with its key at a server.
pub fn registration(name: &str, at: SocketAddr, id: ServerId) -> Vec<String> {
    let key = keys::file(name).display().to_string();
    let (at, id) = (at.to_string(), id.to_string());
    ["register", name, "--server", &at, "--server-id", &id, "--key", &key, "--no-passphrase"].map(str::to_owned).into()
}

impl User {
    /// Registers with the key that belongs to the name.
    #[track_caller]
    pub fn register(name: &str, server: &Server) -> Self {
        Self::register_at(name, server, server.client)
    }

    /// The same by way of another address.
    #[track_caller]
    pub fn register_at(name: &str, server: &Server, at: SocketAddr) -> Self {
        let home = Arc::new(tempfile::tempdir().expect("a temporary folder can be made"));
        let output = command(home.path()).args(registration(name, at, server.id)).output().expect("socp runs");
        assert!(output.status.success(), "`{name}` is not registered: {}", String::from_utf8_lossy(&output.stderr));
        Self { label: format!("{name}@{}", server.name), home }
    }

    /// The folder of the profiles.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The folder of the one profile.
    pub fn profile(&self) -> PathBuf {
        let name = self.label.split('@').next().expect("a label begins with a name");
        self.home.path().join("profiles").join(name)
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        command(self.home()).args(arguments).stdin(Stdio::null()).output().expect("socp runs")
    }

    /// Runs a command that must succeed, and reads its JSON lines.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.run(&[&["--json"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("it prints text");
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }

    /// A session token, as for other programs.
    #[track_caller]
    pub fn token(&self) -> String {
        let output = self.run(&["token"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a token is text").trim().to_owned()
    }

    /// Starts `socp chat` and waits until it is online and sees the present state.
    #[track_caller]
    pub fn chat(&self) -> Live {
        self.chat_with(&[])
    }

    /// The same with more arguments.
    #[track_caller]
    pub fn chat_with(&self, arguments: &[&str]) -> Live {
        let mut live = self.start(&[&["chat"], arguments].concat());
        live.expect("that it is attached", |event| event["event"] == "attached");
        live.synced();
        live
    }

    /// Starts `socp watch` and waits until it sees the present state.
    #[track_caller]
    pub fn watch(&self) -> Live {
        let mut live = self.start(&["watch"]);
        live.synced();
        live
    }

    /// Starts a command that goes on.
    pub fn start(&self, arguments: &[&str]) -> Live {
        let mut command = command(self.home());
        command.arg("--json").args(arguments);
        let what = format!("`socp {}` of {}", arguments.join(" "), self.label);
        let program = Program::start(what, &mut command);
        Live { program, initial: Vec::new(), _home: Arc::clone(&self.home) }
    }
}

/// A `socp chat` or `socp watch` that runs.
pub struct Live {
    program: Program,
    /// Labels of the present state as it began.
    pub initial: Vec<String>,
    /// Its profile stays while it runs.
    _home: Arc<TempDir>,
}

impl Deref for Live {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Live {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

/// The event, user and, where there is one, reason of what a client told of the directory.
pub fn changes(events: &[Value]) -> Vec<(String, String)> {
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let is_change = |event: &&Value| matches!(event["event"].as_str(), Some("added" | "updated" | "removed"));
    events.iter().filter(is_change).map(|event| (text(event, "event"), text(event, "user"))).collect()
}

impl Live {
    #[track_caller]
    fn synced(&mut self) {
        let synced = self.program.expect("the end mark", |event| event["event"] == "synced");
        assert_eq!(synced["digest_ok"], true, "its view is the server's");
        self.initial = changes(&self.program.passed()).into_iter().map(|(_, user)| user).collect();
        assert_eq!(synced["entries"], self.initial.len());
        self.initial.sort();
    }

    /// Waits until a user is shown as online, if that is not so already.
    #[track_caller]
    pub fn shows(&mut self, label: &str) {
        if !self.program.online().contains(label) {
            self.added(label);
        }
    }

    /// Waits until a user comes.
    #[track_caller]
    pub fn added(&mut self, label: &str) -> Value {
        self.program.expect(&format!("that {label} came"), |event| event["event"] == "added" && event["user"] == label)
    }

    /// Waits until a user goes, for this reason.
    #[track_caller]
    pub fn removed(&mut self, label: &str, reason: &str) -> Value {
        let is_it = |event: &Value| event["event"] == "removed" && event["user"] == label;
        let removed = self.program.expect(&format!("that {label} went"), is_it);
        assert_eq!(removed["reason"], reason, "{removed}");
        removed
    }

    /// Waits for a message with this text, and tells from whom.
    #[track_caller]
    pub fn message(&mut self, text: &str) -> String {
        self.received("message", text)
    }

    /// Waits for a post with this text, and tells from whom.
    #[track_caller]
    pub fn post(&mut self, text: &str) -> String {
        self.received("post", text)
    }

    #[track_caller]
    fn received(&mut self, kind: &str, text: &str) -> String {
        let is_it = |event: &Value| event["event"] == kind && event["text"] == text;
        let event = self.program.expect(&format!("the {kind} `{text}`"), is_it);
        event["from"].as_str().expect("it has a sender").to_owned()
    }

    /// Waits for the answer to the command last said: `sent`, or `error` with its reason.
    #[track_caller]
    pub fn answer(&mut self) -> Value {
        self.program.expect("an answer", |event| matches!(event["event"].as_str(), Some("sent" | "error")))
    }

    /// Says `/tell`, and waits until the message was handed over.
    #[track_caller]
    pub fn tell(&mut self, label: &str, text: &str) {
        self.program.say(&format!("/tell {label} {text}"));
        let answer = self.answer();
        assert_eq!(answer["outcome"], "handed_over", "{answer}");
    }

    /// Says `/list` and gives the labels in the order told.
    #[track_caller]
    pub fn list(&mut self) -> Vec<String> {
        self.program.passed();
        self.program.say("/list");
        self.program.expect("the list's end", |event| event["event"] == "listed");
        let users = self.program.passed().into_iter().filter(|event| event["event"] == "user");
        users.map(|event| event["user"].as_str().expect("a user has a label").to_owned()).collect()
    }

    /// Waits until `/list` tells just these labels, in this order.
    #[track_caller]
    pub fn lists(&mut self, labels: &[&str]) {
        while self.list() != labels {
            let is_change = |event: &Value| matches!(event["event"].as_str(), Some("added" | "removed"));
            self.program.expect(&format!("a change towards {labels:?}"), is_change);
        }
    }

    /// Says `/quit` and waits for the end.
    #[track_caller]
    pub fn quit(mut self) {
        self.program.say("/quit");
        let status = self.program.wait();
        assert_eq!(status.code(), Some(0), "{}", self.program.log());
    }
}
