//! `grpc-timeout`, enforced by each side on its own: the other one is always a peer that does not care.

use std::future::pending;
use std::time::Duration;

use futures_util::StreamExt as _;
use quinn::VarInt;
use socp_quic::Channel;
use tonic::{Code, Request};

use crate::support::raw::{H3_REQUEST_CANCELLED, RawClient, RawServer, grpc_message, response_head};
use crate::support::service::stream;
use crate::support::{Drops, Script, Served, client, message, soon};

/// How h3 writes the value `4` (DEADLINE_EXCEEDED): one byte, Huffman-coded.
const STATUS_4: [u8; 2] = [0x81, 0x6b];

fn with_timeout() -> Request<bytes::Bytes> {
    let mut request = Request::new(message(""));
    request.set_timeout(Duration::from_millis(200));
    request
}

/// Guard: `until` in `call::call`.
#[tokio::test]
async fn the_client_gives_up_a_call_without_a_head_at_its_deadline() {
    let server = RawServer::new();
    let channel = Channel::builder(server.addr(), "localhost", server.certs.client());
    let channel = channel.lazy().unwrap();
    let call = tokio::spawn(async move { client(&channel).unary("Any", with_timeout()).await });
    let (quic, _control) = server.accept().await;
    let (send, _recv) = soon(quic.accept_bi()).await.unwrap();
    assert_eq!(soon(call).await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(soon(send.stopped()).await, Ok(Some(VarInt::from_u32(H3_REQUEST_CANCELLED))));
}

/// Guard: `deadline` in `body::ResponseBody`.
#[tokio::test]
async fn the_client_gives_up_a_stream_at_its_deadline() {
    let server = RawServer::new();
    let channel = Channel::builder(server.addr(), "localhost", server.certs.client());
    let channel = channel.lazy().unwrap();
    let call = tokio::spawn(async move {
        // Time enough for the head under load; the stream after it never ends.
        let mut request = with_timeout();
        request.set_timeout(Duration::from_secs(2));
        let mut response = client(&channel).server_stream("Any", request).await.unwrap();
        let first = response.next().await.unwrap().unwrap();
        (first, response.next().await.unwrap().unwrap_err())
    });
    let (quic, _control) = server.accept().await;
    let (mut send, _recv) = soon(quic.accept_bi()).await.unwrap();
    send.write_all(&response_head()).await.unwrap();
    send.write_all(&grpc_message("first")).await.unwrap();
    let (first, status) = soon(call).await.unwrap();
    assert_eq!(first, "first");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(soon(send.stopped()).await, Ok(Some(VarInt::from_u32(H3_REQUEST_CANCELLED))));
}

/// Guard: `until` around the handler in `request::answer`.
#[tokio::test]
async fn the_server_drops_a_late_handler_and_answers_deadline_exceeded() {
    let mut drops = Drops::new();
    let guard = drops.maker();
    let script = Script::new().method("Never", move |_| {
        let guard = guard();
        async move {
            let _guard = guard;
            pending().await
        }
    });
    let served = Served::new(script);
    let raw = RawClient::new(served.addr, &served.certs).await;
    let (mut send, mut recv) = raw.request("Never", &[("grpc-timeout", "200m")]).await;
    send.write_all(&grpc_message("")).await.unwrap();
    send.finish().unwrap();
    let answer = soon(recv.read_to_end(10_000)).await.expect("finished, not reset");
    assert!(answer.windows(2).any(|bytes| bytes == STATUS_4), "{answer:x?}");
    drops.one().await;
    served.no_handler_left().await;
}

/// Guard: `until` around the body in `request::messages`.
#[tokio::test]
async fn the_server_ends_a_late_stream_with_deadline_exceeded_after_its_messages() {
    let mut drops = Drops::new();
    let guard = drops.maker();
    let script = Script::new().method("Stalls", move |_| {
        let guard = guard();
        async move {
            let first = tokio_stream::iter([Ok(message("first"))]);
            Ok(stream(first.chain(futures_util::stream::once(async move {
                let _guard = guard;
                pending().await
            }))))
        }
    });
    let served = Served::new(script);
    let raw = RawClient::new(served.addr, &served.certs).await;
    let (mut send, mut recv) = raw.request("Stalls", &[("grpc-timeout", "200m")]).await;
    send.write_all(&grpc_message("")).await.unwrap();
    send.finish().unwrap();
    let answer = soon(recv.read_to_end(10_000)).await.expect("finished, not reset");
    assert!(answer.windows(5).any(|bytes| bytes == b"first"), "{answer:x?}");
    assert!(answer.windows(2).any(|bytes| bytes == STATUS_4), "{answer:x?}");
    drops.one().await;
    served.no_handler_left().await;
}

#[tokio::test]
async fn a_deadline_far_away_does_no_harm_and_an_unreadable_one_is_none() {
    let served = Served::new(Script::new());
    let channel = served.channel().await;
    for timeout in ["99999999H", "1H", "soon", ""] {
        let mut request = Request::new(message("x"));
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        soon(client(&channel).unary("Echo", request)).await.unwrap();
    }
}

/// Guard: `until` around each step in `request::messages`; that it looks at the clock first has a test beside it.
#[tokio::test]
async fn the_server_ends_a_stream_that_never_waits_at_its_deadline() {
    let script = Script::new()
        .method("Flood", |_| async { Ok(stream(futures_util::stream::repeat_with(|| Ok(message("flood"))))) });
    let served = Served::new(script);
    let raw = RawClient::new(served.addr, &served.certs).await;
    let (mut send, mut recv) = raw.request("Flood", &[("grpc-timeout", "200m")]).await;
    send.write_all(&grpc_message("")).await.unwrap();
    send.finish().unwrap();
    // Read as fast as it comes; whether it ends between two frames, with a status, or inside of one, with a reset, is
    // for chance to decide.
    while let Ok(Some(_)) = soon(recv.read_chunk(usize::MAX, true)).await {}
    served.no_handler_left().await;
}

/// Guard: the deadline comes before the data in `body::ResponseBody`.
#[tokio::test]
async fn the_client_ends_a_stream_that_never_waits_at_its_deadline() {
    let server = RawServer::new();
    let channel = Channel::builder(server.addr(), "localhost", server.certs.client());
    let channel = channel.lazy().unwrap();
    let call = tokio::spawn(async move {
        let mut request = with_timeout();
        request.set_timeout(Duration::from_secs(1));
        let mut response = client(&channel).server_stream("Any", request).await.unwrap();
        loop {
            if let Err(status) = response.next().await.unwrap() {
                return status;
            }
        }
    });
    let (quic, _control) = server.accept().await;
    let (mut send, _recv) = soon(quic.accept_bi()).await.unwrap();
    send.write_all(&response_head()).await.unwrap();
    let flood = grpc_message("flood").repeat(1000);
    let flooding = tokio::spawn(async move { while send.write_all(&flood).await.is_ok() {} });
    assert_eq!(soon(call).await.unwrap().code(), Code::DeadlineExceeded);
    soon(flooding).await.unwrap();
}
