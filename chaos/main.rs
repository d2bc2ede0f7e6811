//! Chaos: real servers and real clients, each server in a network namespace of its own, under faults of the network and
//! of the processes.
//!
//! `chaos/run` makes the namespaces and runs this; it says in which form and from which seed. Every packet between two
//! servers passes a forwarder of ours, which cuts, loses, delays and reorders. What is checked is what clients were told
//! by the public contract, in the words of `proto/tests/sim/checks`: no server is believed.
#![cfg(target_os = "linux")]

mod checks;
mod faults;
mod figures;
mod form;
mod forwarder;
mod frame;
mod gone;
#[path = "../e2e/harness/mod.rs"]
#[allow(dead_code, reason = "the end-to-end tests use the rest")]
mod harness;
mod heal;
mod mesh;
mod network;
mod onward;
mod port;
mod rolling;
mod storm;
mod user;
mod world;
