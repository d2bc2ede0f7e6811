//! The two ways to a server, behind one service that generated clients are built on.

use std::{
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{Status, body::Body};
use tower::Service;

use crate::failure::Failure;

/// Time of silence after which the server is asked for a sign of life.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How long that sign of life may take over TCP.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time without a packet after which a QUIC connection is given up; like TCP's two times above together.
const IDLE_TIMEOUT: Duration = Duration::from_secs(7);

/// How long the end of a connection may take to be told.
const LEAVE_TIME_MAX: Duration = Duration::from_millis(500);

/// One of the two transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// gRPC over HTTP/3 on QUIC.
    H3,
    /// gRPC over HTTP/2 on TLS and TCP.
    Tcp,
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H3 => "h3",
            Self::Tcp => "tcp",
        })
    }
}

/// Which transports may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Choice {
    /// Both; the one that connected last goes first.
    #[default]
    Auto,
    /// HTTP/3 only.
    H3,
    /// HTTP/2 over TCP only.
    Tcp,
}

impl Choice {
    /// The transports in the order in which they are tried.
    pub fn order(self, first: TransportKind) -> Vec<TransportKind> {
        match (self, first) {
            (Self::H3, _) => vec![TransportKind::H3],
            (Self::Tcp, _) => vec![TransportKind::Tcp],
            (Self::Auto, TransportKind::H3) => vec![TransportKind::H3, TransportKind::Tcp],
            (Self::Auto, TransportKind::Tcp) => vec![TransportKind::Tcp, TransportKind::H3],
        }
    }
}

/// One connection, over which calls go until it is lost. It is never dialled anew.
#[derive(Clone)]
pub enum Transport {
    /// Over HTTP/3, on a UDP port of its own.
    H3(socp_quic::Channel, socp_quic::ClientEndpoint),
    /// Over HTTP/2.
    Tcp(tonic::transport::Channel),
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport({})", self.kind())
    }
}

impl Transport {
    /// Which one it is.
    pub fn kind(&self) -> TransportKind {
        match self {
            Self::H3(..) => TransportKind::H3,
            Self::Tcp(_) => TransportKind::Tcp,
        }
    }

    /// Ends the connection, and sees to it that the server hears of it: else it would wait for this client a while. TCP
    /// is closed by the system when the process ends.
    pub async fn leave(&self) {
        if let Self::H3(channel, endpoint) = self {
            channel.close("bye");
            // A server that is gone hears nothing, and nobody waits for it.
            let _ = timeout(LEAVE_TIME_MAX, endpoint.wait_idle()).await;
        }
    }

    /// Connects over HTTP/3 from a UDP port of its own; gives the certificate that the server proved to hold.
    pub async fn dial_h3(
        address: SocketAddr,
        host: &str,
        tls: rustls::ClientConfig,
    ) -> Result<(Self, CertificateDer<'static>), Failure> {
        let endpoint = socp_quic::ClientEndpoint::towards(address)
            .map_err(|error| Failure::failed(format!("cannot open a UDP port: {error}")))?;
        Self::dial_h3_from(endpoint, address, host, tls).await
    }

    /// The same from a UDP port that is there.
    pub async fn dial_h3_from(
        endpoint: socp_quic::ClientEndpoint,
        address: SocketAddr,
        host: &str,
        tls: rustls::ClientConfig,
    ) -> Result<(Self, CertificateDer<'static>), Failure> {
        let config = socp_quic::ClientConfig {
            idle_timeout: IDLE_TIMEOUT,
            keep_alive: Some(KEEP_ALIVE),
            ..socp_quic::ClientConfig::default()
        };
        let channel = socp_quic::Channel::builder(address, host, tls).config(config).endpoint(endpoint.clone());
        let channel = channel.one_connection().lazy();
        let channel = channel.map_err(|error| Failure::failed(format!("cannot dial over QUIC: {error}")))?;
        let connection = channel.ready().await.map_err(|error| unreachable_at(address, TransportKind::H3, &error))?;
        let certificate = connection.peer_certificates().and_then(|chain| chain.first().cloned());
        let certificate = certificate.ok_or_else(no_certificate)?;
        Ok((Self::H3(channel, endpoint), certificate))
    }

    /// Connects over TCP and TLS; gives the certificate that the server proved to hold.
    pub async fn dial_tcp(
        address: SocketAddr,
        name: ServerName<'static>,
        mut tls: rustls::ClientConfig,
        origin: Uri,
    ) -> Result<(Self, CertificateDer<'static>), Failure> {
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let failed = |error: std::io::Error| unreachable_at(address, TransportKind::Tcp, &error);
        let tcp = TcpStream::connect(address).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.map_err(failed)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
        let certificate = certificate.ok_or_else(no_certificate)?.into_owned();

        // The channel gets this one connection; when it is lost, the connector has no other.
        let once = Mutex::new(Some(TokioIo::new(stream)));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            let lost = || std::io::Error::new(std::io::ErrorKind::NotConnected, "the connection is lost");
            async move { stream.ok_or_else(lost) }
        });
        // TLS is done already; the origin is what the server sees.
        let channel = tonic::transport::Endpoint::from_static("http://socp")
            .origin(origin)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await
            .map_err(|error| unreachable_at(address, TransportKind::Tcp, &error))?;
        Ok((Self::Tcp(channel), certificate))
    }
}

fn unreachable_at(address: SocketAddr, kind: TransportKind, error: &dyn std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    let hint = if text.contains("UnknownIssuer") || text.contains("certificate") {
        "the certificate is not one that the CA signed for this name; `--server-id HEX` pins the server instead"
    } else {
        "is the server running, and reachable from here?"
    };
    Failure::unreachable(format!("cannot connect to `{address}` over {kind}: {text}")).hint(hint)
}

fn no_certificate() -> Failure {
    Failure::failed("the server showed no certificate")
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        match self {
            Self::H3(channel, _) => channel.poll_ready(context),
            Self::Tcp(channel) => channel.poll_ready(context).map_err(|error| Status::unavailable(error.to_string())),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self {
            Self::H3(channel, _) => channel.call(request),
            Self::Tcp(channel) => {
                let call = channel.call(request);
                Box::pin(async move { call.await.map_err(|error| Status::from_error(Box::new(error))) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transport_that_connected_last_goes_first_unless_one_is_said() {
        use TransportKind::{H3, Tcp};
        assert_eq!(Choice::Auto.order(H3), [H3, Tcp]);
        assert_eq!(Choice::Auto.order(Tcp), [Tcp, H3]);
        assert_eq!(Choice::H3.order(Tcp), [H3]);
        assert_eq!(Choice::Tcp.order(H3), [Tcp]);
    }
}
