//! One connection of a client: dialling it, what is known of it, and its end.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use h3::error::Code;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use crate::closed::Closed;
use crate::config::{ClientConfig, ConfigError};
use crate::connection::certificates;
use crate::farewell;
use crate::glue;
use crate::stream_end::{Opened, Stopped};

/// The UDP socket of a client, which any number of channels may share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClientEndpoint {
    quic: quinn::Endpoint,
}

impl ClientEndpoint {
    /// Binds a UDP port; `[::]:0` takes any and reaches IPv4 too. To be called in a tokio runtime.
    pub fn bind(addr: SocketAddr) -> io::Result<ClientEndpoint> {
        quinn::Endpoint::client(addr).map(|quic| ClientEndpoint { quic })
    }

    /// Binds any UDP port from which `addr` can be reached. To be called in a tokio runtime.
    pub fn towards(addr: SocketAddr) -> io::Result<ClientEndpoint> {
        ClientEndpoint::bind(match addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        })
    }

    /// The local address and port.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// Waits until every connection is over and its end was told to the peer; for a program that ends. It takes a few
    /// round trips after the last is closed, and for ever while one is open.
    pub async fn wait_idle(&self) {
        self.quic.wait_idle().await;
    }

    /// Moves all connections to a new port or address, as after a change of network; calls go on.
    ///
    /// On error nothing has changed.
    pub fn rebind(&self, addr: SocketAddr) -> io::Result<()> {
        self.quic.rebind(std::net::UdpSocket::bind(addr)?)
    }
}

/// A connection could not be made.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The TLS configuration cannot do QUIC: it lacks TLS 1.3 or its `TLS13_AES_128_GCM_SHA256`.
    #[error("the TLS configuration cannot do QUIC: {0}")]
    Tls(Arc<quinn::crypto::rustls::NoInitialCipherSuite>),
    /// The name or address of the server cannot be used.
    #[error("cannot connect to `{server_name}` at `{addr}`: {reason}")]
    Target {
        /// The name as given.
        server_name: String,
        /// The address as given.
        addr: SocketAddr,
        /// What is wrong with them.
        reason: String,
    },
    /// No local UDP port could be had.
    #[error("no local UDP port: {0}")]
    Socket(Arc<io::Error>),
    /// Nobody answered within [`ClientConfig::connect_time_max`].
    #[error("no answer from `{addr}` in time")]
    TimedOut {
        /// The address as given.
        addr: SocketAddr,
    },
    /// The handshake failed, or the server refused.
    #[error("cannot connect to `{addr}`: {why}")]
    Refused {
        /// The address as given.
        addr: SocketAddr,
        /// What ended the attempt; a refused certificate is [`Closed::Failed`].
        why: Closed,
    },
    /// The channel was closed with [`Channel::close`](crate::Channel::close), or was for one connection and that is over.
    #[error("the channel is closed: {why}")]
    Over {
        /// Why the channel's last connection ended.
        why: Closed,
    },
}

/// A look at one connection of a [`Channel`](crate::Channel). Cheap to clone; keeping it does not keep the connection open.
#[derive(Clone)]
pub struct Connection {
    quic: quinn::Connection,
    certificates: Option<Arc<[CertificateDer<'static>]>>,
    reason: Arc<OnceLock<String>>,
}

impl Connection {
    /// The server's certificates as TLS has verified them, its own first; `None` if TLS was told to expect none.
    pub fn peer_certificates(&self) -> Option<Arc<[CertificateDer<'static>]>> {
        self.certificates.clone()
    }

    /// The server's address.
    pub fn remote_addr(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// The last estimate of the round-trip time.
    pub fn round_trip_time(&self) -> std::time::Duration {
        self.quic.rtt()
    }

    /// Waits until the connection has ended, for whatever cause; at once if it has.
    pub async fn closed(&self) -> Closed {
        let why = Closed::from(self.quic.closed().await);
        match (why, self.reason.get()) {
            (Closed::Here { .. }, Some(reason)) => Closed::Here { reason: reason.clone() },
            (why, _) => why,
        }
    }

    /// Closes this connection at once, with all its calls; the server is told `reason`. The channel may dial anew.
    pub fn close(&self, reason: &str) {
        if self.quic.close_reason().is_none() {
            let _ = self.reason.set(reason.to_owned());
        }
        farewell::close(&self.quic, Code::H3_NO_ERROR, reason.as_bytes());
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("remote_addr", &self.remote_addr())
            .field("ended", &self.quic.close_reason())
            .finish()
    }
}

pub(crate) type SendRequest = h3::client::SendRequest<glue::Opener, Bytes>;

/// A connection that requests can be sent on. It is closed when the last reference is dropped.
pub(crate) struct Live {
    pub(crate) connection: Connection,
    requests: SendRequest,
    opened: Opened,
    draining: AtomicBool,
}

impl Live {
    pub(crate) fn requests(&self) -> SendRequest {
        self.requests.clone()
    }

    /// Takes the wait for the server to stop a stream that was opened here.
    pub(crate) fn stopped(&self, stream: h3::quic::StreamId) -> Option<Stopped> {
        self.opened.take(stream)
    }

    /// Says that the server takes no new request on this connection.
    pub(crate) fn retire(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_usable(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.connection.quic.close_reason().is_none()
    }
}

/// Where and how to dial.
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    pub(crate) server_name: String,
    pub(crate) endpoint: ClientEndpoint,
    pub(crate) quic: quinn::ClientConfig,
    pub(crate) config: ClientConfig,
}

impl Target {
    /// Dials once. On return a task drives the connection until it ends.
    pub(crate) async fn dial(&self) -> Result<Arc<Live>, ConnectError> {
        let addr = self.addr;
        timeout(self.config.connect_time_max, self.handshake()).await.unwrap_or(Err(ConnectError::TimedOut { addr }))
    }

    async fn handshake(&self) -> Result<Arc<Live>, ConnectError> {
        let addr = self.addr;
        let refused = |why| ConnectError::Refused { addr, why };
        let connecting =
            self.endpoint.quic.connect_with(self.quic.clone(), addr, &self.server_name).map_err(|error| {
                ConnectError::Target { server_name: self.server_name.clone(), addr, reason: error.to_string() }
            })?;
        let quic = connecting.await.map_err(|error| refused(error.into()))?;
        let header_bytes_max = self.config.header_bytes_max;
        let glued = glue::Connection::new(quic.clone(), header_bytes_max);
        let opened = glued.opened();
        let (mut driver, requests) = h3::client::builder()
            .max_field_section_size(u64::from(self.config.header_bytes_max))
            .send_grease(false)
            .build(glued)
            .await
            .map_err(|error| refused(Closed::Failed(error.to_string())))?;
        tokio::spawn({
            let quic = quic.clone();
            async move {
                let why = driver.wait_idle().await;
                farewell::close(&quic, Code::H3_NO_ERROR, b"");
                tracing::debug!(%why, "a connection ended");
            }
        });
        Ok(Arc::new(Live {
            connection: Connection { certificates: certificates(&quic), quic, reason: Arc::new(OnceLock::new()) },
            requests,
            opened,
            draining: AtomicBool::new(false),
        }))
    }
}
