//! Calls whose messages are any bytes, readable by the server or not.

use http::uri::PathAndQuery;
use prost::bytes::Bytes;
use socp_client::bench::raw::Raw;
use tonic::{Response, Status, Streaming, client::Grpc};

use super::{caller::with_token, wire::Channel};

/// Makes a call with one message; gives what it is answered with.
pub async fn begin(
    channel: Channel,
    path: &'static str,
    token: &str,
    message: Bytes,
) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let request = with_token(token, message);
    grpc.server_streaming(request, PathAndQuery::from_static(path), Raw).await.map(Response::into_inner)
}

/// The same to its end; an answer of any kind is passed over.
pub async fn call(channel: Channel, path: &'static str, token: &str, message: Bytes) -> Result<(), Status> {
    let mut answer = begin(channel, path, token, message).await?;
    while answer.message().await?.is_some() {}
    Ok(())
}
