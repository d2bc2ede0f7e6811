//! Calls that go well, and handlers that fail in the ways that gRPC has words for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use socp_quic::{PeerInfo, Server, ServerConfig};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::service::Routes;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::service::{all, stream};
use crate::support::{Certs, Script, Served, client, localhost, message, messages, soon};

/// Guard: `Channel`'s `Service`, as generated clients need it.
#[tokio::test]
async fn several_services_answer_on_one_server_and_a_generated_client_can_call_them() {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("x", tonic_health::ServingStatus::Serving).await;
    let certs = Certs::new();
    let server = Server::bind(localhost(), certs.server(), ServerConfig::default()).unwrap();
    let routes = Routes::new(Script::new()).add_service(health);
    let served = Served::start(server, routes, certs);
    let channel = served.channel().await;

    let request = HealthCheckRequest { service: "x".to_owned() };
    let answer = soon(HealthClient::new(channel.clone()).check(request)).await.unwrap();
    assert_eq!(answer.into_inner().status, 1);
    let echo = soon(client(&channel).unary("Echo", message("hello"))).await.unwrap();
    assert_eq!(echo.into_inner(), "hello");
    let none = soon(client(&channel).unary("Nothing", message(""))).await.unwrap_err();
    assert_eq!(none.code(), Code::Unimplemented);
    served.no_handler_left().await;
}

#[tokio::test]
async fn a_status_comes_in_trailers_after_its_messages() {
    let script = Script::new().method("Fails", |_| async {
        let list = ["a", "b", "c"].map(|text| Ok(message(text)));
        Ok(messages(list.into_iter().chain([Err(Status::data_loss("gone"))])))
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let mut response = client(&channel).server_stream("Fails", message("")).await.unwrap();
    let (list, status) = all(&mut response).await;
    assert_eq!(list, ["a", "b", "c"]);
    let status = status.expect("the stream fails");
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "gone"));
}

