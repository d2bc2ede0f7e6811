//! Requests of clients that are not whole yet: how many bytes of them the server holds, and for how long.
//!
//! A request is read into the memory of its call as it comes, so the windows of its transport bound nothing. Here each is
//! watched until its end has come: it has [`REQUEST_MS_MAX`], its connection [`REQUESTS_BYTES_PER_CONNECTION_MAX`] for all
//! that are unfinished on it, and the server [`REQUESTS_BYTES_MAX`]. When that is spent, the oldest of those with more than
//! [`SMALL_REQUEST_BYTES`] makes room, and the oldest of the others only when there is none such: a flood of large
//! requests ends itself, and small ones go on beside it. A request that is there at once, as most are, costs a flag.
//!
//! What a stream of messages holds is for its service to bound, which says so by [`Handover`].
//! Absent on purpose: requests that are whole and wait for their answer, which the driver bounds.

use std::{
    convert::Infallible,
    error,
    future::Future as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::Request;
use http_body::{Body, Frame, SizeHint};
use socp::{rejection::Rejection, v1::Reason};
use socp_quic::PeerInfo;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{Layer, Service};

use self::unfinished::{Held, Unfinished};
use crate::{
    limits::{REQUEST_MS_MAX, REQUESTS_BYTES_MAX, REQUESTS_BYTES_PER_CONNECTION_MAX, SMALL_REQUEST_BYTES},
    status,
};

mod unfinished;

/// Why a request was broken off, as metrics name it.
pub const LIMIT_NAMES: [&str; 3] = ["late", "connection", "server"];

/// Which limit a request did not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Late,
    Connection,
    Server,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    time: Duration,
    connection_bytes: usize,
    bytes: usize,
    small_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_millis(REQUEST_MS_MAX),
            connection_bytes: REQUESTS_BYTES_PER_CONNECTION_MAX,
            bytes: REQUESTS_BYTES_MAX,
            small_bytes: SMALL_REQUEST_BYTES,
        }
    }
}

impl Broken {
    /// What the client is told. Nothing has been done of what it asked.
    fn rejection(self, limits: &Limits) -> Rejection {
        let too_many =
            |message, limit: usize| Rejection::new(Reason::TooMany, message).with("limit", limit.to_string());
        match self {
            Self::Late => {
                let seconds = limits.time.as_secs();
                Rejection::new(Reason::Timeout, format!("the request was not whole within {seconds} s; send it again"))
            }
            Self::Connection => too_many(
                "unfinished requests of this connection hold too much; finish some before you send more",
                limits.connection_bytes,
            ),
            Self::Server => too_many(
                "unfinished requests of all clients hold too much; send this one again after a pause, at once",
                limits.bytes,
            ),
        }
    }
}

/// Watches the requests of all clients. Cheap to clone; all clones share one account.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    unfinished: Arc<Unfinished>,
}

impl Requests {
    /// Bytes held of requests that are not whole.
    pub fn bytes(&self) -> usize {
        self.unfinished.bytes()
    }

    /// How many were broken off, by [`LIMIT_NAMES`].
    pub fn broken(&self) -> [u64; LIMIT_NAMES.len()] {
        self.unfinished.broken()
    }

    #[cfg(test)]
    pub(crate) fn with_limits(time: Duration, connection_bytes: usize, bytes: usize, small_bytes: usize) -> Self {
        let limits = Limits { time, connection_bytes, bytes, small_bytes };
        Self { unfinished: Arc::new(Unfinished::new(limits)) }
    }
}

impl<S> Layer<S> for Requests {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, requests: self.clone() }
    }
}

/// A service whose requests are watched.
#[derive(Clone)]
pub struct Watched<S> {
    inner: S,
    requests: Requests,
}

impl<S, B> Service<Request<B>> for Watched<S>
where
    S: Service<Request<Coming<B>>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        // No connection has this number.
        let connection = request.extensions().get::<PeerInfo>().map_or(0, PeerInfo::connection_id);
        let handover = Handover::default();
        request.extensions_mut().insert(handover.clone());
        let care = Care::new(Arc::clone(&self.requests.unfinished), connection, handover);
        self.inner.call(request.map(|body| Coming { body: Some(body), care: Some(care) }))
    }
}

/// With each request, for a handler that takes a stream of messages.
#[derive(Clone, Debug, Default)]
pub struct Handover(Arc<AtomicBool>);

impl Handover {
    /// From here on the handler bounds what it holds of the stream, and for how long.
    pub fn take(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_taken(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request's body on its way in.
pub struct Coming<B> {
    /// `None` once it was broken off.
    body: Option<B>,
    /// `None` once it is whole, or another's to look after.
    care: Option<Care>,
}

impl<B> Body for Coming<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        this.care.take_if(|care| care.handover.is_taken());
        let polled = Pin::new(&mut *body).poll_frame(context).map_err(Into::into);
        let Some(care) = &mut this.care else { return polled };
        let looked = match &polled {
            Poll::Pending => care.waits(context),
            Poll::Ready(Some(Ok(frame))) if !body.is_end_stream() && frame.is_data() => {
                care.takes(frame.data_ref().map_or(0, |data| data.remaining()))
            }
            Poll::Ready(_) => {
                this.care = None;
                return polled;
            }
        };
        let Err(broken) = looked else { return polled };
        let rejection = care.unfinished.breaks(broken);
        // Drops what was read, and tells the client to send no more.
        (this.body, this.care) = (None, None);
        Poll::Ready(Some(Err(status::of(&rejection).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// What is kept of a request until it is whole.
struct Care {
    unfinished: Arc<Unfinished>,
    connection: u64,
    handover: Handover,
    /// Bytes that came and are not in the account yet.
    fresh: usize,
    /// None as long as nothing was put into the account.
    held: Option<Held>,
    /// None until the handler reads, and finds that the request is not whole.
    end: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Care {
    fn new(unfinished: Arc<Unfinished>, connection: u64, handover: Handover) -> Self {
        Self { unfinished, connection, handover, fresh: 0, held: None, end: None, sleep: None }
    }

    /// Some bytes came, and they are not the last.
    fn takes(&mut self, bytes: usize) -> Result<(), Broken> {
        self.fresh += bytes;
        // One that always has more is never waited for.
        if Instant::now() >= self.end() {
            return Err(Broken::Late);
        }
        match self.fresh > self.unfinished.limits().small_bytes || self.held.is_some() {
            true => self.account(),
            false => Ok(()),
        }
    }

    /// More is to come.
    fn waits(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        if self.fresh > 0 {
            self.account()?;
        }
        if let Some(held) = &self.held {
            held.wake(context.waker())?;
        }
        let end = self.end();
        match self.sleep.get_or_insert_with(|| Box::pin(sleep_until(end))).as_mut().poll(context) {
            Poll::Ready(()) => Err(Broken::Late),
            Poll::Pending => Ok(()),
        }
    }

    fn end(&mut self) -> Instant {
        *self.end.get_or_insert_with(|| Instant::now() + self.unfinished.limits().time)
    }

    fn account(&mut self) -> Result<(), Broken> {
        let held = self.held.get_or_insert_with(|| Unfinished::hold(&self.unfinished, self.connection));
        held.add(std::mem::take(&mut self.fresh))
    }
}

#[cfg(test)]
mod tests;
