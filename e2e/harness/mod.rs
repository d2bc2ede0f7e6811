//! What end-to-end tests share: the built binaries as processes of their own, and callers that say what no client says.
//!
//! Whatever is waited for is an event with a deadline; nothing sleeps. Processes end with the value that holds them.

pub mod binaries;
pub mod caller;
pub mod client;
pub mod draft;
pub mod forward;
pub mod hostile;
pub mod keys;
pub mod mesh;
pub mod metrics;
pub mod peer;
pub mod program;
pub mod raw;
pub mod server;
pub mod web;
pub mod wire;

use std::{sync::OnceLock, time::Duration};

use tokio::{runtime::Runtime, time::timeout};

/// How long an event may take that must come: for machines under load, no claim about speed.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// All orders of three.
pub const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts")
    })
}

/// Runs a future that must end in time.
#[track_caller]
pub fn soon<F: Future>(future: F) -> F::Output {
    match runtime().block_on(async { timeout(DEADLINE, future).await }) {
        Ok(output) => output,
        Err(_) => panic!("nothing came within {DEADLINE:?}"),
    }
}
