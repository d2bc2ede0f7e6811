//! The calling side: a channel that any generated tonic client can be built on.
//!
//! A channel holds at most one connection at a time and dials when a call needs one. It never retries a call that may have
//! reached the server; only a call that certainly was not sent moves to a new connection, once.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::uri::Authority;
use http::{Request, Response};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use crate::call;
use crate::closed::Closed;
use crate::config::ClientConfig;
use crate::dial::{ClientEndpoint, ConnectError, Connection, Live, Target};

/// A gRPC channel over HTTP/3, for `FooClient::new(channel)`. Cheap to clone; clones share one connection.
///
/// The connection stays open while a channel or a running call of it lives: a response stream goes on when all channels
/// are dropped. After the connection is lost, running calls fail with `UNAVAILABLE` and the next call dials anew (unless
/// the channel is for [one connection](ChannelBuilder::one_connection)). There is no delay between attempts: whoever
/// repeats calls brings their own.
#[derive(Clone)]
pub struct Channel {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    target: Target,
    authority: Authority,
    one_connection: bool,
    live: watch::Sender<Option<Arc<Live>>>,
    shut: watch::Sender<Option<String>>,
    dialling: tokio::sync::Mutex<()>,
    /// How many attempts have failed, and how the last one did.
    failures: std::sync::Mutex<(u64, Option<ConnectError>)>,
}

/// How a [`Channel`] is made. `Channel::builder(…)` takes what has no default.
#[must_use]
pub struct ChannelBuilder {
    addr: SocketAddr,
    server_name: String,
    tls: rustls::ClientConfig,
    config: ClientConfig,
    endpoint: Option<ClientEndpoint>,
    one_connection: bool,
}

impl ChannelBuilder {
    /// Takes limits and times other than [`ClientConfig::default`].
    pub fn config(mut self, config: ClientConfig) -> ChannelBuilder {
        self.config = config;
        self
    }

    /// Shares a UDP socket with other channels, instead of one of its own.
    pub fn endpoint(mut self, endpoint: ClientEndpoint) -> ChannelBuilder {
        self.endpoint = Some(endpoint);
        self
    }

    /// Makes a channel that never dials a second time: once its connection is lost or the server drains it, every call
    /// fails with `UNAVAILABLE`. For layers above that redial themselves and must know one connection from the next.
    pub fn one_connection(mut self) -> ChannelBuilder {
        self.one_connection = true;
        self
    }

    /// Makes the channel without dialling; the first call does. To be called in a tokio runtime.
    ///
    /// Fails only for a setting, a name, a TLS configuration or a local port that cannot be used.
    pub fn lazy(self) -> Result<Channel, ConnectError> {
        let (addr, server_name) = (self.addr, self.server_name);
        // A bare IPv6 address needs brackets in an authority.
        let host = match server_name.contains(':') && !server_name.starts_with('[') {
            true => format!("[{server_name}]:{}", addr.port()),
            false => format!("{server_name}:{}", addr.port()),
        };
        let authority = host.parse().map_err(|_| ConnectError::Target {
            server_name: server_name.clone(),
            addr,
            reason: "not a name".to_owned(),
        })?;
        let mut tls = self.tls;
        tls.alpn_protocols = vec![b"h3".to_vec()];
        tls.enable_early_data = false;
        let tls = QuicClientConfig::try_from(tls).map_err(|error| ConnectError::Tls(Arc::new(error)))?;
        let mut quic = quinn::ClientConfig::new(Arc::new(tls));
        quic.transport_config(self.config.transport()?);
        let endpoint = match self.endpoint {
            Some(endpoint) => endpoint,
            None => ClientEndpoint::towards(addr).map_err(|error| ConnectError::Socket(Arc::new(error)))?,
        };
        Ok(Channel {
            inner: Arc::new(Inner {
                target: Target { addr, server_name, endpoint, quic, config: self.config },
                authority,
                one_connection: self.one_connection,
                live: watch::Sender::new(None),
                shut: watch::Sender::new(None),
                dialling: tokio::sync::Mutex::new(()),
                failures: std::sync::Mutex::new((0, None)),
            }),
        })
    }

