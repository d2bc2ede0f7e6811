//! Floods over real sockets, by a client and by a peer: what is bad is refused with a reason, at bounded cost, and nobody else
//! notices anything.

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    thread::{self, JoinHandle},
};

use futures_util::future::join_all;
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::{Message as _, bytes::Bytes};
use serde_json::Value;
use socp::{
    federation::v1::{
        AdvertiseFrame, DeliverFrame, MessageDelivery, RemoveFrame, SignedBatch, advertise_frame, deliver_frame,
        remove_frame,
    },
    input,
    limits::{MESSAGE_STATEMENT_BYTES_MAX, NONCES_PER_USER_MAX, REFUSED_FRAMES_MAX},
    message::Address,
    statement::encode_login,
    v1::{CreateChallengeRequest, DetachRequest, LogInRequest, SealedMessage, SendMessageRequest},
};
use socp_server::limits::{
    ACCOUNT_REQUEST_BYTES_MAX, DIRECTORY_REQUEST_BYTES_MAX, FEDERATION_MESSAGE_BYTES_MAX, MESSAGE_REQUEST_BYTES_MAX,
    REQUESTS_BYTES_PER_CONNECTION_MAX,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, body::Body};
use tower::ServiceExt as _;

use crate::harness::{
    caller::{Caller, accounts, login, name, statement},
    client::{Live, User, changes},
    draft::{flipped, sealed},
    keys,
    mesh::{self, Mesh, Site},
    metrics::Scrape,
    peer::Peer,
    raw,
    server::Server,
    soon,
    wire::{Channel, WIRES, Wire, reason},
};

/// Each comes with a coming and going of honest users, at this server and at another.
const WAVES: usize = 4;

/// Calls of one connection in a wave: twice as many as it may have open at once.
const CALLS: usize = 200;

/// Connections of one transport.
const CONNECTIONS: usize = 2;

/// What a server may hold more after a flood than before it.
const MORE_BYTES_MAX: f64 = 64.0 * 1024.0 * 1024.0;

fn resident(server: &Server) -> f64 {
    Scrape::of(server).number("process_resident_memory_bytes", &[])
}

/// How many frames a server refused on the link to another, which stands. That it stood all the time shows in the watch; what is told
/// of why a link ended last may still be of the beginning, when both sides dialled and one of the two links was given up.
#[track_caller]
fn link(server: &Server, other: &str) -> Value {
    let peers = server.asked(&["peers"]);
    let peer = peers.into_iter().find(|peer| peer["name"] == other).expect("every pinned server is listed");
    assert_eq!(peer["reach"], "linked", "{peer}");
    peer["refused_frames"].clone()
}

/// Comes and goes; the watcher is told of both.
#[track_caller]
fn come_and_go(caller: &Caller, label: &str, watch: &mut Live) {
    let _inbox = caller.attach();
    watch.added(label);
    soon(caller.messages().detach(caller.request(DetachRequest {}))).expect("the token is good");
    watch.removed(label, "left");
}

/// One call that is to be refused.
#[derive(Clone)]
struct Bad {
    what: &'static str,
    path: &'static str,
    token: String,
    message: Bytes,
    reason: &'static str,
}

/// A user of the home, who has a good token, and what they call with it and without.
struct Flood {
    channels: Vec<Channel>,
    calls: Vec<Bad>,
}

/// What a call came to, and what it had to.
struct Refused {
    what: &'static str,
    expected: &'static str,
    called: Result<(), Status>,
}

/// The place of a call that sends a message which is none, with a good token.
const SEND: usize = 11;

