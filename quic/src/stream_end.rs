//! How the end of a stream is told to the peer, and heard from it, where h3 has no words.
//!
//! h3 does not say that a peer has sent STOP_SENDING, which is all that a quiet server stream hears of its cancellation. So
//! each stream leaves a wait for it, by its id, to the task that handles the stream: in [`Accepted`] at the server, in
//! [`Opened`] at the client.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use h3::error::Code;
use h3::quic::StreamId;
use quinn::VarInt;
use tokio::sync::Notify;

/// The codes that a stream's halves send if they are dropped before their end.
pub(crate) struct DropCodes {
    reset: AtomicU32,
    stop: AtomicU32,
}

impl DropCodes {
    pub(crate) fn new(reset: Code, stop: Code) -> Arc<DropCodes> {
        let codes = DropCodes { reset: AtomicU32::new(0), stop: AtomicU32::new(0) };
        codes.set(reset, stop);
        Arc::new(codes)
    }

    fn set(&self, reset: Code, stop: Code) {
        self.reset.store(reset.value() as u32, Ordering::Relaxed);
        self.stop.store(stop.value() as u32, Ordering::Relaxed);
    }

    /// What an unfinished send half resets with.
    pub(crate) fn reset(&self) -> VarInt {
        VarInt::from_u32(self.reset.load(Ordering::Relaxed))
    }

    /// What an unread receive half asks the peer to stop with.
    pub(crate) fn stop(&self) -> VarInt {
        VarInt::from_u32(self.stop.load(Ordering::Relaxed))
    }
}

/// h3's name of a stream.
pub(crate) fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(VarInt::from(id).into_inner()).expect("both libraries bound stream ids by 2^62")
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
    pub(crate) fn new(stream: &quinn::SendStream, codes: Arc<DropCodes>) -> StreamWatch {
        StreamWatch {
            id: stream_id(stream.id()),
            stopped: Box::pin(stream.stopped()),
            settled: false,
            codes,
            reset: Arc::new(Notify::new()),
        }
    }

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

    pub(crate) fn put(&self, watch: StreamWatch) {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.push(watch);
    }
}

/// For each stream that h3 has opened, the wait for the server to stop it, until the call takes that.
#[derive(Clone, Default)]
pub(crate) struct Opened {
    waits: Arc<Mutex<Vec<Wait>>>,
}

struct Wait {
    id: StreamId,
    /// Dead when both halves are dropped.
    stream: Weak<DropCodes>,
    stopped: Stopped,
}

impl Opened {
    /// Takes the wait of a stream, and forgets those of streams that h3 has opened in vain.
    pub(crate) fn take(&self, id: StreamId) -> Option<Stopped> {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.retain(|wait| wait.stream.strong_count() > 0);
        let at = waits.iter().position(|wait| wait.id == id)?;
        Some(waits.swap_remove(at).stopped)
    }

    pub(crate) fn put(&self, stream: &quinn::SendStream, codes: &Arc<DropCodes>) {
        let wait =
            Wait { id: stream_id(stream.id()), stream: Arc::downgrade(codes), stopped: Box::pin(stream.stopped()) };
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.push(wait);
    }
}
