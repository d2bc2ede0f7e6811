//! A home that has its users' words in its hands: it shows the true server's certificate, passes every call on, and hands a
//! user who attaches only what the test says.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::{
    Message as _,
    bytes::{Buf as _, BufMut as _, Bytes, BytesMut},
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use socp::v1::{AttachResponse, attach_response::Event};
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};
use tonic::{Status, body::Body};
use tower::ServiceExt as _;

use super::{
    mesh,
    server::Server,
    soon,
    wire::{Channel, Wire},
};

type Frames = UnboundedSender<Result<Frame<Bytes>, Status>>;

/// What a connection of the home's shares with the test.
#[derive(Clone)]
struct Hands {
    /// Of the stream that was attached last.
    attached: Arc<Mutex<Option<Frames>>>,
    taken: UnboundedSender<AttachResponse>,
}

/// A hostile home, over TCP.
pub struct Hostile {
    /// Where its users connect.
    pub address: SocketAddr,
    hands: Hands,
    taken: UnboundedReceiver<AttachResponse>,
}

impl Hostile {
    /// Takes the place of a server.
    pub fn before(server: &Server) -> Self {
        let file = |name: &str| server.data.join(name);
        let certificates = CertificateDer::pem_file_iter(file("certificate.pem")).expect("the certificate is there");
        let certificates = certificates.collect::<Result<Vec<_>, _>>().expect("the certificate can be read");
        let key = PrivateKeyDer::from_pem_file(file("certificate-key.pem")).expect("its key is there");
        let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("aws-lc-rs has TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .expect("they belong together");
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let (sender, taken) = unbounded_channel();
        let (address, hands) = (mesh::address(), Hands { attached: Arc::default(), taken: sender });
        let channel = soon(Wire::Tcp.connect(server));
        soon(async {
            let listener = TcpListener::bind(address).await.expect("the port is free");
            tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), channel, hands.clone()));
        });
        Self { address, hands, taken }
    }

    /// The next thing that the true server had for the attached user, who has not got it.
    #[track_caller]
    pub fn takes(&mut self) -> AttachResponse {
        soon(self.taken.recv()).expect("the home runs")
    }

    /// Hands something to the attached user.
    #[track_caller]
    pub fn says(&self, event: &AttachResponse) {
        let attached = self.hands.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let frames = attached.as_ref().expect("a user is attached");
        frames.send(Ok(Frame::data(framed(event)))).expect("the user is there still");
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, channel: Channel, hands: Hands) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, channel, hands) = (tls.clone(), channel.clone(), hands.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let answer = service_fn(move |request| pass_on(channel.clone(), hands.clone(), request));
            let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// Passes a call on, and all of its answer but what an attached stream brings.
async fn pass_on(
    channel: Channel,
    hands: Hands,
    request: Request<Incoming>,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let attaches = request.uri().path().ends_with("/Attach");
    let response = channel.oneshot(request.map(Body::new)).await?;
    if !attaches {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    let (frames, coming) = unbounded_channel();
    tokio::spawn(take(body, frames.clone(), hands));
    let coming = UnboundedReceiverStream::new(coming).map(|frame| frame);
    Ok(Response::from_parts(head, Body::new(StreamBody::new(coming))))
}

/// Takes what comes. Only that the user is attached is passed on, and how the stream ends.
async fn take(mut body: Body, frames: Frames, hands: Hands) {
    let mut here = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => {
                let _ = frames.send(Ok(trailers));
                continue;
            }
        };
        here.extend_from_slice(&data);
        while let Some(event) = next(&mut here) {
            if matches!(event.event, Some(Event::Attached(_))) {
                let _ = frames.send(Ok(Frame::data(framed(&event))));
                *hands.attached.lock().unwrap_or_else(PoisonError::into_inner) = Some(frames.clone());
            } else {
                let _ = hands.taken.send(event);
            }
        }
    }
}

/// A message of gRPC: a byte for its compression, which is none, its length, and itself.
fn framed(event: &AttachResponse) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(event.encoded_len()).expect("an event is small"));
    event.encode(&mut bytes).expect("the buffer grows");
    bytes.freeze()
}

fn next(here: &mut BytesMut) -> Option<AttachResponse> {
    let length = here.get(1..5)?.try_into().map(u32::from_be_bytes).expect("four bytes") as usize;
    if here.len() < 5 + length {
        return None;
    }
    here.advance(5);
    Some(AttachResponse::decode(here.split_to(length)).expect("the server sends events"))
}
