//! The bare tonic server: what one gets by the book, a message encoded anew for each watcher.

use std::{io, net::Ipv4Addr, pin::Pin};

use futures_util::{Stream, StreamExt as _, stream};
use prost::Message as _;
use socp::v1::{
    EndMark, GetUserRequest, GetUserResponse, ListUsersRequest, ListUsersResponse, WatchDirectoryRequest,
    WatchDirectoryResponse,
    directory_service_server::{DirectoryService, DirectoryServiceServer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{broadcast, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::Connected},
};

use super::stand_in::{FEED, Identity, fed};
use crate::failure::Failure;

/// Messages that a watcher may be behind.
const BEHIND_MAX: usize = 16 * 1024;

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("the plain server breaks: {error}"))
}

/// Serves until the process ends.
pub async fn serve() -> Result<(), Failure> {
    let identity = Identity::make()?;
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (watch, feed) = (bind().await.map_err(failed)?, bind().await.map_err(failed)?);
    let addresses = (watch.local_addr().map_err(failed)?, feed.local_addr().map_err(failed)?);
    let messages = broadcast::Sender::new(BEHIND_MAX);
    let feeding = take_feed(feed, identity.tls(&[FEED])?.into(), messages.clone());
    let connections = accept(watch, identity.tls(&[b"h2"])?.into());
    identity.announce(addresses.0, addresses.1)?;
    let service = DirectoryServiceServer::new(Plain { messages });
    let serving = Server::builder().add_service(service).serve_with_incoming(connections);
    tokio::select! {
        served = serving => served.map_err(failed),
        fed = feeding => fed.map_err(failed),
    }
}

async fn take_feed(
    listener: TcpListener,
    tls: TlsAcceptor,
    messages: broadcast::Sender<WatchDirectoryResponse>,
) -> io::Result<()> {
    let (socket, _) = listener.accept().await?;
    socket.set_nodelay(true)?;
    let mut feed = tls.accept(socket).await?;
    let mut bytes = Vec::new();
    while feed.read_buf(&mut bytes).await? != 0 {
        let rest = fed(&bytes, &mut |message| {
            if let Ok(message) = WatchDirectoryResponse::decode(message) {
                // Nobody may watch yet.
                let _ = messages.send(message);
            }
        });
        bytes = rest.to_vec();
    }
    std::future::pending().await
}

/// Connections whose hands are shaken, each in a task of its own.
fn accept(listener: TcpListener, tls: TlsAcceptor) -> impl Stream<Item = io::Result<Accepted>> {
    let (ready, mut connections) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (tls, ready) = (tls.clone(), ready.clone());
            tokio::spawn(async move {
                // A failure shows in the handshake, too.
                let _ = socket.set_nodelay(true);
                if let Ok(stream) = tls.accept(socket).await {
                    let _ = ready.send(Ok(Accepted(stream))).await;
                }
            });
        }
    });
    stream::poll_fn(move |context| connections.poll_recv(context))
}

struct Accepted(TlsStream<TcpStream>);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

struct Plain {
    messages: broadcast::Sender<WatchDirectoryResponse>,
}

type Messages = Pin<Box<dyn Stream<Item = Result<WatchDirectoryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl DirectoryService for Plain {
    type WatchDirectoryStream = Messages;

    async fn watch_directory(&self, _: Request<WatchDirectoryRequest>) -> Result<Response<Messages>, Status> {
        let mark = WatchDirectoryResponse { end_mark: Some(EndMark::default()), ..WatchDirectoryResponse::default() };
        let following = stream::unfold(self.messages.subscribe(), async |mut messages| {
            let message = messages.recv().await.map_err(|error| Status::data_loss(error.to_string()));
            Some((message, messages))
        });
        Ok(Response::new(Box::pin(stream::iter([Ok(mark)]).chain(following))))
    }

    async fn list_users(&self, _: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        Err(Status::unimplemented("a stand-in only streams"))
    }

    async fn get_user(&self, _: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        Err(Status::unimplemented("a stand-in only streams"))
    }
}
