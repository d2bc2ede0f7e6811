//! Counts calls that are under way, from their head to the end of what they are answered with.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower::{Layer, Service};

use crate::driver::Counters;

/// Puts a [`Live`] before each service.
#[derive(Clone)]
pub(super) struct LiveLayer(pub(super) Arc<Counters>);

impl<S> Layer<S> for LiveLayer {
    type Service = Live<S>;

    fn layer(&self, inner: S) -> Live<S> {
        Live { inner, counters: Arc::clone(&self.0) }
    }
}

/// A service whose calls are counted.
#[derive(Clone)]
pub(super) struct Live<S> {
    inner: S,
    counters: Arc<Counters>,
}

/// One call, until dropped.
struct Counted(Arc<Counters>);

impl Counted {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.calls.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counters))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S, A, B> Service<Request<A>> for Live<S>
where
    S: Service<Request<A>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<CountedBody<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let counted = Counted::new(&self.counters);
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| CountedBody { body: Box::pin(body), _counted: counted })) })
    }
}

/// What a call is answered with.
pub(super) struct CountedBody<B> {
    body: Pin<Box<B>>,
    _counted: Counted,
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.body.as_mut().poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
