//! What is cut off never looks complete, whoever cuts it.

use bytes::Bytes;
use futures_util::StreamExt as _;
use quinn::{ReadError, ReadToEndError, VarInt};
use socp_quic::Channel;
use tonic::Code;

use crate::support::raw::{
    H3_NO_ERROR, H3_REQUEST_CANCELLED, RawClient, RawServer, grpc_message, headers, response_head,
};
use crate::support::service::all;
use crate::support::{Drops, Events, Script, Served, client, message, messages, soon};

fn reset_with(code: u32) -> ReadToEndError {
    ReadToEndError::Read(ReadError::Reset(VarInt::from_u32(code)))
}

async fn channel(server: &RawServer) -> Channel {
    let tls = server.certs.client();
    let channel = Channel::builder(server.addr(), "localhost", tls);
    channel.lazy().unwrap()
}

/// Guard: the drop of `glue::SendStream`, and its `mid_frame`: trailers would be taken for the rest of the message.
#[tokio::test]
async fn a_response_whose_deadline_falls_into_a_message_is_reset() {
    let mut drops = Drops::new();
    let guard = drops.maker();
    let script = Script::new().method("Large", move |_| {
        let guard = guard();
        async move {
            let large = futures_util::stream::iter([Ok(Bytes::from(vec![1; 4_000_000]))]);
            Ok(crate::support::service::stream(large.chain(futures_util::stream::poll_fn(move |_| {
                let _guard = &guard;
                std::task::Poll::Pending
            }))))
        }
    });
    let served = Served::new(script);
    let raw = RawClient::new(served.addr, &served.certs).await;
    let (mut send, mut recv) = raw.request("Large", &[("grpc-timeout", "200m")]).await;
    send.write_all(&grpc_message("")).await.unwrap();
    send.finish().unwrap();
    // Nothing is read until the deadline has dropped the handler, so the message cannot get through whole.
    drops.one().await;
    let end = soon(recv.read_to_end(10_000_000)).await;
    assert_eq!(end, Err(reset_with(H3_REQUEST_CANCELLED)));
}

/// Guard: the drop of both halves in `glue`; quinn alone would finish the one and stop the other with code 0.
#[tokio::test]
async fn a_call_given_up_inside_its_request_is_reset_and_stopped() {
    let server = RawServer::new();
    let channel = channel(&server).await;
    let large = futures_util::stream::iter([Bytes::from(vec![1; 4_000_000])]);
    let calling = channel.clone();
    let call = tokio::spawn(async move { client(&calling).bidi("Any", large).await });
    let (quic, _control) = server.accept().await;
    let (send, mut recv) = soon(quic.accept_bi()).await.unwrap();
    call.abort();
    assert_eq!(soon(send.stopped()).await, Ok(Some(VarInt::from_u32(H3_REQUEST_CANCELLED))));
    let end = soon(recv.read_to_end(10_000_000)).await;
    assert_eq!(end, Err(reset_with(H3_REQUEST_CANCELLED)));
}

/// Guard: the task in `dial`, which closes the connection when nothing needs it any more.
#[tokio::test]
async fn dropping_the_last_channel_inside_a_request_closes_the_connection() {
    let server = RawServer::new();
    let channel = channel(&server).await;
    let large = futures_util::stream::iter([Bytes::from(vec![1; 4_000_000])]);
    let call = tokio::spawn(async move { client(&channel).bidi("Any", large).await });
    let (quic, _control) = server.accept().await;
    let (_send, _recv) = soon(quic.accept_bi()).await.unwrap();
    call.abort();
    let why = soon(quic.closed()).await;
    assert!(matches!(why, quinn::ConnectionError::ApplicationClosed(_)), "{why:?}");
}

/// Guard: `status_known` in `body::ResponseBody`.
#[tokio::test]
async fn a_response_that_ends_without_a_status_is_an_error() {
    let server = RawServer::new();
    let channel = channel(&server).await;
    let call = tokio::spawn(async move {
        let mut response = client(&channel).server_stream("Any", message("")).await.unwrap();
        all(&mut response).await
    });
    let (quic, _control) = server.accept().await;
    let (mut send, _recv) = soon(quic.accept_bi()).await.unwrap();
    send.write_all(&response_head()).await.unwrap();
    send.write_all(&grpc_message("first")).await.unwrap();
    send.finish().unwrap();
    let (list, status) = soon(call).await.unwrap();
    assert_eq!(list, ["first"]);
    let status = status.expect("the end is not clean");
    assert_eq!((status.code(), status.message()), (Code::Internal, "the response ended without a status"));
}

