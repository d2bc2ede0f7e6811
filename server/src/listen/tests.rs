//! Clients of both transports over real sockets, and what strangers cannot do to them.

use std::{net::UdpSocket, time::SystemTime};

use futures_util::{FutureExt as _, future::Shared};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use tonic_health::{
    pb::{HealthCheckRequest, health_client::HealthClient, health_server::HealthServer},
    server::{HealthReporter, HealthService},
};
use tower::service_fn;

use super::*;
use crate::{
    certificate::ClientCertificate,
    data_folder::{DataFolder, Layout},
    identity::ServerIdentity,
    tls::{client_quic, client_tcp},
};

mod requests;

/// A listener with the health service behind it, which closes connections that carry `close` in their metadata.
struct Bench {
    _folder: tempfile::TempDir,
    roots: RootCertStore,
    address: SocketAddr,
    seen: mpsc::UnboundedReceiver<PeerInfo>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

fn certificate() -> (tempfile::TempDir, ClientCertificate) {
    let parent = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(Layout::new(parent.path().join("data"))).unwrap();
    let identity = ServerIdentity::generate().unwrap();
    let made = ClientCertificate::self_made(folder.layout(), &[], &identity, SystemTime::now()).unwrap();
    (parent, made)
}

async fn bind(addr: SocketAddr, certificate: &ClientCertificate) -> Result<ClientListener, ListenError> {
    let (tcp, quic) = (client_tcp(&certificate.certified), client_quic(&certificate.certified));
    ClientListener::bind(addr, tcp, quic, ResetSecret::new([1; 32])).await
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn request() -> Request<HealthCheckRequest> {
    Request::new(HealthCheckRequest { service: String::new() })
}

impl Bench {
    async fn new() -> Self {
        Self::with(Requests::default()).await
    }

    /// With limits of its own for requests.
    async fn with(requests: Requests) -> Self {
        let (folder, certificate) = certificate();
        let listener = ClientListener { requests, ..bind(any_port(), &certificate).await.unwrap() };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate.ca.unwrap()).unwrap()).unwrap();
        let (sender, seen) = mpsc::unbounded_channel();
        let intercept = move |request: Request<()>| -> Result<Request<()>, Status> {
            let peer = PeerInfo::of(&request).expect("each listener tells who the peer is").clone();
            if request.metadata().contains_key("close") {
                peer.close("asked to");
            }
            let _ = sender.send(peer);
            Ok(request)
        };
        let health = HealthServer::new(HealthService::from_health_reporter(HealthReporter::new()));
        let routes = Routes::new(InterceptedService::new(health, intercept));
        let address = listener.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped: Shared<_> = stopped.map(drop).shared();
        let serving = tokio::spawn(async move { listener.serve(routes, &[], stopped).await });
        Self { _folder: folder, roots, address, seen, stop, serving }
    }

    fn tls(&self, protocols: &[&[u8]]) -> ClientConfig {
        let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        tls
    }

    async fn connect(&self, protocols: &[&[u8]]) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::new(self.tls(protocols)));
        let stream = TcpStream::connect(self.address).await?;
        connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    async fn over_tcp(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel().await)
    }

    /// A connection over TCP.
    async fn channel(&self) -> Channel {
        let mut stream = Some(TokioIo::new(self.connect(&[b"h2"]).await.unwrap()));
        let once = service_fn(move |_| {
            let stream = stream.take().ok_or(io::Error::from(io::ErrorKind::NotConnected));
            async move { stream }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(once).await.unwrap()
    }

    async fn over_quic(&self) -> HealthClient<socp_quic::Channel> {
        let channel = socp_quic::Channel::builder(self.address, "localhost", self.tls(&[b"h3"]));
        HealthClient::new(channel.connect().await.unwrap())
    }
}

#[tokio::test]
async fn both_transports_serve_the_same_on_one_port_number() {
    let mut bench = Bench::new().await;
    let (mut tcp, mut quic) = (bench.over_tcp().await, bench.over_quic().await);
    assert_eq!(tcp.check(request()).await.unwrap().into_inner().status, 1);
    assert_eq!(quic.check(request()).await.unwrap().into_inner().status, 1);
    let (one, other) = (bench.seen.recv().await.unwrap(), bench.seen.recv().await.unwrap());
    assert!(one.remote_addr().ip().is_loopback() && other.remote_addr().ip().is_loopback());
    assert_ne!(one.connection_id(), other.connection_id());
    bench.stop.send(()).unwrap();
    bench.serving.await.unwrap();
}

#[tokio::test]
async fn an_http_1_client_is_served_and_closed_as_others_are_and_an_unknown_protocol_is_not() {
    let mut bench = Bench::new().await;
    let mut stream = bench.connect(&[b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let request = b"POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: localhost\r\nclose: 1\r\n\
                    content-type: application/grpc-web\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0";
    stream.write_all(request).await.unwrap();
    let peer = bench.seen.recv().await.unwrap();
    assert_eq!(peer.remote_addr(), stream.get_ref().0.local_addr().unwrap());
    let mut answer = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut answer).await {}
    let both = bench.connect(&[b"http/1.1", b"h2"]).await.unwrap();
    assert_eq!(both.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    bench.connect(&[b"spdy/1"]).await.unwrap_err();
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_keeps_nobody_out() {
    let bench = Bench::new().await;
    let _silent = TcpStream::connect(bench.address).await.unwrap();
    let mut client = bench.over_tcp().await;
    client.check(request()).await.unwrap();
}

#[tokio::test]
async fn a_handler_closes_a_whole_connection_over_tcp() {
    let mut bench = Bench::new().await;
    let mut client = bench.over_tcp().await;
    let mut watch = client.watch(request()).await.unwrap().into_inner();
    watch.message().await.unwrap().expect("the present state comes first");
    let peer = bench.seen.recv().await.unwrap();
    let mut closing = request();
    closing.metadata_mut().insert("close", "1".parse().unwrap());
    let _ = client.check(closing).await;
    watch.message().await.unwrap_err();
    peer.closed().await;
    bench.over_tcp().await.check(request()).await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_port_and_protocol() {
    let (_folder, certificate) = certificate();
    // A number that is free for one protocol is free for the other by chance only.
    let mut tries = 0..PAIR_TRIES;
    let (taken, error) = loop {
        assert!(tries.next().is_some(), "no number is free for TCP");
        let udp = UdpSocket::bind(any_port()).unwrap();
        let taken = udp.local_addr().unwrap();
        match bind(taken, &certificate).await.err().unwrap() {
            ListenError::Bind { protocol: "TCP", .. } => {}
            error => break (taken, error),
        }
    };
    assert!(matches!(error, ListenError::Bind { protocol: "UDP", .. }), "{error}");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    assert!(error.hint("federation_listen").contains("`--federation-listen`"));
    let tcp = std::net::TcpListener::bind(any_port()).unwrap();
    let taken = tcp.local_addr().unwrap();
    let error = bind(taken, &certificate).await.err().unwrap();
    assert!(matches!(error, ListenError::Bind { protocol: "TCP", .. }), "{error}");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
}
