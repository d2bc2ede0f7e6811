//! Who may call from where, and what else passes as it came.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, VARY,
};
use http_body_util::{BodyExt as _, Full};
use tonic::{Status, service::interceptor::InterceptedService};
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use super::*;

const LISTED: &str = "https://app.example.org";
const GRPC: &str = "application/grpc";
const WEB: &str = "application/grpc-web+proto";
const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// A message without fields, in its frame.
const EMPTY: &[u8] = &[0; 5];

/// The health service for pages of one origin, which counts its calls.
struct Bench {
    web: Web,
    calls: Arc<AtomicUsize>,
}

impl Bench {
    fn new() -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = {
            let calls = calls.clone();
            move |request: tonic::Request<()>| -> Result<_, Status> {
                calls.fetch_add(1, Ordering::Relaxed);
                Ok(request)
            }
        };
        let health = HealthServer::new(HealthService::from_health_reporter(HealthReporter::new()));
        let routes = Routes::new(InterceptedService::new(health, count));
        Self { web: Web::new(routes, &[Origin::parse(LISTED).unwrap()]), calls }
    }

    /// Asks for the health of the whole server.
    async fn check(&self, version: Version, kind: &str, origins: &[&str], body: &'static [u8]) -> Response<Body> {
        let mut request = Request::post("https://localhost/grpc.health.v1.Health/Check")
            .version(version)
            .header(CONTENT_TYPE, kind)
            .body(Body::new(Full::new(body.into())))
            .unwrap();
        for origin in origins {
            request.headers_mut().append(ORIGIN, origin.parse().unwrap());
        }
        self.web.clone().oneshot(request).await.unwrap()
    }

    async fn preflight(&self, version: Version, origin: &str) -> Response<Body> {
        let request = Request::options("https://localhost/grpc.health.v1.Health/Check")
            .version(version)
            .header(ORIGIN, origin)
            .header(ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .header(ACCESS_CONTROL_REQUEST_HEADERS, "content-type,x-grpc-web")
            .body(Body::empty())
            .unwrap();
        self.web.clone().oneshot(request).await.unwrap()
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

fn has_cors(response: &Response<Body>) -> bool {
    response.headers().keys().any(|name| name.as_str().starts_with("access-control-"))
}

fn text(response: &Response<Body>, name: HeaderName) -> &str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_page_of_a_listed_origin_may_call_and_read_how_it_went() {
    let bench = Bench::new();
    for version in VERSIONS {
        let response = bench.check(version, WEB, &[LISTED], EMPTY).await;
        assert_eq!((response.status(), text(&response, CONTENT_TYPE)), (StatusCode::OK, WEB));
        assert_eq!(text(&response, ACCESS_CONTROL_ALLOW_ORIGIN), LISTED);
        let readable = text(&response, ACCESS_CONTROL_EXPOSE_HEADERS);
        assert_eq!(readable, "grpc-status,grpc-message,grpc-status-details-bin");
        assert!(text(&response, VARY).contains("origin"));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..7], &[0, 0, 0, 0, 2, 8, 1], "a message: SERVING");
        assert_eq!(body[7], 0x80, "the trailers are in the body");
    }
    assert_eq!(bench.calls(), 2);
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_before_any_service_whatever_it_sends() {
    let bench = Bench::new();
    let nobody = Web::new(bench.web.routes.clone(), &[]);
    let other = "https://evil.example.org";
    for version in VERSIONS {
        for kind in [WEB, "application/grpc-web-text", GRPC, "text/plain"] {
            for origins in [&[other][..], &["null"], &["http://app.example.org"], &[LISTED, other], &[other, LISTED]] {
                let response = bench.check(version, kind, origins, EMPTY).await;
                assert_eq!(response.status(), StatusCode::FORBIDDEN, "{version:?} {kind} {origins:?}");
                assert!(!has_cors(&response), "{response:?}");
            }
        }
        let response = bench.preflight(version, other).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert!(!has_cors(&response), "{response:?}");
        let unlisted = Bench { web: nobody.clone(), calls: bench.calls.clone() };
        assert_eq!(unlisted.check(version, WEB, &[LISTED], EMPTY).await.status(), StatusCode::FORBIDDEN);
    }
    assert_eq!(bench.calls(), 0);
}

#[tokio::test]
async fn a_page_of_a_listed_origin_is_told_so_before_it_calls() {
    let bench = Bench::new();
    for version in VERSIONS {
        let response = bench.preflight(version, LISTED).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(text(&response, ACCESS_CONTROL_ALLOW_ORIGIN), LISTED);
        assert_eq!(text(&response, ACCESS_CONTROL_ALLOW_METHODS), "POST");
        assert_eq!(text(&response, ACCESS_CONTROL_MAX_AGE), "7200");
        let allowed = text(&response, ACCESS_CONTROL_ALLOW_HEADERS);
        assert_eq!(allowed, "authorization,content-type,grpc-timeout,x-grpc-web,x-user-agent");
        assert!(!response.headers().contains_key("access-control-allow-credentials"));
    }
    assert_eq!(bench.calls(), 0);
}

#[tokio::test]
async fn what_no_page_sends_needs_nobodys_leave() {
    let bench = Bench::new();
    for version in VERSIONS {
        let response = bench.check(version, WEB, &[], EMPTY).await;
        assert_eq!((response.status(), text(&response, CONTENT_TYPE)), (StatusCode::OK, WEB));
        assert!(!has_cors(&response), "{response:?}");
    }
    assert_eq!(bench.calls(), 2);
}

#[tokio::test]
async fn grpc_web_text_is_base64_both_ways() {
    let bench = Bench::new();
    let kind = "application/grpc-web-text";
    let mut request = Request::post("https://localhost/grpc.health.v1.Health/Check").version(Version::HTTP_11);
    request = request.header(CONTENT_TYPE, kind).header(http::header::ACCEPT, kind);
    let response = bench.web.clone().oneshot(request.body(Body::new(Full::from("AAAAAAA="))).unwrap()).await.unwrap();
    assert!(text(&response, CONTENT_TYPE).starts_with(kind), "{response:?}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"AAAAAAIIAQ=="), "a message, SERVING: {body:?}");
}

#[tokio::test]
async fn plain_grpc_passes_as_it_came_and_over_http_1_there_is_none() {
    let bench = Bench::new();
    let response = bench.check(Version::HTTP_2, GRPC, &[], EMPTY).await;
    assert_eq!((response.status(), text(&response, CONTENT_TYPE)), (StatusCode::OK, GRPC));
    assert!(!has_cors(&response) && !response.headers().contains_key(VARY), "{response:?}");
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0", "its trailers are trailers");
    let response = bench.check(Version::HTTP_11, GRPC, &[], EMPTY).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(bench.calls(), 1);
}
