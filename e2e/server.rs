//! The server as its operator meets it: start, mistakes, commands, drain, and both transports alike.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    process::Output,
};

use rustix::process::Signal;
use socp::v1::{
    AttachRequest, CreateChallengeRequest, DetachRequest, GetChannelKeyRequest, GetServerInfoRequest, GetUserRequest,
    ListSessionsRequest, ListUsersRequest, LogOutRequest, MoveUserRequest, PostToChannelRequest, ReadInboxRequest,
    RotateKeyRequest, SealedPost, SendMessageRequest,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::{
    caller::{Caller, Stream, accounts},
    client::User,
    draft::{readdressed, sealed},
    mesh::{self, Mesh, Site},
    server::command,
    soon,
    wire::{WIRES, Wire, refusal, shake},
};

/// Runs a server that must not come up, and gives its error and hint.
#[track_caller]
fn refuses_to_start(site: &Site) -> String {
    let output = command(site).output().expect("socp-server runs");
    failed(&output)
}

#[track_caller]
fn failed(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("error: ") && errors.contains("\n\nhint: "), "{errors}");
    assert!(output.stdout.is_empty(), "nothing is announced");
    errors
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let site = Site::new("server-a");
    site.configure("");
    for protocol in ["TCP", "UDP"] {
        let _tcp = (protocol == "TCP").then(|| TcpListener::bind(site.client).expect("the port is free"));
        let _udp = (protocol == "UDP").then(|| UdpSocket::bind(site.client).expect("the port is free"));
        let errors = refuses_to_start(&site);
        assert!(errors.contains(&format!("cannot listen on `{}` ({protocol})", site.client)), "{errors}");
        assert!(errors.contains("--listen"), "{errors}");
    }
    let _taken = UdpSocket::bind(site.federation).expect("the port is free");
    let errors = refuses_to_start(&site);
    assert!(errors.contains(&format!("cannot listen on `{}` (UDP)", site.federation)), "{errors}");
    assert!(errors.contains("--federation-listen"), "{errors}");
}

