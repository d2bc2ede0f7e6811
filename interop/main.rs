//! Programs of strangers take part: tools that people inspect servers with, a browser, and clients in other languages.
//!
//! None of them shares code with ours. `interop/run` brings them, tells these tests where they are, and runs them.

mod buf;
mod grpcurl;
#[path = "../e2e/harness/mod.rs"]
#[allow(dead_code, reason = "the end-to-end tests use the rest")]
mod harness;
mod run;
mod samples;
mod tool;
mod web;