impl Flood {
    fn begin(server: &Server) -> Self {
        let mallory = Caller::new("mallory", server, Wire::H3);
        let connect = |wire: Wire| (0..CONNECTIONS).map(move |_| soon(wire.connect(server)));
        let good = &*mallory.token;
        let call =
            |what, path, token: &str, message: Bytes, reason| Bad { what, path, token: token.into(), message, reason };
        let [log_in, register, watch, sessions, attach, send] = [
            "/socp.v1.AccountService/LogIn",
            "/socp.v1.AccountService/Register",
            "/socp.v1.DirectoryService/WatchDirectory",
            "/socp.v1.AccountService/ListSessions",
            "/socp.v1.MessageService/Attach",
            "/socp.v1.MessageService/SendMessage",
        ];
        let large = |bytes: usize| Bytes::from(vec![0; bytes + 1]);
        let garbage = Bytes::from_static(&[0xff; 100]);
        let statement = Bytes::from_static(&[0xff; 40]);
        let unreadable = LogInRequest { statement, signature: vec![7; 512].into(), device: String::new() };
        let to = Address { home: server.id, user: name("alice") };
        let honest = sealed(&mallory, &to, keys::key("alice").public(), "hello");
        let message =
            |message: SealedMessage| -> Bytes { SendMessageRequest { message: Some(message) }.encode_to_vec().into() };
        let mis_signed = SealedMessage { signature: flipped(&honest.signature, 9), ..honest.clone() };
        let long = SealedMessage { statement: large(MESSAGE_STATEMENT_BYTES_MAX), ..honest.clone() };
        let no_nonce = login(server.id, "mallory", &[9; 32], "mallory").encode_to_vec().into();
        let calls = vec![
            call("a login of nothing", log_in, "", unreadable.encode_to_vec().into(), "STATEMENT_INVALID"),
            call("a login with a nonce that nobody gave", log_in, "", no_nonce, "NONCE_EXPIRED"),
            call("a login that is no message", log_in, "", garbage.clone(), "UNKNOWN_TYPE"),
            call("a registration too large", register, "", large(ACCOUNT_REQUEST_BYTES_MAX), "TOO_LARGE"),
            call("a watch with no token", watch, "", Bytes::new(), "TOKEN_INVALID"),
            call("a watch with a bad token", watch, &"f".repeat(64), Bytes::new(), "TOKEN_INVALID"),
            call("a watch that is no message", watch, good, garbage.clone(), "UNKNOWN_TYPE"),
            call("a watch too large", watch, good, large(DIRECTORY_REQUEST_BYTES_MAX), "TOO_LARGE"),
            call("a list of nobody's sessions", sessions, "0", Bytes::new(), "TOKEN_INVALID"),
            call("going online as nobody", attach, &"0".repeat(64), Bytes::new(), "TOKEN_INVALID"),
            call("a message of nobody's", send, "", message(honest), "TOKEN_INVALID"),
            call("a message that is none", send, good, garbage, "UNKNOWN_TYPE"),
            call("a message with a wrong signature", send, good, message(mis_signed), "INVALID_SIG"),
            call("a message too long", send, good, message(long), "TOO_LARGE"),
        ];
        Self { channels: WIRES.into_iter().flat_map(connect).collect(), calls }
    }

    /// Makes all calls of a wave at once, those of each connection on a thread of its own.
    fn wave(&self, server: &Server) -> Vec<JoinHandle<Vec<Refused>>> {
        let mut under_way = Vec::new();
        for channel in &self.channels {
            let (channel, calls) = (channel.clone(), self.calls.clone());
            under_way.push(thread::spawn(move || {
                // One of these is as long as hundreds of the others.
                let over = Bytes::from(vec![0; MESSAGE_REQUEST_BYTES_MAX + 1]);
                let large =
                    Bad { what: "a message too large", reason: "TOO_LARGE", message: over, ..calls[SEND].clone() };
                let calls = calls.iter().cycle().take(CALLS).chain([&large]);
                let calls = calls.map(async |Bad { what, path, token, message, reason }| {
                    let called = raw::call(channel.clone(), path, token, message.clone()).await;
                    Refused { what, expected: reason, called }
                });
                soon(join_all(calls))
            }));
        }
        // Good nonces, of which one user has few at once, and signatures that are not by the user's key.
        let (id, channel) = (server.id, self.channels[0].clone());
        under_way.push(thread::spawn(move || {
            let logins = (0..NONCES_PER_USER_MAX).map(async |_| {
                let (mut asking, mut coming) = (accounts(&channel), accounts(&channel));
                let asked = asking.create_challenge(CreateChallengeRequest { user: "mallory".into() }).await;
                let nonce = asked.expect("anybody may ask").into_inner().nonce;
                let nonce: [u8; 32] = nonce[..].try_into().expect("a nonce has 32 bytes");
                let statement = encode_login(id, &name("mallory"), &nonce).into();
                let signature = Bytes::from(vec![7; 512]);
                let called =
                    coming.log_in(LogInRequest { statement, signature, device: String::new() }).await.map(drop);
                Refused { what: "a login with a wrong signature", expected: "INVALID_SIG", called }
            });
            soon(join_all(logins))
        }));
        under_way
    }
}

