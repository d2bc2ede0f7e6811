//! The traits of h3 over quinn's types, and the two guards that every stream carries.
//!
//! Nothing else in the crate names both, so that h3 can be replaced here. What differs from other glue:
//!
//! * A send half that is dropped unfinished is *reset*; quinn alone would finish it, and a cut message would look whole.
//! * A receive half that is dropped unread is *stopped* with an HTTP/3 code; quinn alone would send code 0.
//! * Read and write futures are made anew for each poll, so that dropping a stream while a read is pending is harmless.
//! * Every stream leaves a wait for the peer's STOP_SENDING, of which h3 says nothing (`stream_end`).
//! * Frames that h3 would collect whole are bounded by [`FrameLimit`].

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::VarInt;

use crate::farewell;
use crate::frame_limit::FrameLimit;
use crate::stream_end::{Accepted, DropCodes, Opened, StreamWatch, stream_id};

/// A future that can be kept in a type that must be `Sync`, as h3's `SendRequest` inside of a shared connection.
type Stored<T> = Pin<Box<dyn Future<Output = Result<T, quinn::ConnectionError>> + Send + Sync>>;

/// A QUIC connection as h3 wants it.
pub(crate) struct Connection {
    quic: quinn::Connection,
    frame_bytes_max: u64,
    accepted: Accepted,
    accept_bi: Option<Stored<(quinn::SendStream, quinn::RecvStream)>>,
    accept_uni: Option<Stored<quinn::RecvStream>>,
    opener: Opener,
}

impl Connection {
    /// Wraps a connection whose handshake is done. `header_bytes_max` is what this side announces as its limit.
    pub(crate) fn new(quic: quinn::Connection, header_bytes_max: u32) -> Connection {
        // No encoding of a field section is longer than its counted size, save for its prefix.
        let frame_bytes_max = u64::from(header_bytes_max) + 32;
        Connection {
            opener: Opener::new(quic.clone(), frame_bytes_max, Opened::default()),
            quic,
            frame_bytes_max,
            accepted: Accepted::default(),
            accept_bi: None,
            accept_uni: None,
        }
    }

    pub(crate) fn accepted(&self) -> Accepted {
        self.accepted.clone()
    }

    pub(crate) fn opened(&self) -> Opened {
        self.opener.opened.clone()
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        let quic = &self.quic;
        let accept = self.accept_uni.get_or_insert_with(|| {
            let quic = quic.clone();
            Box::pin(async move { quic.accept_uni().await })
        });
        let outcome = ready!(accept.as_mut().poll(cx));
        self.accept_uni = None;
        let stream = outcome.map_err(connection_error)?;
        Poll::Ready(Ok(RecvStream {
            stream,
            frames: FrameLimit::uni(self.frame_bytes_max),
            over: false,
            codes: DropCodes::new(Code::H3_NO_ERROR, Code::H3_STREAM_CREATION_ERROR),
        }))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        let quic = &self.quic;
        let accept = self.accept_bi.get_or_insert_with(|| {
            let quic = quic.clone();
            Box::pin(async move { quic.accept_bi().await })
        });
        let outcome = ready!(accept.as_mut().poll(cx));
        self.accept_bi = None;
        let (send, recv) = outcome.map_err(connection_error)?;
        let codes = DropCodes::new(Code::H3_EXCESSIVE_LOAD, Code::H3_EXCESSIVE_LOAD);
        self.accepted.put(StreamWatch::new(&send, codes.clone()));
        Poll::Ready(Ok(BidiStream::new(send, recv, codes, self.frame_bytes_max)))
    }

    fn opener(&self) -> Opener {
        self.opener.clone()
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// Opens the streams of a connection.
pub(crate) struct Opener {
    quic: quinn::Connection,
    frame_bytes_max: u64,
    opened: Opened,
    open_bi: Option<Stored<(quinn::SendStream, quinn::RecvStream)>>,
    open_uni: Option<Stored<quinn::SendStream>>,
}

impl Opener {
    fn new(quic: quinn::Connection, frame_bytes_max: u64, opened: Opened) -> Opener {
        Opener { quic, frame_bytes_max, opened, open_bi: None, open_uni: None }
    }
}

impl Clone for Opener {
    fn clone(&self) -> Opener {
        Opener::new(self.quic.clone(), self.frame_bytes_max, self.opened.clone())
    }
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        let quic = &self.quic;
        let open = self.open_bi.get_or_insert_with(|| {
            let quic = quic.clone();
            Box::pin(async move { quic.open_bi().await })
        });
        let outcome = ready!(open.as_mut().poll(cx));
        self.open_bi = None;
        let (send, recv) = outcome.map_err(lost)?;
        let codes = DropCodes::new(Code::H3_REQUEST_CANCELLED, Code::H3_REQUEST_CANCELLED);
        self.opened.put(&send, &codes);
        Poll::Ready(Ok(BidiStream::new(send, recv, codes, self.frame_bytes_max)))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let quic = &self.quic;
        let open = self.open_uni.get_or_insert_with(|| {
            let quic = quic.clone();
            Box::pin(async move { quic.open_uni().await })
        });
        let outcome = ready!(open.as_mut().poll(cx));
        self.open_uni = None;
        let stream = outcome.map_err(lost)?;
        let codes = DropCodes::new(Code::H3_NO_ERROR, Code::H3_NO_ERROR);
        Poll::Ready(Ok(SendStream::new(stream, codes)))
    }

    fn close(&mut self, reason_code: Code, reason: &[u8]) {
        farewell::close(&self.quic, reason_code, reason);
    }
}

/// Both halves of a request stream.
pub(crate) struct BidiStream {
    send: SendStream,
    recv: RecvStream,
}

impl BidiStream {
    fn new(
        send: quinn::SendStream,
        recv: quinn::RecvStream,
        codes: Arc<DropCodes>,
        frame_bytes_max: u64,
    ) -> BidiStream {
        BidiStream {
            send: SendStream::new(send, codes.clone()),
            recv: RecvStream { stream: recv, frames: FrameLimit::request(frame_bytes_max), over: false, codes },
        }
    }
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

/// A send half, which is reset if it is dropped before it is finished.
pub(crate) struct SendStream {
    stream: quinn::SendStream,
    /// What is left of the frame being written.
    writing: Bytes,
    over: bool,
    codes: Arc<DropCodes>,
}

impl SendStream {
    fn new(stream: quinn::SendStream, codes: Arc<DropCodes>) -> SendStream {
        SendStream { stream, writing: Bytes::new(), over: false, codes }
    }

