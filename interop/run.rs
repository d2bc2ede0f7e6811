//! `interop/run` skips nothing: a tool that is missing or too old is an error with the version wanted.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use tempfile::TempDir;

/// What the script itself is written with.
const SHELL_TOOLS: [&str; 9] = ["awk", "bash", "dirname", "env", "grep", "head", "id", "sh", "sort"];

/// The tools wanted, each in the oldest version that will do.
const WANTED: [(&str, &str); 8] = [
    ("cargo", "1.88"),
    ("go", "1.26"),
    ("npm", "8.0"),
    ("node", "20.0"),
    ("python3", "3.11"),
    ("java", "17.0"),
    ("javac", "17.0"),
    ("mvn", "3.8"),
];

/// A machine on which only these tools are, and what the check says of it.
fn check(tools: &[(&str, &str)]) -> Result<String, String> {
    let folder: TempDir = tempfile::tempdir().expect("a temporary folder can be made");
    let path = env::var_os("PATH").expect("there is a PATH");
    for tool in SHELL_TOOLS {
        let found = env::split_paths(&path).map(|folder| folder.join(tool)).find(|file| file.is_file());
        symlink(found.expect("it is on every machine"), folder.path().join(tool))
            .expect("the folder can be written to");
    }
    for (tool, version) in tools {
        let file = folder.path().join(tool);
        fs::write(&file, format!("#!/bin/sh\necho '{tool} v{version} of 2026'\n"))
            .expect("the folder can be written to");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/run");
    let parts = ["--check", "grpcurl", "buf", "python", "go", "node", "java"];
    let output = Command::new(script).args(parts).env("PATH", folder.path()).output().expect("there is a bash");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn the_oldest_versions_that_will_do_are_taken() {
    let said = check(&WANTED).expect("nothing is missing");
    assert!(WANTED.iter().all(|(tool, version)| said.contains(tool) && said.contains(version)), "{said}");
}

#[test]
fn a_tool_that_is_missing_is_named_with_the_version_wanted() {
    for (index, (tool, version)) in WANTED.iter().enumerate() {
        let others = [&WANTED[..index], &WANTED[index + 1..]].concat();
        let expected = format!("error: `{tool}` is missing; wanted: {version} or newer\n");
        assert_eq!(check(&others), Err(expected));
    }
}

#[test]
fn a_tool_that_is_too_old_is_named_with_what_was_found() {
    for (index, (tool, version)) in WANTED.iter().enumerate() {
        let mut tools = WANTED;
        let old = if version.starts_with("1.") { "1.9.13" } else { "2.99" };
        tools[index].1 = old;
        let expected = format!("error: `{tool}` is {old}; wanted: {version} or newer\n");
        assert_eq!(check(&tools), Err(expected));
    }
}
