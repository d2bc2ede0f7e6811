//! A gRPC service whose methods are closures, and a client for it; messages are protobuf `BytesValue`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::uri::PathAndQuery;
use socp_quic::Channel;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::server::{NamedService, StreamingService};
use tonic::{IntoRequest, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

pub type Input = Request<Streaming<Bytes>>;
pub type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
type Answer = Pin<Box<dyn Future<Output = Result<Response<Messages>, Status>> + Send>>;
type Method = Arc<dyn Fn(Input) -> Answer + Send + Sync>;

/// A service made of closures. Every method takes and gives a stream, which on the wire serves unary calls as well.
#[derive(Clone, Default)]
pub struct Script {
    methods: BTreeMap<&'static str, Method>,
}

impl Script {
    /// A service with the method `Echo`, which answers with what it is sent, message by message.
    pub fn new() -> Script {
        Script::default().method("Echo", |input| async {
            let messages: Messages = Box::pin(input.into_inner());
            Ok(Response::new(messages))
        })
    }

    pub fn method<F>(mut self, name: &'static str, method: impl Fn(Input) -> F + Send + Sync + 'static) -> Script
    where
        F: Future<Output = Result<Response<Messages>, Status>> + Send + 'static,
    {
        let method: Method = Arc::new(move |input| Box::pin(method(input)));
        self.methods.insert(name, method);
        self
    }
}

impl NamedService for Script {
    const NAME: &'static str = "test.Test";
}

struct Call(Method);

impl StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = Answer;

    fn call(&mut self, request: Input) -> Answer {
        (self.0)(request)
    }
}

impl Service<http::Request<Body>> for Script {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let name = request.uri().path().rsplit('/').next().unwrap_or_default();
        let method = self.methods.get(name).cloned();
        Box::pin(async move {
            let Some(method) = method else {
                return Ok(Status::unimplemented("no such method").into_http());
            };
            let codec = ProstCodec::<Bytes, Bytes>::default();
            let mut grpc = tonic::server::Grpc::new(codec);
            Ok(grpc.streaming(Call(method), request).await)
        })
    }
}

/// A response that yields these messages and ends.
pub fn messages(list: impl IntoIterator<Item = Result<Bytes, Status>>) -> Response<Messages> {
    let list: Vec<_> = list.into_iter().collect();
    Response::new(Box::pin(tokio_stream::iter(list)))
}

/// A response whose stream is computed.
pub fn stream(stream: impl Stream<Item = Result<Bytes, Status>> + Send + 'static) -> Response<Messages> {
    Response::new(Box::pin(stream))
}

pub fn message(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Calls methods of [`Script`].
pub struct Caller(Grpc<Channel>);

pub fn client(channel: &Channel) -> Caller {
    Caller(Grpc::new(channel.clone()))
}

fn path(method: &str) -> PathAndQuery {
    format!("/test.Test/{method}").parse().unwrap()
}

impl Caller {
    pub async fn unary(&mut self, method: &str, request: impl IntoRequest<Bytes>) -> Result<Response<Bytes>, Status> {
        self.0.ready().await?;
        let codec = ProstCodec::<Bytes, Bytes>::default();
        self.0.unary(request.into_request(), path(method), codec).await
    }

    pub async fn server_stream(
        &mut self,
        method: &str,
        request: impl IntoRequest<Bytes>,
    ) -> Result<Streaming<Bytes>, Status> {
        self.0.ready().await?;
        let codec = ProstCodec::<Bytes, Bytes>::default();
        let call = self.0.server_streaming(request.into_request(), path(method), codec);
        Ok(super::soon(call).await?.into_inner())
    }

    pub async fn bidi(
        &mut self,
        method: &str,
        requests: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Streaming<Bytes>, Status> {
        self.0.ready().await?;
        let codec = ProstCodec::<Bytes, Bytes>::default();
        let call = self.0.streaming(Request::new(requests), path(method), codec);
        Ok(super::soon(call).await?.into_inner())
    }
}

/// Reads a stream to its end: the messages, and the status if it is not OK.
pub async fn all(stream: &mut Streaming<Bytes>) -> (Vec<Bytes>, Option<Status>) {
    let mut list = Vec::new();
    loop {
        match super::soon(stream.next()).await {
            Some(Ok(message)) => list.push(message),
            Some(Err(status)) => return (list, Some(status)),
            None => return (list, None),
        }
    }
}
