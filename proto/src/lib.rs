//! The SOCP protocol, without IO: its contracts, its signed documents, and the state machine of one server.
//!
//! Everything here is a pure function of its arguments. Time comes in as a value, randomness as bytes, signatures
//! through the [`Identity`](identity::Identity) trait; what must happen outside goes out as an
//! [`Output`](output::Output). So a seed replays a run, and the same code runs in a server and in a simulation of
//! hundreds of them. Without the feature `grpc` (generated stubs, which want std) the crate is `no_std`, which keeps clocks, sockets, files and
//! unordered maps out by construction.
//!
//! Where to start: [`node::Node`] is the server's state machine; [`input`] and [`output`] are all that passes its
//! wall; [`origin`] holds the rule by which directories converge.

#![cfg_attr(not(any(feature = "grpc", feature = "mutations")), no_std)]

extern crate alloc;

pub mod account;
pub mod admission;
pub mod base;
pub mod batch;
pub mod channel;
#[cfg(feature = "grpc")]
pub mod codec;
pub mod digest;
pub mod directory;
pub mod file;
pub mod id;
pub mod identity;
pub mod inbox;
pub mod input;
pub mod limits;
pub mod message;
pub mod moves;
#[cfg(feature = "mutations")]
pub mod mutation;
#[cfg(not(feature = "mutations"))]
mod mutation;
pub mod name;
pub mod node;
pub mod origin;
pub mod outbox;
pub mod output;
pub mod rejection;
pub mod safety_number;
pub mod signed;
pub mod statement;
pub mod user_key;

/// The client contract, `socp.v1`, as generated from `proto/socp/v1`.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/socp.v1.rs"));
}

/// The federation contract, as generated from `proto/socp/federation/v1`.
pub mod federation {
    /// Version 1 of the federation contract.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/socp.federation.v1.rs"));
    }
}

/// The operator's contract, as generated from `proto/socp/operator/v1`.
pub mod operator {
    /// Version 1 of the operator's contract.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/socp.operator.v1.rs"));
    }
}

/// The client contract as an encoded `FileDescriptorSet`, for reflection. Federation is not in it.
#[cfg(feature = "grpc")]
pub const CLIENT_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/client.fds"));

/// Protocol version spoken here: a peer of another major is refused.
pub const PROTOCOL_VERSION: (u32, u32) = (1, 0);
