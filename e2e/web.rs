//! Browsers: gRPC-Web over both versions of HTTP, and which pages may use it.

use http::{HeaderName, Method, StatusCode, header};
use prost::bytes::Bytes;
use rustix::process::Signal;
use socp::v1::{
    DirectoryEntry, GetServerInfoRequest, GetServerInfoResponse, GetUserRequest, GetUserResponse,
    WatchDirectoryRequest, WatchDirectoryResponse, directory_change::Change,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{
    caller::Caller,
    mesh::{self, Site},
    server::{Server, command},
    soon,
    web::{Frames, Page, VERSIONS, Version, WEB, cors, frame},
    wire::{Wire, refusal, shake},
};

const LISTED: &str = "https://app.example.org";
const OTHER: &str = "https://evil.example.org";

const INFO: &str = "/socp.v1.AccountService/GetServerInfo";
const USER: &str = "/socp.v1.DirectoryService/GetUser";
const WATCH: &str = "/socp.v1.DirectoryService/WatchDirectory";

/// A server that pages of one origin may call.
fn listing() -> (Site, Server) {
    let site = Site::new("server-a");
    site.configure(&format!("web_origins = [\"{LISTED}\"]"));
    let server = site.start();
    (site, server)
}

/// Asks for what a server tells everybody.
#[track_caller]
fn info(page: &mut Page) -> Result<GetServerInfoResponse, Status> {
    Frames::of(page.call(INFO, &GetServerInfoRequest {})).only()
}

#[test]
fn a_program_calls_by_grpc_web_whatever_pages_may() {
    let (_site, server) = mesh::alone();
    for version in VERSIONS {
        let mut program = Page::open(&server, version, None);
        for _ in 0..2 {
            assert_eq!(info(&mut program).expect("anybody may ask").name, "server-a", "{version:?}");
        }
        let answer = program.call(INFO, &GetServerInfoRequest {});
        assert_eq!(cors(&answer), [""; 0], "{version:?}: it is no page");
    }
}

#[test]
fn a_refusal_is_as_typed_as_elsewhere() {
    let (_site, server) = mesh::alone();
    let alice = Caller::new("alice", &server, Wire::Tcp);
    for version in VERSIONS {
        let mut page = Page::open(&server, version, None);
        let nobody = GetUserRequest { user: "nobody".into() };
        let refused = Frames::of(page.call(USER, &nobody)).only::<GetUserResponse>().unwrap_err();
        assert_eq!(refusal(&refused), (Code::Unauthenticated, "TOKEN_INVALID".to_owned()), "{version:?}");
        page.token.clone_from(&alice.token);
        let unknown = Frames::of(page.call(USER, &nobody)).only::<GetUserResponse>().unwrap_err();
        assert_eq!(refusal(&unknown), (Code::NotFound, "USER_NOT_FOUND".to_owned()), "{version:?}");
        for hidden in
            ["/socp.federation.v1.FederationService/Deliver", "/socp.operator.v1.OperatorService/CreateInvite"]
        {
            let refused = Frames::of(page.call(hidden, &nobody)).only::<GetUserResponse>().unwrap_err();
            assert_eq!(refusal(&refused), (Code::Unimplemented, "UNKNOWN_TYPE".to_owned()), "{version:?} {hidden}");
        }
    }
}

/// Reads a watch until its end mark; gives the resume token.
#[track_caller]
fn present(watch: &mut Frames) -> String {
    loop {
        let message: WatchDirectoryResponse = watch.next().expect("the watch goes on");
        if message.end_mark.is_some() {
            return message.resume_token;
        }
    }
}

/// Waits for one that comes online; gives the entry, and the resume token after it.
#[track_caller]
fn added(watch: &mut Frames) -> (DirectoryEntry, String) {
    loop {
        let message: WatchDirectoryResponse = watch.next().expect("the watch goes on");
        if let Some(Change::Added(entry)) = message.changes.first().and_then(|change| change.change.clone()) {
            return (entry, message.resume_token);
        }
    }
}

#[test]
fn a_watch_by_grpc_web_has_its_end_mark_its_changes_and_its_end() {
    let (_site, server) = listing();
    let alice = Caller::new("alice", &server, Wire::Tcp);
    let mut watches = VERSIONS.map(|version| {
        let mut page = Page::open(&server, version, Some(LISTED));
        page.token.clone_from(&alice.token);
        let mut watch = Frames::of(page.call(WATCH, &WatchDirectoryRequest::default()));
        assert!(!present(&mut watch).is_empty());
        (page, watch)
    });
    let _inbox = alice.attach();
    let tokens = watches.each_mut().map(|(_, watch)| {
        let (entry, token) = added(watch);
        assert_eq!(entry.user, "alice@server-a");
        token
    });
    server.program.signal(Signal::TERM);
    for ((_page, watch), token) in watches.iter_mut().zip(tokens) {
        let end = loop {
            if let Err(status) = watch.next::<WatchDirectoryResponse>() {
                break status;
            }
        };
        assert_eq!(refusal(&end), (Code::Unavailable, "DRAINING".to_owned()));
        let info = end.get_details_error_info().expect("it has a reason");
        assert_eq!(info.metadata.get("resume_token").expect("it can be resumed"), &token);
    }
    server.ends_well();
}

#[test]
fn a_page_of_a_listed_origin_may_call_and_read_how_it_went() {
    let (_site, server) = listing();
    for version in VERSIONS {
        let mut page = Page::open(&server, version, Some(LISTED));
        let leave = page.preflight(USER);
        assert_eq!(leave.status(), StatusCode::OK, "{version:?}");
        let told = |name: HeaderName| leave.headers().get(name).map_or("", |value| value.to_str().expect("it is text"));
        assert_eq!(told(header::ACCESS_CONTROL_ALLOW_ORIGIN), LISTED, "{version:?}");
        assert_eq!(told(header::ACCESS_CONTROL_ALLOW_METHODS), "POST", "{version:?}");
        for name in ["authorization", "content-type", "grpc-timeout", "x-grpc-web", "x-user-agent"] {
            assert!(told(header::ACCESS_CONTROL_ALLOW_HEADERS).split(',').any(|allowed| allowed == name), "{name}");
        }
        let answer = page.call(USER, &GetUserRequest { user: "nobody".into() });
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], LISTED, "{version:?}");
        let readable = answer.headers()[header::ACCESS_CONTROL_EXPOSE_HEADERS].to_str().expect("it is text").to_owned();
        assert!(answer.headers().contains_key("grpc-status-details-bin"), "a call that is refused has its status here");
        assert!(readable.split(',').any(|name| name == "grpc-status-details-bin"), "{readable}");
    }
}

