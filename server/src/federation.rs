//! Links to other servers: three streams on one QUIC connection with mutual TLS.

use std::collections::BTreeMap;

use socp::id::ServerId;
use socp_quic::ClientEndpoint;
use tonic::service::Routes;

use crate::driver::Handle;

/// Where the pinned peers are dialled, by id: `host:port`, looked up anew at each dial.
pub type Addresses = BTreeMap<ServerId, String>;

/// Dials peers.
pub struct Dialler {}

impl Dialler {
    /// Dials from `endpoint` with `tls`, which shows the identity certificate and lets pinned servers through only; that
    /// it is the very server that was dialled is checked here.
    pub fn new(endpoint: ClientEndpoint, tls: rustls::ClientConfig, addresses: Addresses) -> Self {
        let _ = (endpoint, tls, addresses);
        todo!()
    }
}

/// The federation service alone, for the federation listener, whose TLS lets pinned servers through only.
pub fn routes(handle: Handle) -> Routes {
    let _ = handle;
    todo!()
}

/// Limits and times for `socp_quic::Server` on the federation port.
pub fn listener_config() -> socp_quic::ServerConfig {
    todo!()
}
