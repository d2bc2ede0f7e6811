//! Requests that are refused, as clients see it.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use prost::bytes::Bytes;
use socp::{
    federation::v1::{RemoveRequest, federation_service_client::FederationServiceClient},
    v1,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{Home, Key, Login, Memory, listen, next, reason, sealed, soon, start, start_on};

#[tokio::test]
async fn whoever_has_no_good_token_is_told_so_by_every_call() {
    let home = Home::new("server-a");
    let server = start(&home, &[]);
    let strangers = [Login { token: "x".repeat(64) }, Login { token: String::new() }];
    for stranger in &strangers {
        let mut ends = Vec::new();
        ends.push(server.accounts().list_sessions(stranger.with(Default::default())).await.err());
        ends.push(server.accounts().log_out(stranger.with(Default::default())).await.err());
        ends.push(server.directories().watch_directory(stranger.with(Default::default())).await.err());
        ends.push(server.directories().list_users(stranger.with(Default::default())).await.err());
        ends.push(server.directories().get_user(stranger.with(Default::default())).await.err());
        ends.push(server.messages().detach(stranger.with(Default::default())).await.err());
        let message = Some(sealed(("a", home.id(), Key::one()), ("b", home.id(), Key::one()), 1));
        ends.push(server.messages().send_message(stranger.with(v1::SendMessageRequest { message })).await.err());
        ends.push(server.messages().attach(stranger.with(Default::default())).await.err());
        for (call, end) in ends.into_iter().enumerate() {
            let status = end.unwrap_or_else(|| panic!("call {call} was answered"));
            assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "TOKEN_INVALID"), "{call}");
        }
    }
}

#[tokio::test]
async fn each_bad_registration_and_login_has_its_reason() {
    let (home, elsewhere) = (Home::new("server-a"), Home::new("server-b"));
    let server = start(&home, &[]);
    let register = async |change: fn(&mut v1::SignedKeyStatement)| {
        let mut statement = Key::one().key_statement("alice", home.id());
        change(&mut statement);
        let request = v1::RegisterRequest { key_statement: Some(statement), ..Default::default() };
        reason(&server.accounts().register(request).await.unwrap_err())
    };
    let forged = |statement: &mut v1::SignedKeyStatement| statement.signature = vec![1; 512].into();
    assert_eq!(register(forged).await, "INVALID_SIG");
    assert_eq!(register(|statement| statement.signature = Bytes::new()).await, "INVALID_SIG");
    assert_eq!(register(|statement| statement.signature = vec![1; 9_000].into()).await, "TOO_LARGE");
    assert_eq!(register(|statement| statement.statement = Bytes::from_static(b"x")).await, "STATEMENT_INVALID");
    let absent = server.accounts().register(v1::RegisterRequest::default()).await.unwrap_err();
    assert_eq!(reason(&absent), "STATEMENT_INVALID");

    server.register("alice", Key::one()).await.unwrap();
    server.register("alice", Key::one()).await.expect("the same again is answered alike");
    assert_eq!(reason(&server.register("alice", Key::other()).await.unwrap_err()), "NAME_IN_USE");

    let log_in = async |server_id, user, key| match server.log_in_for(server_id, user, key).await {
        Ok(_) => "OK".to_owned(),
        Err(status) => reason(&status),
    };
    assert_eq!(log_in(home.id(), "alice", Key::other()).await, "INVALID_SIG");
    assert_eq!(log_in(elsewhere.id(), "alice", Key::one()).await, "WRONG_SERVER");
    assert_eq!(log_in(home.id(), "nobody", Key::one()).await, "USER_NOT_FOUND");
    assert_eq!(log_in(home.id(), "alice", Key::one()).await, "OK");
    let bad_name = server.accounts().create_challenge(v1::CreateChallengeRequest { user: "A".to_owned() }).await;
    assert_eq!(reason(&bad_name.unwrap_err()), "NAME_INVALID");
}

#[tokio::test]
async fn each_bad_message_has_its_reason() {
    let home = Home::new("server-a");
    let server = start(&home, &[]);
    let alice = server.user("alice", Key::one()).await;
    let id = home.id();
    let (from, to) = (("alice", id, Key::one()), ("bob", id, Key::other()));
    let send = async |message: Option<v1::SealedMessage>| {
        let request = alice.with(v1::SendMessageRequest { message });
        reason(&server.messages().send_message(request).await.unwrap_err())
    };
    assert_eq!(send(Some(sealed(from, ("nobody", id, Key::other()), 1))).await, "USER_NOT_FOUND");
    server.register("bob", Key::other()).await.unwrap();
    assert_eq!(send(Some(sealed(("bob", id, Key::other()), to, 2))).await, "SENDER_MISMATCH");
    let forged = v1::SealedMessage { signature: vec![1; 512].into(), ..sealed(from, to, 3) };
    assert_eq!(send(Some(forged)).await, "INVALID_SIG");
    assert_eq!(send(None).await, "INVALID_SIG");
    let large = v1::SealedMessage { statement: vec![0; 70_000].into(), ..sealed(from, to, 4) };
    assert_eq!(send(Some(large)).await, "TOO_LARGE");
}

