//! End to end: the built `socp-server` and `socp` as separate processes over real sockets.
//!
//! Each test's name is what is promised, the same as in `proto/tests/sim` where the simulation holds the same promise.
//! What sockets cannot provoke in reasonable time (a nonce a minute old, 65,536 revisions) is left to it.

mod account;
mod admission;
mod bench;
mod channel;
mod client;
mod directory;
mod disk;
mod export;
mod file;
mod floods;
mod harness;
mod history;
mod hostile;
mod inbox;
mod links;
mod message;
mod metrics;
mod monitoring;
mod moves;
mod onward;
mod operator;
mod rotation;
mod server;
mod session;
mod trust;
mod verify;
mod watch;
mod web;
