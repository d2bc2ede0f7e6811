//! Browsers: gRPC-Web, and CORS for the pages that the operator lists.
//!
//! A request that names an origin comes from a page. Unless that origin is listed, it is refused before any service sees
//! it, whatever it asks: a page may send some requests without asking leave first. A request without an origin is no
//! page's, and for it gRPC-Web is another way to write gRPC. There are no cookies, so nothing is allowed to carry any.
//! Plain gRPC over HTTP/2 passes as it came.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Either, ready},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN},
};
use tonic::{body::Body, service::Routes};
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, Service, ServiceExt as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

mod origin;

pub use origin::Origin;

/// How long a browser may remember that a page is allowed: as long as Chromium does at most. What is remembered too long
/// does no harm, since each request is checked.
const PREFLIGHT_AGE_MAX: Duration = Duration::from_secs(2 * 60 * 60);

/// What gRPC-Web clients send beyond what every page may.
const REQUEST_HEADERS: [HeaderName; 5] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-user-agent"),
];

/// What a page must be able to read: the status of a call that ends before its first message is in the headers.
const RESPONSE_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];

/// Services for browsers and for everybody else.
#[derive(Clone)]
pub struct Web {
    routes: Routes,
    pages: Arc<Pages>,
}

/// Which pages are allowed, and what they are told.
struct Pages {
    origins: Vec<HeaderValue>,
    cors: CorsLayer,
}

impl Web {
    /// Stands before services; pages of these origins may call them.
    pub fn new(routes: Routes, origins: &[Origin]) -> Self {
        let origins: Vec<HeaderValue> = origins.iter().map(Origin::header).collect();
        let cors = CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins.clone()))
            .allow_methods([Method::POST])
            .allow_headers(REQUEST_HEADERS)
            .expose_headers(RESPONSE_HEADERS)
            .max_age(PREFLIGHT_AGE_MAX);
        Self { routes, pages: Arc::new(Pages { origins, cors }) }
    }
}

impl Service<Request<Body>> for Web {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future =
        Either<<Routes as Service<Request<Body>>>::Future, BoxFuture<'static, Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.routes, context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut origins = request.headers().get_all(ORIGIN).iter().peekable();
        let of_page = origins.peek().is_some();
        if !of_page && request.version() == Version::HTTP_2 && !is_grpc_web(request.headers()) {
            return Either::Left(self.routes.call(request));
        }
        if let Some(origin) = origins.find(|origin| !self.pages.origins.contains(origin)) {
            tracing::debug!(?origin, "refused a page that is not among `web_origins`");
            let mut refused = Response::new(Body::empty());
            *refused.status_mut() = StatusCode::FORBIDDEN;
            return Either::Right(ready(Ok(refused)).boxed());
        }
        drop(origins);
        let web = GrpcWebLayer::new().layer(self.routes.clone());
        Either::Right(match of_page {
            true => self.pages.cors.layer(web).oneshot(request).boxed(),
            false => web.oneshot(request).boxed(),
        })
    }
}

/// Whether a request, and so its answer, has its trailers in its body.
pub fn is_grpc_web(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc-web"))
}

#[cfg(test)]
mod tests;
