//! HTTP/1.1, which only gRPC-Web can use: for programs and proxies that have no HTTP/2.
//!
//! A connection has one call at a time. It has no pings and no windows, so each part of a call has a bound of its own: its
//! head in bytes and time, which is also how long a connection may idle, its body in time (a service bounds the bytes),
//! and silence by the kernel's means. A client that is cut off is noticed as soon as by pings; one that is frozen only
//! once it leaves unread what it is sent.

use std::{
    convert::Infallible,
    error, fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::Request;
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socp_quic::PeerInfo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::{Sleep, sleep, timeout},
};
use tonic::body::Body;

use super::{DRAIN_TIME_MAX, HEADER_BYTES_MAX, Open, answer};
use crate::web::Web;

/// Time for the head of a request, from the handshake or the last answer on: two lost packets on a slow path fit. A
/// client that has nothing to ask for longer connects anew.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Time for the body of a request that is a stream, as a file's; [`crate::requests`] gives all others less.
const BODY_TIME_MAX: Duration = Duration::from_secs(90);

/// Bytes of a connection that wait to be handled, and as many that wait to be sent, beside a message that is under way.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Serves connections until `shutdown`. Each clone is one more that may serve.
#[derive(Clone)]
pub(super) struct Http1<S> {
    builder: http1::Builder,
    web: Web,
    shutdown: S,
    /// Dropped with the last clone, which [`Open`] waits for.
    _open: mpsc::Sender<Infallible>,
}

impl<S: Future<Output = ()>> Http1<S> {
    pub(super) fn new(web: Web, shutdown: S) -> (Self, Open) {
        let (sender, open) = mpsc::channel(1);
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .max_header_size(HEADER_BYTES_MAX as usize)
            .max_buf_size(BUFFER_BYTES_MAX);
        (Self { builder, web, shutdown, _open: sender }, Open(open))
    }

    /// Serves one connection until it ends, `closing` is ready, or the server has drained. It has its place until then.
    pub(super) async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: PeerInfo,
        closing: impl Future<Output = ()>,
        _place: impl Send,
    ) {
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (web, asked) = (self.web, asked.clone());
            move |mut request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                request.extensions_mut().insert(peer.clone());
                let deadline = socp_quic::deadline(request.headers());
                let request = request.map(|body| Body::new(Timed::new(body)));
                answer(web.clone(), request, deadline).map(Ok::<_, Infallible>)
            }
        });
        let mut served = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            served = &mut served => return log(served),
            () = closing => return,
            () = self.shutdown => {}
        }
        // To hyper, a connection before its first request is one in the middle of it.
        if asked.load(Ordering::Relaxed) {
            served.as_mut().graceful_shutdown();
            if let Ok(served) = timeout(DRAIN_TIME_MAX, served).await {
                log(served);
            }
        }
    }
}

fn log(served: Result<(), hyper::Error>) {
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP/1.1 connection failed");
    }
}

/// A request's body, which must come in time.
struct Timed {
    body: Incoming,
    end: Pin<Box<Sleep>>,
}

impl Timed {
    fn new(body: Incoming) -> Self {
        Self { body, end: Box::pin(sleep(BODY_TIME_MAX)) }
    }
}

/// Why a body ends before its end.
#[derive(Debug)]
enum BodyError {
    Late,
    Broken(hyper::Error),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => write!(f, "the request took longer than {} s", BODY_TIME_MAX.as_secs()),
            Self::Broken(error) => error.fmt(f),
        }
    }
}

impl error::Error for BodyError {}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Before the body, or one that always has more would go on for ever.
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(BodyError::Late)));
        }
        Pin::new(&mut self.body).poll_frame(context).map_err(BodyError::Broken)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
