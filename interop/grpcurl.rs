//! grpcurl, by the very lines that the server and the README print.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output, Stdio},
};

use rustix::process::Signal;
use socp::v1::ListSessionsRequest;

use crate::{
    harness::{
        caller::Caller,
        client::User,
        mesh::{self, Site},
        program::Program,
        server::Server,
        soon,
        wire::{Wire, reason},
    },
    tool,
};

/// The lines of a text that call grpcurl, each in one.
fn lines(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    text.lines().map(str::trim).filter(|line| line.starts_with("grpcurl ")).map(str::to_owned).collect()
}

/// Pastes lines into a shell of alice's, who is online, and checks what each is printed for. Gives what each called.
#[track_caller]
fn pasted(lines: &[String], server: &Server, folder: &Path) -> Vec<String> {
    let path = tool::search_path(&tool::path("SOCP_GRPCURL"));
    let alice = User::register("alice", server);
    let _online = alice.chat();
    let run = |line: &String| {
        let mut shell = Command::new("sh");
        shell.env("PATH", &path).env("SOCP_HOME", alice.home()).env_remove("SOCP_PROFILE").current_dir(folder);
        let said = shell.args(["-c", line]).stdin(Stdio::null()).output().expect("there is a shell");
        let said = tool::output(line, &said);
        let call = line.split(' ').next_back().expect("a line has words").to_owned();
        match call.as_str() {
            "list" => {
                let services = ["Account", "Directory", "File", "Message"].map(|name| format!("socp.v1.{name}Service"));
                let others = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"].map(str::to_owned);
                assert_eq!(said.lines().collect::<Vec<_>>(), [&others[..], &services].concat());
            }
            "socp.v1.DirectoryService" => {
                assert!(said.contains("returns ( stream .socp.v1.WatchDirectoryResponse )"), "{said}");
                assert!(said.contains("// Rejects: TOKEN_INVALID"), "comments are shown: {said}");
            }
            "socp.v1.AccountService/GetServerInfo" => {
                let said = tool::json(&said);
                assert_eq!((&said["name"], &said["serverId"]), (&"server-a".into(), &server.id.to_string().into()));
            }
            "grpc.health.v1.Health/Check" => assert_eq!(tool::json(&said)["status"], "SERVING"),
            "socp.v1.DirectoryService/ListUsers" => {
                let users = &tool::json(&said)["users"];
                assert_eq!(users.as_array().map(Vec::len), Some(1), "{said}");
                assert_eq!(users[0]["user"], "alice@server-a");
                assert_eq!(users[0]["keyFingerprint"].as_str().map(str::len), Some(64), "{said}");
            }
            _ => panic!("nobody checks `{line}`"),
        }
        call
    };
    lines.iter().map(run).collect()
}

#[test]
fn the_lines_that_a_server_prints_can_be_pasted() {
    let site = Site::new("server-a");
    site.configure("");
    let (server, banner) = tool::started_for_people(&site);
    let called = pasted(&lines(&banner), &server, Path::new("."));
    assert_eq!(
        called,
        [
            "list",
            "socp.v1.DirectoryService",
            "socp.v1.AccountService/GetServerInfo",
            "grpc.health.v1.Health/Check",
            "socp.v1.DirectoryService/ListUsers",
        ]
    );
}

#[test]
fn the_lines_of_the_readme_can_be_pasted() {
    let (_site, server) = mesh::alone();
    // The README's server A has its data in `a`, and its port.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    symlink(&server.data, folder.path().join("a")).expect("the folder can be written to");
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("there is a README");
    let readme = readme.replace("127.0.0.1:7443", &server.client.to_string());
    let called = pasted(&lines(&readme), &server, folder.path());
    assert_eq!(called, ["list", "socp.v1.AccountService/GetServerInfo", "socp.v1.DirectoryService/ListUsers"]);
}

/// grpcurl with a CA, or without one, and an empty or a good token.
fn grpcurl(ca: Option<&Path>, token: &str) -> Command {
    let mut command = Command::new(tool::path("SOCP_GRPCURL"));
    command.stdin(Stdio::null()).arg("-format-error");
    if let Some(ca) = ca {
        command.arg("-cacert").arg(ca);
    }
    if !token.is_empty() {
        command.args(["-H", &format!("authorization: Bearer {token}")]);
    }
    command
}

