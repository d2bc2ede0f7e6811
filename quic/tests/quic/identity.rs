//! Who the peer is, as each side sees it, and the handle to its connection.

use socp_quic::{Channel, Closed, PeerInfo};
use tonic::service::Routes;

use crate::support::{Certs, Events, Script, Served, client, localhost, message, messages, soon};

fn who(events: &Events<PeerInfo>) -> Script {
    let peer = events.sender();
    Script::new().method("Who", move |input| {
        peer.send(PeerInfo::of(&input).unwrap().clone()).unwrap();
        let addr = input.remote_addr().unwrap().to_string();
        async move { Ok(messages([Ok(message(&addr))])) }
    })
}

/// Guard: `connection::certificates`.
#[tokio::test]
async fn a_handler_sees_the_clients_certificate_and_the_client_the_servers() {
    let mut peers = Events::new();
    let served = Served::new(who(&peers));
    let tls = served.certs.client_with_certificate();
    let channel = soon(Channel::builder(served.addr, "localhost", tls).connect()).await.unwrap();
    soon(client(&channel).unary("Who", message(""))).await.unwrap();
    let peer = peers.one().await;
    assert_eq!(peer.certificates().unwrap()[0], served.certs.client);
    let connection = channel.connection().unwrap();
    assert_eq!(connection.peer_certificates().unwrap()[0], served.certs.server);
}

#[tokio::test]
async fn a_client_without_a_certificate_has_none() {
    let mut peers = Events::new();
    let served = Served::new(who(&peers));
    let channel = served.channel().await;
    soon(client(&channel).unary("Who", message(""))).await.unwrap();
    assert_eq!(peers.one().await.certificates(), None);
}

/// Guard: the TLS configuration's verifier is the one that counts; nothing here replaces it.
#[tokio::test]
async fn a_client_with_a_certificate_of_another_authority_is_refused() {
    let peers = Events::new();
    let served = Served::new(who(&peers));
    let stranger = Certs::new();
    let tls = stranger.client_with_certificate_trusting(&served.certs);
    let channel = Channel::builder(served.addr, "localhost", tls).lazy().unwrap();
    // TLS 1.3 lets the client finish first, so the refusal may come with the first call.
    let status = soon(client(&channel).unary("Who", message(""))).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    served.no_handler_left().await;
}

#[tokio::test]
async fn calls_of_one_connection_share_its_number_and_others_have_another() {
    let mut peers = Events::new();
    let served = Served::new(who(&peers));
    let (one, two) = (served.channel().await, served.channel().await);
    for channel in [&one, &one, &two] {
        let addr = soon(client(channel).unary("Who", message(""))).await.unwrap();
        assert!(addr.into_inner().starts_with(b"127.0.0.1:"), "remote_addr() works");
    }
    let (first, second, other) = (peers.one().await, peers.one().await, peers.one().await);
    assert_eq!(first.connection_id(), second.connection_id());
    assert_ne!(first.connection_id(), other.connection_id());
}

/// Guard: `close_requested` in `connection::run`.
#[tokio::test]
async fn a_peer_closed_from_the_server_takes_all_its_calls_along_and_says_why() {
    let mut peers = Events::new();
    let script =
        who(&peers).method("Idle", |_| async { Ok(crate::support::service::stream(futures_util::stream::pending())) });
    let served = Served::new(script);
    let channel = served.channel().await;
    soon(client(&channel).unary("Who", message(""))).await.unwrap();
    let mut one = client(&channel).server_stream("Idle", message("")).await.unwrap();
    let mut two = client(&channel).server_stream("Idle", message("")).await.unwrap();
    let peer = peers.one().await;
    peer.close("not welcome");
    peer.close("too late to matter");
    assert_eq!(soon(peer.closed()).await, Closed::Here { reason: "not welcome".to_owned() });
    for stream in [&mut one, &mut two] {
        assert_eq!(soon(stream.message()).await.unwrap_err().code(), tonic::Code::Unavailable);
    }
    let told = soon(channel.closed()).await;
    assert_eq!(told, Closed::ByPeer { code: 0x100, reason: "not welcome".to_owned() });
    served.no_handler_left().await;
}

/// What another transport does with the same type.
#[tokio::test]
async fn a_peer_of_another_transport_is_closed_through_its_driver() {
    let (peer, driver) = PeerInfo::new(localhost(), None);
    peer.close("enough");
    assert_eq!(soon(driver.close_requested()).await, "enough");
    driver.ended(Closed::Here { reason: String::new() });
    assert_eq!(soon(peer.closed()).await, Closed::Here { reason: "enough".to_owned() });

    let (peer, driver) = PeerInfo::new(localhost(), None);
    drop(driver);
    assert_eq!(soon(peer.closed()).await, Closed::Here { reason: String::new() });
    assert_eq!(peer.remote_addr(), localhost());
}

/// Guard: `alpn_protocols` in `Server::bind`.
#[tokio::test]
async fn a_client_that_does_not_speak_h3_is_refused() {
    let certs = Certs::new();
    let server = socp_quic::Server::bind(localhost(), certs.server(), Default::default()).unwrap();
    let served = Served::start(server, Routes::new(Script::new()), certs);
    let mut tls = served.certs.client();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(std::sync::Arc::new(tls));
    let endpoint = quinn::Endpoint::client(localhost()).unwrap();
    let connecting = endpoint.connect_with(config, served.addr, "localhost").unwrap();
    assert!(soon(connecting).await.is_err());
}

/// Guard: `max_early_data_size` in `Server::bind`: what comes in a first flight could have been recorded and sent again.
#[tokio::test]
async fn early_data_is_denied_though_the_tls_configuration_allows_it() {
    let certs = Certs::new();
    let mut tls = certs.server();
    tls.max_early_data_size = u32::MAX;
    let server = socp_quic::Server::bind(localhost(), tls, Default::default()).unwrap();
    let served = Served::start(server, Routes::new(Script::new()), certs);
    let mut tls = served.certs.client();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    tls.enable_early_data = true;
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(std::sync::Arc::new(tls));
    let endpoint = quinn::Endpoint::client(localhost()).unwrap();
    let connect = || endpoint.connect_with(config.clone(), served.addr, "localhost").unwrap();
    let first = soon(connect()).await.unwrap();
    // The session ticket comes with or before the first stream that the server opens.
    soon(first.accept_uni()).await.unwrap();
    first.close(0_u32.into(), b"");
    assert!(connect().into_0rtt().is_err(), "the ticket must not allow early data");
}
