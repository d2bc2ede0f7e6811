//! The SOCP server: the shell around one `socp::node::Node`.
//!
//! The node decides; everything here reads the clock, the disk and the sockets for it and carries out what it wants done.
//! Start at [`run`], which puts the parts together, or at [`driver`], the mirror of the node.

pub mod attachment;
pub mod backup;
pub mod banner;
pub mod certificate;
pub mod checks;
pub mod cli;
pub mod config;
pub mod data_folder;
pub mod disk;
pub mod driver;
pub mod error;
pub mod federation;
pub mod files;
pub mod health;
pub mod hub;
pub mod identity;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod operator;
pub mod queue;
pub mod random;
pub mod reflection;
pub mod requests;
pub mod rpc;
pub mod run;
pub mod status;
pub mod storage;
pub mod store;
pub mod tls;
pub mod web;

mod command;

pub use command::main;
