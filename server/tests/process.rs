//! The built binary as its operator meets it: what it prints, refuses and leaves behind.
//!
//! Servers take free ports and are waited for by the line that they print, never by the clock.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{TcpListener, UdpSocket},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const ANY_PORTS: [&str; 6] =
    ["--listen", "127.0.0.1:0", "--federation-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_socp-server"));
    command.args(arguments);
    command
}

/// A data folder of its own, in a temporary one.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Runs a command on this folder to its end.
    fn ends(&self, arguments: &[&str]) -> Output {
        command(arguments).arg("--data").arg(self.data()).output().unwrap()
    }
}

/// A server that listens; killed if a test fails before it is stopped.
struct Running {
    process: Child,
    line: Value,
}

impl Running {
    fn start(folder: &Folder, arguments: &[&str]) -> Self {
        let mut process = command(&ANY_PORTS)
            .args(arguments)
            .arg("--json")
            .arg("--data")
            .arg(folder.data())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let line = serde_json::from_str(&line).unwrap_or_else(|_| {
            let mut errors = String::new();
            process.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            panic!("no line, but: {errors}")
        });
        Self { process, line }
    }

    fn text(&self, key: &str) -> &str {
        self.line[key].as_str().unwrap()
    }

    fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.process.id().try_into().unwrap()).unwrap();
        kill_process(process, signal).unwrap();
    }

    fn stop(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.process.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn failure(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(text.contains("error: ") && text.contains("\n\nhint: "), "{text}");
    text
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_server_stopped_by_either_signal_exits_0_and_is_the_same_afterwards() {
    let folder = Folder::new();
    let first = Running::start(&folder, &[]);
    let id = first.text("server_id").to_owned();
    assert_eq!(first.line["event"], "listening");
    assert!(first.stop(Signal::TERM).success());
    let second = Running::start(&folder, &[]);
    assert_eq!(second.text("server_id"), id);
    assert!(second.stop(Signal::INT).success());
}

#[test]
fn a_killed_server_starts_again() {
    let folder = Folder::new();
    let first = Running::start(&folder, &[]);
    let id = first.text("server_id").to_owned();
    assert!(!first.stop(Signal::KILL).success());
    let second = Running::start(&folder, &[]);
    assert_eq!(second.text("server_id"), id);
}

#[test]
fn keys_and_socket_are_the_owners_alone() {
    let folder = Folder::new();
    let server = Running::start(&folder, &[]);
    let data = folder.data();
    assert_eq!(mode(&data), 0o700);
    for private in ["identity-key.pem", "ca-key.pem", "certificate-key.pem", "socp.db", "operator.sock"] {
        assert_eq!(mode(&data.join(private)), 0o600, "{private}");
    }
    assert!(fs::read_to_string(server.text("ca")).unwrap().contains("BEGIN CERTIFICATE"));
}

#[test]
fn a_folder_in_use_is_refused_with_a_hint() {
    let folder = Folder::new();
    let _server = Running::start(&folder, &[]);
    let text = failure(&folder.ends(&ANY_PORTS));
    assert!(text.contains("in use by another socp-server"), "{text}");
    assert!(text.contains(&folder.data().display().to_string()), "{text}");
}

#[test]
fn a_port_in_use_is_refused_with_a_hint() {
    let folder = Folder::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = tcp.local_addr().unwrap().to_string();
    let text = failure(&folder.ends(&["--listen", &taken, "--federation-listen", "127.0.0.1:0"]));
    assert!(text.contains(&format!("`{taken}` (TCP)")) && text.contains("`--listen`"), "{text}");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = udp.local_addr().unwrap().to_string();
    let text = failure(&folder.ends(&["--listen", "127.0.0.1:0", "--federation-listen", &taken]));
    assert!(text.contains(&format!("`{taken}` (UDP)")) && text.contains("`--federation-listen`"), "{text}");
}

#[test]
fn a_key_that_others_can_read_is_refused_with_a_hint() {
    let folder = Folder::new();
    assert!(folder.ends(&["id"]).status.success());
    let key = folder.data().join("identity-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let text = failure(&folder.ends(&ANY_PORTS));
    assert!(text.contains("identity-key.pem") && text.contains("chmod 600"), "{text}");
}

#[test]
fn the_id_can_be_had_before_the_first_start() {
    let folder = Folder::new();
    let printed = folder.ends(&["id", "--json"]);
    let line: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let server = Running::start(&folder, &[]);
    assert_eq!(line["server_id"], server.line["server_id"]);
    let while_it_runs: Value = serde_json::from_slice(&folder.ends(&["id", "--json"]).stdout).unwrap();
    assert_eq!(while_it_runs, line);
}

#[test]
fn a_configuration_is_checked_without_touching_anything() {
    let folder = Folder::new();
    let file = folder.0.path().join("server.toml");
    fs::write(&file, "name = \"server-a\"\n").unwrap();
    let file = file.to_str().unwrap();
    let good = folder.ends(&["--check-config", "--json", "--config", file]);
    let shown: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert!(good.status.success());
    assert_eq!(shown["name"], "server-a");
    fs::write(file, "nmae = \"server-a\"\n").unwrap();
    let text = failure(&folder.ends(&["--check-config", "--config", file]));
    assert!(text.contains("line 1") && text.contains("`nmae`"), "{text}");
    assert!(!folder.data().exists());
}

#[test]
fn an_operators_command_without_a_server_says_so() {
    let folder = Folder::new();
    let text = failure(&folder.ends(&["users"]));
    assert!(text.contains("operator.sock"), "{text}");
}

#[test]
fn the_operator_makes_invites_and_is_told_of_unknown_users() {
    let folder = Folder::new();
    let server = Running::start(&folder, &["--registration", "invite"]);
    let first = server.text("invite").to_owned();
    let invite = String::from_utf8(folder.ends(&["invite"]).stdout).unwrap();
    assert_eq!(invite.trim().len(), first.len());
    assert_ne!(invite.trim(), first);
    assert!(folder.ends(&["users", "--json"]).stdout.is_empty());
    let refused = folder.ends(&["disable", "nobody"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().starts_with("error: "));
    assert!(server.stop(Signal::TERM).success());
    let again = Running::start(&folder, &["--registration", "invite"]);
    assert!(again.line["invite"].is_null(), "the first invite is made once");
}

#[test]
fn a_backup_of_a_running_server_becomes_the_same_server_on_an_empty_machine() {
    let (folder, other) = (Folder::new(), Folder::new());
    let server = Running::start(&folder, &["--registration", "invite"]);
    let file = folder.0.path().join("backup").display().to_string();
    let made = folder.ends(&["backup", &file, "--json"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let told: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!((&told["server_id"], &told["users"]), (&server.line["server_id"], &Value::from(0)));
    assert_eq!(mode(Path::new(&file)), 0o600);
    let again = failure(&folder.ends(&["backup", &file]));
    assert!(again.contains("hint: name another file"), "{again}");
    let ca = fs::read(server.text("ca")).unwrap();
    let id = server.text("server_id").to_owned();
    assert!(server.stop(Signal::TERM).success());

    assert!(other.ends(&["restore", &file]).status.success());
    assert!(other.ends(&["check"]).status.success());
    let restored = Running::start(&other, &["--registration", "invite"]);
    assert_eq!(restored.text("server_id"), id);
    assert_eq!(fs::read(restored.text("ca")).unwrap(), ca, "clients know it by the same CA");
    assert!(restored.line["invite"].is_null(), "the first invite is in the database");
    assert!(restored.stop(Signal::TERM).success());
    let text = failure(&other.ends(&["restore", &file]));
    assert!(text.contains("is not empty"), "{text}");
}

#[test]
fn a_check_wants_the_folder_for_itself_and_names_what_is_wrong() {
    let folder = Folder::new();
    let text = failure(&folder.ends(&["check"]));
    assert!(text.contains("socp.db") && !folder.data().exists(), "{text}");
    let server = Running::start(&folder, &[]);
    let text = failure(&folder.ends(&["check"]));
    assert!(text.contains("in use by another socp-server"), "{text}");
    assert!(server.stop(Signal::KILL).code().is_none());
    let good = folder.ends(&["check"]);
    assert!(String::from_utf8_lossy(&good.stdout).starts_with("nothing is wrong: "), "{good:?}");
    let database = folder.data().join("socp.db");
    let mut bytes = fs::read(&database).unwrap();
    bytes[4_096..].fill(0x55);
    fs::write(&database, bytes).unwrap();
    let text = failure(&folder.ends(&["check"]));
    assert!(text.contains("is damaged") && text.contains("restore a backup"), "{text}");
    let text = failure(&folder.ends(&["restore", "/nowhere"]));
    assert!(text.contains("`/nowhere`"), "{text}");
}
