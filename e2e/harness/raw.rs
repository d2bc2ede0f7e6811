//! Calls whose messages are any bytes, readable by the server or not.

use http::uri::PathAndQuery;
use prost::bytes::{Buf as _, BufMut as _, Bytes};
use tonic::{
    Response, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::{caller::with_token, wire::Channel};

/// Sends and takes bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

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
