//! Connections that end: what running calls are told, and what the next call does.

use std::future::pending;
use std::time::Duration;

use futures_util::StreamExt as _;
use quinn::VarInt;
use socp_quic::{Channel, ClientConfig, ClientEndpoint, Closed, ConnectError, PeerInfo, ServerConfig};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;

use crate::support::forward::Forwarder;
use crate::support::raw::{RawServer, frame, grpc_message, headers, response_head};
use crate::support::service::{all, stream};
use crate::support::{Drops, Events, Script, Served, client, localhost, message, messages, soon};

/// `Close` closes the connection it is called on; `Id` tells its number; `Idle` says `first` and then nothing.
fn script() -> Script {
    Script::new()
        .method("Close", |input| async move {
            PeerInfo::of(&input).unwrap().close("as asked");
            pending().await
        })
        .method("Id", |input| async move {
            let id = PeerInfo::of(&input).unwrap().connection_id().to_string();
            Ok(messages([Ok(message(&id))]))
        })
        .method("Idle", |_| async {
            let first = tokio_stream::iter([Ok(message("first"))]);
            Ok(stream(first.chain(futures_util::stream::pending())))
        })
}

/// Guard: `status::lost`, and the redial in `client::Inner::ready`.
#[tokio::test]
async fn a_lost_connection_is_unavailable_and_the_next_call_connects_anew() {
    let served = Served::new(script());
    let channel = served.channel().await;
    let before = soon(client(&channel).unary("Id", message(""))).await.unwrap();
    let mut response = client(&channel).server_stream("Idle", message("")).await.unwrap();
    assert_eq!(soon(response.next()).await.unwrap().unwrap(), "first");
    let connection = channel.connection().unwrap();

    let pending = soon(client(&channel).unary("Close", message(""))).await.unwrap_err();
    assert_eq!(pending.code(), Code::Unavailable, "{pending}");
    let midway = soon(response.next()).await.unwrap().unwrap_err();
    assert_eq!(midway.code(), Code::Unavailable, "{midway}");
    let why = soon(connection.closed()).await;
    assert_eq!(why, Closed::ByPeer { code: 0x100, reason: "as asked".to_owned() });
    assert!(why.is_orderly());

    let after = soon(client(&channel).unary("Id", message(""))).await.unwrap();
    assert_ne!(before.into_inner(), after.into_inner());
    served.no_handler_left().await;
}

