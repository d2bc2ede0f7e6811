//! Who may say what: admission, names and keys, and the line between clients and peers.

use prost::bytes::Bytes;
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use socp::{
    batch::Epoch,
    digest::SetHash,
    federation::v1::{AdvertiseRequest, federation_service_client::FederationServiceClient},
    id::{ServerId, StartId},
    message::Address,
    v1::{
        GetServerInfoRequest, GetUserRequest, ListSessionsRequest, MoveUserRequest, ReadInboxRequest, RegisterRequest,
        RotateKeyRequest, SignedKeyStatement, account_service_client::AccountServiceClient,
    },
};
use tonic::Code;

use crate::harness::{
    caller::{Caller, accounts, name, register, sign_statement, statement},
    client::{User, changes, command, registration},
    draft::{sealed, send},
    keys,
    mesh::{self, Mesh, Site},
    peer::Peer,
    server::Server,
    soon,
    wire::{WIRES, Wire, reason},
};

/// A server that admits these peers, running.
fn server_with(peers: &[&Peer]) -> (Site, Server) {
    let site = Site::new("server-a");
    site.configure(&peers.iter().map(|peer| peer.entry()).collect::<String>());
    let server = site.start();
    (site, server)
}

#[test]
fn a_server_that_was_not_admitted_cannot_join() {
    let (victim, rogue) = (Site::new("server-a"), Site::new("server-b"));
    let friend = Peer::new("server-c");
    victim.configure(&friend.entry());
    rogue.configure(&victim.entry());
    let (victim, rogue) = (victim.start(), rogue.start());
    // The rogue knows the victim and dials it, again and again.
    victim.log(&["refused a server in the federation handshake", &rogue.id.to_string()]);
    rogue.log(&["peer cannot be reached", &victim.id.to_string()]);
    let mallory = User::register("mallory", &rogue);
    let mut chat = mallory.chat();
    let alice = User::register("alice", &victim);
    let mut watch = alice.watch();
    let _bob = User::register("bob", &victim).chat();
    watch.added("bob@server-a");
    assert!(!victim.program.log().contains("peer joined") && !rogue.program.log().contains("peer joined"));
    chat.lists(&["mallory@server-b"]);
    // By hand, over QUIC: a stranger's certificate, and one that another stranger signs with.
    let stranger = Peer::new("server-c");
    // In TLS 1.3 a client is refused after its own side of the handshake is done, so it hears of it now or a moment later.
    let is_refused = soon(async {
        let Ok(channel) = stranger.connect(&victim).await else { return true };
        FederationServiceClient::new(channel).advertise(tokio_stream::empty::<AdvertiseRequest>()).await.is_err()
    });
    assert!(is_refused, "it is no link");
    victim.log(&["refused a server in the federation handshake", &stranger.id().to_string()]);
    assert_eq!(changes(&watch.passed()), []);
}

#[test]
fn a_caller_without_a_certificate_gets_no_further_than_the_federation_handshake() {
    let friend = Peer::new("server-b");
    let (_site, server) = server_with(&[&friend]);
    let trust_anything = || {
        let mut tls = socp_server::tls::federation_dialler(&friend.identity, [server.id]);
        tls.client_auth_cert_resolver = std::sync::Arc::new(Nobody);
        tls
    };
    let refused = soon(async {
        let channel = socp_quic::Channel::builder(server.federation, "socp", trust_anything()).one_connection();
        match channel.connect().await {
            Err(_) => true,
            Ok(channel) => {
                let mut client = FederationServiceClient::new(channel);
                client.advertise(tokio_stream::empty::<AdvertiseRequest>()).await.is_err()
            }
        }
    });
    assert!(refused);
    // It was not the way: with its certificate the same peer gets in.
    friend.dial(&server, friend.hello()).hello();
}

/// Has no certificate.
#[derive(Debug)]
struct Nobody;

impl rustls::client::ResolvesClientCert for Nobody {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<std::sync::Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn a_server_speaks_only_for_its_own_users() {
    // A refusal is logged once for each peer, so each wrong word has a peer of its own.
    let [statements, foreign, epoch, signature, digest] =
        ["server-b", "server-c", "server-d", "server-e", "server-f"].map(Peer::new);
    let (_site, server) = server_with(&[&statements, &foreign, &epoch, &signature, &digest]);
    let alice = User::register("alice", &server);
    let bob = Caller::new("bob", &server, Wire::H3);
    let _inbox = bob.attach();
    let mut watch = alice.watch();
    watch.shows("bob@server-a");
    let refused = |peer: &Peer, why: &str| server.log(&["frame refused", &peer.id().to_string(), why]);
    let up = |peer: &Peer| {
        let mut link = peer.dial(&server, peer.hello());
        link.hello();
        server.log(&["peer joined", &peer.id().to_string()]);
        link
    };

