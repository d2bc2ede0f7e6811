//! What a peer may ask of the other end, and what it gets when it asks for more.

use std::time::Duration;

use quinn::{ConnectionError, TransportConfig, VarInt};
use socp_quic::{Channel, ClientConfig, Closed, ConnectError, PerPeer, ServerConfig};
use tonic::{Code, Request};

use crate::support::forward::Forwarder;
use crate::support::raw::{self, H3_EXCESSIVE_LOAD, RawClient, RawServer, frame, grpc_message, headers};
use crate::support::{Script, Served, client, message, once, soon};

/// Guard: `max_concurrent_bidi_streams` and `_uni_` in `config`, and what raises the first in `connection`; quinn holds about 80
/// bytes for each stream that may be opened, which is what an idle connection costs most.
#[tokio::test]
async fn a_client_may_open_a_few_streams_and_when_it_uses_them_as_many_as_the_configuration_says_and_no_more() {
    let config = ServerConfig::default();
    let (first, streams, uni) = (config.streams_first, config.streams_max, config.uni_streams_max);
    assert!(first <= 8 && uni <= 8, "these bound the memory of an idle connection");
    assert!(streams <= 128, "this bounds that of a busy one");
    let served = Served::with(Script::new(), config);
    let (_endpoint, quic) = raw::connect(served.addr, &served.certs, TransportConfig::default()).await;
    let quic = quic.unwrap();
    let mut open = Vec::new();
    for _ in 0..first {
        open.push(soon(quic.open_bi()).await.unwrap());
    }
    assert!(once(std::pin::pin!(quic.open_bi()).as_mut()).await.is_pending());
    // A stream is nothing to the other side before something is sent on it.
    for (send, _) in &mut open[..first as usize / 2] {
        send.write_all(&[1]).await.unwrap();
    }
    for _ in first..streams {
        open.push(soon(quic.open_bi()).await.unwrap());
    }
    assert!(once(std::pin::pin!(quic.open_bi()).as_mut()).await.is_pending());
    let mut open_uni = Vec::new();
    for _ in 0..uni {
        open_uni.push(soon(quic.open_uni()).await.unwrap());
    }
    assert!(once(std::pin::pin!(quic.open_uni()).as_mut()).await.is_pending());
}

/// Guard: `ClientConfig::transport`.
#[tokio::test]
async fn a_server_may_open_no_bidirectional_stream_and_few_others() {
    let server = RawServer::new();
    let channel = Channel::builder(server.addr(), "localhost", server.certs.client());
    let connecting = tokio::spawn(channel.connect());
    let (quic, _control) = server.accept().await;
    let _channel = soon(connecting).await.unwrap().unwrap();
    assert!(once(std::pin::pin!(quic.open_bi()).as_mut()).await.is_pending());
    let mut open = Vec::new();
    // The control stream is the first of them.
    for _ in 1..ClientConfig::default().uni_streams_max {
        open.push(soon(quic.open_uni()).await.unwrap());
    }
    assert!(once(std::pin::pin!(quic.open_uni()).as_mut()).await.is_pending());
}

