//! One call at the client: the request out, the response's head in.
//!
//! Cancelling is dropping: the halves of the stream reset themselves. The request goes out in a task of its own, so that it
//! does not depend on the caller reading the response; that task ends with the call.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h3::error::{Code, StreamError};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, Uri, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::body::Body;

use crate::body::ResponseBody;
use crate::client::Inner;
use crate::deadline::{self, until};
use crate::dial::{ConnectError, Live};
use crate::glue;
use crate::status;

type Stream = h3::client::RequestStream<glue::BidiStream, Bytes>;
type SendHalf = h3::client::RequestStream<glue::SendStream, Bytes>;

/// What a call holds until its response is over: the connection, and the task that sends the request.
pub(crate) struct Held {
    sender: Option<AbortHandle>,
    _live: Arc<Live>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(sender) = &self.sender {
            sender.abort();
        }
    }
}

/// Makes the call and returns once the response's head is there.
pub(crate) async fn call(channel: Arc<Inner>, request: Request<Body>) -> Result<Response<Body>, Status> {
    let deadline = deadline::of(request.headers());
    let (head, body) = request.into_parts();
    let opened = async {
        let uri = absolute(head.uri, &channel);
        let mut headers = head.headers;
        // h3 takes a host that differs from the authority for its own failure, and closes the connection.
        headers.remove(header::HOST);
        let (stream, live) = open(channel, head.method, uri, headers).await?;
        answered(stream, live, body).await
    };
    let (head, half, held) = until(deadline, opened).await??;
    if let Some(status) = status::of_http(head.status(), head.headers()) {
        return Err(status);
    }
    let status_known = head.headers().contains_key(Status::GRPC_STATUS);
    let body = ResponseBody::new(half, held, deadline, status_known);
    Ok(head.map(|()| Body::new(body)))
}

type Answer = (Response<()>, crate::body::ResponseHalf, Held);

async fn answered(stream: Stream, live: Arc<Live>, body: Body) -> Result<Answer, Status> {
    let stopped = live.stopped(stream.id());
    let (send, mut half) = stream.split();
    let mut sending = Box::pin(async move {
        tokio::select! {
            biased;
            () = send_body(send, body) => {}
            Some(_) = async { Some(stopped?.await) } => {}
        }
    });
    // Most requests are one message that is there already: no task for those.
    let sender = match poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await {
        Poll::Ready(()) => None,
        Poll::Pending => Some(tokio::spawn(sending).abort_handle()),
    };
    let held = Held { sender, _live: live };
    match half.recv_response().await {
        Ok(head) => Ok((head, half, held)),
        Err(error) => Err(status::of_response(&error)),
    }
}

/// Opens a stream and sends the head on it, on a new connection if the one at hand turns out to take no more.
async fn open(
    channel: Arc<Inner>,
    method: http::Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<(Stream, Arc<Live>), Status> {
    let mut retried = false;
    loop {
        let live = channel.ready().await.map_err(unavailable)?;
        let mut request = Request::new(());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        match live.requests().send_request(request).await {
            Ok(stream) => return Ok((stream, live)),
            // In both cases the head did not leave whole, so the server cannot have run anything.
            Err(StreamError::RemoteClosing { .. } | StreamError::ConnectionError { .. }) if !retried => {
                live.retire();
                retried = true;
            }
            Err(error) => {
                if matches!(error, StreamError::RemoteClosing { .. }) {
                    live.retire();
                }
                return Err(status::of_response(&error));
            }
        }
    }
}

/// Sends the request's messages, and drops them when the server wants no more. A body that fails, and a task that is dropped, leave the stream reset.
async fn send_body(mut send: SendHalf, body: Body) {
    let mut body = std::pin::pin!(body);
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(status) => {
                tracing::debug!(%status, "a request's stream failed; the call is cancelled");
                send.stop_stream(Code::H3_REQUEST_CANCELLED);
                return;
            }
        };
        let sent = match frame.into_data() {
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => send.send_data(data).await,
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => send.send_trailers(trailers).await,
                Err(_) => Ok(()),
            },
        };
        // The response tells what happened; here it is only known that no more is wanted.
        if sent.is_err() {
            return;
        }
        if body.is_end_stream() {
            break;
        }
    }
    let _ = send.finish().await;
}

fn absolute(uri: Uri, channel: &Inner) -> Uri {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(channel.authority().clone());
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).expect("scheme, authority and path are all there")
}

fn unavailable(error: ConnectError) -> Status {
    let mut status = Status::unavailable(error.to_string());
    status.set_source(Arc::new(error));
    status
}
