//! `buf curl`: Go's HTTP/2 and another HTTP/3, which take the schema from the server.

use std::process::{Command, Output, Stdio};

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use prost::Message as _;
use rustix::process::Signal;
use serde_json::Value;
use tonic_types::pb::ErrorInfo;

use crate::{
    harness::{
        caller::Caller,
        mesh::{self, Mesh},
        program::Program,
        server::Server,
        wire::Wire,
    },
    tool,
};

/// A way to call, and the version of HTTP that it is to go over.
#[derive(Clone, Copy)]
struct Way {
    flags: &'static [&'static str],
    http: &'static str,
}

const HTTP2: Way = Way { flags: &["--protocol", "grpc"], http: "HTTP/2.0" };
const HTTP3: Way = Way { flags: &["--http3", "--protocol", "grpc"], http: "HTTP/3.0" };
const WEB: Way = Way { flags: &["--protocol", "grpcweb"], http: "HTTP/2.0" };

/// What buf exits with for a gRPC code.
const fn exit_status(code: tonic::Code) -> i32 {
    (code as i32) << 3
}

impl Way {
    /// buf with the server's CA, as this user, or as a stranger.
    fn buf(self, server: &Server, caller: Option<&Caller>) -> Command {
        let mut command = Command::new(tool::path("SOCP_BUF"));
        command.args(["curl", "--verbose"]).args(self.flags).arg("--cacert").arg(&server.ca).stdin(Stdio::null());
        if let Some(caller) = caller {
            command.args(["--header", &format!("authorization: Bearer {}", caller.token)]);
        }
        command
    }

    /// Calls a method to its end.
    #[track_caller]
    fn call(self, server: &Server, caller: Option<&Caller>, method: &str, data: &str) -> Output {
        let output = self.buf(server, caller).args(["--data", data, &url(server, method)]).output().expect("buf runs");
        let errors = tool::errors(&output);
        assert!(errors.contains(&format!(") {}", self.http)), "it went over {}: {errors}", self.http);
        output
    }

    /// Starts a method that goes on.
    fn start(self, server: &Server, caller: &Caller, method: &str, more: &[&str]) -> Program {
        let mut command = self.buf(server, Some(caller));
        Program::start(format!("`buf curl {method}`"), command.args(more).arg(url(server, method)))
    }
}

fn url(server: &Server, method: &str) -> String {
    format!("https://{}/{method}", server.client)
}

/// The status that buf printed among what it tells of its work.
#[track_caller]
fn status(errors: &str) -> Value {
    let told = errors.lines().filter(|line| !line.starts_with("buf: ")).collect::<Vec<_>>();
    tool::json(&told.join("\n"))
}

/// The first detail of a status, which buf prints as it came.
#[track_caller]
fn info(status: &Value) -> ErrorInfo {
    let detail = &status["details"][0];
    assert_eq!(detail["type"], "google.rpc.ErrorInfo", "{status}");
    let base64 = detail["value"].as_str().expect("a detail has a value");
    let value = BASE64_STANDARD_NO_PAD.decode(base64).expect("it is base64");
    ErrorInfo::decode(&value[..]).expect("it is what its type says")
}

#[track_caller]
fn reads_the_schema(way: Way) {
    let (_site, server) = mesh::alone();
    let mut list = way.buf(&server, None);
    let output = list.args(["--list-methods", &format!("https://{}", server.client)]).output().expect("buf runs");
    let methods = tool::output("the methods", &output);
    for method in ["AccountService/GetServerInfo", "DirectoryService/WatchDirectory", "MessageService/Attach"] {
        assert!(methods.lines().any(|line| line == format!("socp.v1.{method}")), "{method} in {methods}");
    }
    assert!(!methods.contains("federation") && !methods.contains("operator"), "{methods}");
}

#[track_caller]
fn calls_and_is_refused(way: Way) {
    let (_site, server) = mesh::alone();
    let answer = way.call(&server, None, "socp.v1.AccountService/GetServerInfo", "{}");
    assert_eq!(tool::json(&tool::output("the call", &answer))["serverId"], server.id.to_string());
    let refused = way.call(&server, None, "socp.v1.DirectoryService/ListUsers", "{}");
    assert_eq!(refused.status.code(), Some(exit_status(tonic::Code::Unauthenticated)));
    let told = status(&tool::errors(&refused));
    assert_eq!(told["code"], "unauthenticated");
    let told = info(&told);
    assert_eq!((&*told.domain, &*told.reason), ("socp", "TOKEN_INVALID"));
    let alice = Caller::new("alice", &server, Wire::Tcp);
    let unknown = r#"{"user": "nobody@server-a"}"#;
    let refused = way.call(&server, Some(&alice), "socp.v1.DirectoryService/GetUser", unknown);
    assert_eq!(refused.status.code(), Some(exit_status(tonic::Code::NotFound)));
    let told = info(&status(&tool::errors(&refused)));
    assert_eq!(told.reason, "USER_NOT_FOUND");
    assert!(told.metadata["user"].starts_with("nobody"), "{told:?}");
}

