//! Peers that do not keep to the rules.

use std::time::Duration;

use futures_util::future::join_all;
use socp::federation::v1::{
    AdvertiseFrame, AdvertiseRequest, DeliverRequest, Hello, RemoveRequest, advertise_frame::Kind,
    federation_service_client::FederationServiceClient,
};
use socp_quic::Channel;
use socp_server::tls;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::Code;

use crate::support::{Home, Key, Server, reason, soon, start};

async fn dial(from: &Home, to: &Home, server: &Server) -> Result<Channel, socp_quic::ConnectError> {
    let tls = tls::federation_dialler(&from.identity, [to.id()]);
    Channel::builder(server.federation, "socp", tls).one_connection().connect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_pinned_gets_nowhere() {
    let (a, b, rogue) = (Home::new("server-a"), Home::new("server-b"), Home::new("server-b"));
    let server = start(&a, &[(&b, None)]);
    let silent = tokio_stream::pending::<RemoveRequest>();
    let refused = match dial(&rogue, &a, &server).await {
        Err(_) => true,
        // In TLS 1.3 the dialling side may be done before it is refused; its first call tells.
        Ok(channel) => soon(FederationServiceClient::new(channel).remove(silent)).await.is_err(),
    };
    assert!(refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_all_three_streams_is_refused_and_a_second_stream_of_a_kind_too() {
    let (a, b) = (Home::new("server-a"), Home::new("server-b"));
    let server = start(&a, &[(&b, None)]);
    let client = FederationServiceClient::new(dial(&b, &a, &server).await.unwrap());
    let (mut one, mut two) = (client.clone(), client);
    let alone = one.remove(tokio_stream::pending::<RemoveRequest>());
    let again = two.remove(tokio_stream::pending::<RemoveRequest>());
    let (alone, again) = soon(async { tokio::join!(alone, again) }).await;
    let mut reasons = [reason(&alone.unwrap_err()), reason(&again.unwrap_err())];
    reasons.sort();
    assert_eq!(reasons, ["TIMEOUT", "TOO_MANY"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_takes_few_places_with_connections_that_do_nothing_and_for_seconds_only() {
    let (a, b, c) = (Home::new("server-a"), Home::new("server-b"), Home::new("server-c"));
    let server = start(&a, &[(&b, None), (&c, None)]);
    let end = async |from: &Home| match dial(from, &a, &server).await {
        Ok(channel) => soon(channel.connection().unwrap().closed()).await.to_string(),
        // It was closed before it was of use.
        Err(error) => error.to_string(),
    };
    let (ends, other) = soon(async { tokio::join!(join_all((0..20).map(|_| end(&b))), end(&c)) }).await;
    let no_request = "no request was under way";
    let (kept, refused): (Vec<_>, Vec<_>) = ends.into_iter().partition(|end| end.contains(no_request));
    assert_eq!(kept.len(), 16, "{refused:?}");
    assert!(refused.iter().all(|end| end.contains("too many connections of one peer")), "{refused:?}");
    assert!(other.contains(no_request), "another peer has its own places: {other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_another_major_version_is_told_both_versions() {
    let (a, b) = (Home::new("server-a"), Home::new("server-b"));
    let server = start(&a, &[(&b, None)]);
    let client = FederationServiceClient::new(dial(&b, &a, &server).await.unwrap());
    let hello = Hello {
        version_major: 2,
        name: "server-b".to_owned(),
        epoch: 1,
        start_id: vec![1; 16].into(),
        ..Default::default()
    };
    let (frames, sent) = mpsc::channel(8);
    frames.send(AdvertiseRequest { frame: Some(AdvertiseFrame { kind: Some(Kind::Hello(hello)) }) }).await.unwrap();
    let (mut one, mut two, mut three) = (client.clone(), client.clone(), client);
    let (advertise, _remove, _deliver) = soon(async {
        tokio::try_join!(
            one.advertise(ReceiverStream::new(sent)),
            two.remove(tokio_stream::pending::<RemoveRequest>()),
            three.deliver(tokio_stream::pending::<DeliverRequest>())
        )
    })
    .await
    .unwrap();
    let mut advertise = advertise.into_inner();
    let first = soon(advertise.next()).await.unwrap().unwrap().frame.unwrap().kind;
    assert!(matches!(first, Some(Kind::Hello(_))), "the server's own hello comes first");
    let end = soon(advertise.next()).await.unwrap().unwrap_err();
    assert_eq!((end.code(), reason(&end).as_str()), (Code::FailedPrecondition, "VERSION_MISMATCH"));
    let parting = socp_server::status::parting_of_status(&end);
    assert!(parting.text.contains("ours=1.0; theirs=2.0"), "{}", parting.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_falls_silent_loses_its_link_and_one_bad_frame_does_not() {
    let (a, b) = (Home::new("server-a"), Home::new("server-b"));
    let server = start(&a, &[(&b, None)]);
    let client = FederationServiceClient::new(dial(&b, &a, &server).await.unwrap());
    let (frames, sent) = mpsc::channel(8);
    let hello = Hello {
        version_major: 1,
        name: "server-b".to_owned(),
        epoch: 1,
        start_id: vec![1; 16].into(),
        ..Default::default()
    };
    for kind in
        [None, Some(Kind::Batch(Default::default())), Some(Kind::Hello(hello)), Some(Kind::Batch(Default::default()))]
    {
        frames.send(AdvertiseRequest { frame: Some(AdvertiseFrame { kind }) }).await.unwrap();
    }
    let (mut one, mut two, mut three) = (client.clone(), client.clone(), client);
    let (advertise, remove, _deliver) = soon(async {
        tokio::try_join!(
            one.advertise(ReceiverStream::new(sent)),
            two.remove(tokio_stream::pending::<RemoveRequest>()),
            three.deliver(tokio_stream::pending::<DeliverRequest>())
        )
    })
    .await
    .unwrap();
    let mut keep_alives = 0;
    let mut remove = remove.into_inner();
    let end = loop {
        match soon(remove.next()).await.expect("it ends with a status") {
            Ok(_) => keep_alives += 1,
            Err(end) => break end,
        }
    };
    assert!(keep_alives > 2, "the link outlived the bad frames");
    assert_eq!(reason(&end), "TIMEOUT");
    drop(advertise);
    let alice = server.user("alice", Key::one()).await;
    let events = server.attach(&alice).await;
    tokio::time::timeout(Duration::from_secs(1), async { drop(events) }).await.unwrap();
}