#[tokio::test]
async fn a_request_larger_than_its_service_takes_is_refused_before_it_is_read() {
    let home = Home::new("server-a");
    let server = start(&home, &[]);
    let request = v1::RegisterRequest { invite: "x".repeat(40_000), ..Default::default() };
    let end = server.accounts().register(request).await.unwrap_err();
    assert_eq!((end.code(), reason(&end).as_str()), (Code::ResourceExhausted, "TOO_LARGE"));
    // Of who has no session no more than a piece is read, however large the request.
    let post = v1::SealedPost { statement: vec![0; 5 << 20].into(), ..Default::default() };
    let request = v1::PostToChannelRequest { post: Some(post), ..Default::default() };
    let stranger = Login { token: String::new() };
    let end = server.messages().post_to_channel(stranger.with(request)).await.unwrap_err();
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unauthenticated, "TOKEN_INVALID"));
}

#[tokio::test]
async fn a_client_finds_no_federation_method() {
    let home = Home::new("server-a");
    let server = start(&home, &[]);
    let mut client = FederationServiceClient::new(server.routes.clone());
    let end = client.remove(tokio_stream::iter([RemoveRequest::default()])).await.unwrap_err();
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unimplemented, "UNKNOWN_TYPE"));
}

#[tokio::test]
async fn a_watch_with_a_bad_filter_or_token_is_refused_with_its_reason() {
    let home = Home::new("server-a");
    let server = start(&home, &[]);
    let alice = server.user("alice", Key::one()).await;
    let watch = async |request: v1::WatchDirectoryRequest| {
        reason(&server.directories().watch_directory(alice.with(request)).await.unwrap_err())
    };
    let token = |text: &str| v1::WatchDirectoryRequest { resume_token: text.to_owned(), ..Default::default() };
    assert_eq!(watch(token("nonsense")).await, "RESUME_TOKEN_INVALID");
    let filter = v1::DirectoryFilter { users: vec!["A".to_owned()], ..Default::default() };
    assert_eq!(watch(v1::WatchDirectoryRequest { filter: Some(filter), ..Default::default() }).await, "NAME_INVALID");
    assert_eq!(watch(v1::WatchDirectoryRequest { keys: 7, ..Default::default() }).await, "UNKNOWN_TYPE");
    let list = v1::ListUsersRequest { page_token: "x".to_owned(), ..Default::default() };
    let status = server.directories().list_users(alice.with(list)).await.unwrap_err();
    assert_eq!(reason(&status), "STATEMENT_INVALID");
}

#[tokio::test]
async fn the_second_stream_of_a_session_replaces_the_first() {
    let home = Home::new("server-a");
    let server = start(&home, &[]);
    let alice = server.user("alice", Key::one()).await;
    let mut watch = server.watch(&alice).await;
    let mut first = server.attach(&alice).await;
    let _second = server.attach(&alice).await;
    assert_eq!(reason(&next(&mut first).await.unwrap_err()), "REPLACED");
    drop(first);
    watch.until("+alice@server-a").await;
    server.messages().detach(alice.with(Default::default())).await.unwrap();
    assert_eq!(watch.until("-alice@server-a LEFT").await, Vec::<String>::new(), "the late end removed nobody");
}

#[tokio::test]
async fn a_store_that_fails_stops_the_driver_and_nobody_is_told_what_is_not_on_disk() {
    let home = Home::new("server-a");
    let full = Memory::full();
    let server = start_on(&home, listen(&home, &[]), &[], full);
    let status = soon(server.register("alice", Key::one())).await.unwrap_err();
    assert_eq!(reason(&status), "SERVER_FAILED");
    assert!(!status.message().contains("disk"), "the cause is the operator's");
    let after = soon(server.accounts().create_challenge(v1::CreateChallengeRequest { user: "bob".to_owned() })).await;
    assert_eq!(reason(&after.unwrap_err()), "SERVER_FAILED");
    assert!(server.handle.counters().inputs.load(Ordering::Relaxed) > 0);
    let error = soon(server.running.ended()).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("no room on the disk"), "{cause}");
}

#[tokio::test]
async fn the_list_pages_through_those_who_are_online() {
    let home = Home::new("server-a");
    let server = start(&home, &[]);
    let mut open = BTreeMap::new();
    for user in ["carol", "alice", "bob"] {
        let login = server.user(user, Key::one()).await;
        let events = server.attach(&login).await;
        open.insert(user, (login, events));
    }
    let (login, _) = &open["alice"];
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListUsersRequest { page_size: 2, page_token, ..Default::default() };
        let page = server.directories().list_users(login.with(request)).await.unwrap().into_inner();
        names.extend(page.users.into_iter().map(|user| user.user));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["alice@server-a", "bob@server-a", "carol@server-a"]);
}

#[tokio::test]
async fn a_watch_whose_session_is_over_ends_within_two_bookmarks() {
    let home = Home::new("server-a");
    let server = start(&home, &[]);
    let alice = server.user("alice", Key::one()).await;
    let mut watch = server.watch(&alice).await;
    assert_eq!(watch.next().await.unwrap(), "=0");
    server.accounts().log_out(alice.with(Default::default())).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_millis(socp_server::limits::AUTHORIZE_MS)).await;
    tokio::time::resume();
    let end = watch.next().await.unwrap_err();
    assert_eq!(reason(&end), "TOKEN_INVALID");
    assert!(end.get_error_details().error_info().unwrap().metadata.contains_key("resume_token"));
}