/// Guard: `status::of_response`; code `H3_NO_ERROR` does not make a reset a clean end.
#[tokio::test]
async fn a_response_that_is_reset_is_an_error_whatever_its_code() {
    let server = RawServer::new();
    let channel = channel(&server).await;
    let call = tokio::spawn(async move {
        let mut response = client(&channel).server_stream("Any", message("")).await.unwrap();
        all(&mut response).await
    });
    let (quic, _control) = server.accept().await;
    let (mut send, _recv) = soon(quic.accept_bi()).await.unwrap();
    send.write_all(&response_head()).await.unwrap();
    send.reset(VarInt::from_u32(H3_NO_ERROR)).unwrap();
    // The reset may overtake the head; then the call itself fails, which is as good.
    if let Ok((list, status)) = soon(call).await {
        assert!(list.is_empty());
        assert_eq!(status.unwrap().code(), Code::Internal);
    }
}

/// Guard: `status::of_http`.
#[tokio::test]
async fn a_http_error_without_a_grpc_status_fails_the_call() {
    let server = RawServer::new();
    let channel = channel(&server).await;
    let call = tokio::spawn(async move { client(&channel).server_stream("Any", message("")).await });
    let (quic, _control) = server.accept().await;
    let (mut send, _recv) = soon(quic.accept_bi()).await.unwrap();
    send.write_all(&headers(&[(":status", "503")])).await.unwrap();
    send.finish().unwrap();
    assert_eq!(soon(call).await.unwrap().unwrap_err().code(), Code::Unavailable);
}

/// Guard: `status::of_request` is never CANCELLED, which tonic takes in a request for a clean end.
#[tokio::test]
async fn a_request_that_is_reset_never_looks_complete_to_its_handler() {
    let (mut drops, mut seen) = (Drops::new(), Events::new());
    let (guard, see) = (drops.maker(), seen.sender());
    let script = Script::new().method("Upload", move |input| {
        let (guard, see) = (guard(), see.clone());
        async move {
            let _guard = guard;
            let mut input = input.into_inner();
            loop {
                let next = input.next().await;
                let over = !matches!(next, Some(Ok(_)));
                see.send(match next {
                    Some(Ok(_)) => "message",
                    Some(Err(_)) => "error",
                    None => "complete",
                })
                .unwrap();
                if over {
                    return Ok(messages([]));
                }
            }
        }
    });
    let served = Served::new(script);
    for code in [0, H3_NO_ERROR, H3_REQUEST_CANCELLED] {
        let raw = RawClient::new(served.addr, &served.certs).await;
        let (mut send, _recv) = raw.request("Upload", &[]).await;
        send.write_all(&grpc_message("first")).await.unwrap();
        assert_eq!(seen.one().await, "message");
        send.reset(VarInt::from_u32(code)).unwrap();
        drops.one().await;
        assert_eq!(seen.one().await, "error", "code {code:#x}");
    }
}

/// Guard: h3's own check of frame lengths, kept by reading bodies through it.
#[tokio::test]
async fn a_request_that_is_finished_inside_a_frame_never_looks_complete() {
    let mut seen = Events::new();
    let see = seen.sender();
    let script = Script::new().method("Upload", move |input| {
        let see = see.clone();
        async move {
            let first = input.into_inner().next().await;
            see.send(matches!(first, Some(Err(_)))).unwrap();
            Ok(messages([]))
        }
    });
    let served = Served::new(script);
    let raw = RawClient::new(served.addr, &served.certs).await;
    let (mut send, _recv) = raw.request("Upload", &[]).await;
    let whole = grpc_message("never whole");
    send.write_all(&whole[..whole.len() - 3]).await.unwrap();
    send.finish().unwrap();
    assert!(seen.one().await, "a cut message was taken for a whole one or for a clean end");
}
