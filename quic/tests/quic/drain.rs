//! The graceful stop.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use socp_quic::{Closed, ServerConfig};
use tokio::sync::watch;
use tonic::Code;

use crate::support::raw::RawClient;
use crate::support::service::{all, stream};
use crate::support::{Drops, Script, Served, client, message, soon};

/// A method `Tail` that says `first`, waits for the word, and then sends 400 messages of 1 kB and ends.
fn tail(go: &watch::Sender<bool>) -> Script {
    let going = go.subscribe();
    Script::new().method("Tail", move |_| {
        let mut going = going.clone();
        async move {
            let first = tokio_stream::iter([Ok(message("first"))]);
            let wait = futures_util::stream::once(async move {
                going.wait_for(|going| *going).await.unwrap();
                Ok(message("second"))
            });
            let rest = tokio_stream::iter((0..400).map(|_| Ok(Bytes::from(vec![1; 1000]))));
            Ok(stream(first.chain(wait).chain(rest)))
        }
    })
}

/// Guards: the GOAWAY and the wait for requests in `connection::run`, the refusals in `Server::serve`, and
/// `StreamWatch::acknowledged`, without which the tail is lost.
#[tokio::test]
async fn a_drain_lets_running_streams_end_to_the_last_byte_and_refuses_new_calls() {
    let (go, _) = watch::channel(false);
    let mut served = Served::new(tail(&go));
    let channel = served.channel().await;
    let mut response = client(&channel).server_stream("Tail", message("")).await.unwrap();
    assert_eq!(soon(response.next()).await.unwrap().unwrap(), "first");
    served.stop();
    // Calls go through until the word has come to the client; what matters is that they end, and how.
    let refused = soon(async {
        loop {
            if let Err(status) = client(&channel).unary("Echo", message("x")).await {
                return status;
            }
        }
    });
    let refused = refused.await;
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(!refused.message().contains("no answer"), "new connections are refused, not left to wait: {refused}");
    go.send(true).unwrap();
    let (list, status) = all(&mut response).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(list.len(), 401);
    served.stopped().await;
}

/// Guard: `StreamWatch::acknowledged` in `request::serve`: the client reads only after the handler has long ended.
#[tokio::test]
async fn the_tail_of_a_stream_is_not_lost_to_a_reader_that_is_late() {
    let (go, _) = watch::channel(true);
    let mut served = Served::new(tail(&go));
    let channel = served.channel().await;
    let mut response = client(&channel).server_stream("Tail", message("")).await.unwrap();
    assert_eq!(soon(response.next()).await.unwrap().unwrap(), "first");
    served.stop();
    let (list, status) = all(&mut response).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(list.len(), 401);
    served.stopped().await;
}

/// Guard: `drain_time_max` in `connection::run`, which closes before it drops, so that nothing looks cancelled.
#[tokio::test]
async fn a_stream_that_does_not_end_is_cut_at_the_end_of_the_drain() {
    let mut drops = Drops::new();
    let guard = drops.maker();
    let script = Script::new().method("Stuck", move |_| {
        let guard = guard();
        async move {
            let first = tokio_stream::iter([Ok(message("first"))]);
            Ok(stream(first.chain(futures_util::stream::once(async move {
                let _guard = guard;
                std::future::pending().await
            }))))
        }
    });
    let config = ServerConfig { drain_time_max: Duration::from_millis(200), ..ServerConfig::default() };
    let mut served = Served::with(script, config);
    let channel = served.channel().await;
    let mut response = client(&channel).server_stream("Stuck", message("")).await.unwrap();
    assert_eq!(soon(response.next()).await.unwrap().unwrap(), "first");
    served.stop();
    let status = soon(response.next()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    drops.one().await;
    served.stopped().await;
}

/// Guard: the close at the end of `connection::run`, and `wait_idle` in `Server::serve`.
#[tokio::test]
async fn an_idle_connection_is_closed_in_good_order() {
    let mut served = Served::new(Script::new());
    let channel = served.channel().await;
    soon(client(&channel).unary("Echo", message("x"))).await.unwrap();
    served.stop();
    let why = soon(channel.closed()).await;
    assert!(matches!(why, Closed::ByPeer { code: 0x100, .. }), "{why:?}");
    let gauges = served.gauges.clone();
    served.stopped().await;
    assert_eq!((gauges.connections(), gauges.handshakes(), gauges.live_handlers()), (0, 0, 0));
}

/// Guard: `shutdown(1)`; with 0, the id would be that of the running request itself (RFC 9114, section 5.2).
#[tokio::test]
async fn goaway_names_an_id_above_the_running_request() {
    let (go, _) = watch::channel(false);
    let mut served = Served::new(tail(&go));
    let raw = RawClient::new(served.addr, &served.certs).await;
    let (mut send, mut recv) = raw.request("Tail", &[]).await;
    send.write_all(&crate::support::raw::grpc_message("")).await.unwrap();
    send.finish().unwrap();
    soon(recv.read_chunk(1, true)).await.unwrap().unwrap();
    served.stop();
    let mut control = loop {
        let mut stream = soon(raw.quic.accept_uni()).await.unwrap();
        let mut kind = [0];
        soon(stream.read_exact(&mut kind)).await.unwrap();
        if kind == [0] {
            break stream;
        }
    };
    let mut settings = [0; 2];
    soon(control.read_exact(&mut settings)).await.unwrap();
    let mut rest = vec![0; usize::from(settings[1])];
    soon(control.read_exact(&mut rest)).await.unwrap();
    let mut goaway = [0; 3];
    soon(control.read_exact(&mut goaway)).await.unwrap();
    assert_eq!(goaway, [0x07, 1, 4], "the running request is stream 0, the next would be 4");
    go.send(true).unwrap();
    soon(recv.read_to_end(1_000_000)).await.unwrap();
    served.stopped().await;
}

/// Guard: `timeout_at` around GOAWAY in `connection::run`: this client grants its control stream not one byte more than
/// the settings.
#[tokio::test]
async fn a_client_that_takes_no_goaway_does_not_hold_up_the_drain() {
    let config = ServerConfig { drain_time_max: Duration::from_millis(200), ..ServerConfig::default() };
    let mut served = Served::with(Script::new(), config);
    let raw = RawClient::new(served.addr, &served.certs).await;
    let settings = loop {
        let mut stream = soon(raw.quic.accept_uni()).await.unwrap();
        let first = soon(stream.read_chunk(usize::MAX, true)).await.unwrap().unwrap();
        if first.bytes[0] == 0 {
            break first.bytes.len();
        }
    };
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(quinn::VarInt::from_u32(settings as u32));
    let _stingy = RawClient::with(served.addr, &served.certs, transport).await;
    soon(async {
        while served.gauges.connections() != 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    served.stop();
    served.stopped().await;
}

/// Guard: `JoinSet` in `Server::serve`, which ends its connections with it.
#[tokio::test]
async fn dropping_the_serving_future_drops_every_handler() {
    let mut drops = Drops::new();
    let guard = drops.maker();
    let script = Script::new().method("Stuck", move |_| {
        let guard = guard();
        async move {
            Ok(stream(futures_util::stream::once(async move {
                let _guard = guard;
                std::future::pending().await
            })))
        }
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let _response = client(&channel).server_stream("Stuck", message("")).await.unwrap();
    served.abort();
    drops.one().await;
    assert!(matches!(soon(channel.closed()).await, Closed::ByPeer { .. }));
}
