//! Links to other servers: three streams on one QUIC connection with mutual TLS, and one more for each file.
//!
//! Decided here: who the other end is (by its certificate and nothing else), when a link stands (all three streams do)
//! and when it is over (any of them ends, or the connection). The frames and all else about peers are the node's.
//! These methods are served by the federation listener alone; no client listener has them.

mod accept;
mod dial;
mod link;
mod transfer;

use std::{collections::BTreeMap, time::Duration};

use socp::{federation::v1::federation_service_server::FederationServiceServer, id::ServerId};
use socp_quic::{PerPeer, ResetSecret, ServerConfig};
use tonic::service::Routes;

pub use self::{
    dial::Dialler,
    link::Outbox,
    transfer::{Fetched, Ways},
};
use crate::{
    driver::Handle,
    limits::{ACCEPT_MS_MAX, FEDERATION_MESSAGE_BYTES_MAX, FETCHES_PER_LINK_MAX, OFFERS_MAX},
    tls,
};

/// Where the pinned peers are dialled, by id: `host:port`, looked up anew at each dial.
pub type Addresses = BTreeMap<ServerId, String>;

/// The federation service alone, for the federation listener, whose TLS lets admitted servers through only.
pub fn routes(handle: Handle) -> Routes {
    let service = FederationServiceServer::new(accept::Acceptor::new(handle))
        .max_decoding_message_size(FEDERATION_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    Routes::new(service)
}

/// Limits and times for `socp_quic::Server` on the federation port: few connections with few streams, wide windows.
/// Peers recognise a later start by the same `reset`.
pub fn listener_config(reset: ResetSecret) -> ServerConfig {
    ServerConfig {
        connections_max: 1_024,
        bare_time_max: Some(BARE_TIME_MAX),
        per_peer: Some(PerPeer {
            connections_max: CONNECTIONS_PER_PEER_MAX,
            identify: |certificate| tls::server_id(certificate).map(|id| *id.as_bytes()),
        }),
        streams_max: STREAMS,
        stream_window_bytes: WINDOW_BYTES,
        connection_window_bytes: STREAMS * WINDOW_BYTES,
        send_window_bytes: u64::from(STREAMS * WINDOW_BYTES),
        idle_timeout: IDLE,
        keep_alive: Some(IDLE / 5),
        drain_time_max: Duration::from_millis(crate::limits::DRAIN_MS_MAX),
        reset_secret: Some(reset),
        ..ServerConfig::default()
    }
}

/// Connections of one server at once: the link, one that takes its place, and those that are not known to be dead yet of a server
/// that is killed and started again and again.
const CONNECTIONS_PER_PEER_MAX: usize = 16;

/// How long a connection may be without a stream: it has its three within [`ACCEPT_MS_MAX`], or none any more.
const BARE_TIME_MAX: Duration = Duration::from_millis(2 * ACCEPT_MS_MAX);

/// Bytes of one stream that may be on their way: 100 Mbit/s over a round trip of 80 ms.
const WINDOW_BYTES: u32 = 1024 * 1024;

/// Streams of a link: its own three, some offers, and the files that both sides may fetch at once. The windows of a connection have
/// room for all of them, so that files which stand still hold up neither each other nor presence.
const STREAMS: u32 = 3 + (OFFERS_MAX + 2 * FETCHES_PER_LINK_MAX) as u32;

/// QUIC's own idea of a dead connection. It comes after that of the node, which is 2.5 s by default.
const IDLE: Duration = Duration::from_secs(5);