    /// A frame was begun and its writer dropped; whatever followed would be taken for its rest.
    fn mid_frame(&self) -> Result<(), StreamErrorIncoming> {
        match self.writing.is_empty() {
            true => Ok(()),
            false => Err(StreamErrorIncoming::Unknown("the frame before was not written to its end".into())),
        }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while !self.writing.is_empty() {
            let mut chunk = [std::mem::take(&mut self.writing)];
            let outcome = pin!(self.stream.write_chunks(&mut chunk)).poll(cx);
            let [rest] = chunk;
            self.writing = rest;
            ready!(outcome).map_err(write_error)?;
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.mid_frame()?;
        let mut frame = data.into();
        // One piece for frame header and payload: each write takes the connection's lock and may cost a packet.
        self.writing = frame.copy_to_bytes(frame.remaining());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.mid_frame()?;
        let outcome = self.stream.finish();
        self.over |= outcome.is_ok();
        Poll::Ready(outcome.map_err(|closed| StreamErrorIncoming::Unknown(Box::new(closed))))
    }

    fn reset(&mut self, reset_code: u64) {
        let _ = self.stream.reset(VarInt::from_u64(reset_code).unwrap_or(VarInt::MAX));
        self.over = true;
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.stream.reset(self.codes.reset());
        }
    }
}

/// A receive half, which is stopped if it is dropped before its end.
pub(crate) struct RecvStream {
    stream: quinn::RecvStream,
    frames: FrameLimit,
    over: bool,
    codes: Arc<DropCodes>,
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let outcome = ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx));
        let Some(chunk) = outcome.map_err(read_error)? else {
            self.over = true;
            return Poll::Ready(Ok(None));
        };
        if self.frames.check(&chunk.bytes).is_err() {
            let error_code = Code::H3_EXCESSIVE_LOAD.value();
            self.stop_sending(error_code);
            return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code }));
        }
        Poll::Ready(Ok(Some(chunk.bytes)))
    }

    fn stop_sending(&mut self, error_code: u64) {
        let _ = self.stream.stop(VarInt::from_u64(error_code).unwrap_or(VarInt::MAX));
        self.over = true;
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.stream.stop(self.codes.stop());
        }
    }
}

fn connection_error(error: quinn::ConnectionError) -> ConnectionErrorIncoming {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        quinn::ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn lost(error: quinn::ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

fn write_error(error: quinn::WriteError) -> StreamErrorIncoming {
    match error {
        quinn::WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::WriteError::ConnectionLost(error) => lost(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn read_error(error: quinn::ReadError) -> StreamErrorIncoming {
    match error {
        quinn::ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::ReadError::ConnectionLost(error) => lost(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use h3::quic::SendStream as _;
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    /// Two ends of one connection, and the endpoints that carry it.
    async fn pair() -> (quinn::Connection, quinn::Connection, [quinn::Endpoint; 2]) {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = quinn::crypto::rustls::QuicServerConfig::try_from(server).unwrap();
        let client = quinn::crypto::rustls::QuicClientConfig::try_from(client).unwrap();
        let localhost = ([127, 0, 0, 1], 0).into();
        let listening = quinn::Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(server)), localhost).unwrap();
        let dialling = quinn::Endpoint::client(localhost).unwrap();
        let addr = listening.local_addr().unwrap();
        let config = quinn::ClientConfig::new(Arc::new(client));
        let connecting = dialling.connect_with(config, addr, "localhost").unwrap();
        let (here, there) = tokio::join!(connecting, async { listening.accept().await.unwrap().await });
        (here.unwrap(), there.unwrap(), [listening, dialling])
    }

    /// Guard: `SendStream::mid_frame`.
    #[tokio::test]
    async fn a_stream_inside_a_frame_cannot_be_finished_and_is_reset() {
        let (here, there, _endpoints) = pair().await;
        let (send, _recv) = here.open_bi().await.unwrap();
        let mut send = SendStream::new(send, DropCodes::new(Code::H3_REQUEST_CANCELLED, Code::H3_NO_ERROR));
        send.stream.write_all(b"the start of a frame").await.unwrap();
        send.writing = Bytes::from_static(b"its rest");
        let finished = std::future::poll_fn(|cx| send.poll_finish(cx)).await;
        assert!(finished.is_err());
        drop(send);
        let (_send, mut recv) = there.accept_bi().await.unwrap();
        let end = recv.read_to_end(1000).await;
        let code = VarInt::from_u32(Code::H3_REQUEST_CANCELLED.value() as u32);
        assert_eq!(end, Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))));
    }
}