#[test]
fn a_data_folder_in_use_or_open_to_others_is_named_with_what_to_do() {
    let site = Site::new("server-a");
    site.configure("");
    let server = site.start();
    let errors = refuses_to_start(&site);
    assert!(errors.contains(&format!("`{}` is in use by another socp-server", site.data().display())), "{errors}");
    server.stop();
    fs::set_permissions(site.data(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    let errors = refuses_to_start(&site);
    assert!(errors.contains("open to other users") && errors.contains("chmod 700"), "{errors}");
}

#[test]
fn a_key_that_others_can_read_or_that_is_none_is_named_with_what_to_do() {
    let site = Site::new("server-a");
    site.configure("");
    let key = site.data().join("identity-key.pem");
    let named = format!("`{}`", key.display());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("the file is ours");
    let errors = refuses_to_start(&site);
    assert!(errors.contains(&named) && errors.contains("chmod 600"), "{errors}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    fs::write(&key, "no key").expect("the file is ours");
    let errors = refuses_to_start(&site);
    assert!(errors.contains(&named) && errors.contains("backup"), "{errors}");
    // Not a matter of permissions, which count for nothing with some who run tests.
    fs::remove_file(&key).and_then(|()| fs::DirBuilder::new().mode(0o700).create(&key)).expect("the folder is ours");
    let errors = refuses_to_start(&site);
    assert!(errors.contains(&format!("cannot read {named}")), "{errors}");
}

#[test]
fn a_data_folder_that_lost_its_identity_does_not_become_another_server() {
    let site = Site::new("server-a");
    site.configure("");
    let server = site.start();
    Caller::new("alice", &server, Wire::H3);
    server.stop();
    fs::remove_file(site.data().join("identity-key.pem")).expect("the file is ours");
    let errors = refuses_to_start(&site);
    assert!(errors.contains("identity-key.pem") && errors.contains("backup"), "{errors}");
}

#[test]
fn a_configuration_that_cannot_be_used_is_told_by_line_or_key_and_nothing_starts() {
    let site = Site::new("server-a");
    let own = format!("[[peer]]\nname = \"server-b\"\naddress = \"localhost:7444\"\nfingerprint = \"{}\"", site.id);
    for (more, named) in [
        ("nmae = \"x\"", "line 6"),
        ("registration = \"maybe\"", "line 6"),
        ("[timing]\nlink_dead_ms = 600", "`timing.link_dead_ms`"),
        ("[[peer]]\nname = \"server-b\"\naddress = \"localhost\"\nfingerprint = \"00\"", "`peer."),
        (&own, "`peer.fingerprint`"),
    ] {
        site.configure(more);
        let errors = refuses_to_start(&site);
        assert!(errors.contains(named), "{more}: {errors}");
    }
    fs::remove_file(site.config()).expect("the file is ours");
    assert!(refuses_to_start(&site).contains("cannot read the configuration"));
}

#[test]
fn a_configuration_is_checked_without_starting() {
    let site = Site::new("server-a");
    site.configure("");
    let _taken = TcpListener::bind(site.client).expect("the port is free");
    let output = command(&site).arg("--check-config").output().expect("socp-server runs");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("with --json it prints an object");
    assert_eq!(shown["name"], "server-a");
    assert_eq!(shown["listen"], site.client.to_string());
    assert!(!site.data().join("socp.db").exists(), "nothing was made");
    site.configure("nmae = \"x\"");
    failed(&command(&site).arg("--check-config").output().expect("socp-server runs"));
}

#[test]
fn a_server_that_takes_any_port_tells_the_ones_it_took() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut command = crate::harness::binaries::server();
    command.args(["--json", "--listen", "127.0.0.1:0", "--federation-listen", "127.0.0.1:0"]);
    command.args(["--metrics-listen", "127.0.0.1:0", "--data"]);
    command.arg(folder.path().join("data"));
    let mut program = crate::harness::program::Program::start("a server on any port", &mut command);
    let told = program.expect("that it listens", |event| event["event"] == "listening");
    for key in ["client", "federation", "metrics"] {
        let address: std::net::SocketAddr = told[key].as_str().expect("an address").parse().expect("an address");
        assert_ne!(address.port(), 0);
        let is_free =
            if key == "metrics" { TcpListener::bind(address).is_ok() } else { UdpSocket::bind(address).is_ok() };
        assert!(!is_free, "{key} is taken");
    }
    assert_eq!(told["registration"], "open", "on loopback");
}

#[test]
fn sigterm_ends_a_server_with_goodbye_clean_streams_and_exit_code_0() {
    let mut mesh = Mesh::started(&[0, 1]);
    let mut alice = User::register("alice", &mesh[0]).chat();
    let bob = Caller::new("bob", &mesh[1], Wire::Tcp);
    let mut inbox = bob.attach();
    let carol = Caller::new("carol", &mesh[1], Wire::H3);
    let mut watch = carol.watch("").expect("the token is good");
    alice.shows("bob@server-b");
    mesh.stop(1);
    assert_eq!(refusal(&inbox.end()), (Code::Unavailable, "DRAINING".to_owned()));
    assert_eq!(refusal(&watch.end()), (Code::Unavailable, "DRAINING".to_owned()));
    // By the goodbye: a link that breaks without one is only lost after its grace.
    alice.removed("bob@server-b", "unreachable");
    let mut only = Mesh::started(&[0]);
    only.stop(0);
}

#[test]
fn sigint_ends_a_server_as_sigterm_does() {
    let (_site, mut server) = mesh::alone();
    server.program.signal(Signal::INT);
    assert_eq!(server.program.wait().code(), Some(0), "{}", server.program.log());
}

#[test]
fn the_operator_lists_disables_and_enables_users() {
    let (_site, server) = mesh::alone();
    let alice = User::register("alice", &server);
    let bob = User::register("bob", &server);
    let mut watch = bob.watch();
    let mut chat = alice.chat();
    watch.added("alice@server-a");
    let users = server.asked(&["users"]);
    let row = |index: usize, key: &str| users[index][key].clone();
    assert_eq!((row(0, "name"), row(0, "online"), row(0, "disabled")), ("alice".into(), true.into(), false.into()));
    assert_eq!((row(1, "name"), row(1, "online")), ("bob".into(), false.into()));
    server.asked(&["disable", "alice"]);
    watch.removed("alice@server-a", "left");
    assert_eq!(chat.wait().code(), Some(1), "{}", chat.log());
    assert!(chat.log().contains("USER_DISABLED"), "{}", chat.log());
    let refused = alice.run(&["list"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("USER_DISABLED"));
    server.asked(&["enable", "alice"]);
    let _again = alice.chat();
    watch.added("alice@server-a");
    let unknown = server.operator(&["disable", "nobody"]);
    let errors = String::from_utf8_lossy(&unknown.stderr);
    assert_eq!(unknown.status.code(), Some(1), "{errors}");
    assert!(errors.contains("`nobody`") && errors.contains("hint: "), "{errors}");
    let gone = server.data.clone();
    server.stop();
    let output = crate::harness::binaries::server().arg("users").arg("--data").arg(&gone).output().expect("it runs");
    assert!(failed(&output).contains("no socp-server answers"));
}

#[test]
fn health_turns_not_serving_when_a_server_drains() {
    for wire in WIRES {
        let (_site, mut server) = mesh::alone();
        let channel = soon(wire.connect(&server));
        let mut health = HealthClient::new(channel);
        let check = soon(health.check(HealthCheckRequest::default())).expect("no token is asked for").into_inner();
        assert_eq!(check.status(), ServingStatus::Serving, "{wire}");
        let watch = soon(health.watch(HealthCheckRequest::default())).expect("no token is asked for");
        let mut watch = Stream(watch.into_inner());
        assert_eq!(watch.next().status(), ServingStatus::Serving, "{wire}");
        server.program.signal(Signal::TERM);
        assert_eq!(watch.next().status(), ServingStatus::NotServing, "{wire}");
        assert_eq!(server.program.wait().code(), Some(0));
    }
}

const CLIENT_SERVICES: [&str; 3] = ["socp.v1.AccountService", "socp.v1.DirectoryService", "socp.v1.MessageService"];

#[test]
fn reflection_lists_client_services_only_and_asks_for_no_token() {
    let (_site, server) = mesh::alone();
    for wire in WIRES {
        let channel = soon(wire.connect(&server));
        let request = v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        };
        let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
        let answers = soon(client.server_reflection_info(tokio_stream::once(request))).expect("no token is asked for");
        let answer = Stream(answers.into_inner()).next().message_response;
        let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) = answer else {
            panic!("{answer:?}");
        };
        let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        only_client_services(wire, &names);

        let request = v1alpha::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
        };
        let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
        let answers = soon(client.server_reflection_info(tokio_stream::once(request))).expect("no token is asked for");
        let answer = Stream(answers.into_inner()).next().message_response;
        let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) = answer else {
            panic!("{answer:?}");
        };
        let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        only_client_services(wire, &names);
    }
}

