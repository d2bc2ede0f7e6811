//! The client listeners: TCP (gRPC and gRPC-Web over HTTP/2 under TLS) and UDP (gRPC over HTTP/3) on one port number.
//!
//! A handshake has a task, a time limit and a place among few; a connection has a place among many. What gets through is
//! served by `http2`, or by `http1` if the client asks for HTTP/1.1 in its handshake; what a request may hold until it is
//! whole is in [`crate::requests`]. A client with an attached device that is frozen or cut off is
//! noticed by its silence on either transport, in time for it to be shown as gone within 10 s, its grace of 2 s included;
//! what HTTP/1.1 lacks for that is told in `http1`.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::Either};
use http::{Request, Response};
use rustls::ServerConfig;
use socp_quic::{PeerInfo, ResetSecret};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{Status, body::Body, service::Routes};
use tower::Service as _;

use crate::{
    limits::ATTACHMENTS_MAX,
    requests::Requests,
    tls::HTTP_1,
    web::{Origin, Web},
};

mod http1;
mod http2;
mod liveness;
mod socket;

use http1::Http1;
use http2::Http2;
pub use liveness::Liveness;

/// Time for a TLS handshake: two lost packets on a slow path fit.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// Handshakes under way at once: each costs a signature and some 20 KiB. More wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 256;

/// Connections open at once, of TCP and as many of QUIC; more are closed as they come. 20,000 devices by either
/// transport, and room; all together as many as there may be watches or attached streams. About 31 KiB each when idle over TCP,
/// 43 over QUIC.
pub(crate) const CONNECTIONS_MAX: usize = ATTACHMENTS_MAX / 2;

/// Calls that one connection may have open at once.
const STREAMS_MAX: u32 = 100;

/// Bytes of a request's headers.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// Over QUIC: silence after which a client is gone. It counts from the first unanswered packet, which follows the last
/// answered one within the keep-alive: together 7 s.
const QUIC_IDLE_TIMEOUT: Duration = Duration::from_millis(5_500);
const QUIC_KEEP_ALIVE: Duration = Duration::from_millis(1_500);

/// How long calls in progress may take to end once the server drains; streams are ended by the node before.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// Pause after the system refused to accept, as when it is out of descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Tries to find a number that is free for both TCP and UDP, when any will do.
const PAIR_TRIES: usize = 32;

/// A listener could not be set up. Nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The port is taken, or may not be had.
    #[error("cannot listen on `{addr}` ({protocol}): {source}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// QUIC could not be set up; a bug.
    #[error("cannot listen on `{addr}` (UDP): {source}")]
    Quic {
        /// The address asked for.
        addr: SocketAddr,
        /// What is wrong.
        source: socp_quic::BindError,
    },
}

impl ListenError {
    /// What the operator can do about it, given the key that names the address.
    pub fn hint(&self, key: &str) -> String {
        let flag = key.replace('_', "-");
        match self {
            Self::Bind { addr, source, .. } if source.kind() == io::ErrorKind::AddrInUse => format!(
                "another program, perhaps another socp-server, has port {}; stop it, or choose another with `{key}` or `--{flag}`",
                addr.port()
            ),
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrNotAvailable => {
                format!("`{key}` must be an address of this machine, or `0.0.0.0` or `[::]` for all of them")
            }
            Self::Bind { .. } | Self::Quic { .. } => format!("choose another address with `{key}` or `--{flag}`"),
        }
    }
}

/// Sorts out what the QUIC adapter could not do.
pub fn quic_error(addr: SocketAddr, error: socp_quic::BindError) -> ListenError {
    match error {
        socp_quic::BindError::Socket { addr, source } => ListenError::Bind { addr, protocol: "UDP", source },
        source => ListenError::Quic { addr, source },
    }
}

/// Limits and times of the UDP side.
fn quic_config(reset: ResetSecret) -> socp_quic::ServerConfig {
    socp_quic::ServerConfig {
        handshake_time_max: HANDSHAKE_TIME_MAX,
        handshakes_max: HANDSHAKES_MAX,
        connections_max: CONNECTIONS_MAX,
        streams_max: STREAMS_MAX,
        header_bytes_max: HEADER_BYTES_MAX,
        idle_timeout: QUIC_IDLE_TIMEOUT,
        keep_alive: Some(QUIC_KEEP_ALIVE),
        drain_time_max: DRAIN_TIME_MAX,
        reset_secret: Some(reset),
        ..socp_quic::ServerConfig::default()
    }
}

/// Both client listeners. Clients may connect from now on and wait until [`ClientListener::serve`].
pub struct ClientListener {
    tcp: TcpListener,
    tls: TlsAcceptor,
    quic: socp_quic::Server,
    address: SocketAddr,
    places: Arc<Semaphore>,
    requests: Requests,
}

/// How many clients are connected now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections {
    places: Arc<Semaphore>,
    quic: socp_quic::Gauges,
}

impl Connections {
    /// Over TCP, those in their handshake among them.
    pub fn tcp(&self) -> usize {
        CONNECTIONS_MAX - self.places.available_permits()
    }

    /// Over QUIC.
    pub fn quic(&self) -> usize {
        self.quic.connections()
    }
}

