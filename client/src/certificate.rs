//! The server's TLS certificate: taken as it is where the server id is the pin, or checked against a CA.
//!
//! Either way the handshake's signature is verified, so the server holds the certificate's key. What the certificate
//! is worth without a CA is decided right after, before anything else is sent: see [`crate::introduction`].

use std::{io::BufReader, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    version::TLS13,
};

use crate::failure::Failure;

/// Takes any certificate, for a connection on which the introduction decides.
#[derive(Debug)]
struct IntroducedLater {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for IntroducedLater {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS 1.3 without resumption, so that every connection shows its certificate. With a CA the certificate must be
/// good for the name dialled; without one a pinned server id must vouch for it afterwards.
pub fn tls(ca: Option<&Path>) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match ca {
        None => Arc::new(IntroducedLater { provider: provider.clone() }),
        Some(path) => WebPkiServerVerifier::builder_with_provider(Arc::new(roots(path)?), provider.clone())
            .build()
            .map_err(|error| Failure::failed(format!("the CA in `{}` cannot be used: {error}", path.display())))?,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| Failure::failed(format!("TLS cannot be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(path: &Path) -> Result<RootCertStore, Failure> {
    let file = std::fs::File::open(path).map_err(|error| Failure::file("read the CA", path, &error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_reader_iter(BufReader::new(file)) {
        let certificate = certificate
            .map_err(|error| Failure::failed(format!("the CA in `{}` is not PEM: {error}", path.display())))?;
        roots
            .add(certificate)
            .map_err(|error| Failure::failed(format!("the CA in `{}` cannot be used: {error}", path.display())))?;
    }
    if roots.is_empty() {
        return Err(Failure::failed(format!("there is no certificate in `{}`", path.display()))
            .hint("`--ca` wants the server's CA in PEM, as the server wrote it at its first start"));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_that_is_absent_or_empty_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        assert!(tls(Some(&path)).unwrap_err().message.contains("cannot read the CA"));
        crate::private_file::write(&path, b"hello").unwrap();
        assert!(tls(Some(&path)).unwrap_err().message.contains("there is no certificate"));
    }
}
