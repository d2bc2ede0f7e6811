//! A client and a server that write HTTP/3 by hand, to do what a good peer never does.

use std::future::IntoFuture as _;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, RecvStream, SendStream, TransportConfig};

use super::{Certs, localhost, soon};

pub const H3_NO_ERROR: u32 = 0x100;
pub const H3_EXCESSIVE_LOAD: u32 = 0x107;
pub const H3_REQUEST_CANCELLED: u32 = 0x10c;

/// A QUIC connection with ALPN `h3` and no HTTP/3 on it. Keep the endpoint.
pub async fn connect(
    addr: std::net::SocketAddr,
    certs: &Certs,
    transport: TransportConfig,
) -> (Endpoint, Result<Connection, quinn::ConnectionError>) {
    let mut tls = certs.client();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client(localhost()).unwrap();
    let connecting = endpoint.connect_with(config, addr, "localhost").unwrap();
    (endpoint, soon(connecting).await)
}

/// An HTTP/3 client: a connection, and its control stream with empty settings.
pub struct RawClient {
    pub quic: Connection,
    _control: SendStream,
    _endpoint: Endpoint,
}

impl RawClient {
    pub async fn new(addr: std::net::SocketAddr, certs: &Certs) -> RawClient {
        RawClient::with(addr, certs, TransportConfig::default()).await
    }

    pub async fn with(addr: std::net::SocketAddr, certs: &Certs, transport: TransportConfig) -> RawClient {
        let (endpoint, quic) = connect(addr, certs, transport).await;
        let quic = quic.expect("the server is there");
        RawClient { _control: control(&quic).await, quic, _endpoint: endpoint }
    }

    /// Opens a stream and sends a request's head for a method of `Script`, with more headers.
    pub async fn request(&self, method: &str, more: &[(&str, &str)]) -> (SendStream, RecvStream) {
        let (mut send, recv) = soon(self.quic.open_bi()).await.unwrap();
        let path = format!("/test.Test/{method}");
        let mut fields = vec![
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", &path),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        fields.extend(more);
        send.write_all(&headers(&fields)).await.unwrap();
        (send, recv)
    }
}

/// An HTTP/3 server for one connection; keep the endpoint.
pub struct RawServer {
    pub endpoint: Endpoint,
    pub certs: Certs,
}

impl RawServer {
    pub fn new() -> RawServer {
        let certs = Certs::new();
        let mut tls = certs.server();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::server(config, localhost()).unwrap();
        RawServer { endpoint, certs }
    }

    pub fn addr(&self) -> std::net::SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    /// Accepts the next connection, with its control stream.
    pub async fn accept(&self) -> (Connection, SendStream) {
        let incoming = soon(self.endpoint.accept()).await.unwrap();
        let quic = soon(incoming.into_future()).await.unwrap();
        let control = control(&quic).await;
        (quic, control)
    }
}

async fn control(quic: &Connection) -> SendStream {
    let mut control = soon(quic.open_uni()).await.unwrap();
    control.write_all(&[0x00, 0x04, 0x00]).await.unwrap();
    control
}

/// A HEADERS frame of literal fields.
pub fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut section = vec![0, 0];
    for (name, value) in fields {
        prefixed(&mut section, 0x20, 3, name);
        prefixed(&mut section, 0x00, 7, value);
    }
    frame(0x01, &section)
}

/// The head of a response to a gRPC call.
pub fn response_head() -> Vec<u8> {
    headers(&[(":status", "200"), ("content-type", "application/grpc")])
}

/// A DATA frame with one gRPC message, a `BytesValue`.
pub fn grpc_message(text: &str) -> Vec<u8> {
    assert!(text.len() < 100);
    let mut data = vec![0, 0, 0, 0, text.len() as u8 + 2, 0x0a, text.len() as u8];
    data.extend(text.as_bytes());
    frame(0x00, &data)
}

pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend((0x8000_0000 | payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame
}

/// A QPACK string whose length has a prefix of so many bits.
fn prefixed(out: &mut Vec<u8>, flags: u8, bits: u32, text: &str) {
    let max = (1_usize << bits) - 1;
    if text.len() < max {
        out.push(flags | text.len() as u8);
    } else {
        out.push(flags | max as u8);
        let mut rest = text.len() - max;
        while rest >= 128 {
            out.push((rest % 128) as u8 | 0x80);
            rest /= 128;
        }
        out.push(rest as u8);
    }
    out.extend(text.as_bytes());
}