/// Guard: `one_connection` in `client::Inner::usable`.
#[tokio::test]
async fn a_channel_for_one_connection_never_dials_again() {
    let served = Served::new(script());
    let builder = Channel::builder(served.addr, "localhost", served.certs.client());
    let channel = soon(builder.one_connection().connect()).await.unwrap();
    soon(client(&channel).unary("Id", message(""))).await.unwrap();
    soon(client(&channel).unary("Close", message(""))).await.unwrap_err();
    soon(channel.closed()).await;
    let status = soon(client(&channel).unary("Id", message(""))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(matches!(soon(channel.ready()).await, Err(ConnectError::Over { .. })));
}

#[tokio::test]
async fn a_closed_channel_is_closed_for_good_and_both_sides_know_why() {
    let mut peers = Events::new();
    let peer = peers.sender();
    let script = Script::new().method("Who", move |input| {
        peer.send(PeerInfo::of(&input).unwrap().clone()).unwrap();
        async { Ok(messages([Ok(message(""))])) }
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    soon(client(&channel).unary("Who", message(""))).await.unwrap();
    let peer = peers.one().await;
    channel.close("enough");
    assert_eq!(soon(channel.closed()).await, Closed::Here { reason: "enough".to_owned() });
    assert_eq!(soon(peer.closed()).await, Closed::ByPeer { code: 0x100, reason: "enough".to_owned() });
    let status = soon(client(&channel).unary("Who", message(""))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

/// Guard: the retry in `call::open`: a call that GOAWAY kept from being sent moves to a new connection.
#[tokio::test]
async fn a_call_after_goaway_goes_to_a_new_connection_while_the_old_one_lives() {
    let server = RawServer::new();
    let channel = Channel::builder(server.addr(), "localhost", server.certs.client());
    let channel = channel.lazy().unwrap();
    let calls = tokio::spawn(async move {
        let mut refusals = Vec::new();
        loop {
            match client(&channel).unary("Any", message("")).await {
                Ok(answer) => return (answer.into_inner(), refusals),
                Err(status) => refusals.push(status),
            }
        }
    });
    let (old, mut old_control) = server.accept().await;
    old_control.write_all(&[0x07, 0x01, 0x00]).await.unwrap();
    let rejecting = old.clone();
    let rejecting = tokio::spawn(async move {
        while let Ok((mut send, mut recv)) = rejecting.accept_bi().await {
            let _ = send.reset(VarInt::from_u32(0x10b));
            let _ = recv.stop(VarInt::from_u32(0x10b));
        }
    });
    let (new, _control) = server.accept().await;
    let (mut send, _recv) = soon(new.accept_bi()).await.unwrap();
    send.write_all(&response_head()).await.unwrap();
    send.write_all(&grpc_message("from the new one")).await.unwrap();
    send.write_all(&headers(&[("grpc-status", "0")])).await.unwrap();
    send.finish().unwrap();
    let (answer, refusals) = soon(calls).await.unwrap();
    assert_eq!(answer, "from the new one");
    for status in refusals {
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("REJECTED"), "sent in vain, not kept back: {status}");
    }
    rejecting.abort();
}

/// Guard: `requests_max` in `connection::run`.
#[tokio::test]
async fn a_connection_ends_after_its_share_of_requests_and_calls_go_on() {
    let config = ServerConfig { requests_max: 1, ..ServerConfig::default() };
    let served = Served::with(script(), config);
    let channel = served.channel().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let connection = soon(channel.ready()).await.unwrap();
        ids.push(soon(client(&channel).unary("Id", message(""))).await.unwrap().into_inner());
        assert!(soon(connection.closed()).await.is_orderly());
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

/// Guard: the time limit in `dial::Target::dial`.
#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let silent = std::net::UdpSocket::bind(localhost()).unwrap();
    let certs = crate::support::Certs::new();
    let config = ClientConfig { connect_time_max: Duration::from_millis(100), ..ClientConfig::default() };
    let addr = silent.local_addr().unwrap();
    let builder = || Channel::builder(addr, "localhost", certs.client()).config(config.clone());
    let eager = soon(builder().connect()).await;
    assert!(matches!(eager, Err(ConnectError::TimedOut { .. })), "{eager:?}");
    let lazy = builder().lazy().unwrap();
    let status = soon(client(&lazy).unary("Any", message(""))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

/// Guard: the shared failure in `client::Inner::ready`; each of 200 callers dialling in turn would take 20 s and more.
#[tokio::test]
async fn callers_that_wait_for_one_attempt_share_its_failure() {
    let silent = std::net::UdpSocket::bind(localhost()).unwrap();
    let certs = crate::support::Certs::new();
    let config = ClientConfig { connect_time_max: Duration::from_millis(200), ..ClientConfig::default() };
    let channel = Channel::builder(silent.local_addr().unwrap(), "localhost", certs.client());
    let channel = channel.config(config).lazy().unwrap();
    let calls = (0..200).map(|_| {
        let mut client = client(&channel);
        async move { client.unary("Any", message("")).await.unwrap_err().code() }
    });
    let codes = soon(futures_util::future::join_all(calls)).await;
    assert!(codes.iter().all(|code| *code == Code::Unavailable));
}

#[tokio::test]
async fn a_server_with_another_name_is_refused() {
    let served = Served::new(Script::new());
    let channel = Channel::builder(served.addr, "elsewhere.test", served.certs.client());
    let refused = soon(channel.connect()).await;
    assert!(matches!(refused, Err(ConnectError::Refused { why: Closed::Failed(_), .. })), "{refused:?}");
}

/// Guard: none of ours; QUIC's migration is not turned off.
#[tokio::test]
async fn a_stream_survives_the_clients_change_of_port() {
    let mut peers = Events::new();
    let peer = peers.sender();
    let script = Script::new().method("Talk", move |input| {
        peer.send(PeerInfo::of(&input).unwrap().clone()).unwrap();
        async move { Ok(stream(input.into_inner())) }
    });
    let served = Served::new(script);
    let endpoint = ClientEndpoint::bind(localhost()).unwrap();
    let builder = Channel::builder(served.addr, "localhost", served.certs.client());
    let channel = soon(builder.endpoint(endpoint.clone()).connect()).await.unwrap();
    let (sender, requests) = mpsc::unbounded_channel();
    let requests = UnboundedReceiverStream::new(requests);
    let mut response = soon(client(&channel).bidi("Talk", requests)).await.unwrap();
    let before = endpoint.local_addr().unwrap();
    sender.send(message("before")).unwrap();
    assert_eq!(soon(response.next()).await.unwrap().unwrap(), "before");
    let peer = peers.one().await;
    assert_eq!(peer.remote_addr(), before);

    endpoint.rebind(localhost()).unwrap();
    let after = endpoint.local_addr().unwrap();
    assert_ne!(before, after);
    sender.send(message("after")).unwrap();
    assert_eq!(soon(response.next()).await.unwrap().unwrap(), "after");
    assert_eq!(peer.remote_addr(), after);
}

/// Guard: `idle_timeout` and `keep_alive` in `config::shared`, `StreamWatch` at the server.
#[tokio::test]
async fn a_black_hole_is_noticed_by_both_sides() {
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
    let idle_timeout = Duration::from_millis(1000);
    let keep_alive = Some(Duration::from_millis(200));
    let served = Served::with(script, ServerConfig { idle_timeout, keep_alive, ..ServerConfig::default() });
    let forwarder = Forwarder::to(served.addr).await;
    let config = ClientConfig { idle_timeout, keep_alive, ..ClientConfig::default() };
    let builder = Channel::builder(forwarder.addr, "localhost", served.certs.client());
    let channel = soon(builder.config(config).connect()).await.unwrap();
    let mut response = client(&channel).server_stream("Idle", message("")).await.unwrap();
    forwarder.swallow();
    let status = soon(response.next()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(soon(channel.closed()).await, Closed::Idle);
    drops.one().await;
    served.no_handler_left().await;
}

/// Guard: `keep_alive` in `config::shared`: without, this connection would end after its idle timeout.
#[tokio::test]
async fn an_idle_connection_is_kept_alive() {
    let idle_timeout = Duration::from_millis(600);
    let keep_alive = Some(Duration::from_millis(100));
    let served = Served::with(script(), ServerConfig { idle_timeout, keep_alive: None, ..ServerConfig::default() });
    let config = |keep_alive| ClientConfig { idle_timeout, keep_alive, ..ClientConfig::default() };
    let kept = served.channel_with(config(keep_alive)).await;
    let left = served.channel_with(config(None)).await;
    // The connection that is not kept alive is the clock of the other one.
    for _ in 0..2 {
        let left = soon(left.ready()).await.unwrap();
        assert_eq!(soon(left.closed()).await, Closed::Idle);
    }
    let mut kept_connection = std::pin::pin!(kept.closed());
    assert!(crate::support::once(kept_connection.as_mut()).await.is_pending());
    soon(client(&kept).unary("Id", message(""))).await.unwrap();
}

/// Guard: `_live` in `call::Held`; h3 closes the connection with the last `SendRequest`.
#[tokio::test]
async fn a_stream_runs_on_when_all_channels_are_dropped() {
    let (go, going) = tokio::sync::watch::channel(false);
    let script = Script::new().method("Count", move |_| {
        let mut going = going.clone();
        async move {
            let rest = futures_util::stream::once(async move {
                going.wait_for(|going| *going).await.unwrap();
                Ok(message("0"))
            });
            Ok(stream(rest.chain(tokio_stream::iter((1..30).map(|n| Ok(message(&n.to_string())))))))
        }
    });
    let served = Served::new(script);
    let channel = served.channel().await;
    let mut response = client(&channel).server_stream("Count", message("")).await.unwrap();
    drop(channel);
    go.send(true).unwrap();
    let (list, status) = all(&mut response).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(list.len(), 30);
    drop(response);
    // With the last stream, the connection goes.
    soon(async {
        while served.gauges.connections() != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Guard: h3's own rule, kept by `driver.wait_idle`: a server that breaks the protocol costs one connection, no panic.
#[tokio::test]
async fn a_server_that_breaks_the_protocol_is_unavailable() {
    let server = RawServer::new();
    let channel = Channel::builder(server.addr(), "localhost", server.certs.client());
    let channel = channel.lazy().unwrap();
    let call = tokio::spawn(async move { client(&channel).unary("Any", message("")).await });
    let (quic, mut control) = server.accept().await;
    let (_send, _recv) = soon(quic.accept_bi()).await.unwrap();
    // A second SETTINGS frame.
    control.write_all(&frame(0x04, &[])).await.unwrap();
    assert_eq!(soon(call).await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert!(matches!(soon(quic.closed()).await, quinn::ConnectionError::ApplicationClosed(_)));
}
