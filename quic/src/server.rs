//! The listening side: one UDP socket, who is let in, and the graceful stop.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::error::Code;
use http::{Request, Response};
use quinn::crypto::rustls::QuicServerConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use crate::config::{ConfigError, ServerConfig};
use crate::connection;
use crate::farewell;
use crate::gauges::Gauges;
use crate::per_peer;
use crate::reset::ResetSecret;

/// How long the last packets, which tell clients that their connection is closed, may take to be sent.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);

/// A server could not be set up. Nothing is listening.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The TLS configuration cannot do QUIC: it lacks TLS 1.3 or its `TLS13_AES_128_GCM_SHA256`.
    #[error("the TLS configuration cannot do QUIC: {0}")]
    Tls(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// The UDP port cannot be had.
    #[error("cannot listen on `{addr}` (UDP)")]
    Socket {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A gRPC server on a UDP port. Clients that come between [`bind`](Server::bind) and [`serve`](Server::serve) wait.
#[derive(Debug)]
pub struct Server {
    endpoint: quinn::Endpoint,
    local: SocketAddr,
    config: Arc<ServerConfig>,
    gauges: Gauges,
}

impl Server {
    /// Listens on `addr`; port 0 takes a free one, which [`local_addr`](Server::local_addr) tells.
    ///
    /// `tls` decides who the server is and whom it lets in (client certificates included); this sets its ALPN to `h3` and
    /// turns 0-RTT off. An IPv6 wildcard address listens for IPv4 too where the system does so by default.
    /// To be called in a tokio runtime.
    pub fn bind(addr: SocketAddr, mut tls: rustls::ServerConfig, config: ServerConfig) -> Result<Server, BindError> {
        tls.alpn_protocols = vec![b"h3".to_vec()];
        tls.max_early_data_size = 0;
        let mut quic = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        quic.transport_config(config.transport()?).max_incoming(config.handshakes_max.max(1));
        let socket = |source| BindError::Socket { addr, source };
        let reset = config.reset_secret.as_ref().map_or_else(quinn::EndpointConfig::default, ResetSecret::endpoint);
        let runtime = quinn::default_runtime().ok_or_else(|| socket(io::Error::other("no tokio runtime")))?;
        let endpoint = UdpSocket::bind(addr)
            .and_then(|udp| quinn::Endpoint::new(reset, Some(quic), udp, runtime))
            .map_err(socket)?;
        let local = endpoint.local_addr().map_err(socket)?;
        Ok(Server { endpoint, local, config: Arc::new(config), gauges: Gauges::default() })
    }

    /// The address that the server listens on, with the port it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The numbers of this server, for metrics and leak tests; they stay readable after it has ended.
    pub fn gauges(&self) -> Gauges {
        self.gauges.clone()
    }

    /// Serves until `shutdown` completes, then drains, and returns once all is sent and closed.
    ///
    /// `service` is a `tonic::service::Routes`, or one wrapped in tower layers. Each request carries a
    /// [`PeerInfo`](crate::PeerInfo) and tonic's `TcpConnectInfo`, so that `Request::remote_addr` works.
    ///
    /// Draining: no new connection is let in; clients are told to send no new request (GOAWAY); running calls have
    /// [`ServerConfig::drain_time_max`] to end. Dropping the returned future instead ends everything at once.
    pub async fn serve<S, B>(self, service: S, shutdown: impl Future<Output = ()>)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let service = service.map_response(|response: Response<B>| response.map(Body::new));
        let (stop, stopping) = watch::channel(false);
        let mut connections = JoinSet::new();
        let counts = per_peer::Counts::default();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                incoming = self.endpoint.accept() => {
                    let Some(incoming) = incoming else {
                        break;
                    };
                    let Some(connecting) = self.admit(incoming) else {
                        continue;
                    };
                    // Counted here, not in the task, which may start only after more have been let in.
                    let handshake = self.gauges.handshake();
                    connections.spawn(connection::serve(connecting, handshake, connection::Shared {
                        service: service.clone(),
                        local: self.local,
                        config: self.config.clone(),
                        gauges: self.gauges.clone(),
                        counts: counts.clone(),
                        stopping: stopping.clone(),
                    }));
                }
            }
        }
        stop.send_replace(true);
        while !connections.is_empty() {
            tokio::select! {
                _ = connections.join_next() => {}
                Some(incoming) = self.endpoint.accept() => incoming.refuse(),
            }
        }
        self.endpoint.close(farewell::code(Code::H3_NO_ERROR), b"");
        // Sending the last packets is a courtesy; a peer that misses them notices by its own idle timeout.
        let _ = timeout(FAREWELL_TIME_MAX, self.endpoint.wait_idle()).await;
    }

    /// Lets a client in, refuses it, or has it prove its address first.
    fn admit(&self, incoming: quinn::Incoming) -> Option<quinn::Connecting> {
        let handshakes = self.gauges.handshakes();
        let full = handshakes + self.gauges.connections() >= self.config.connections_max;
        if full || handshakes >= self.config.handshakes_max {
            incoming.refuse();
            return None;
        }
        if handshakes >= self.config.handshakes_before_retry && !incoming.remote_address_validated() {
            if let Err(error) = incoming.retry() {
                error.into_incoming().refuse();
            }
            return None;
        }
        incoming.accept().inspect_err(|error| tracing::debug!(%error, "a connection attempt was malformed")).ok()
    }
}
