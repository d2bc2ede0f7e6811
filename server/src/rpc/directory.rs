//! `DirectoryService`: watches and lists from the hub, users from the node.
//!
//! `WatchDirectory` sends messages that are encoded already, so that one encoding serves all watchers, and with a small
//! buffer, since tonic keeps one per stream. The generated service can do neither, so that one path is taken out of its
//! hands here; requests for all others go to it as they are.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::stream;
use prost::{
    Message as _,
    bytes::{BufMut as _, Bytes},
};
use socp::{
    id::TokenHash,
    input::Request as Ask,
    output::Answer,
    rejection::Rejection,
    v1::{
        GetUserRequest, GetUserResponse, ListUsersRequest, ListUsersResponse, WatchDirectoryRequest,
        WatchDirectoryResponse,
        directory_service_server::{DirectoryService, DirectoryServiceServer, SERVICE_NAME},
    },
};
use socp_quic::PeerInfo;
use tokio::time::{Duration, Instant};
use tokio_stream::Stream;
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, NamedService, ServerStreamingService},
};
use tower::Service;

use super::{refused, token};
use crate::{
    driver::Handle,
    hub::Hub,
    limits::{AUTHORIZE_MS, DIRECTORY_REQUEST_BYTES_MAX},
    status,
};

/// The service with its own way of watching.
#[derive(Clone)]
pub(super) struct Directory {
    calls: Arc<Calls>,
    generated: DirectoryServiceServer<Calls>,
}

impl Directory {
    pub(super) fn new(handle: Handle, hub: Hub) -> Self {
        let calls = Arc::new(Calls { handle, hub });
        let generated =
            DirectoryServiceServer::from_arc(Arc::clone(&calls)).max_decoding_message_size(DIRECTORY_REQUEST_BYTES_MAX);
        Self { calls, generated }
    }
}

impl NamedService for Directory {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for Directory {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != "/socp.v1.DirectoryService/WatchDirectory" {
            return self.generated.call(request);
        }
        let watch = Watch(Arc::clone(&self.calls));
        Box::pin(async move {
            let mut grpc = Grpc::new(WatchCodec).max_decoding_message_size(DIRECTORY_REQUEST_BYTES_MAX);
            Ok(grpc.server_streaming(watch, request).await)
        })
    }
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The rpc `WatchDirectory`.
struct Watch(Arc<Calls>);

impl ServerStreamingService<WatchDirectoryRequest> for Watch {
    type Response = Bytes;
    type ResponseStream = Messages<Bytes>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Messages<Bytes>>, Status>> + Send>>;

    fn call(&mut self, request: Request<WatchDirectoryRequest>) -> Self::Future {
        let calls = Arc::clone(&self.0);
        Box::pin(async move {
            let token = token(request.metadata());
            let refused = |rejection: Rejection| status::of(&rejection);
            calls.authorize(token).await.map_err(refused)?;
            let watcher = calls.hub.watch_for(request.get_ref(), PeerInfo::of(&request).cloned()).map_err(refused)?;
            let session = Session { calls, token, authorized: Instant::now() };
            let messages = stream::unfold(Some((watcher, session)), async |open| {
                let (mut watcher, mut session) = open?;
                if let Err(rejection) = session.stands().await {
                    return Some((Err(status::of(&watcher.ended_with(rejection))), None));
                }
                let message = watcher.next().await?.map_err(|rejection| status::of(&rejection));
                Some((message, Some((watcher, session))))
            });
            Ok(Response::new(Box::pin(messages) as Messages<Bytes>))
        })
    }
}

/// The session of a watch, which the node is asked about now and then.
struct Session {
    calls: Arc<Calls>,
    token: TokenHash,
    authorized: Instant,
}

impl Session {
    async fn stands(&mut self) -> Result<(), Rejection> {
        if self.authorized.elapsed() >= Duration::from_millis(AUTHORIZE_MS) {
            self.calls.authorize(self.token).await?;
            self.authorized = Instant::now();
        }
        Ok(())
    }
}

/// Takes requests as usual, and sends messages as they are.
struct WatchCodec;

impl Codec for WatchCodec {
    type Encode = Bytes;
    type Decode = WatchDirectoryRequest;
    type Encoder = WatchCodec;
    type Decoder = WatchCodec;

    fn encoder(&mut self) -> WatchCodec {
        WatchCodec
    }

    fn decoder(&mut self) -> WatchCodec {
        WatchCodec
    }
}

/// An idle stream keeps a buffer of its first size: 64 bytes instead of 8 KiB. Messages that are ready together are
/// sent together up to 32 KiB, as usual.
fn small_buffer() -> BufferSettings {
    BufferSettings::new(64, 32 * 1024)
}

impl Encoder for WatchCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.len());
        buffer.put(message);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        small_buffer()
    }
}

impl Decoder for WatchCodec {
    type Item = WatchDirectoryRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<WatchDirectoryRequest>, Status> {
        // As tonic's own codec says it.
        let request = WatchDirectoryRequest::decode(buffer).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(request))
    }

    fn buffer_settings(&self) -> BufferSettings {
        small_buffer()
    }
}

/// The calls, whichever way they come.
pub(super) struct Calls {
    handle: Handle,
    hub: Hub,
}

impl Calls {
    async fn authorize(&self, token: TokenHash) -> Result<(), Rejection> {
        self.handle.call(Ask::Authorize { token }).await.map(drop)
    }
}

#[tonic::async_trait]
impl DirectoryService for Calls {
    type WatchDirectoryStream = Messages<WatchDirectoryResponse>;

    async fn watch_directory(
        &self,
        _: Request<WatchDirectoryRequest>,
    ) -> Result<Response<Self::WatchDirectoryStream>, Status> {
        unreachable!("`Directory` takes this path before the generated service sees it")
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        let refused = |rejection: Rejection| status::of(&rejection);
        self.authorize(token(request.metadata())).await.map_err(refused)?;
        self.hub.list(request.get_ref()).map(Response::new).map_err(refused)
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let token = token(request.metadata());
        match self.handle.call(Ask::GetUser { token, user: request.into_inner().user }).await {
            Ok(Answer::User(response)) => Ok(Response::new(*response)),
            other => Err(refused(other)),
        }
    }
}
