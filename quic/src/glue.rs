//! The traits of h3 over quinn's types, and the two guards that every stream carries.
//!
//! Nothing else in the crate names both, so that h3 can be replaced here. What differs from other glue:
//!
//! * A send half that is dropped unfinished is *reset*; quinn alone would finish it, and a cut message would look whole.
//! * A receive half that is dropped unread is *stopped* with an HTTP/3 code; quinn alone would send code 0.
//! * Read and write futures are made anew for each poll, so that dropping a stream while a read is pending is harmless.
//! * h3 has no event for STOP_SENDING, which is all that a quiet server stream hears of its cancellation; every stream
//!   therefore leaves a wait for it, in [`Accepted`] or [`Opened`], to the task that handles it.
//! * Frames that h3 would collect whole are bounded by [`FrameLimit`].

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::VarInt;
use tokio::sync::Notify;

use crate::farewell;
use crate::frame_limit::FrameLimit;

/// A future that can be kept in a type that must be `Sync`, as h3's `SendRequest` inside of a shared connection.
type Stored<T> = Pin<Box<dyn Future<Output = Result<T, quinn::ConnectionError>> + Send + Sync>>;

/// The codes that a stream's halves send if they are dropped before their end.
struct DropCodes {
    reset: AtomicU32,
    stop: AtomicU32,
}

impl DropCodes {
    fn new(reset: Code, stop: Code) -> Arc<DropCodes> {
        let codes = DropCodes { reset: AtomicU32::new(0), stop: AtomicU32::new(0) };
        codes.set(reset, stop);
        Arc::new(codes)
    }

    fn set(&self, reset: Code, stop: Code) {
        self.reset.store(reset.value() as u32, Ordering::Relaxed);
        self.stop.store(stop.value() as u32, Ordering::Relaxed);
    }
}

/// Waits until the peer stops a send half or acknowledges all of it, or until the connection is gone.
pub(crate) type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, quinn::StoppedError>> + Send + Sync>>;

/// What the task that serves a request must know of its stream, beyond what h3 tells.
pub(crate) struct StreamWatch {
    id: StreamId,
    stopped: Stopped,
    settled: bool,
    codes: Arc<DropCodes>,
    reset: Arc<Notify>,
}

impl StreamWatch {
    /// Says that the request's head was read, so that a stream dropped from here on is one that was given up, not one
    /// that asked too much.
    pub(crate) fn head_read(&self) {
        self.codes.set(Code::H3_REQUEST_CANCELLED, Code::H3_NO_ERROR);
    }

    /// Waits until the client wants no answer any more: it stopped or reset the stream, or the connection is gone.
    pub(crate) async fn cancelled(&mut self) {
        let reset = self.reset.clone();
        tokio::select! {
            () = reset.notified() => {}
            () = self.stopped() => {}
        }
    }

    async fn stopped(&mut self) {
        if !self.settled {
            let outcome = self.stopped.as_mut().await;
            self.settled = true;
            if !matches!(outcome, Ok(None)) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Waits until the client has acknowledged the whole response, or will never.
    pub(crate) async fn acknowledged(&mut self) {
        if !self.settled {
            let _ = self.stopped.as_mut().await;
            self.settled = true;
        }
    }

    /// What the request's body calls when the client has reset it.
    pub(crate) fn on_reset(&self) -> Arc<Notify> {
        self.reset.clone()
    }
}

/// The watches of streams that h3 has accepted and not yet handed on.
#[derive(Clone, Default)]
pub(crate) struct Accepted {
    watches: Arc<Mutex<Vec<StreamWatch>>>,
}

impl Accepted {
    /// Takes the watch of the stream that h3 has just handed on, and forgets those that it has refused meanwhile.
    pub(crate) fn take(&self, id: StreamId) -> Option<StreamWatch> {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.drain(..).rfind(|watch| watch.id == id)
    }

    fn put(&self, watch: StreamWatch) {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.push(watch);
    }
}

/// For each stream that h3 has opened, the wait for the server to stop it, until the call takes that.
#[derive(Clone, Default)]
pub(crate) struct Opened {
    waits: Arc<Mutex<Vec<(StreamId, Weak<DropCodes>, Stopped)>>>,
}

impl Opened {
    /// Takes the wait of a stream, and forgets those of streams that h3 has opened in vain.
    pub(crate) fn take(&self, id: StreamId) -> Option<Stopped> {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.retain(|(_, stream, _)| stream.strong_count() > 0);
        let at = waits.iter().position(|(wanted, ..)| *wanted == id)?;
        Some(waits.swap_remove(at).2)
    }

    fn put(&self, stream: &quinn::SendStream, codes: &Arc<DropCodes>) {
        let wait = (stream_id(stream.id()), Arc::downgrade(codes), Box::pin(stream.stopped()) as Stopped);
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.push(wait);
    }
}

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
        let watch = StreamWatch {
            id: stream_id(send.id()),
            stopped: Box::pin(send.stopped()),
            settled: false,
            codes: codes.clone(),
            reset: Arc::new(Notify::new()),
        };
        let mut watches = self.accepted.watches.lock();
        watches.as_mut().unwrap_or_else(|poisoned| poisoned.get_mut()).push(watch);
        drop(watches);
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
            let code = self.codes.reset.load(Ordering::Relaxed);
            let _ = self.stream.reset(VarInt::from_u32(code));
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
            let code = self.codes.stop.load(Ordering::Relaxed);
            let _ = self.stream.stop(VarInt::from_u32(code));
        }
    }
}

fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(VarInt::from(id).into_inner()).expect("both libraries bound stream ids by 2^62")
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
