//! A tool of strangers: where it is, and what it said.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::Value;

use crate::harness::{binaries, mesh::Site, program::Program, server::Server};

/// The path that `interop/run` has put into a variable.
#[track_caller]
pub fn path(variable: &str) -> PathBuf {
    let path = env::var_os(variable).unwrap_or_else(|| panic!("`{variable}` is not set: run `interop/run`"));
    PathBuf::from(path)
}

/// The folder of a program.
pub fn folder(program: &Path) -> &Path {
    program.parent().expect("a program is in a folder")
}

/// A `PATH` with our programs and this one, before everything else.
pub fn search_path(tool: &Path) -> OsString {
    let ours = binaries::client();
    let first = [folder(Path::new(ours.get_program())), folder(tool)].map(Path::to_owned);
    let others = env::var_os("PATH").unwrap_or_default();
    env::join_paths(first.into_iter().chain(env::split_paths(&others))).expect("no folder has a colon in its name")
}

/// Standard output of a tool that must have succeeded.
#[track_caller]
pub fn output(what: &str, output: &Output) -> String {
    assert!(output.status.success(), "{what}: {}\n{}", output.status, errors(output));
    String::from_utf8(output.stdout.clone()).unwrap_or_else(|_| panic!("{what} prints text"))
}

/// What it wrote to standard error.
pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The JSON object in what a tool printed.
#[track_caller]
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON, {error}: {text}"))
}

/// Starts a server as a person does, and gives what it prints, to the last line.
#[track_caller]
pub fn started_for_people(site: &Site) -> (Server, String) {
    let mut command = binaries::server();
    command.env("NO_COLOR", "1").args(["--metrics-listen", "127.0.0.1:0", "--config"]).arg(site.config());
    let program = Program::start(format!("`{}`", site.name), &mut command);
    program.expect_log(&["ListUsers"]);
    let printed = program.log();
    let metrics = printed.split("http://").nth(1).and_then(|rest| rest.split('/').next()?.parse().ok());
    let (name, client, federation, data) = (site.name.clone(), site.client, site.federation, site.data());
    let server = Server {
        program,
        name,
        id: site.id,
        client,
        federation,
        metrics: metrics.unwrap_or_else(|| panic!("it says where metrics are: {printed}")),
        ca: data.join("ca.pem"),
        data,
    };
    (server, printed)
}
