//! A certificate authority made for one test, and TLS configurations from it.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

pub struct Certs {
    authority: CertifiedIssuer<'static, KeyPair>,
    pub server: CertificateDer<'static>,
    server_key: KeyPair,
    pub client: CertificateDer<'static>,
    client_key: KeyPair,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl Certs {
    pub fn new() -> Certs {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let leaf = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let cert = params.signed_by(&key, &authority).unwrap();
            (cert.der().clone(), key)
        };
        let (server, server_key) = leaf("localhost");
        let (client, client_key) = leaf("client.test");
        Certs { authority, server, server_key, client, client_key }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        roots
    }

    /// The server's configuration: certificates of clients are verified if there are any.
    pub fn server(&self) -> rustls::ServerConfig {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider())
            .allow_unauthenticated()
            .build()
            .unwrap();
        rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.server.clone()], key(&self.server_key))
            .unwrap()
    }

    /// A client without a certificate.
    pub fn client(&self) -> rustls::ClientConfig {
        rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    /// A client with a certificate.
    pub fn client_with_certificate(&self) -> rustls::ClientConfig {
        self.client_with_certificate_trusting(self)
    }

    /// A client with a certificate of this authority, which trusts servers of another one.
    pub fn client_with_certificate_trusting(&self, other: &Certs) -> rustls::ClientConfig {
        rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(other.roots())
            .with_client_auth_cert(vec![self.client.clone()], key(&self.client_key))
            .unwrap()
    }
}

fn key(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(key.serialize_der().into())
}
