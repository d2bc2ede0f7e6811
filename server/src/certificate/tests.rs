//! When a certificate is made anew, who takes it, and what the identity says of it.

use std::fs;

use socp::{id::ServerId, statement::certificate_matches};

use super::*;
use crate::data_folder::DataFolder;

struct Bench {
    _parent: tempfile::TempDir,
    folder: DataFolder,
    identity: ServerIdentity,
}

impl Bench {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(Layout::new(parent.path().join("data"))).unwrap();
        Self { _parent: parent, folder, identity: ServerIdentity::generate().unwrap() }
    }

    fn at(&self, names: &[&str], now: SystemTime) -> ClientCertificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        ClientCertificate::self_made(self.folder.layout(), &names, &self.identity, now).unwrap()
    }
}

fn leaf(certificate: &ClientCertificate) -> CertificateDer<'static> {
    certificate.certified.cert[0].clone()
}

#[test]
fn the_certificate_stays_until_names_change_or_its_end_is_near() {
    let bench = Bench::new();
    let now = SystemTime::now();
    let first = bench.at(&["chat.example.org", "192.0.2.1"], now);
    assert_eq!(leaf(&first), leaf(&bench.at(&["192.0.2.1", "Chat.Example.org"], now)));
    let renamed = bench.at(&["chat.example.net"], now);
    assert_ne!(leaf(&first), leaf(&renamed));
    let later = now + CERTIFICATE_TIME - CERTIFICATE_TIME_LEFT_MIN + DAY;
    assert_ne!(leaf(&renamed), leaf(&bench.at(&["chat.example.net"], later)));
}

#[test]
fn the_ca_outlives_its_certificates() {
    let bench = Bench::new();
    let now = SystemTime::now();
    bench.at(&[], now);
    let ca = fs::read(bench.folder.layout().ca()).unwrap();
    bench.at(&["chat.example.org"], now + CERTIFICATE_TIME);
    assert_eq!(fs::read(bench.folder.layout().ca()).unwrap(), ca);
}

#[test]
fn a_client_that_trusts_the_ca_takes_the_certificate_for_each_of_its_names() {
    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
        pki_types::{ServerName, UnixTime},
    };
    let bench = Bench::new();
    let now = SystemTime::now();
    bench.at(&[], now);
    let certificate = bench.at(&["chat.example.org"], now);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate.ca.clone().unwrap()).unwrap()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let verify = |name: &'static str| {
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(&leaf(&certificate), &[], &name, &[], UnixTime::now())
    };
    for name in ["localhost", "127.0.0.1", "::1", "chat.example.org"] {
        verify(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    verify("chat.example.net").unwrap_err();
}

#[test]
fn the_statement_binds_the_certificate_to_the_identity_and_to_no_other() {
    let bench = Bench::new();
    let certificate = bench.at(&[], SystemTime::now());
    let spki = spki(&leaf(&certificate)).unwrap();
    let id = bench.identity.server_id();
    assert!(certificate_matches(&certificate.statement, id, &spki));
    assert!(!certificate_matches(&certificate.statement, ServerId::of_key(&[1; 32]), &spki));
    assert!(!certificate_matches(&certificate.statement, id, &bench.identity.spki()));
    let message = signing_input(Label::Certificate, &certificate.statement);
    let key = bench.identity.public_key();
    assert!(bench.identity.verify(&key, &message, &certificate.signature));
    assert!(!bench.identity.verify(&key, &certificate.statement, &certificate.signature));
}

#[test]
fn an_operators_key_must_belong_to_the_certificate() {
    let (one, other) = (Bench::new(), Bench::new());
    one.at(&[], SystemTime::now());
    other.at(&[], SystemTime::now());
    let certificate = one.folder.layout().certificate();
    let own = OwnFiles { certificate: certificate.clone(), key: one.folder.layout().certificate_key() };
    ClientCertificate::of_operator(&own, &one.identity).unwrap();
    let mixed = OwnFiles { certificate, key: other.folder.layout().certificate_key() };
    let error = ClientCertificate::of_operator(&mixed, &one.identity).unwrap_err();
    assert!(matches!(error, CertificateError::Mismatch { .. }), "{error}");
}

#[test]
fn an_operators_file_that_is_missing_is_named() {
    let bench = Bench::new();
    let missing = OwnFiles { certificate: "/nowhere/certificate.pem".into(), key: "/nowhere/key.pem".into() };
    let error = ClientCertificate::of_operator(&missing, &bench.identity).unwrap_err();
    assert!(error.to_string().contains("`/nowhere/certificate.pem`"), "{error}");
}
