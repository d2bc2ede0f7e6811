//! HTTP/2, which almost all clients over TCP speak: frames, windows and limits by the `h2` crate, and here one task for each
//! connection and all its calls.
//!
//! A call is a future of its connection's task, so what one call has for its client goes out in the wake-up that brought it.
//! Beside the calls the task waits for whatever ends the connection: its client is found not to live ([`super::liveness`]),
//! a handler closes it, or the server drains. Each of those, and each call, is polled only when it was woken itself.
//!
//! A call ends in one of two ways: with a status, or with a reset. A handler is dropped as soon as its client wants no answer
//! any more, and one that panics takes nothing else along.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, lazy},
    stream::FuturesUnordered,
};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame};
use socp_quic::PeerInfo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::{Duration, Instant, sleep, timeout, timeout_at},
};
use tonic::{Status, body::Body};

use super::{
    DRAIN_TIME_MAX, HEADER_BYTES_MAX, Open, STREAMS_MAX, answer, late,
    liveness::{self, Liveness},
};
use crate::web::{Web, is_grpc_web};

/// Time for the bytes with which a client begins HTTP/2: two lost packets fit. Who has begun is asked whether it lives.
const PREFACE_TIME_MAX: Duration = Duration::from_secs(5);

/// Bytes of requests that a client may send ahead of the handlers that read them, on one stream and on the whole
/// connection: a part of a file is under way while another is written. What is held of them is bounded in
/// [`crate::requests`].
const WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of answers that wait for a stream's window, the last message of which may go over it.
const SEND_BYTES_MAX: usize = 64 * 1024;

/// Streams that this side resets for what a client did wrong, before the connection is given up. That a client resets streams
/// before they are looked at is bounded by the library.
const RESETS_MAX: usize = 1024;

/// Serves connections until `shutdown`. Each clone is one more that may serve.
#[derive(Clone)]
pub(super) struct Http2<S> {
    builder: h2::server::Builder,
    web: Web,
    shutdown: S,
    /// Dropped with the last clone, which [`Open`] waits for.
    _open: mpsc::Sender<Infallible>,
}

/// What happens to a connection beside its requests.
enum Happening {
    /// A call is over.
    CallEnded,
    /// The client is to begin no new calls. Those that it begins before it knows are answered yet.
    Drains,
    /// The connection is to end at once.
    Closes,
}

/// The calls of a connection, and what may end it.
type Under = FuturesUnordered<BoxFuture<'static, Happening>>;

impl<S: Future<Output = ()> + Clone + Send + 'static> Http2<S> {
    pub(super) fn new(web: Web, shutdown: S) -> (Self, Open) {
        let (sender, open) = mpsc::channel(1);
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .max_send_buffer_size(SEND_BYTES_MAX)
            .max_local_error_reset_streams(Some(RESETS_MAX));
        (Self { builder, web, shutdown, _open: sender }, Open(open))
    }

    /// Serves one connection until it ends, `closing` is ready, or the server has drained. It has its place until then.
    pub(super) async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: PeerInfo,
        closing: impl Future<Output = ()> + Send + 'static,
        _place: impl Send + 'static,
    ) {
        // What is large and over soon has a place of its own: this future is kept for long.
        let Self { builder, web, shutdown, _open } = self;
        let Some(mut connection) = Box::pin(begin(builder, stream, shutdown.clone())).await else { return };
        let pings = connection.ping_pong().expect("taken once");
        let liveness = Liveness::new();
        let silence = liveness::silence(pings, liveness.clone(), peer.connection_id());
        let mut under = Under::new();
        under.push(shutdown.map(|()| Happening::Drains).boxed());
        under.push(closes(closing, silence).boxed());
        loop {
            tokio::select! {
                biased;
                Some(happening) = under.next() => match happening {
                    Happening::CallEnded => {}
                    Happening::Drains => {
                        connection.graceful_shutdown();
                        under.push(sleep(DRAIN_TIME_MAX).map(|()| Happening::Closes).boxed());
                    }
                    Happening::Closes => return,
                },
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        let request = request.map(|stream| Body::new(RequestBody(stream)));
                        let call = call(web.clone(), with(request, &peer, &liveness), respond);
                        under.push(call.map(|()| Happening::CallEnded).boxed());
                    }
                    Some(Err(error)) => return log(&error),
                    None => return,
                },
            }
        }
    }
}

/// Waits for a client to begin HTTP/2; `None` if it does not, or if the server drains before.
async fn begin<T: AsyncRead + AsyncWrite + Unpin>(
    builder: h2::server::Builder,
    stream: T,
    shutdown: impl Future<Output = ()>,
) -> Option<h2::server::Connection<T, Bytes>> {
    let begun = tokio::select! {
        begun = timeout(PREFACE_TIME_MAX, builder.handshake(stream)) => begun,
        // It has asked for nothing yet.
        () = shutdown => return None,
    };
    match begun {
        Ok(Ok(connection)) => return Some(connection),
        Ok(Err(error)) => log(&error),
        Err(_) => tracing::debug!("a client did not begin HTTP/2 in time"),
    }
    None
}

fn log(error: &h2::Error) {
    tracing::debug!(%error, "an HTTP/2 connection failed");
}

