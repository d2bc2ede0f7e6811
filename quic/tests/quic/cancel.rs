//! Cancelling: a call that nobody waits for any more drops its handler, whatever the handler is doing.

use std::future::pending;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;

use crate::support::raw::{RawClient, grpc_message};
use crate::support::service::stream;
use crate::support::{Drops, Events, Script, Served, client, message, once, soon};

/// Guard: `StreamWatch::cancelled` in `request::serve`, and the drop of `glue::RecvStream`.
#[tokio::test]
async fn a_call_cancelled_before_the_head_drops_its_handler() {
    let (mut drops, mut started) = (Drops::new(), Events::new());
    let (guard, start) = (drops.maker(), started.sender());
    let script = Script::new().method("Never", move |_| {
        let (guard, start) = (guard(), start.clone());
        async move {
            let _guard = guard;
            start.send(()).unwrap();
            pending().await
        }
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    // Another handle stays, so that it is the call that ends, not the connection.
    let calling = channel.clone();
    let call = tokio::spawn(async move { client(&calling).unary("Never", message("")).await });
    started.one().await;
    assert!(!drops.any());
    call.abort();
    drops.one().await;
    served.no_handler_left().await;
    assert_eq!(served.gauges.connections(), 1);
}

/// Guard: `StreamWatch` (h3 tells nothing of STOP_SENDING, and an idle handler writes nothing that could fail).
///
/// The read is pending when the stream is dropped, which must not panic: futures are made anew for each poll.
#[tokio::test]
async fn a_cancelled_idle_stream_drops_its_handler() {
    let mut drops = Drops::new();
    let guard = drops.maker();
    let script = Script::new().method("Idle", move |_| {
        let guard = guard();
        async move {
            Ok(stream(futures_util::stream::once(async move {
                let _guard = guard;
                pending().await
            })))
        }
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let call = client(&channel).server_stream("Idle", message("")).await;
    let mut response = call.unwrap();
    {
        let mut next = std::pin::pin!(response.next());
        assert!(once(next.as_mut()).await.is_pending());
    }
    assert!(!drops.any());
    drop(response);
    drops.one().await;
    served.no_handler_left().await;
}

/// Guard: `StreamWatch`, here while the handler is blocked by flow control rather than idle.
#[tokio::test]
async fn a_cancelled_busy_stream_drops_its_handler() {
    let mut drops = Drops::new();
    let guard = drops.maker();
    let script = Script::new().method("Busy", move |_| {
        let guard = guard();
        async move {
            Ok(stream(futures_util::stream::repeat_with(move || {
                let _guard = &guard;
                Ok(message(&"x".repeat(1000)))
            })))
        }
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let call = client(&channel).server_stream("Busy", message("")).await;
    let mut response = call.unwrap();
    for _ in 0..1000 {
        soon(response.next()).await.unwrap().unwrap();
    }
    assert!(!drops.any());
    drop(response);
    drops.one().await;
    served.no_handler_left().await;
}

/// Guard: `call::Held`, which ends the sending task, and `StreamWatch`: the sender of requests is still held.
#[tokio::test]
async fn dropping_a_bidi_response_drops_the_handler_though_requests_could_still_come() {
    let mut drops = Drops::new();
    let guard = drops.maker();
    let script = Script::new().method("Talk", move |input| {
        let guard = guard();
        async move {
            Ok(stream(input.into_inner().inspect(move |_| {
                let _guard = &guard;
            })))
        }
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let (sender, requests) = mpsc::unbounded_channel();
    let requests = UnboundedReceiverStream::new(requests);
    let mut response = soon(client(&channel).bidi("Talk", requests)).await.unwrap();
    sender.send(message("x")).unwrap();
    soon(response.next()).await.unwrap().unwrap();
    assert!(!drops.any());
    drop(response);
    drops.one().await;
    served.no_handler_left().await;
    soon(sender.closed()).await;
}

/// Guard: `StreamWatch`, whose future ends with the connection too.
#[tokio::test]
async fn a_lost_connection_drops_idle_handlers() {
    let mut drops = Drops::new();
    let guard = drops.maker();
    let script = Script::new().method("Idle", move |_| {
        let guard = guard();
        async move {
            Ok(stream(futures_util::stream::once(async move {
                let _guard = guard;
                pending().await
            })))
        }
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let one = client(&channel).server_stream("Idle", message("")).await;
    let two = client(&channel).server_stream("Idle", message("")).await;
    let _streams = (one.unwrap(), two.unwrap());
    channel.close("the test is done");
    drops.one().await;
    drops.one().await;
    served.no_handler_left().await;
}

/// Guard: `on_reset` in `body::RequestBody`: this client resets its half and stops nothing.
#[tokio::test]
async fn a_client_that_only_resets_its_half_is_noticed_by_a_handler_that_reads() {
    let (mut drops, mut read) = (Drops::new(), Events::new());
    let (guard, reader) = (drops.maker(), read.sender());
    let script = Script::new().method("Read", move |input| {
        let (guard, reader) = (guard(), reader.clone());
        async move {
            let _guard = guard;
            let mut input = input.into_inner();
            while let Some(Ok(_)) = input.next().await {
                reader.send(()).unwrap();
            }
            // What follows would run for ever, were the handler not dropped.
            pending().await
        }
    });
    let served = Served::new(script);
    let raw = RawClient::new(served.addr, &served.certs).await;
    let (mut send, _recv) = raw.request("Read", &[]).await;
    send.write_all(&grpc_message("x")).await.unwrap();
    read.one().await;
    assert!(!drops.any());
    send.reset(quinn::VarInt::from_u32(0)).unwrap();
    drops.one().await;
    served.no_handler_left().await;
}

/// Guard: `call::send_body` waits for STOP_SENDING too, not only for the next request message.
#[tokio::test]
async fn a_handler_that_drops_its_requests_lets_the_caller_know_at_once() {
    let script = Script::new().method("Deaf", |input| async move {
        drop(input);
        Ok(stream(futures_util::stream::pending::<Result<_, Status>>()))
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let (sender, requests) = mpsc::unbounded_channel();
    let requests = UnboundedReceiverStream::new(requests);
    let mut response = soon(client(&channel).bidi("Deaf", requests)).await.unwrap();
    soon(sender.closed()).await;
    let mut next = std::pin::pin!(response.next());
    assert!(once(next.as_mut()).await.is_pending());
}
