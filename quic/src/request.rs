//! One request at the server: from its stream to a handler, and the answer back.
//!
//! The handler is a future that is dropped at once when the client no longer waits, whatever the handler is doing. An
//! answer ends in one of two ways only: with a status, or with a reset.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use h3::error::StreamError;
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use tokio::time::{Instant, timeout};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower::Service;

use crate::body::RequestBody;
use crate::config::ServerConfig;
use crate::deadline::{self, Late, until};
use crate::gauges::{Counted, Gauges};
use crate::glue;
use crate::peer::PeerInfo;
use crate::status;
use crate::stream_end::StreamWatch;

type Resolver = h3::server::RequestResolver<glue::Connection, Bytes>;
type SendHalf = h3::server::RequestStream<glue::SendStream, Bytes>;

/// What requests of one connection share.
pub(crate) struct Context {
    pub(crate) peer: PeerInfo,
    pub(crate) local: std::net::SocketAddr,
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) gauges: Gauges,
}

/// What a stream turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A request, however it was answered.
    Request,
    /// Not a request that can be read, or none in time.
    Broken,
}

/// Serves one request to its end: the last byte acknowledged, or the client gone.
pub(crate) async fn serve<S>(resolver: Resolver, mut watch: StreamWatch, service: S, context: Arc<Context>) -> Ended
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    // Apart, as the handler is: both are large and soon over, and the task of a stream that goes on is kept for long.
    let Some((mut send, request)) = Box::pin(begin(resolver, &mut watch, &context)).await else {
        return Ended::Broken;
    };
    let deadline = deadline::of(request.headers());
    let handler = Box::pin(head(service, request));
    let counted = context.gauges.handler();
    drop(context);

    let answered = tokio::select! {
        biased;
        () = watch.cancelled() => return Ended::Request,
        answered = answer(&mut send, handler, deadline, counted) => answered,
    };
    match answered {
        Ok(Sent::Whole) => watch.acknowledged().await,
        Ok(Sent::Cut) => {}
        Err(error) => tracing::debug!(%error, "an answer could not be sent to its end"),
    }
    Ended::Request
}

/// Reads what a request begins with. `None` if it is not to be read, or does not come in time.
async fn begin(resolver: Resolver, watch: &mut StreamWatch, context: &Context) -> Option<(SendHalf, Request<Body>)> {
    let head = timeout(context.config.head_time_max, resolver.resolve_request()).await;
    let (request, stream) = head.ok()?.ok()?;
    watch.head_read();
    let (send, recv) = stream.split();
    let body = Body::new(RequestBody::new(recv, watch.on_reset()));
    let mut request = request.map(|()| body);
    let remote_addr = Some(context.peer.remote_addr());
    request.extensions_mut().insert(context.peer.clone());
    request.extensions_mut().insert(TcpConnectInfo { local_addr: Some(context.local), remote_addr });
    Some((send, request))
}

/// What became of an answer.
enum Sent {
    /// It has a status, and is finished.
    Whole,
    /// It is to be reset, which dropping the stream does.
    Cut,
}

/// How the messages of an answer end.
enum End {
    /// With these trailers.
    Trailers(HeaderMap),
    /// Without: the head said it all.
    Plain,
    /// In the middle of a frame, so that nothing can follow.
    Cut,
}

/// Lets the handler run and sends its answer. The handler, and its count, are gone before the last words are sent.
async fn answer(
    send: &mut SendHalf,
    handler: impl Future<Output = Response<Body>>,
    deadline: Option<Instant>,
    counted: Counted,
) -> Result<Sent, StreamError> {
    let handler = AssertUnwindSafe(handler).catch_unwind();
    let response = match until(deadline, handler).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => panicked().into_http(),
        Err(Late) => Status::from(Late).into_http(),
    };
    let (parts, body) = response.into_parts();
    match send.send_response(Response::from_parts(parts, ())).await {
        Ok(()) => {}
        Err(StreamError::HeaderTooBig { .. }) => {
            drop((body, counted));
            send.send_response(too_big().into_http()).await?;
            send.finish().await?;
            return Ok(Sent::Whole);
        }
        Err(error) => return Err(error),
    }
    let end = messages(send, body, deadline).await?;
    drop(counted);
    match end {
        End::Trailers(trailers) => match send.send_trailers(trailers).await {
            Err(StreamError::HeaderTooBig { .. }) => {
                send.send_trailers(status::trailers(&too_big())).await?;
            }
            sent => sent?,
        },
        End::Plain => {}
        End::Cut => return Ok(Sent::Cut),
    }
    send.finish().await?;
    Ok(Sent::Whole)
}

async fn head<S>(mut service: S, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let answered = match poll_fn(|cx| service.poll_ready(cx)).await {
        Ok(()) => service.call(request).await,
        Err(never) => match never {},
    };
    match answered {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Sends what the handler's response yields, until it ends, fails, panics or is late.
async fn messages(send: &mut SendHalf, body: Body, deadline: Option<Instant>) -> Result<End, StreamError> {
    let mut body = pin!(body);
    loop {
        let next = AssertUnwindSafe(poll_fn(|cx| body.as_mut().poll_frame(cx))).catch_unwind();
        let frame = match until(deadline, next).await {
            Ok(Ok(Some(Ok(frame)))) => frame,
            Ok(Ok(Some(Err(status)))) => return Ok(End::Trailers(status::trailers(&status))),
            Ok(Ok(None)) => return Ok(End::Plain),
            Ok(Err(_)) => return Ok(End::Trailers(status::trailers(&panicked()))),
            Err(late) => return Ok(End::Trailers(status::trailers(&late.into()))),
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => match until(deadline, send.send_data(data)).await {
                Ok(sent) => sent?,
                Err(Late) => return Ok(End::Cut),
            },
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return Ok(End::Trailers(trailers));
                }
            }
        }
    }
}

fn panicked() -> Status {
    tracing::error!("a handler panicked; its client is told INTERNAL");
    Status::internal("the handler failed")
}

fn too_big() -> Status {
    Status::resource_exhausted("the answer's headers are above the client's limit")
}