    /// Makes the channel and dials at once, for [`ClientConfig::connect_time_max`] at most.
    pub async fn connect(self) -> Result<Channel, ConnectError> {
        let channel = self.lazy()?;
        channel.inner.ready().await?;
        Ok(channel)
    }
}

impl Channel {
    /// Begins a channel to the server at `addr`, whose certificate must be for `server_name` (a DNS name or IP address).
    ///
    /// `tls` decides which servers are trusted and holds the client's certificate, if any; its ALPN is set to `h3` and
    /// 0-RTT is turned off.
    pub fn builder(addr: SocketAddr, server_name: impl Into<String>, tls: rustls::ClientConfig) -> ChannelBuilder {
        ChannelBuilder {
            addr,
            server_name: server_name.into(),
            tls,
            config: ClientConfig::default(),
            endpoint: None,
            one_connection: false,
        }
    }

    /// The connection that the channel has, or had last; `None` before the first.
    pub fn connection(&self) -> Option<Connection> {
        let live = self.inner.live.borrow();
        live.as_ref().map(|live| live.connection.clone())
    }

    /// Connects if there is no usable connection, and returns the one there is.
    pub async fn ready(&self) -> Result<Connection, ConnectError> {
        let live = self.inner.ready().await?;
        Ok(live.connection.clone())
    }

    /// Waits until the connection that the channel has now has ended, and tells why. Before the first connection, it waits
    /// for that one to come and to end.
    pub async fn closed(&self) -> Closed {
        let mut live = self.inner.live.subscribe();
        let mut shut = self.inner.shut.subscribe();
        let connected = async {
            let live = live.wait_for(|live| live.is_some()).await;
            let live = live.ok().and_then(|live| live.clone());
            live.expect("the sender lives in `self`, and the wait was for `Some`").connection.clone()
        };
        let connection = tokio::select! {
            biased;
            connection = connected => connection,
            Ok(reason) = shut.wait_for(|shut| shut.is_some()) => {
                let reason = reason.clone().unwrap_or_default();
                return Closed::Here { reason };
            }
        };
        connection.closed().await
    }

    /// Closes the channel for good, with all its calls; the server is told `reason`. Later calls are `UNAVAILABLE`.
    pub fn close(&self, reason: &str) {
        self.inner.shut.send_if_modified(|shut| {
            let first = shut.is_none();
            if first {
                *shut = Some(reason.to_owned());
            }
            first
        });
        if let Some(connection) = self.connection() {
            connection.close(reason);
        }
    }
}

impl Inner {
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns a usable connection, dialled if need be. Callers that come while one dials share its success and its
    /// failure; if it gives up, the next dials.
    pub(crate) async fn ready(&self) -> Result<Arc<Live>, ConnectError> {
        let failed_before = self.failures().0;
        if let Some(live) = self.usable()? {
            return Ok(live);
        }
        let _turn = self.dialling.lock().await;
        if let Some(live) = self.usable()? {
            return Ok(live);
        }
        if let (count, Some(error)) = &*self.failures()
            && *count != failed_before
        {
            return Err(error.clone());
        }
        let live = self.target.dial().await.inspect_err(|error| {
            let mut failures = self.failures();
            *failures = (failures.0 + 1, Some(error.clone()));
        })?;
        self.live.send_replace(Some(live.clone()));
        if let Some(reason) = &*self.shut.borrow() {
            live.connection.close(reason);
        }
        self.usable()?.ok_or(ConnectError::Over { why: Closed::Failed("lost as soon as it was made".to_owned()) })
    }

    fn usable(&self) -> Result<Option<Arc<Live>>, ConnectError> {
        if let Some(reason) = &*self.shut.borrow() {
            let why = Closed::Here { reason: reason.clone() };
            return Err(ConnectError::Over { why });
        }
        match &*self.live.borrow() {
            Some(live) if live.is_usable() => Ok(Some(live.clone())),
            Some(_) if self.one_connection => {
                Err(ConnectError::Over { why: Closed::Failed("its one connection is over".to_owned()) })
            }
            _ => Ok(None),
        }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, (u64, Option<ConnectError>)> {
        self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(call::call(self.inner.clone(), request))
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("authority", &self.inner.authority)
            .field("connection", &self.connection())
            .finish()
    }
}