#[tokio::test]
async fn a_status_without_messages_reaches_the_caller_with_its_metadata() {
    let script = Script::new().method("Refuses", |_| async {
        let mut status = Status::permission_denied("not you");
        status.metadata_mut().insert("why", "because".parse().unwrap());
        Err(status)
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let status = soon(client(&channel).unary("Refuses", message(""))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "not you"));
    assert_eq!(status.metadata().get("why").unwrap(), "because");
}

#[tokio::test]
async fn a_bidi_stream_interleaves_and_half_close_ends_it() {
    let served = Served::new(Script::new());
    let channel = served.channel().await;
    let (sender, requests) = mpsc::unbounded_channel();
    let requests = UnboundedReceiverStream::new(requests);
    let mut response = soon(client(&channel).bidi("Echo", requests)).await.unwrap();
    for text in ["one", "two", "three"] {
        sender.send(message(text)).unwrap();
        assert_eq!(soon(response.next()).await.unwrap().unwrap(), text);
    }
    drop(sender);
    assert!(soon(response.next()).await.is_none());
    served.no_handler_left().await;
}

/// Guard: `header_bytes_max` of both ends is 16 KiB, h3's own would be without bound; windows are below the message.
#[tokio::test]
async fn a_message_of_3_mb_and_metadata_of_12_kb_pass_in_both_directions() {
    let script = Script::new().method("Mirror", |input| async {
        let meta = input.metadata().get("large").unwrap().clone();
        let mut response = stream(input.into_inner());
        response.metadata_mut().insert("large", meta);
        Ok(response)
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let large = Bytes::from(vec![7; 3_000_000]);
    let mut request = Request::new(large.clone());
    let meta = "m".repeat(12_000);
    request.metadata_mut().insert("large", meta.parse().unwrap());
    let response = soon(client(&channel).unary("Mirror", request)).await.unwrap();
    assert_eq!(response.metadata().get("large").unwrap().len(), meta.len());
    assert!(response.into_inner() == large);
}

#[tokio::test]
async fn many_calls_at_once_share_one_connection_beyond_its_stream_limit() {
    let served = Served::with(Script::new(), ServerConfig { streams_max: 4, ..ServerConfig::default() });
    let channel = served.channel().await;
    let calls = (0..100).map(|number| {
        let mut client = client(&channel);
        async move {
            let text = number.to_string();
            let answer = client.unary("Echo", message(&text)).await.unwrap();
            assert_eq!(answer.into_inner(), text);
        }
    });
    soon(futures_util::future::join_all(calls)).await;
    assert_eq!(served.gauges.connections(), 1);
}

/// Guard: `catch_unwind` in `request::answer`.
#[tokio::test]
async fn a_handler_that_panics_gives_internal_and_the_connection_lives() {
    let script = Script::new()
        .method("Panics", |input| async move {
            if input.metadata().contains_key("never") {
                return Ok(messages([]));
            }
            panic!("as the test wants")
        })
        .method("Id", |input| async move {
            let id = PeerInfo::of(&input).unwrap().connection_id().to_string();
            Ok(messages([Ok(message(&id))]))
        });
    let served = Served::new(script);
    let channel = served.channel().await;
    let before = soon(client(&channel).unary("Id", message(""))).await.unwrap();
    let status = soon(client(&channel).unary("Panics", message(""))).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(status.message(), "the handler failed");
    let after = soon(client(&channel).unary("Id", message(""))).await.unwrap();
    assert_eq!(before.into_inner(), after.into_inner());
    served.no_handler_left().await;
}

/// Guard: `catch_unwind` in `request::messages`.
#[tokio::test]
async fn a_stream_that_panics_gives_internal_after_its_messages() {
    let script = Script::new().method("Panics", |_| async {
        let first = tokio_stream::iter([Ok(message("first"))]);
        let panics = futures_util::stream::poll_fn(|_| panic!("as the test wants"));
        Ok(stream(first.chain(panics)))
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let mut response = client(&channel).server_stream("Panics", message("")).await.unwrap();
    // tonic packs what is ready into one frame, so the panic may take the first message with it.
    let (_, status) = all(&mut response).await;
    assert_eq!(status.unwrap().message(), "the handler failed");
    let echo = soon(client(&channel).unary("Echo", message("alive"))).await.unwrap();
    assert_eq!(echo.into_inner(), "alive");
    served.no_handler_left().await;
}

/// Guard: the second `send_trailers` and `send_response` in `request::answer`.
#[tokio::test]
async fn a_status_that_exceeds_the_clients_header_limit_is_replaced_by_one_that_fits() {
    let script = Script::new().method("Head", |_| async { Err(Status::not_found("x".repeat(20_000))) }).method(
        "Trailers",
        |_| async {
            let status = Status::not_found("x".repeat(20_000));
            Ok(messages([Ok(message("first")), Err(status)]))
        },
    );
    let served = Served::new(script);
    let channel = served.channel().await;
    let head = soon(client(&channel).unary("Head", message(""))).await.unwrap_err();
    assert_eq!(head.code(), Code::ResourceExhausted);
    let mut response = client(&channel).server_stream("Trailers", message("")).await.unwrap();
    let (list, status) = all(&mut response).await;
    assert_eq!(list, ["first"]);
    assert_eq!(status.unwrap().code(), Code::ResourceExhausted);
}

/// Guard: `headers.remove(HOST)` in `call::call`.
#[tokio::test]
async fn a_host_header_from_the_caller_does_not_cost_the_connection() {
    let served = Served::new(Script::new());
    let channel = served.channel().await;
    let mut request = Request::new(message("x"));
    request.metadata_mut().insert("host", "elsewhere.test".parse().unwrap());
    soon(client(&channel).unary("Echo", request)).await.unwrap();
    let first = channel.connection().unwrap();
    assert_eq!(served.gauges.connections(), 1);
    soon(client(&channel).unary("Echo", message("y"))).await.unwrap();
    assert_eq!(first.remote_addr(), served.addr);
    assert_eq!(served.gauges.connections(), 1);
}

#[tokio::test]
async fn the_handlers_future_runs_once_per_call() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = runs.clone();
    let script = Script::new().method("Count", move |_| {
        let counter = counter.clone();
        async move {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(messages([Ok(message(""))]))
        }
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    for _ in 0..10 {
        soon(client(&channel).unary("Count", message(""))).await.unwrap();
    }
    assert_eq!(runs.load(Ordering::SeqCst), 10);
}