impl ClientListener {
    /// Listens on one address with TCP and UDP. Port 0 takes a number that is free for both.
    /// Clients over QUIC recognise a later start by the same `reset`.
    pub async fn bind(
        addr: SocketAddr,
        tcp: ServerConfig,
        quic: ServerConfig,
        reset: ResetSecret,
    ) -> Result<Self, ListenError> {
        let mut tries = if addr.port() == 0 { PAIR_TRIES } else { 1 };
        let tls = TlsAcceptor::from(Arc::new(tcp));
        loop {
            tries -= 1;
            let at = |source| ListenError::Bind { addr, protocol: "TCP", source };
            let tcp = TcpListener::bind(addr).await.map_err(at)?;
            let address = tcp.local_addr().map_err(at)?;
            match socp_quic::Server::bind(address, quic.clone(), quic_config(reset.clone()))
                .map_err(|error| quic_error(address, error))
            {
                Ok(quic) => {
                    let (places, requests) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Requests::default());
                    return Ok(Self { tcp, tls, quic, address, places, requests });
                }
                Err(ListenError::Bind { source, .. }) if tries > 0 && source.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The address, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many are connected, as long as it serves.
    pub fn connections(&self) -> Connections {
        Connections { places: Arc::clone(&self.places), quic: self.quic.gauges() }
    }

    /// What its clients' requests hold that are not whole.
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Serves until `shutdown`, and then until what is in progress has ended or [`DRAIN_TIME_MAX`] is over. Pages of
    /// `origins` may call over TCP.
    pub async fn serve(
        self,
        routes: Routes,
        origins: &[Origin],
        shutdown: impl Future<Output = ()> + Clone + Send + 'static,
    ) {
        let routes = Routes::from(routes.into_axum_router().layer(self.requests)).prepare();
        let web = Web::new(routes.clone(), origins);
        let quic = self.quic.serve(routes, shutdown.clone());
        let tcp = serve_tcp(self.tcp, self.tls, self.places, web, shutdown);
        tokio::join!(quic, tcp);
    }
}

/// Waits for all connections of one kind.
struct Open(mpsc::Receiver<Infallible>);

impl Open {
    /// Waits until nothing can serve any more.
    async fn closed(mut self) {
        // Nobody can send; it ends when all senders are gone.
        let _ = self.0.recv().await;
    }
}

async fn serve_tcp(
    listener: TcpListener,
    tls: TlsAcceptor,
    places: Arc<Semaphore>,
    web: Web,
    shutdown: impl Future<Output = ()> + Clone + Send + 'static,
) {
    let (http1, one) = Http1::new(web.clone(), shutdown.clone());
    let (http2, two) = Http2::new(web, shutdown.clone());
    accept(listener, tls, places, http1, http2, shutdown).await;
    tokio::join!(one.closed(), two.closed());
}

/// Accepts until `shutdown`.
async fn accept<S: Future<Output = ()> + Clone + Send + 'static>(
    listener: TcpListener,
    tls: TlsAcceptor,
    places: Arc<Semaphore>,
    http1: Http1<S>,
    http2: Http2<S>,
    shutdown: S,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut draining = pin!(shutdown.clone());
    loop {
        let handshake = handshakes.clone().acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut draining => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client over TCP");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%remote, "refused a client: {CONNECTIONS_MAX} are connected over TCP");
            continue;
        };
        let (tls, http1, http2, shutdown) = (tls.clone(), http1.clone(), http2.clone(), shutdown.clone());
        tokio::spawn(async move {
            let shaken = tokio::select! {
                shaken = shake(stream, remote, &tls) => shaken,
                () = shutdown => None,
            };
            drop(handshake);
            let Some(stream) = shaken else { return };
            let (peer, closing) = introduce(remote);
            // In a task of its own, which is as large as it needs to be for long; a handshake's is larger.
            if stream.get_ref().1.alpn_protocol() == Some(HTTP_1) {
                socket::end_in_silence(stream.get_ref().0);
                tokio::spawn(http1.serve(Box::new(stream), peer, closing, place));
            } else {
                tokio::spawn(http2.serve(Box::new(stream), peer, closing, place));
            }
        });
    }
}

async fn shake(stream: TcpStream, remote: SocketAddr, tls: &TlsAcceptor) -> Option<TlsStream<TcpStream>> {
    socket::prepare(&stream);
    match timeout(HANDSHAKE_TIME_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%remote, %error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%remote, "a TLS handshake took too long");
            None
        }
    }
}

/// What handlers see of a client over TCP, and what is ready once one of them wants its connection closed.
fn introduce(remote: SocketAddr) -> (PeerInfo, impl Future<Output = ()> + Send) {
    let (peer, driver) = PeerInfo::new(remote, None);
    let closing = async move {
        let reason = driver.close_requested().await;
        tracing::debug!(%remote, %reason, "closing a connection");
    };
    (peer, closing)
}

/// Has a request answered, which begins at once, until its deadline; that of the answer's body is for whoever sends it.
fn answer(
    mut web: Web,
    request: Request<Body>,
    deadline: Option<Instant>,
) -> impl Future<Output = Response<Body>> + use<> {
    // It is ready always.
    let answer = web.call(request).map(|answer| answer.unwrap_or_else(|never| match never {}));
    match deadline {
        None => Either::Left(answer),
        Some(deadline) => {
            let in_time = timeout_at(deadline, answer);
            Either::Right(in_time.map(|answer| answer.unwrap_or_else(|_| late().into_http())))
        }
    }
}

/// What a client is told whose call took longer than it gave it.
fn late() -> Status {
    Status::deadline_exceeded("the call's deadline has passed")
}

#[cfg(test)]
mod tests;
