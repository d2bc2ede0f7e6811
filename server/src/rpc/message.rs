//! `MessageService`: attached streams, messages and posts, passed on unread.

use std::pin::Pin;

use socp::{
    input::Request as Ask,
    output::Answer,
    v1::{
        AcknowledgeMessagesRequest, AcknowledgeMessagesResponse, AttachRequest, AttachResponse, DetachRequest,
        DetachResponse, GetChannelKeyRequest, GetChannelKeyResponse, PostToChannelRequest, PostToChannelResponse,
        ReadInboxRequest, ReadInboxResponse, SendMessageRequest, SendMessageResponse,
        message_service_server::MessageService,
    },
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::{refused, token};
use crate::{driver::Handle, listen::Liveness, status};

/// The service.
pub(super) struct Message {
    handle: Handle,
}

impl Message {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

#[tonic::async_trait]
impl MessageService for Message {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<AttachResponse, Status>> + Send>>;

    /// Answers once the node has said something: with the stream, or with why there is none. So the head and the first event are
    /// one write, and the refused see an ordinary status.
    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<Self::AttachStream>, Status> {
        let token = token(request.metadata());
        let attached = request.extensions().get::<Liveness>().map(Liveness::attached);
        let rejected = |rejection| status::of(&rejection);
        let mut events = self.handle.attach(token, request.into_inner()).await.map_err(rejected)?;
        // None only if the driver ended before it had its turn.
        let first = events.next().await.unwrap_or_else(|| Err(status::server_failed())).map_err(rejected)?;
        let events = tokio_stream::once(Ok(first)).chain(events).map(move |event| {
            let _kept = &attached;
            event.map_err(rejected)
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn detach(&self, request: Request<DetachRequest>) -> Result<Response<DetachResponse>, Status> {
        match self.handle.call(Ask::Detach { token: token(request.metadata()) }).await {
            Ok(Answer::Detached) => Ok(Response::new(DetachResponse {})),
            other => Err(refused(other)),
        }
    }

    async fn acknowledge_messages(
        &self,
        request: Request<AcknowledgeMessagesRequest>,
    ) -> Result<Response<AcknowledgeMessagesResponse>, Status> {
        let token = token(request.metadata());
        let AcknowledgeMessagesRequest { cursor } = request.into_inner();
        match self.handle.call(Ask::AcknowledgeMessages { token, cursor }).await {
            Ok(Answer::MessagesAcknowledged) => Ok(Response::new(AcknowledgeMessagesResponse {})),
            other => Err(refused(other)),
        }
    }

    async fn read_inbox(&self, request: Request<ReadInboxRequest>) -> Result<Response<ReadInboxResponse>, Status> {
        let token = token(request.metadata());
        let page = self.handle.read_inbox(token, request.into_inner().before_cursor).await;
        page.map(Response::new).map_err(|rejection| status::of(&rejection))
    }

    async fn get_channel_key(
        &self,
        request: Request<GetChannelKeyRequest>,
    ) -> Result<Response<GetChannelKeyResponse>, Status> {
        let token = token(request.metadata());
        let key = self.handle.channel_key(token, request.into_inner()).await;
        key.map(Response::new).map_err(|rejection| status::of(&rejection))
    }

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        let token = token(request.metadata());
        let message = request.into_inner().message.unwrap_or_default();
        match self.handle.call(Ask::SendMessage { token, message }).await {
            Ok(Answer::Sent(response)) => Ok(Response::new(response)),
            other => Err(refused(other)),
        }
    }

    async fn post_to_channel(
        &self,
        request: Request<PostToChannelRequest>,
    ) -> Result<Response<PostToChannelResponse>, Status> {
        let token = token(request.metadata());
        let PostToChannelRequest { post, wraps } = request.into_inner();
        match self.handle.call(Ask::PostToChannel { token, post: post.unwrap_or_default(), wraps }).await {
            Ok(Answer::Posted(response)) => Ok(Response::new(response)),
            other => Err(refused(other)),
        }
    }
}
