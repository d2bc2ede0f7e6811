//! The client listeners: TCP (gRPC and gRPC-Web over HTTP/2 under TLS) and UDP (gRPC over HTTP/3) on one port number.
//!
//! A handshake has a task, a time limit and a place among few; a connection has a place among many. What gets through is
//! served by tonic, or by `http1` if the client asks for HTTP/1.1 in its handshake; what a request may hold until it is
//! whole is in [`crate::requests`]. A client that is frozen or cut off is
//! noticed by its silence on either transport, in time for it to be shown as gone within 10 s, its grace of 2 s included;
//! what HTTP/1.1 lacks for that is told in `http1`.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;
use rustls::ServerConfig;
use socp_quic::{PeerInfo, ResetSecret};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{
    service::Routes,
    transport::{Server, server::Connected},
};

use crate::{
    limits::ATTACHMENTS_MAX,
    requests::Requests,
    tls::HTTP_1,
    web::{Origin, Web},
};

mod http1;

use http1::Http1;

/// Time for a TLS handshake: two lost packets on a slow path fit.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// Bytes with which a client begins HTTP/2, and the time for them: two lost packets fit. Who has begun is pinged.
const PREFACE_BYTES: usize = 24;
const PREFACE_TIME_MAX: Duration = Duration::from_secs(5);

/// Handshakes under way at once: each costs a signature and some 20 KiB. More wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 256;

/// Connections open at once, of TCP and as many of QUIC; more are closed as they come. 20,000 devices by either
/// transport, and room; all together as many as there may be watches or attached streams. About 40 KiB each when idle over TCP,
/// 60 over QUIC.
pub(crate) const CONNECTIONS_MAX: usize = ATTACHMENTS_MAX / 2;

/// Calls that one connection may have open at once.
const STREAMS_MAX: u32 = 100;

/// Bytes of a request's headers.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// How often a client is asked whether it lives, and how long it may take to say so: together 7 s.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

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

async fn serve_tcp(
    listener: TcpListener,
    tls: TlsAcceptor,
    places: Arc<Semaphore>,
    web: Web,
    shutdown: impl Future<Output = ()> + Clone + Send + 'static,
) {
    let (ready, connections) = mpsc::channel(HANDSHAKES_MAX);
    let (http1, open) = Http1::new(web.clone(), shutdown.clone());
    let accepting = tokio::spawn(accept(listener, tls, places, ready, http1));
    let draining = shutdown.clone();
    let serving = Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .serve_with_incoming_shutdown(web, Incoming(connections), shutdown);
    let limit = async {
        draining.await;
        sleep(DRAIN_TIME_MAX).await;
    };
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                tracing::error!(%error, "the TCP listener failed");
            }
        }
        () = limit => tracing::debug!("calls over TCP are still in progress; ending them"),
    }
    accepting.abort();
    open.closed().await;
}

/// Accepts until tonic wants no more connections.
async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    places: Arc<Semaphore>,
    ready: mpsc::Sender<io::Result<Connection>>,
    http1: Http1<impl Future<Output = ()> + Clone + Send + 'static>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let handshake = handshakes.clone().acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
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
        let (tls, ready, http1) = (tls.clone(), ready.clone(), http1.clone());
        tokio::spawn(async move {
            let shaken = tokio::select! {
                shaken = shake(stream, remote, &tls) => shaken,
                () = ready.closed() => None,
            };
            let Some(stream) = shaken else { return };
            let (peer, closing) = introduce(remote);
            if stream.get_ref().1.alpn_protocol() == Some(HTTP_1) {
                drop(handshake);
                http1::end_in_silence(stream.get_ref().0);
                http1.serve(stream, peer, closing).await;
                drop(place);
                return;
            }
            let connection = Connection {
                stream,
                peer,
                closing: Some(Box::pin(closing)),
                beginning: Some(Beginning { missing: PREFACE_BYTES, end: Box::pin(sleep(PREFACE_TIME_MAX)) }),
                _place: place,
            };
            // Fails only when tonic is gone; then so is the connection.
            let _ = ready.send(Ok(connection)).await;
            drop(handshake);
        });
    }
}

async fn shake(stream: TcpStream, remote: SocketAddr, tls: &TlsAcceptor) -> Option<TlsStream<TcpStream>> {
    // A failure shows in the handshake, too.
    let _ = stream.set_nodelay(true);
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

/// Connections as tonic takes them.
struct Incoming(mpsc::Receiver<io::Result<Connection>>);

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// One client over HTTP/2. Handlers see its [`PeerInfo`], and close it through that.
struct Connection {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
    /// Ready once a handler wants the connection closed; owns the other end of `peer`.
    closing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// None once the client has begun to speak HTTP/2.
    beginning: Option<Beginning>,
    _place: OwnedSemaphorePermit,
}

/// What a client owes before it is asked whether it lives.
struct Beginning {
    missing: usize,
    end: Pin<Box<Sleep>>,
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let closed = self.closing.as_mut().is_none_or(|closing| closing.as_mut().poll(context).is_ready());
        if closed {
            // As if the client had gone: HTTP/2 drops all calls of the connection.
            self.closing = None;
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        let read = pin!(&mut self.stream).poll_read(context, buffer);
        if let Some(beginning) = &mut self.beginning {
            let missing = beginning.missing.saturating_sub(buffer.filled().len() - before);
            if missing > 0 && beginning.end.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            beginning.missing = missing;
            if missing == 0 {
                self.beginning = None;
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        pin!(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        pin!(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
