//! Looks at the token before a request is decoded, unless it is small: who has none makes the server hold little beyond headers.
//!
//! Most requests are small, and there as a whole when their headers are looked at. Those go on at once while the driver keeps up, since the
//! node looks at the token anyway before it does what they ask; asking it twice would double what a call costs the driver, and
//! how long it takes.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::lazy;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use socp::{input, output::Answer};
use tonic::{Status, body::Body, metadata::MetadataMap, server::NamedService};
use tower::Service;

use super::{refused, token};
use crate::{driver::Handle, limits::WHOLE_REQUEST_BYTES};

/// A service whose every call wants a session.
#[derive(Clone)]
pub(super) struct Gate<S> {
    inner: S,
    handle: Handle,
}

impl<S> Gate<S> {
    /// Stands before a service whose handlers do nothing before the node has looked at the token.
    pub(super) fn new(inner: S, handle: Handle) -> Self {
        Self { inner, handle }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was ready is the one to call.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        let handle = self.handle.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let mut begun = Begun::from(body);
            if handle.keeps_up() {
                begun.read().await;
            }
            if !begun.is_whole() {
                let token = token(&MetadataMap::from_headers(head.headers.clone()));
                match handle.call(input::Request::Authorize { token }).await {
                    Ok(Answer::Authorized) => {}
                    answer => return Ok(refused(answer).into_http()),
                }
            }
            ready.call(Request::from_parts(head, Body::new(begun))).await
        })
    }
}

/// Frames that are looked at for the end of a request. Two are usual: its only message, and the end.
const FRAMES_MAX: usize = 4;

/// A body of which a piece may have been read.
struct Begun {
    frames: VecDeque<Result<Frame<Bytes>, Status>>,
    /// `None` once its end has come.
    rest: Option<Body>,
}

impl From<Body> for Begun {
    fn from(body: Body) -> Self {
        Self { frames: VecDeque::new(), rest: Some(body) }
    }
}

impl Begun {
    /// Reads what is there, no further than to the frame that goes over [`WHOLE_REQUEST_BYTES`], and waits for nothing.
    async fn read(&mut self) {
        lazy(|context| self.read_ready(context)).await;
    }

    fn read_ready(&mut self, context: &mut Context<'_>) {
        let mut bytes = 0;
        while let Some(rest) = &mut self.rest
            && self.frames.len() < FRAMES_MAX
            && bytes <= WHOLE_REQUEST_BYTES
        {
            match Pin::new(rest).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    bytes += frame.data_ref().map_or(0, Bytes::len);
                    self.frames.push_back(Ok(frame));
                }
                Poll::Ready(Some(Err(error))) => return self.frames.push_back(Err(error)),
                Poll::Ready(None) => self.rest = None,
                Poll::Pending => return,
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.rest.is_none()
    }
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        match (this.frames.pop_front(), &mut this.rest) {
            (None, Some(rest)) => Pin::new(rest).poll_frame(context),
            (frame, _) => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }
}

#[cfg(test)]
mod tests;