/// Bytes that are no TLS and no QUIC, at both of a server's ports.
fn noise(server: &Server) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    for length in (1..1_200).step_by(13) {
        let bytes: Vec<u8> = (0..length).map(|place| (place * 31 + length) as u8).collect();
        for to in [server.client, server.federation] {
            socket.send_to(&bytes, to).expect("the system takes it");
        }
    }
    let mut streams: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(server.client).expect("it listens")).collect();
    for stream in &mut streams {
        // It may have closed the connection after the first bytes.
        let _ = stream.write_all(&[0xff; 4_096]);
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn a_client_that_floods_its_home_is_refused_call_by_call_and_disturbs_nobody() {
    let mesh = Mesh::started(&[0, 1]);
    mesh.expect_link(0, 1);
    mesh.expect_link(1, 0);
    let alice = User::register("alice", &mesh[0]);
    let mut watch = alice.watch();
    let flood = Flood::begin(&mesh[0]);
    let users = [("bob", 0, "bob@server-a"), ("carol", 1, "carol@server-b")];
    let users = users.map(|(user, at, label)| (Caller::new(user, &mesh[at], Wire::H3), label));
    let links = || [link(&mesh[0], "server-b"), link(&mesh[1], "server-a")];
    let (links_before, mut resident_before) = (links(), 0.0);
    for wave in 0..WAVES {
        let under_way = flood.wave(&mesh[0]);
        noise(&mesh[0]);
        for (caller, label) in &users {
            come_and_go(caller, label, &mut watch);
        }
        // Who is not in yet gets in.
        Caller::new("dave", &mesh[0], WIRES[wave % 2]);
        for calls in under_way {
            for Refused { what, expected, called } in calls.join().expect("each call ends") {
                assert_eq!(reason(called), expected, "{what}");
            }
        }
        if wave == 0 {
            resident_before = resident(&mesh[0]);
        }
    }
    let more = resident(&mesh[0]) - resident_before;
    assert!(more < MORE_BYTES_MAX, "{more} bytes more than after the first wave");
    assert_eq!(links(), links_before);
    assert_eq!(changes(&watch.passed()), [], "nobody else came or went");
    drop(flood);
    Scrape::until(&mesh[0], "no call left behind", |scrape| scrape.number("socp_client_calls", &[]) <= 1.0);
}

/// A post with a good token whose end is never sent: what writes it, and how it is refused.
struct Unfinished {
    _write: UnboundedSender<Result<Frame<Bytes>, Status>>,
    answered: tokio::task::JoinHandle<Result<(), Status>>,
}

impl Unfinished {
    /// Begins a message of the longest kind, and sends so many bytes of it.
    async fn begin(caller: &Caller, bytes: usize) -> Self {
        let (write, written) = unbounded_channel();
        let length = (MESSAGE_REQUEST_BYTES_MAX as u32).to_be_bytes();
        let message = [&[0], &length[..], &vec![0; bytes]].concat();
        write.send(Ok(Frame::data(message.into()))).expect("the other end is here");
        let body = StreamBody::new(UnboundedReceiverStream::new(written));
        let request = http::Request::post("https://localhost/socp.v1.MessageService/PostToChannel")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", caller.token))
            .body(Body::new(body))
            .expect("it is a request");
        let answer = caller.channel.clone().oneshot(request);
        let answered = tokio::spawn(async move {
            let response = answer.await.map_err(|error| Status::unavailable(error.to_string()))?;
            Err(Status::from_header_map(response.headers()).expect("it is refused at once"))
        });
        Self { _write: write, answered }
    }
}

#[test]
fn a_client_that_finishes_no_request_holds_so_much_and_disturbs_nobody() {
    const KIB: usize = 1024;
    let (_site, server) = mesh::alone();
    let alice = User::register("alice", &server);
    let mut watch = alice.watch();
    let bob = Caller::new("bob", &server, Wire::H3);
    let bytes = |scrape: &Scrape| scrape.number("socp_unfinished_request_bytes", &[]);
    let refused = |scrape: &Scrape| scrape.number("socp_requests_broken_off_total", &[("limit", "connection")]);
    for (number, wire) in (1..).zip(WIRES) {
        let mallory = Caller::new("mallory", &server, wire);
        let begin = |bytes| soon(Unfinished::begin(&mallory, bytes));
        let each = REQUESTS_BYTES_PER_CONNECTION_MAX / 4 - KIB;
        let large: Vec<_> = (0..4).map(|_| begin(each)).collect();
        let small: Vec<_> = (0..60).map(|_| begin(1)).collect();
        let held = 4 * (each + 5) + 60 * 6;
        Scrape::until(&server, "all that was sent", |scrape| bytes(scrape) == held as f64);
        let past = begin(4 * KIB);
        assert_eq!(reason(soon(past.answered).expect("it ends")), "TOO_MANY", "{wire}");
        soon(mallory.accounts().list_sessions(mallory.request(Default::default())))
            .expect("there is room for small ones");
        come_and_go(&bob, "bob@server-a", &mut watch);
        Caller::new("dave", &server, wire);
        Scrape::until(&server, "one that was refused", |scrape| {
            (bytes(scrape), refused(scrape)) == (held as f64, f64::from(number))
        });
        for unfinished in large.into_iter().chain(small) {
            unfinished.answered.abort();
        }
        Scrape::until(&server, "nothing held any more", |scrape| bytes(scrape) == 0.0);
    }
    assert_eq!(changes(&watch.passed()), [], "nobody else came or went");
}

/// One more than a link may have refused, of this kind.
fn too_many(link: &crate::harness::peer::Link, frame: impl Fn(u64) -> input::Frame) {
    (0..=REFUSED_FRAMES_MAX).for_each(|number| link.push(frame(number)));
}

#[test]
fn a_peer_that_floods_a_link_loses_it_for_a_reason_and_other_links_and_watches_go_on() {
    let (home, other, rogue) = (Site::new("server-a"), Site::new("server-b"), Peer::new("server-c"));
    home.configure(&(other.entry() + &rogue.known()));
    other.configure(&home.entry());
    let (home, other) = (home.start(), other.start());
    home.log(&["peer joined", &other.id.to_string()]);
    other.log(&["peer joined", &home.id.to_string()]);
    let alice = User::register("alice", &home);
    let mut watch = alice.watch();
    let bob = Caller::new("bob", &other, Wire::H3);
    come_and_go(&bob, "bob@server-b", &mut watch);
    let links = || [link(&home, "server-b"), link(&other, "server-a")];
    let links_before = links();

    let malformed = |number: u64| {
        let statement = vec![0xff; 1 + number as usize % 60].into();
        let batch = SignedBatch { statement, signature: vec![0; 64].into() };
        input::Frame::Remove(RemoveFrame { kind: Some(remove_frame::Kind::Batch(batch)) })
    };
    let signed = statement("dave", rogue.id());
    let batch = rogue.batch(&signed);
    let mis_signed = |number: u64| {
        let batch = SignedBatch { signature: flipped(&batch.signature, number as usize % 64), ..batch.clone() };
        input::Frame::Advertise(AdvertiseFrame { kind: Some(advertise_frame::Kind::Batch(batch)) })
    };
    let no_message = |number: u64| {
        let message = SealedMessage { statement: vec![0xff; 1 + number as usize % 60].into(), ..Default::default() };
        let kind = deliver_frame::Kind::Message(MessageDelivery { message: Some(message), ..Default::default() });
        input::Frame::Deliver(DeliverFrame { kind: Some(kind) })
    };
    let floods: [(&str, &dyn Fn(u64) -> input::Frame); 3] =
        [("malformed", &malformed), ("wrongly signed", &mis_signed), ("no message", &no_message)];
    let resident_before = resident(&home);
    for (what, flood) in floods {
        let mut link = rogue.dial(&home, rogue.hello());
        link.hello();
        too_many(&link, flood);
        come_and_go(&bob, "bob@server-b", &mut watch);
        assert_eq!(reason::<()>(Err(link.end())), "TOO_MANY", "{what}");
        ended(&home, what, "TOO_MANY");
    }
    // What is no frame at all, or larger than any, ends a link at once.
    let over = vec![0; FEDERATION_MESSAGE_BYTES_MAX + 1];
    for (what, bytes, expected) in
        [("no frame", Bytes::from_static(&[0xff; 100]), "UNKNOWN_TYPE"), ("too large", over.into(), "TOO_LARGE")]
    {
        let mut link = rogue.dial(&home, rogue.hello());
        link.hello();
        link.garble(bytes);
        come_and_go(&bob, "bob@server-b", &mut watch);
        link.end();
        ended(&home, what, expected);
    }
    let more = resident(&home) - resident_before;
    assert!(more < MORE_BYTES_MAX, "{more} bytes more than before");
    assert_eq!(links(), links_before);
    // It may come back, and is heard once it is honest.
    let link = rogue.dial(&home, rogue.hello());
    link.statements(vec![signed]);
    link.adverts(batch.clone());
    watch.added("dave@server-c");
    assert_eq!(changes(&watch.passed()), [], "nobody else came or went");
}

/// The rogue's link is over, and the operator is told why.
#[track_caller]
fn ended(server: &Server, what: &str, why: &str) {
    let peers = server.asked(&["peers"]);
    let rogue = peers.into_iter().find(|peer| peer["name"] == "server-c").expect("it is pinned");
    let told = rogue["last_error"].as_str().unwrap_or_default();
    assert!(told.ends_with(&format!("({why})")), "{what}: {rogue}");
    assert_ne!(rogue["reach"], "linked", "{what}: {rogue}");
}