/// Guard: `max_field_section_size` in `connection::build`, and h3's settings, which our client heeds.
#[tokio::test]
async fn a_request_with_too_much_metadata_is_resource_exhausted_and_costs_the_others_nothing() {
    let served = Served::new(Script::new());
    let channel = served.channel().await;
    let mut request = Request::new(message("x"));
    request.metadata_mut().insert("large", "m".repeat(17_000).parse().unwrap());
    let status = soon(client(&channel).unary("Echo", request)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    soon(client(&channel).unary("Echo", message("x"))).await.unwrap();
    assert_eq!(served.gauges.connections(), 1);
    served.no_handler_left().await;
}

/// Guard: `max_field_section_size` in `connection::build`, `DropCodes` in `glue`: many short fields, whose encoding is
/// below the limit, while their counted size is above.
#[tokio::test]
async fn a_peer_that_ignores_the_header_limit_gets_a_reset_and_no_handler() {
    let served = Served::new(Script::new());
    let raw = RawClient::new(served.addr, &served.certs).await;
    let many: Vec<_> = (0..600).map(|_| ("a", "b")).collect();
    let (_send, mut recv) = raw.request("Echo", &many).await;
    let end = soon(recv.read_to_end(10_000)).await;
    assert!(
        matches!(&end, Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code)))
            if *code == VarInt::from_u32(H3_EXCESSIVE_LOAD)),
        "{end:?}"
    );
    assert_eq!(served.gauges.live_handlers(), 0);
    let (mut send, mut recv) = raw.request("Echo", &[]).await;
    send.write_all(&grpc_message("alive")).await.unwrap();
    send.finish().unwrap();
    let answer = soon(recv.read_to_end(10_000)).await.unwrap();
    assert!(answer.windows(5).any(|bytes| bytes == b"alive"));
}

/// Guard: `FrameLimit` in `glue::RecvStream`; h3 would collect the whole frame in memory, whatever its length.
#[tokio::test]
async fn a_headers_frame_that_announces_a_gigabyte_is_refused_before_it_comes() {
    let served = Served::new(Script::new());
    let raw = RawClient::new(served.addr, &served.certs).await;
    let (mut send, mut recv) = soon(raw.quic.open_bi()).await.unwrap();
    send.write_all(&[0x01, 0xc0, 0, 0, 0, 0x40, 0, 0, 0]).await.unwrap();
    let stopped = soon(send.stopped()).await;
    assert_eq!(stopped, Ok(Some(VarInt::from_u32(H3_EXCESSIVE_LOAD))));
    assert!(soon(recv.read_to_end(10_000)).await.is_err());
    assert!(raw.quic.close_reason().is_none());
}

/// Guard: `FrameLimit` in `glue::RecvStream`, for the client.
#[tokio::test]
async fn a_response_head_above_the_clients_limit_is_resource_exhausted() {
    let server = RawServer::new();
    let channel = Channel::builder(server.addr(), "localhost", server.certs.client());
    let channel = channel.lazy().unwrap();
    let call = tokio::spawn(async move { client(&channel).unary("Any", message("")).await });
    let (quic, _control) = server.accept().await;
    let (mut send, _recv) = soon(quic.accept_bi()).await.unwrap();
    let large = "x".repeat(20_000);
    // The client may stop it before all is written.
    let _ = send.write_all(&headers(&[(":status", "200"), ("large", &large)])).await;
    assert_eq!(soon(call).await.unwrap().unwrap_err().code(), Code::ResourceExhausted);
    assert!(quic.close_reason().is_none());
}

/// Guard: `head_time_max` in `request::serve`.
#[tokio::test]
async fn a_stream_whose_request_does_not_come_is_reset() {
    let config = ServerConfig { head_time_max: Duration::from_millis(100), ..ServerConfig::default() };
    let served = Served::with(Script::new(), config);
    let raw = RawClient::new(served.addr, &served.certs).await;
    let (mut send, mut recv) = soon(raw.quic.open_bi()).await.unwrap();
    send.write_all(&[0x01]).await.unwrap();
    assert!(soon(send.stopped()).await.unwrap().is_some());
    assert!(soon(recv.read_to_end(10_000)).await.is_err());
    assert!(raw.quic.close_reason().is_none());
}