    // A user of another home, with the key statement that is truly theirs.
    let link = up(&statements);
    link.statements(vec![statement("bob", server.id)]);
    link.adverts(statements.batch(&statement("bob", server.id)));
    refused(&statements, "ForeignOrigin");
    come_online(&statements, &link, &mut watch, "carol@server-b");

    // What another server signed counts whoever passes it on, and only as it was signed.
    let link = up(&foreign);
    let gone = statements.removal(statements.epoch, 2, &["carol"]);
    let mut altered = gone.clone();
    altered.statement = foreign.removal(statements.epoch, 2, &["carol"]).statement;
    link.removals(altered);
    refused(&foreign, "BadSignature");
    link.removals(gone);
    watch.removed("carol@server-b", "left");
    come_online(&foreign, &link, &mut watch, "carol@server-c");

    // A removal of the victim's own user, signed by this peer, in an epoch that is over.
    let link = up(&epoch);
    let start = StartId::from_bytes(&[1; 16]).expect("a start id has 16 bytes");
    link.removals(epoch.removal(Epoch { number: 0, start }, 1, &["bob"]));
    server.log(&["frame ignored", &epoch.id().to_string()]);
    come_online(&epoch, &link, &mut watch, "carol@server-d");

    // A batch with a bad signature.
    let link = up(&signature);
    let signed = statement("dave", signature.id());
    link.statements(vec![signed.clone()]);
    let mut batch = signature.batch(&signed);
    batch.signature = Bytes::from_static(&[0; 64]);
    link.adverts(batch);
    refused(&signature, "BadSignature");
    come_online(&signature, &link, &mut watch, "carol@server-e");

    // A batch whose digest is not that of its entries.
    let link = up(&digest);
    let signed = statement("dave", digest.id());
    link.statements(vec![signed.clone()]);
    link.adverts(digest.batch_with(&signed, SetHash::default().digest()));
    refused(&digest, "DigestMismatch");
    come_online(&digest, &link, &mut watch, "carol@server-f");

