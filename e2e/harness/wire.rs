//! gRPC to a server by either transport, with nothing between the test and the contract.

use std::{fmt, net::SocketAddr, path::Path, sync::Arc};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Code, Status,
    body::Body,
    transport::{self, Endpoint},
};
use tonic_types::StatusExt as _;
use tower::{ServiceExt as _, service_fn, util::BoxCloneSyncService};

use super::server::Server;

/// The two ways to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Tcp,
    H3,
}

/// Both.
pub const WIRES: [Wire; 2] = [Wire::Tcp, Wire::H3];

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::H3 => "h3",
        })
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What generated clients are built on.
pub type Channel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Error>;

/// Trusts the CA that the server made for itself.
fn tls(ca: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("the CA is there")).expect("the CA can be used");
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("aws-lc-rs has TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

impl Wire {
    /// Connects to the clients' port.
    pub async fn connect(self, server: &Server) -> Channel {
        self.connect_at(server, server.client).await
    }

    /// Connects to a server by way of another address.
    pub async fn connect_at(self, server: &Server, address: SocketAddr) -> Channel {
        match self {
            Self::Tcp => tcp(address, &server.ca).await.expect("the server answers over TCP"),
            Self::H3 => {
                let channel = socp_quic::Channel::builder(address, "localhost", tls(&server.ca)).one_connection();
                let channel = channel.connect().await.expect("the server answers over QUIC");
                BoxCloneSyncService::new(channel.map_response(|response| response.map(Body::new)).map_err(Error::from))
            }
        }
    }
}

/// Connects over TCP, for one application protocol.
pub async fn shake(server: &Server, protocol: &[u8]) -> TlsStream<TcpStream> {
    let mut tls = tls(&server.ca);
    tls.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(server.client).await.expect("the server listens");
    let name = ServerName::try_from("localhost").expect("it is a name");
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.expect("the server shakes hands");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
    stream
}

/// Connects over TCP to a server that may not be there.
pub async fn tcp(address: SocketAddr, ca: &Path) -> Result<Channel, transport::Error> {
    let mut tls = tls(ca);
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(tls));
    let connect = service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            // A call is several small writes; they must not wait for one another's acknowledgement.
            stream.set_nodelay(true)?;
            let name = ServerName::try_from("localhost").expect("it is a name");
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    let origin = format!("https://localhost:{}", address.port()).parse().expect("it is a URI");
    // TLS is the connector's; the origin is what the server sees.
    let endpoint = Endpoint::from_static("http://localhost").origin(origin);
    let channel = endpoint.connect_with_connector(connect).await?;
    Ok(BoxCloneSyncService::new(channel.map_err(Error::from)))
}

/// Code and reason of a refusal; the reason is empty where the status has none.
pub fn refusal(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info();
    let ours = info.filter(|info| info.domain == "socp");
    (status.code(), ours.map(|info| info.reason).unwrap_or_default())
}

/// The reason of a call that must be refused, after checking that its code is the one of the contract.
#[track_caller]
pub fn reason<T: fmt::Debug>(result: Result<T, Status>) -> String {
    let status = result.expect_err("the call is refused");
    let (code, name) = refusal(&status);
    let known = socp::rejection::parse(&name).unwrap_or_else(|| panic!("a reason of the contract: {status:?}"));
    assert_eq!(code as i32, socp::rejection::code(known) as i32, "{name}");
    name
}