/// Guard: `broken_requests_max` in `connection::run`.
#[tokio::test]
async fn a_client_of_too_many_broken_requests_is_sent_away() {
    let served = Served::with(Script::new(), ServerConfig { broken_requests_max: 5, ..ServerConfig::default() });
    let raw = RawClient::new(served.addr, &served.certs).await;
    for _ in 0..4 {
        let (mut send, mut recv) = soon(raw.quic.open_bi()).await.unwrap();
        send.finish().unwrap();
        assert!(soon(recv.read_to_end(10)).await.is_err());
    }
    let (mut send, mut recv) = raw.request("Echo", &[]).await;
    send.write_all(&grpc_message("alive")).await.unwrap();
    send.finish().unwrap();
    assert!(soon(recv.read_to_end(10_000)).await.is_ok(), "four are not too many");
    let (mut send, _recv) = soon(raw.quic.open_bi()).await.unwrap();
    send.finish().unwrap();
    let why = soon(raw.quic.closed()).await;
    assert!(matches!(why, ConnectionError::ApplicationClosed(_)), "{why:?}");
}

/// Guard: the time limit in `connection::serve` spans h3's start too, which waits for streams that this client forbids.
#[tokio::test]
async fn a_client_that_never_lets_http_begin_is_dropped_in_time() {
    let config = ServerConfig { handshake_time_max: Duration::from_millis(300), ..ServerConfig::default() };
    let served = Served::with(Script::new(), config);
    let mut transport = TransportConfig::default();
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    let (_endpoint, quic) = raw::connect(served.addr, &served.certs, transport).await;
    let why = soon(quic.unwrap().closed()).await;
    assert!(matches!(why, ConnectionError::ApplicationClosed(_)), "{why:?}");
    soon(async {
        while served.gauges.handshakes() != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(served.gauges.connections(), 0);
}

/// Guard: `connections_max` in `Server::admit`.
#[tokio::test]
async fn a_connection_beyond_the_limit_is_refused_and_one_at_it_is_served() {
    let served = Served::with(Script::new(), ServerConfig { connections_max: 2, ..ServerConfig::default() });
    let (one, two) = (served.channel().await, served.channel().await);
    for channel in [&one, &two] {
        soon(client(channel).unary("Echo", message("x"))).await.unwrap();
    }
    let third = Channel::builder(served.addr, "localhost", served.certs.client());
    let refused = soon(third.connect()).await;
    assert!(matches!(refused, Err(ConnectError::Refused { why: Closed::Failed(_), .. })), "{refused:?}");
    // Once one has gone, another may come.
    one.close("making room");
    soon(async {
        while served.gauges.connections() != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let fourth = served.channel().await;
    soon(client(&fourth).unary("Echo", message("x"))).await.unwrap();
}

/// Guard: `handshakes_max` in `Server::admit`.
#[tokio::test]
async fn a_handshake_beyond_the_limit_is_refused() {
    let served = Served::with(Script::new(), ServerConfig { handshakes_max: 0, ..ServerConfig::default() });
    let channel = Channel::builder(served.addr, "localhost", served.certs.client());
    let refused = soon(channel.connect()).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
}

/// Guard: `handshakes_before_retry` in `Server::admit`.
#[tokio::test]
async fn under_load_a_client_must_prove_its_address_and_is_then_served() {
    for (before_retry, expected) in [(0, true), (64, false)] {
        let config = ServerConfig { handshakes_before_retry: before_retry, ..ServerConfig::default() };
        let served = Served::with(Script::new(), config);
        let forwarder = Forwarder::to(served.addr).await;
        let channel = Channel::builder(forwarder.addr, "localhost", served.certs.client());
        let channel = soon(channel.connect()).await.unwrap();
        soon(client(&channel).unary("Echo", message("x"))).await.unwrap();
        // RFC 9000, section 17.2.5: long header, fixed bit, type 3.
        let retried = forwarder.servers_first_bytes().iter().any(|first| first & 0xf0 == 0xf0);
        assert_eq!(retried, expected, "handshakes_before_retry: {before_retry}");
    }
}

/// Guard: `stop_sending` of unknown unidirectional streams, by h3, and that their slots come back.
#[tokio::test]
async fn unknown_kinds_of_streams_are_stopped_one_by_one_and_do_no_harm() {
    let served = Served::new(Script::new());
    let raw = RawClient::new(served.addr, &served.certs).await;
    for _ in 0..20 {
        let mut stream = soon(raw.quic.open_uni()).await.unwrap();
        stream.write_all(&[0x21, 1, 2, 3]).await.unwrap();
        assert!(soon(stream.stopped()).await.unwrap().is_some());
    }
    let (mut send, mut recv) = raw.request("Echo", &[]).await;
    send.write_all(&frame(0x21, b"an unknown frame")).await.unwrap();
    send.write_all(&grpc_message("alive")).await.unwrap();
    send.finish().unwrap();
    let answer = soon(recv.read_to_end(10_000)).await.unwrap();
    assert!(answer.windows(5).any(|bytes| bytes == b"alive"));
}

#[tokio::test]
async fn settings_that_quic_or_http_cannot_do_are_refused() {
    let certs = crate::support::Certs::new();
    let bind = |config| socp_quic::Server::bind(crate::support::localhost(), certs.server(), config);
    assert!(bind(ServerConfig { streams_max: 0, ..ServerConfig::default() }).is_err());
    assert!(bind(ServerConfig { streams_first: 0, ..ServerConfig::default() }).is_err());
    assert!(bind(ServerConfig { uni_streams_max: 2, ..ServerConfig::default() }).is_err());
    assert!(bind(ServerConfig { uni_streams_max: 3, streams_max: 1, ..ServerConfig::default() }).is_ok());
    assert!(bind(ServerConfig { idle_timeout: Duration::MAX, ..ServerConfig::default() }).is_err());
    let config = ClientConfig { uni_streams_max: 2, ..ClientConfig::default() };
    let channel = Channel::builder(crate::support::localhost(), "localhost", certs.client());
    assert!(matches!(channel.config(config).lazy(), Err(ConnectError::Config(_))));
}

/// Guard: `per_peer` in `connection::serve`.
#[tokio::test]
async fn a_peer_may_have_so_many_connections_and_whoever_is_somebody_else_has_theirs() {
    let per_peer = PerPeer { connections_max: 2, identify: |certificate| certificate.last_chunk().copied() };
    let served = Served::with(Script::new(), ServerConfig { per_peer: Some(per_peer), ..ServerConfig::default() });
    let open = async || {
        let tls = served.certs.client_with_certificate();
        soon(Channel::builder(served.addr, "localhost", tls).connect()).await.unwrap()
    };
    let (one, two) = (open().await, open().await);
    for channel in [&one, &two] {
        soon(client(channel).unary("Echo", message("x"))).await.unwrap();
    }
    let third = open().await;
    let closed = soon(third.connection().unwrap().closed()).await;
    assert!(matches!(&closed, Closed::ByPeer { reason, .. } if reason.contains("too many connections")), "{closed}");
    soon(client(&served.channel().await).unary("Echo", message("x"))).await.unwrap();
    one.connection().unwrap().close("done");
    soon(async {
        while served.gauges.connections() > 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon(client(&open().await).unary("Echo", message("x"))).await.unwrap();
}

/// Guard: `bare_until` in `connection::run`.
#[tokio::test]
async fn a_connection_without_a_request_is_closed_after_a_while_and_one_with_a_request_is_kept() {
    let bare_time_max = Some(Duration::from_millis(300));
    let script = Script::new()
        .method("Idle", |_| async { Ok(crate::support::service::stream(futures_util::stream::pending())) });
    let served = Served::with(script, ServerConfig { bare_time_max, ..ServerConfig::default() });
    let used = served.channel().await;
    let call = soon(client(&used).server_stream("Idle", message(""))).await.unwrap();
    for _ in 0..3 {
        let bare = served.channel().await;
        let closed = soon(bare.connection().unwrap().closed()).await;
        assert!(matches!(&closed, Closed::ByPeer { reason, .. } if reason.contains("no request")), "{closed}");
    }
    assert!(once(std::pin::pin!(used.connection().unwrap().closed()).as_mut()).await.is_pending());
    drop(call);
    soon(used.connection().unwrap().closed()).await;
}
