//! The binaries under test, built once per run in the profile of the test itself.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::mesh;

/// Where the own executable, a test or an example, is in a folder of: `TARGET/PROFILE`.
fn profile_folder() -> PathBuf {
    let own = env::current_exe().expect("a program knows its own path");
    own.ancestors().nth(2).expect("it lies in a folder of `TARGET/PROFILE`").to_owned()
}

/// Where things are kept from one run to the next: `TARGET/tmp`, as cargo has it.
pub fn scratch_folder() -> PathBuf {
    profile_folder().parent().expect("a profile's folder lies in the target folder").join("tmp")
}

fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        mesh::free_ports();
        let folder = profile_folder();
        let target = folder.parent().expect("a profile's folder lies in the target folder");
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let built = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            // The same packages, and for the sake of an example with their development dependencies, as `cargo test`
            // builds: any other choice has other features, and would build every dependency a second time.
            .args(["build", "--bins", "--example", "mesh", "--profile", profile])
            .arg("--target-dir")
            .arg(target)
            .output()
            .expect("cargo runs");
        assert!(built.status.success(), "the binaries do not build:\n{}", String::from_utf8_lossy(&built.stderr));
        folder
    })
}

/// `socp-server`.
pub fn server() -> Command {
    Command::new(folder().join("socp-server"))
}

/// `socp`.
pub fn client() -> Command {
    Command::new(folder().join("socp"))
}
