//! Looks at the token before a request is read: who has none makes the server hold no more than headers.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use socp::{input, output::Answer};
use tonic::{body::Body, metadata::MetadataMap, server::NamedService};
use tower::Service;

use super::{refused, token};
use crate::driver::Handle;

/// A service whose every call wants a session.
#[derive(Clone)]
pub(super) struct Gate<S> {
    inner: S,
    handle: Handle,
}

impl<S> Gate<S> {
    /// Stands before a service.
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
            let token = token(&MetadataMap::from_headers(request.headers().clone()));
            match handle.call(input::Request::Authorize { token }).await {
                Ok(Answer::Authorized) => ready.call(request).await,
                answer => Ok(refused(answer).into_http()),
            }
        })
    }
}
