//! `DirectoryService`: watches and lists from the hub, users from the node.
//!
//! `WatchDirectory` sends frames that are made already, so that the same bytes go out to all watchers. The generated service
//! would encode each message for each of them, so that one path is taken out of its hands here; requests for all others go to it
//! as they are.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::stream;
use http_body::Frame;
use prost::bytes::Bytes;
use socp::{
    codec::SmallBuffers,
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
    codec::{Codec as _, Streaming},
    metadata::MetadataMap,
    server::NamedService,
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
        let calls = Arc::clone(&self.calls);
        Box::pin(async move {
            let body = match watch(calls, request).await {
                Ok(frames) => WatchBody { frames: Some(Box::pin(frames)) },
                Err(status) => return Ok(status.into_http()),
            };
            let mut response = http::Response::new(Body::new(body));
            response.headers_mut().insert(http::header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
            Ok(response)
        })
    }
}

/// The rpc `WatchDirectory`: gives the frames that are sent, and in the end why it ended.
async fn watch(
    calls: Arc<Calls>,
    request: http::Request<Body>,
) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send, Status> {
    let (head, body) = request.into_parts();
    let peer = head.extensions.get::<PeerInfo>().cloned();
    // As the generated service takes it.
    let decoder = SmallBuffers::<WatchDirectoryResponse, WatchDirectoryRequest>::default().decoder();
    let mut requests = Streaming::new_request(decoder, body, None, Some(DIRECTORY_REQUEST_BYTES_MAX));
    let request = requests.message().await?.ok_or_else(|| Status::internal("Missing request message."))?;
    requests.trailers().await?;
    let token = token(&MetadataMap::from_headers(head.headers));
    calls.authorize(token).await.map_err(|rejection| status::of(&rejection))?;
    let watcher = calls.hub.watch_for(&request, peer).map_err(|rejection| status::of(&rejection))?;
    let session = Session { calls, token, authorized: Instant::now() };
    Ok(stream::unfold(Some((watcher, session)), async |open| {
        let (mut watcher, mut session) = open?;
        if let Err(rejection) = session.stands().await {
            return Some((Err(status::of(&watcher.ended_with(rejection))), None));
        }
        let frame = watcher.next().await?.map_err(|rejection| status::of(&rejection));
        Some((frame, Some((watcher, session))))
    }))
}

type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// What a watch sends: frames, and then in trailers why there are no more.
struct WatchBody {
    /// `None` once the trailers were sent.
    frames: Option<Frames>,
}

impl http_body::Body for WatchBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frames) = &mut self.frames else { return Poll::Ready(None) };
        let status = match ready!(frames.as_mut().poll_next(context)) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.frames = None;
        let mut trailers = http::HeaderMap::new();
        status.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_none()
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
            // Beside the watch, which is kept for long: the call is five times its size, and is seldom made.
            Box::pin(self.calls.authorize(self.token)).await?;
            self.authorized = Instant::now();
        }
        Ok(())
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
    type WatchDirectoryStream = Pin<Box<dyn Stream<Item = Result<WatchDirectoryResponse, Status>> + Send>>;

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