const WATCH: &str = "socp.v1.DirectoryService/WatchDirectory";

#[track_caller]
fn watches(way: Way) {
    let (_site, server) = mesh::alone();
    let [alice, bob] = ["alice", "bob"].map(|name| Caller::new(name, &server, Wire::Tcp));
    let mut watch = way.start(&server, &alice, WATCH, &[]);
    let mark = watch.expect("the end mark", |said| said["endMark"].is_object());
    assert!(mark["resumeToken"].is_string(), "{mark}");
    let inbox = bob.attach();
    watch.expect("that bob came", |said| said["changes"][0]["added"]["user"] == "bob@server-a");
    drop(inbox);
    watch.expect("that bob went", |said| said["changes"][0]["removed"]["user"] == "bob@server-a");
}

/// The refusal that a draining server gives, or none at all: what a call that comes too late may see.
#[track_caller]
fn is_told_of_the_drain(errors: &str) {
    let told = status(errors);
    assert_eq!(told["code"], "unavailable", "{errors}");
    if told["details"].is_array() {
        assert_eq!(info(&told).reason, "DRAINING");
    }
}

#[track_caller]
fn is_in_the_middle_of_a_drain(way: Way) {
    let mut mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    let server = &mesh[0];
    let alice = Caller::new("alice", server, Wire::Tcp);
    let mut watch = way.start(server, &alice, WATCH, &[]);
    let mark = watch.expect("the end mark", |said| said["endMark"].is_object());
    // It has a connection and the schema, and waits for its request.
    let mut waiting = way.start(server, &alice, "socp.v1.DirectoryService/ListUsers", &["--data", "@-"]);
    waiting.expect_log(&["Invoking RPC"]);
    // A peer that does not take the goodbye holds up the drain.
    mesh[1].program.signal(Signal::STOP);
    server.program.signal(Signal::TERM);
    let ended = watch.wait();
    assert_eq!(ended.code(), Some(exit_status(tonic::Code::Unavailable)), "{}", watch.log());
    let told = status(&watch.log());
    assert_eq!(told["code"], "unavailable", "{told}");
    let told = info(&told);
    assert_eq!((&*told.domain, &*told.reason), ("socp", "DRAINING"));
    assert_eq!(told.metadata["resume_token"], mark["resumeToken"]);
    waiting.say("{}");
    waiting.close_input();
    // This one has the schema from our folder: nothing of it but the call meets the drain.
    let mut late = way.start(server, &alice, "socp.v1.DirectoryService/ListUsers", &["--schema", "."]);
    for call in [&mut waiting, &mut late] {
        if !call.wait().success() {
            is_told_of_the_drain(&call.log());
        }
    }
    mesh[1].program.signal(Signal::CONT);
    mesh.ends_well(0);
}

#[test]
fn the_schema_is_read_from_the_server_over_http2() {
    reads_the_schema(HTTP2);
}

#[test]
fn the_schema_is_read_from_the_server_over_http3() {
    reads_the_schema(HTTP3);
}

#[test]
fn calls_over_http2_are_answered_or_refused_with_a_reason() {
    calls_and_is_refused(HTTP2);
}

#[test]
fn calls_over_http3_are_answered_or_refused_with_a_reason() {
    calls_and_is_refused(HTTP3);
}

#[test]
fn a_watch_over_http2_shows_every_change() {
    watches(HTTP2);
}

#[test]
fn a_watch_over_http3_shows_every_change() {
    watches(HTTP3);
}

#[test]
fn a_drain_ends_a_watch_over_http2_with_a_token_and_no_call_hangs() {
    is_in_the_middle_of_a_drain(HTTP2);
}

#[test]
fn a_drain_ends_a_watch_over_http3_with_a_token_and_no_call_hangs() {
    is_in_the_middle_of_a_drain(HTTP3);
}

#[test]
fn the_schema_is_read_from_the_server_over_grpc_web() {
    reads_the_schema(WEB);
}

#[test]
fn calls_over_grpc_web_are_answered_or_refused_with_a_reason() {
    calls_and_is_refused(WEB);
}

#[test]
fn a_watch_over_grpc_web_shows_every_change() {
    watches(WEB);
}

#[test]
fn a_drain_ends_a_watch_over_grpc_web_with_a_token_and_no_call_hangs() {
    is_in_the_middle_of_a_drain(WEB);
}