fn only_client_services(wire: Wire, names: &[String]) {
    for service in CLIENT_SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
        assert!(names.iter().any(|name| name == service), "{wire}: {service} in {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("federation") || name.contains("operator")), "{wire}: {names:?}");
}

/// What a call comes to, without what differs from one call to the next.
fn outcome<T: std::fmt::Debug>(call: &str, result: Result<tonic::Response<T>, Status>) -> String {
    match result {
        Ok(answer) => format!("{call}: {:?}", answer.into_inner()),
        Err(status) => format!("{call}: {:?}, {}", refusal(&status), status.message()),
    }
}

/// Calls each method of each client service, well and badly.
fn table(caller: &Caller) -> Vec<String> {
    let request = |user: &str| caller.request(GetUserRequest { user: user.into() });
    let users = || caller.request(ListUsersRequest::default());
    let (mut accounts, mut directory, mut messages) =
        (accounts(&caller.channel), caller.directory(), caller.messages());
    let message = sealed(caller, &caller.address, caller.key.public(), "to me");
    let message = readdressed(&message, &caller.key, |header| header.require_online = true);
    let message = SendMessageRequest { message: Some(message) };
    let post = PostToChannelRequest { post: Some(SealedPost::default()), wraps: Vec::new() };
    let (sender, sender_home_id) = ("alice".into(), caller.address.home.to_string());
    let key = GetChannelKeyRequest { sender, sender_home_id, key_id: vec![1; 16].into() };
    let status = "x".repeat(257);
    let badly = ReadInboxRequest { before_cursor: "x".into() };
    soon(async {
        let info = accounts.get_server_info(GetServerInfoRequest {}).await;
        let info = info.map(|answer| answer.map(|info| socp::v1::GetServerInfoResponse { time_unix_ms: 0, ..info }));
        let challenge = accounts.create_challenge(CreateChallengeRequest { user: "alice".into() }).await;
        // A stream that is refused may say so in its head or after it.
        let attached = match messages.attach(caller.request(AttachRequest { status, ..AttachRequest::default() })).await
        {
            Ok(stream) => stream.into_inner().message().await.map(tonic::Response::new),
            Err(status) => Err(status),
        };
        let sessions = accounts.list_sessions(caller.request(ListSessionsRequest {})).await;
        vec![
            outcome("GetServerInfo", info),
            outcome("CreateChallenge", challenge.map(|answer| answer.map(|given| given.nonce.len()))),
            outcome("CreateChallenge badly", accounts.create_challenge(CreateChallengeRequest::default()).await),
            outcome("Register nothing", accounts.register(socp::v1::RegisterRequest::default()).await),
            outcome("LogIn with nothing", accounts.log_in(socp::v1::LogInRequest::default()).await),
            outcome("ListSessions", sessions.map(|answer| answer.map(|list| list.sessions.is_empty()))),
            outcome("RotateKey nothing", accounts.rotate_key(caller.request(RotateKeyRequest::default())).await),
            outcome("MoveUser nothing", accounts.move_user(caller.request(MoveUserRequest::default())).await),
            outcome("ListUsers", directory.list_users(users()).await),
            outcome("GetUser", directory.get_user(request("alice@server-a")).await),
            outcome("GetUser unknown", directory.get_user(request("nobody")).await),
            outcome("GetUser elsewhere", directory.get_user(request("alice@nowhere")).await),
            outcome("GetUser badly", directory.get_user(request("A!")).await),
            outcome("Attach badly", attached),
            outcome("ReadInbox", messages.read_inbox(caller.request(ReadInboxRequest::default())).await),
            outcome("ReadInbox badly", messages.read_inbox(caller.request(badly)).await),
            outcome("SendMessage", messages.send_message(caller.request(message)).await),
            outcome("SendMessage nothing", messages.send_message(caller.request(SendMessageRequest::default())).await),
            outcome("GetChannelKey", messages.get_channel_key(caller.request(key)).await),
            outcome("GetChannelKey badly", messages.get_channel_key(caller.request(Default::default())).await),
            outcome("PostToChannel badly", messages.post_to_channel(caller.request(post)).await),
            outcome("Detach", messages.detach(caller.request(DetachRequest {})).await),
            outcome("Detach again", messages.detach(caller.request(DetachRequest {})).await),
            outcome("LogOut", accounts.log_out(caller.request(LogOutRequest::default())).await),
            outcome("LogOut again", accounts.log_out(caller.request(LogOutRequest::default())).await),
        ]
    })
}

#[test]
fn all_client_services_work_the_same_over_tcp_and_over_http3() {
    let (_site, server) = mesh::alone();
    let bob = Caller::new("bob", &server, Wire::H3);
    let _inbox = bob.attach();
    let [tcp, h3] = WIRES.map(|wire| table(&Caller::new("alice", &server, wire)));
    assert_eq!(tcp, h3);
    let refused = tcp.iter().filter(|line| line.contains("not_found") || line.contains(", \"")).count();
    assert!(refused >= 8, "the table has both kinds: {tcp:#?}");
}

#[test]
fn a_client_that_never_begins_to_speak_http2_is_closed() {
    let (_site, server) = mesh::alone();
    let clients = ["", "PRI * HTTP/2.0"].map(|said| {
        soon(async {
            let mut stream = shake(&server, b"h2").await;
            stream.write_all(said.as_bytes()).await.expect("the connection stands");
            stream
        })
    });
    for mut stream in clients {
        let mut heard = Vec::new();
        soon(async { while let Ok(1..) = stream.read_buf(&mut heard).await {} });
    }
}
