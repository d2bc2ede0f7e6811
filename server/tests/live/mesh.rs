//! Two servers federate.

use prost::Message as _;
use socp::v1::{OutcomeKind, OutcomeStatement, SendMessageRequest, attach_response::Event};

use crate::support::{Home, Key, Memory, listen, next, sealed, soon, start, start_on};

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_comes_and_goes_is_shown_and_removed_on_both_servers() {
    let (a, b) = (Home::new("server-a"), Home::new("server-b"));
    let server_a = start(&a, &[(&b, None)]);
    let server_b = start(&b, &[(&a, Some(server_a.federation))]);
    let alice = server_a.user("alice", Key::one()).await;
    let bob = server_b.user("bob", Key::other()).await;
    let (mut at_a, mut at_b) = (server_a.watch(&alice).await, server_b.watch(&bob).await);
    assert_eq!(at_a.next().await.unwrap(), "=0", "watching makes nobody online");
    assert_eq!(at_b.next().await.unwrap(), "=0");

    let alice_events = server_a.attach(&alice).await;
    assert_eq!(at_a.next().await.unwrap(), "+alice@server-a");
    assert_eq!(at_b.next().await.unwrap(), "+alice@server-a");
    let _bob_events = server_b.attach(&bob).await;
    assert_eq!(at_a.next().await.unwrap(), "+bob@server-b");
    assert_eq!(at_b.next().await.unwrap(), "+bob@server-b");

    server_a.messages().detach(alice.with(Default::default())).await.unwrap();
    assert_eq!(at_b.next().await.unwrap(), "-alice@server-a LEFT");
    assert_eq!(at_a.next().await.unwrap(), "-alice@server-a LEFT");
    drop(alice_events);

    let broken = server_a.attach(&alice).await;
    assert_eq!(at_b.next().await.unwrap(), "+alice@server-a");
    drop(broken);
    assert_eq!(at_b.next().await.unwrap(), "-alice@server-a LEFT", "after the grace");
    server_a.drain().await;
    server_b.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_reaches_a_user_of_another_server_and_its_home_says_so() {
    let (a, b) = (Home::new("server-a"), Home::new("server-b"));
    let server_a = start(&a, &[(&b, None)]);
    let server_b = start(&b, &[(&a, Some(server_a.federation))]);
    let alice = server_a.user("alice", Key::one()).await;
    let bob = server_b.user("bob", Key::other()).await;
    let mut at_a = server_a.watch(&alice).await;
    let mut events = server_b.attach(&bob).await;
    at_a.until("+bob@server-b").await;

    let message = sealed(("alice", a.id(), Key::one()), ("bob", b.id(), Key::other()), 1);
    for _ in 0..2 {
        let request = alice.with(SendMessageRequest { message: Some(message.clone()) });
        let answer = soon(server_a.messages().send_message(request)).await.unwrap().into_inner();
        let statement = OutcomeStatement::decode(&answer.outcome.unwrap().statement[..]).unwrap();
        assert_eq!(statement.outcomes[0].kind(), OutcomeKind::HandedOver);
    }
    let Some(Event::Message(received)) = next(&mut events).await.unwrap().event else { panic!() };
    assert_eq!(received.message.unwrap(), message);
    let other = sealed(("alice", a.id(), Key::one()), ("bob", b.id(), Key::other()), 2);
    let request = alice.with(SendMessageRequest { message: Some(other.clone()) });
    soon(server_a.messages().send_message(request)).await.unwrap();
    let Some(Event::Message(received)) = next(&mut events).await.unwrap().event else { panic!() };
    assert_eq!(received.message.unwrap(), other, "the retry was not delivered again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_has_its_users_removed_and_returns_with_them() {
    let (a, b) = (Home::new("server-a"), Home::new("server-b"));
    let server_a = start(&a, &[(&b, None)]);
    let server_b = start(&b, &[(&a, Some(server_a.federation))]);
    let alice = server_a.user("alice", Key::one()).await;
    let bob = server_b.user("bob", Key::other()).await;
    let mut at_a = server_a.watch(&alice).await;
    let mut at_b = server_b.watch(&bob).await;
    let mut events = server_b.attach(&bob).await;
    at_a.until("+bob@server-b").await;
    at_b.until("+bob@server-b").await;

    server_b.drain().await;
    let told = at_a.next().await.unwrap();
    assert!(told.starts_with("-bob@server-b"), "{told}");
    assert_eq!(crate::support::reason(&next(&mut events).await.unwrap_err()), "DRAINING");
    let end = loop {
        if let Err(end) = at_b.next().await {
            break end;
        }
    };
    assert_eq!(crate::support::reason(&end), "DRAINING");

    let server_b = start(&b, &[(&a, Some(server_a.federation))]);
    let bob = server_b.user("bob", Key::other()).await;
    let _events = server_b.attach(&bob).await;
    assert_eq!(at_a.until("+bob@server-b").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_dial_each_other_settle_on_one_link_and_lose_nobody() {
    for _ in 0..3 {
        let (a, b) = (Home::new("server-a"), Home::new("server-b"));
        let (port_a, port_b) = (listen(&a, &[&b]), listen(&b, &[&a]));
        let (address_a, address_b) = (port_a.local_addr(), port_b.local_addr());
        let server_a = start_on(&a, port_a, &[(&b, Some(address_b))], Memory::default());
        let server_b = start_on(&b, port_b, &[(&a, Some(address_a))], Memory::default());
        let alice = server_a.user("alice", Key::one()).await;
        let bob = server_b.user("bob", Key::other()).await;
        let (mut at_a, mut at_b) = (server_a.watch(&alice).await, server_b.watch(&bob).await);
        let (mut events, _bob_events) = (server_a.attach(&alice).await, server_b.attach(&bob).await);
        at_a.until("+bob@server-b").await;
        // The order is that in which their homes' words came.
        if !at_b.until("+alice@server-a").await.contains(&"+bob@server-b".to_owned()) {
            at_b.until("+bob@server-b").await;
        }
        for _ in 0..3 {
            server_a.messages().detach(alice.with(Default::default())).await.unwrap();
            assert_eq!(at_b.next().await.unwrap(), "-alice@server-a LEFT");
            events = server_a.attach(&alice).await;
            assert_eq!(at_b.next().await.unwrap(), "+alice@server-a");
        }
        server_a.drain().await;
        let removed = at_b.next().await.unwrap();
        assert!(removed.starts_with("-alice@server-a"), "{removed}");
        server_b.drain().await;
        drop(events);
    }
}
