//! The server.

pub mod attachment;
pub mod checks;
pub mod driver;
pub mod federation;
pub mod hub;
pub mod limits;
pub mod queue;
pub mod rpc;
pub mod status;