    assert_eq!(changes(&watch.passed()), [], "nobody else came or went");
}

/// After what was refused, the link works on: an honest batch is taken.
#[track_caller]
fn come_online(peer: &Peer, link: &crate::harness::peer::Link, watch: &mut crate::harness::client::Live, label: &str) {
    let signed = statement("carol", peer.id());
    link.statements(vec![signed.clone()]);
    link.adverts(peer.batch(&signed));
    watch.added(label);
}

#[test]
fn a_new_key_for_a_known_user_is_refused() {
    let (_site, server) = mesh::alone();
    let alice = Caller::new("alice", &server, Wire::H3);
    for wire in WIRES {
        let channel = soon(wire.connect(&server));
        let usurped = sign_statement(&name("alice"), server.id, &keys::key("mallory"));
        assert_eq!(reason(register(&channel, usurped)), "NAME_IN_USE", "{wire}");
        register(&channel, statement("alice", server.id)).expect("the same again is answered alike");
    }
    let request = alice.request(GetUserRequest { user: "alice".into() });
    let found = soon(alice.directory().get_user(request)).expect("she is known").into_inner();
    assert_eq!(found.key_statements, [statement("alice", server.id)]);
    // The real client is told, and learns what to do.
    let home = tempfile::tempdir().expect("a temporary folder can be made");
    let mut arguments = registration("alice", server.client, server.id);
    arguments[7] = keys::file("mallory").display().to_string();
    let output = command(home.path()).args(arguments).output().expect("socp runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("NAME_IN_USE") && errors.contains("hint: "), "{errors}");
}

#[test]
fn a_client_refuses_loudly_when_a_user_shows_another_key_than_the_pinned_one() {
    // A home that forgets its users, so that a name can be had anew with another key.
    let site = Site::new("server-a");
    site.configure("");
    let server = site.start();
    let alice = User::register("alice", &server);
    let mut chat = alice.chat();
    let bob = Caller::new("bob", &server, Wire::H3);
    let inbox = bob.attach();
    chat.added("bob@server-a");
    chat.tell("bob@server-a", "while he is himself");
    drop((inbox, bob));
    chat.quit();
    server.stop();
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(site.data().join(format!("socp.db{end}")));
    }
    let server = site.start();
    let channel = soon(Wire::H3.connect(&server));
    register(&channel, statement("alice", server.id)).expect("the name is free again");
    register(&channel, sign_statement(&name("bob"), server.id, &keys::key("mallory"))).expect("and so is his");
    let nonce = crate::harness::caller::challenge(&channel, "bob");
    let request = crate::harness::caller::login(server.id, "bob", &nonce, "mallory");
    let token = crate::harness::caller::log_in(&channel, request).expect("it is registered");
    let address = Address { home: server.id, user: name("bob") };
    let usurper = Caller { address, key: keys::key("mallory"), token, channel };
    let mut inbox = usurper.attach();
    // She may be warned before her view is complete.
    let mut chat = alice.start(&["chat"]);
    let is_about_bob = |event: &serde_json::Value| event["user"].as_str().is_some_and(|user| user.starts_with("bob@"));
    let warned = chat.expect("a warning", |event| event["event"] == "key_changed" && is_about_bob(event));
    assert!(warned["message"].as_str().is_some_and(|text| text.contains("THE KEY OF `bob` CHANGED")), "{warned}");
    chat.say("/tell bob@server-a what only bob may read");
    assert_eq!(chat.answer()["reason"], "KEY_CHANGED");
    let output = alice.run(&["tell", "bob@server-a", "what only bob may read"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("THE KEY OF `bob` CHANGED") && errors.contains("hint: "), "{errors}");
    // What the usurper says is not opened either, and it has got nothing.
    let to = Address { home: server.id, user: name("alice") };
    send(&usurper, sealed(&usurper, &to, keys::key("alice").public(), "it is me, bob")).expect("the server takes it");
    chat.expect("something unreadable", |event| event["event"] == "unreadable");
    usurper_detach(&usurper);
    assert_eq!(inbox.end().code(), Code::Ok, "the stream held nothing");
}

fn usurper_detach(caller: &Caller) {
    let request = caller.request(socp::v1::DetachRequest {});
    soon(caller.messages().detach(request)).expect("the token is good");
}

#[test]
fn every_wrong_registration_gives_its_own_typed_error() {
    let (_site, server) = mesh::alone();
    let own = |user: &str| sign_statement(&name(user), server.id, &keys::key("alice"));
    let edited = |change: fn(&mut socp::v1::KeyStatement)| {
        use prost::Message as _;
        use socp::signed::Label;
        let mut content = socp::v1::KeyStatement::decode(&own("alice").statement[..]).expect("it was made here");
        change(&mut content);
        let bytes: Bytes = content.encode_to_vec().into();
        let signature = keys::key("alice").sign(Label::KeyStatement, &bytes).expect("a key signs");
        SignedKeyStatement { statement: bytes, signature, previous_signature: Bytes::new() }
    };
    let with_key = |spki: Bytes| {
        use prost::Message as _;
        let mut content = socp::v1::KeyStatement::decode(&own("alice").statement[..]).expect("it was made here");
        content.public_key = spki;
        SignedKeyStatement { statement: content.encode_to_vec().into(), ..own("alice") }
    };
    for wire in WIRES {
        let channel = soon(wire.connect(&server));
        let refused = |statement: SignedKeyStatement| reason(register(&channel, statement));
        let unsigned = SignedKeyStatement { signature: Bytes::new(), ..own("alice") };
        assert_eq!(refused(unsigned), "INVALID_SIG", "{wire}: unsigned");
        let mis_signed = SignedKeyStatement { signature: own("bob").signature, ..own("alice") };
        assert_eq!(refused(mis_signed), "INVALID_SIG", "{wire}: signed, but something else");
        assert_eq!(refused(with_key(short_key())), "BAD_KEY", "{wire}: 2048 bits");
        assert_eq!(refused(with_key(exponent_3())), "BAD_KEY", "{wire}: exponent 3");
        assert_eq!(refused(with_key(Bytes::from_static(b"no key"))), "BAD_KEY", "{wire}: no key at all");
        let wrong_name = |name: &'static str| match name {
            "Alice" => edited(|content| content.user = "Alice".into()),
            "a@b" => edited(|content| content.user = "a@b".into()),
            "65" => edited(|content| content.user = "a".repeat(65)),
            _ => edited(|content| content.user = String::new()),
        };
        for name in ["Alice", "a@b", "65", ""] {
            assert_eq!(refused(wrong_name(name)), "NAME_INVALID", "{wire}: `{name}`");
        }
        let elsewhere = sign_statement(&name("alice"), ServerId::of_key(&[1; 32]), &keys::key("alice"));
        assert_eq!(refused(elsewhere), "STATEMENT_INVALID", "{wire}: another home");
        assert_eq!(refused(edited(|content| content.number = 2)), "STATEMENT_INVALID", "{wire}: not the first");
        let garbage = SignedKeyStatement { statement: Bytes::from_static(&[0xff; 9]), ..own("alice") };
        assert_eq!(refused(garbage), "STATEMENT_INVALID", "{wire}: garbage");
        let oversized = SignedKeyStatement { signature: vec![0; 9 * 1024].into(), ..own("alice") };
        assert_eq!(refused(oversized), "TOO_LARGE", "{wire}");
        let display_name = "x".repeat(129);
        let request = RegisterRequest { key_statement: Some(own("alice")), display_name, ..RegisterRequest::default() };
        assert_eq!(reason(soon(accounts(&channel).register(request))), "TOO_LARGE", "{wire}: display name");
    }
    let channel = soon(Wire::H3.connect(&server));
    register(&channel, own("alice")).expect("nothing of this took the name");
}

/// A key of 2048 bits.
fn short_key() -> Bytes {
    use aws_lc_rs::{encoding::AsDer as _, rsa, signature::KeyPair as _};
    let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key can be made");
    let der = key.public_key().as_der().expect("it can be encoded");
    Bytes::copy_from_slice(der.as_ref())
}

/// A good key's bytes, with 3 in place of 65537 and the lengths around it as they must be.
fn exponent_3() -> Bytes {
    let mut spki = keys::key("alice").public().spki().to_vec();
    spki.truncate(spki.len() - 5);
    spki.extend([2, 1, 3]);
    // The lengths of the three sequences and of the bit string, each two less.
    for index in [3, 22, 27] {
        spki[index] -= 2;
    }
    spki.into()
}

#[test]
fn a_token_that_is_absent_unknown_or_ended_is_refused_by_every_call_that_wants_one() {
    let (_site, server) = mesh::alone();
    for wire in WIRES {
        let alice = Caller::new("alice", &server, wire);
        for token in ["", "0", &"f".repeat(64)] {
            let stranger = Caller { token: token.into(), ..alice.clone() };
            let watch = stranger.watch("").map(|mut watch| watch.end()).and_then(Err::<(), _>);
            assert_eq!(reason(watch), "TOKEN_INVALID", "{wire}");
            let request = stranger.request(ListSessionsRequest {});
            assert_eq!(reason(soon(stranger.accounts().list_sessions(request))), "TOKEN_INVALID", "{wire}");
            let request = stranger.request(MoveUserRequest::default());
            assert_eq!(reason(soon(stranger.accounts().move_user(request))), "TOKEN_INVALID", "{wire}");
            let request = stranger.request(RotateKeyRequest::default());
            assert_eq!(reason(soon(stranger.accounts().rotate_key(request))), "TOKEN_INVALID", "{wire}");
            let request = stranger.request(ReadInboxRequest::default());
            assert_eq!(reason(soon(stranger.messages().read_inbox(request))), "TOKEN_INVALID", "{wire}");
            let request = stranger.request(GetUserRequest { user: "alice".into() });
            assert_eq!(reason(soon(stranger.directory().get_user(request))), "TOKEN_INVALID", "{wire}");
            let request = stranger.request(socp::v1::AttachRequest::default());
            let attached = soon(stranger.messages().attach(request))
                .map(|stream| crate::harness::caller::Stream(stream.into_inner()).end());
            assert_eq!(reason(attached.and_then(Err::<(), _>)), "TOKEN_INVALID", "{wire}");
        }
    }
}

#[test]
fn a_client_cannot_reach_any_federation_call() {
    let (_site, server) = mesh::alone();
    for wire in WIRES {
        let alice = Caller::new("alice", &server, wire);
        let mut client = FederationServiceClient::new(alice.channel.clone());
        let codes = soon(async {
            let advertise = alice.request(tokio_stream::empty());
            let remove = alice.request(tokio_stream::empty());
            let deliver = alice.request(tokio_stream::empty());
            [
                client.advertise(advertise).await.map(drop).map_err(|status| status.code()),
                client.remove(remove).await.map(drop).map_err(|status| status.code()),
                client.deliver(deliver).await.map(drop).map_err(|status| status.code()),
            ]
        });
        assert_eq!(codes, [Err(Code::Unimplemented); 3], "{wire}");
    }
}

#[test]
fn a_peer_cannot_reach_any_client_call() {
    let friend = Peer::new("server-b");
    let (_site, server) = server_with(&[&friend]);
    let code = soon(async {
        let channel = friend.connect(&server).await.expect("it is pinned there");
        let mut client = AccountServiceClient::new(channel);
        client.get_server_info(GetServerInfoRequest {}).await.map(drop).map_err(|status| status.code())
    });
    assert_eq!(code, Err(Code::Unimplemented));
}

#[test]
fn the_identity_key_of_a_data_folder_is_the_one_that_its_id_names() {
    let mesh = Mesh::started(&[0]);
    let pem = mesh[0].data.join("identity-key.pem");
    let der = PrivatePkcs8KeyDer::from_pem_file(pem).expect("it is PKCS#8");
    let key = aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("it is Ed25519");
    use aws_lc_rs::signature::KeyPair as _;
    let public: [u8; 32] = key.public_key().as_ref().try_into().expect("it has 32 bytes");
    assert_eq!(ServerId::of_key(&public), mesh[0].id);
}
