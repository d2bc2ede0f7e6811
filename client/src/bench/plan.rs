//! Who watches in a run, and by what means; as the process is told that has the watchers.

use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::call::Request;

/// Where some watchers connect, and what they ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aim {
    /// The server.
    pub address: SocketAddr,
    /// The certificate that it has proved to be its own; another is refused.
    #[serde(with = "der")]
    pub certificate: CertificateDer<'static>,
    /// What each watcher asks.
    pub request: Request,
    /// How many.
    pub watchers: usize,
    /// How many share a connection.
    pub per_connection: usize,
    /// Whether watchers note where to resume.
    pub keeps_token: bool,
}

/// A certificate as the bytes that it is.
mod der {
    use rustls::pki_types::CertificateDer;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(certificate: &CertificateDer<'_>, to: S) -> Result<S::Ok, S::Error> {
        certificate.as_ref().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<CertificateDer<'static>, D::Error> {
        Vec::deserialize(from).map(CertificateDer::from)
    }
}

/// Who watches in a run, and by what means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where they connect.
    pub aims: Vec<Aim>,
    /// Over HTTP/3, rather than over TCP and TLS.
    pub http3: bool,
    /// Threads that read for them, of each process.
    pub threads: usize,
    /// Processes that they are spread over; one is this process itself.
    pub processes: usize,
}

impl Plan {
    /// Over TCP and TLS, in one thread of this process.
    pub fn here(aims: Vec<Aim>) -> Self {
        Self { aims, http3: false, threads: 1, processes: 1 }
    }
}