/// Calls a method to its end.
fn call(mut grpcurl: Command, data: &str, server: &Server, method: &str) -> Output {
    grpcurl.args(["-d", data, &server.client.to_string(), method]).output().expect("grpcurl runs")
}

#[test]
fn a_watch_shows_the_present_state_its_end_and_every_change() {
    let (_site, server) = mesh::alone();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| Caller::new(name, &server, Wire::H3));
    let _bob = bob.attach();
    let mut command = grpcurl(Some(&server.ca), &alice.token);
    command.args([&server.client.to_string(), "socp.v1.DirectoryService/WatchDirectory"]);
    let mut watch = Program::start("`grpcurl`", &mut command);
    watch.expect("bob", |said| said["changes"][0]["added"]["user"] == "bob@server-a");
    let mark = watch.expect("the end mark", |said| said["endMark"].is_object());
    assert_eq!(mark["endMark"]["entries"], "1");
    assert!(mark["resumeToken"].is_string(), "{mark}");
    let inbox = carol.attach();
    watch.expect("that carol came", |said| said["changes"][0]["added"]["user"] == "carol@server-a");
    drop(inbox);
    let left = watch.expect("that carol went", |said| said["changes"][0]["removed"]["user"] == "carol@server-a");
    assert_eq!(left["changes"][0]["removed"]["reason"], "REMOVAL_REASON_LEFT");
    // Not SIGINT: a program that a shell started in the background ignores that.
    watch.signal(Signal::TERM);
    assert!(!watch.wait().success(), "it was ended");
}

#[test]
fn a_refusal_is_shown_with_its_reason() {
    let (_site, server) = mesh::alone();
    let alice = Caller::new("alice", &server, Wire::H3);
    let (stranger, token) = ("", alice.token.as_str());
    let (unauthenticated, not_found, invalid) = (16, 5, 3);
    for (method, token, data, code, reason, user) in [
        ("DirectoryService/ListUsers", stranger, "{}", unauthenticated, "TOKEN_INVALID", None),
        (
            "DirectoryService/GetUser",
            token,
            r#"{"user": "nobody@server-a"}"#,
            not_found,
            "USER_NOT_FOUND",
            Some("nobody"),
        ),
        ("DirectoryService/WatchDirectory", token, r#"{"resume_token": "x"}"#, invalid, "RESUME_TOKEN_INVALID", None),
    ] {
        let method = format!("socp.v1.{method}");
        let output = call(grpcurl(Some(&server.ca), token), data, &server, &method);
        let errors = tool::errors(&output);
        assert_eq!(output.status.code(), Some(64 + code), "grpcurl's exit status for it: {errors}");
        let status = tool::json(&errors);
        assert_eq!(status["code"], code, "{method}: {errors}");
        let detail = &status["details"][0];
        assert_eq!(detail["@type"], "type.googleapis.com/google.rpc.ErrorInfo", "{errors}");
        assert_eq!((&detail["reason"], &detail["domain"]), (&reason.into(), &"socp".into()), "{errors}");
        if let Some(user) = user {
            let named = detail["metadata"]["user"].as_str().unwrap_or_default();
            assert!(named.starts_with(user), "{errors}");
        }
    }
}

#[test]
fn without_the_servers_own_ca_nothing_is_called() {
    let (_site, server) = mesh::alone();
    let (_other_site, other) = mesh::alone();
    let alice = Caller::new("alice", &server, Wire::H3);
    let log_out = |ca| call(grpcurl(ca, &alice.token), "{}", &server, "socp.v1.AccountService/LogOut");
    let sessions = || soon(alice.accounts().list_sessions(alice.request(ListSessionsRequest {})));
    for ca in [Some(&*other.ca), None] {
        let output = log_out(ca);
        let errors = tool::errors(&output);
        assert!(!output.status.success(), "{ca:?}");
        assert!(errors.contains("failed to verify certificate"), "{ca:?}: {errors}");
        assert!(sessions().is_ok(), "{ca:?}: her session was not ended");
    }
    tool::output("LogOut", &log_out(Some(&server.ca)));
    assert_eq!(reason(sessions()), "TOKEN_INVALID");
}