#[test]
fn a_page_of_any_other_origin_is_refused_and_told_nothing() {
    let (_site, listing) = listing();
    let (_other_site, listing_nobody) = mesh::alone();
    for (server, origin) in [(&listing, OTHER), (&listing, "null"), (&listing_nobody, LISTED)] {
        for version in VERSIONS {
            let mut page = Page::open(server, version, Some(origin));
            let call = page.call(INFO, &GetServerInfoRequest {});
            assert_eq!((call.status(), cors(&call)), (StatusCode::FORBIDDEN, vec![]), "{version:?} {origin}");
            let leave = page.preflight(INFO);
            assert_eq!((leave.status(), cors(&leave)), (StatusCode::FORBIDDEN, vec![]), "{version:?} {origin}");
            // A browser asks no leave for this kind.
            let plain = [(header::CONTENT_TYPE, "text/plain")];
            let sneaked = page.send(Method::POST, INFO, &plain, frame(&GetServerInfoRequest {}));
            assert_eq!((sneaked.status(), cors(&sneaked)), (StatusCode::FORBIDDEN, vec![]), "{version:?} {origin}");
        }
    }
}

#[test]
fn what_is_no_grpc_web_is_refused_over_http_1() {
    let (_site, server) = mesh::alone();
    let mut program = Page::open(&server, Version::Http1, None);
    let plain = [(header::CONTENT_TYPE, "application/grpc")];
    let refused = program.send(Method::POST, INFO, &plain, frame(&GetServerInfoRequest {}));
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let web = [(header::CONTENT_TYPE, WEB)];
    let refused = program.send(Method::GET, INFO, &web, Bytes::new());
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn a_client_over_http_1_that_never_comes_to_its_request_is_closed() {
    let (_site, server) = mesh::alone();
    let head = format!("POST {INFO} HTTP/1.1\r\nhost: localhost\r\n");
    let said = [String::new(), head.clone(), format!("{head}x: {}\r\n", "a".repeat(20_000))];
    let clients = said.map(|said| {
        soon(async {
            let mut stream = shake(&server, b"http/1.1").await;
            stream.write_all(said.as_bytes()).await.expect("the connection stands");
            stream
        })
    });
    let [_silent, _slow, long] = clients.map(|mut stream| {
        let mut answer = Vec::new();
        // Whether the server takes leave of TLS is of no matter here.
        soon(async { while let Ok(1..) = stream.read_buf(&mut answer).await {} });
        String::from_utf8_lossy(&answer).into_owned()
    });
    assert!(long.starts_with("HTTP/1.1 431"), "{long}");
}

#[test]
fn a_server_stops_while_clients_over_http_1_are_connected() {
    let (_site, server) = mesh::alone();
    let mut idle = Page::open(&server, Version::Http1, None);
    info(&mut idle).expect("anybody may ask");
    let _fresh = soon(shake(&server, b"http/1.1"));
    let _slow = soon(async {
        let mut stream = shake(&server, b"http/1.1").await;
        stream.write_all(format!("POST {INFO} HTTP/1.1\r\n").as_bytes()).await.expect("the connection stands");
        stream
    });
    server.stop();
}

#[test]
fn an_origin_that_no_browser_sends_is_named_with_what_to_write() {
    let site = Site::new("server-a");
    site.configure("web_origins = [\"https://app.example.org/\"]");
    let output = command(&site).output().expect("socp-server runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("`web_origins`") && errors.contains("`https://app.example.org/`"), "{errors}");
    assert!(errors.contains("hint: ") && errors.contains("`https://app.example.org`"), "{errors}");
}