async fn closes(closing: impl Future<Output = ()>, silence: impl Future<Output = ()>) -> Happening {
    tokio::select! {
        () = closing => {}
        () = silence => tracing::debug!("a client is silent; closing its connection"),
    }
    Happening::Closes
}

/// Adds what handlers may want to know of the connection.
fn with(mut request: Request<Body>, peer: &PeerInfo, liveness: &Liveness) -> Request<Body> {
    request.extensions_mut().insert(peer.clone());
    request.extensions_mut().insert(liveness.clone());
    request
}

/// Has a request answered, and sends the answer to its end.
fn call(web: Web, request: Request<Body>, respond: SendResponse<Bytes>) -> impl Future<Output = ()> + use<> {
    let deadline = socp_quic::deadline(request.headers());
    let is_web = is_grpc_web(request.headers());
    // Nothing of a handler runs before it is asked to, where its panics are caught.
    let answer = lazy(move |_| answer(web, request, deadline)).flatten();
    respond_with(answer, respond, deadline, is_web)
}

async fn respond_with(
    answer: impl Future<Output = Response<Body>>,
    mut respond: SendResponse<Bytes>,
    deadline: Option<Instant>,
    is_web: bool,
) {
    let answered = AssertUnwindSafe(answer).catch_unwind();
    let response = tokio::select! {
        biased;
        _ = poll_fn(|context| respond.poll_reset(context)) => return,
        response = answered => response.unwrap_or_else(|_| panicked().into_http()),
    };
    let (head, body) = response.into_parts();
    let is_whole = body.is_end_stream();
    let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), is_whole) else { return };
    if is_whole {
        return;
    }
    let sent = AssertUnwindSafe(send(&mut stream, body, deadline)).catch_unwind().await;
    let end = match sent.unwrap_or_else(|_| Err(panicked())) {
        Ok(end) => end,
        // Its trailers are in the body, which is in the middle of something.
        Err(_) if is_web => End::Broken,
        Err(status) => End::trailers(&status),
    };
    // Fails if the client is gone, or wants no more.
    let _ = match end {
        End::Plain => stream.send_data(Bytes::new(), true),
        End::Trailers(trailers) => {
            stream.reserve_capacity(0);
            stream.send_trailers(trailers)
        }
        End::Sent => Ok(()),
        End::Broken => {
            stream.send_reset(Reason::INTERNAL_ERROR);
            Ok(())
        }
    };
}

fn panicked() -> Status {
    tracing::error!("a handler panicked; its client is told INTERNAL");
    Status::internal("the handler failed")
}

/// How the frames of an answer end.
enum End {
    /// With these trailers.
    Trailers(HeaderMap),
    /// Without any.
    Plain,
    /// All is said, or the client wants no more.
    Sent,
    /// In a way that the client must not take for an end.
    Broken,
}

impl End {
    fn trailers(status: &Status) -> Self {
        let mut trailers = HeaderMap::new();
        match status.add_header(&mut trailers) {
            Ok(()) => Self::Trailers(trailers),
            Err(_) => Self::Broken,
        }
    }
}

/// Sends what an answer yields, one frame after the other as there is room for it, until it ends, fails or is late. What is late
/// ends with the status that is returned as an error.
async fn send(stream: &mut SendStream<Bytes>, body: Body, deadline: Option<Instant>) -> Result<End, Status> {
    let mut body = pin!(body);
    let sending = async {
        loop {
            let frame = poll_fn(|context| {
                if stream.poll_reset(context).is_ready() {
                    return Poll::Ready(Err(Gone));
                }
                body.as_mut().poll_frame(context).map(Ok)
            });
            let frame = match frame.await? {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    tracing::debug!(%error, "an answer broke off");
                    return Ok(End::Broken);
                }
                None => return Ok(End::Plain),
            };
            match frame.into_data() {
                Ok(data) => {
                    room(stream, &data).await?;
                    let is_last = body.is_end_stream();
                    stream.send_data(data, is_last).map_err(|_| Gone)?;
                    if is_last {
                        return Ok(End::Sent);
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Ok(End::Trailers(trailers));
                    }
                }
            }
        }
    };
    let sent: Result<End, Gone> = match deadline {
        None => sending.await,
        Some(deadline) => timeout_at(deadline, sending).await.map_err(|_| late())?,
    };
    Ok(sent.unwrap_or(End::Sent))
}

/// The client wants no more of an answer, or is gone.
struct Gone;

/// Waits until a stream's window has room for a byte; what does not fit of the rest waits with the library.
async fn room(stream: &mut SendStream<Bytes>, data: &Bytes) -> Result<(), Gone> {
    if data.is_empty() {
        return Ok(());
    }
    // Not for all of it: what many streams have asked for, and cannot use yet, would be held back from each other.
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        let grown = poll_fn(|context| {
            if stream.poll_reset(context).is_ready() {
                return Poll::Ready(None);
            }
            stream.poll_capacity(context)
        });
        match grown.await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(Gone),
        }
    }
    Ok(())
}

/// A request's body. Its window grows as it is read.
struct RequestBody(RecvStream);

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let stream = &mut self.0;
        match ready!(stream.poll_data(context)) {
            Some(Ok(data)) => {
                // Fails only if the stream is over.
                let _ = stream.flow_control().release_capacity(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                let trailers = ready!(stream.poll_trailers(context))?;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

#[cfg(test)]
mod tests;
