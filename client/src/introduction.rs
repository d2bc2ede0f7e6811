//! The first exchange on every connection: the server says who it is and proves that the certificate in use is its own.
//!
//! Nothing else is sent before this checks out. The chain is: the pin is the hash of the identity key; the identity
//! key signed the certificate's key; TLS proved that the server holds the certificate's key.

use socp::{
    PROTOCOL_VERSION,
    id::{ServerId, ed25519_key_of_spki},
    signed::Label,
    statement::certificate_matches,
    v1::GetServerInfoResponse,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{failure::Failure, public_key};

/// The reason given when a server is not the one that was pinned.
pub const WRONG_IDENTITY: &str = "SERVER_ID_MISMATCH";

/// A server that proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Its id.
    pub server_id: ServerId,
    /// Its own name.
    pub name: String,
}

/// Checks an introduction against the certificate of the very connection that it came on, and the pin if there is one.
pub fn check(
    info: &GetServerInfoResponse,
    certificate: &[u8],
    pinned: Option<ServerId>,
) -> Result<Introduction, Failure> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| unproven("its TLS certificate cannot be read"))?;
    check_key(info, parsed.public_key().raw, pinned)
}

fn unproven(why: &str) -> Failure {
    Failure::refused(WRONG_IDENTITY, format!("the server does not prove its identity: {why}"))
        .hint("somebody may stand between you and the server, or the address is another server's; nothing was sent")
}

/// The same against the SubjectPublicKeyInfo of that certificate.
pub fn check_key(
    info: &GetServerInfoResponse,
    certificate_key: &[u8],
    pinned: Option<ServerId>,
) -> Result<Introduction, Failure> {
    let key = ed25519_key_of_spki(&info.identity_key).ok_or_else(|| unproven("its identity key is not Ed25519"))?;
    let server_id = ServerId::of_key(&key);
    if let Some(pinned) = pinned.filter(|pinned| *pinned != server_id) {
        return Err(Failure::refused(
            WRONG_IDENTITY,
            format!("the server is not the one that was pinned: its id is {server_id}, the pin {pinned}"),
        )
        .hint("somebody may stand between you and the server, or the address is another server's; nothing was sent"));
    }
    let signed =
        public_key::verify_server(&key, Label::Certificate, &info.certificate_statement, &info.certificate_signature);
    if !signed {
        return Err(unproven("its certificate is not signed by its identity key"));
    }
    if !certificate_matches(&info.certificate_statement, server_id, certificate_key) {
        return Err(unproven("the certificate in use is another than the one it signed"));
    }
    let major = info.protocol_version.split('.').next().and_then(|major| major.parse().ok());
    if major != Some(PROTOCOL_VERSION.0) {
        return Err(Failure::failed(format!(
            "the server speaks protocol version `{}`, this client {}.{}",
            info.protocol_version.escape_debug(),
            PROTOCOL_VERSION.0,
            PROTOCOL_VERSION.1
        ))
        .hint("use a client of the server's version"));
    }
    Ok(Introduction { server_id, name: info.name.clone() })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use socp::{id::ed25519_spki, signed::signing_input, statement::encode_certificate};

    use super::*;

    struct Server {
        identity: Ed25519KeyPair,
        id: ServerId,
    }

    impl Server {
        fn new(seed: u8) -> Self {
            let identity = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
            let id = ServerId::of_key(identity.public_key().as_ref().try_into().unwrap());
            Self { identity, id }
        }

        fn info(&self, spki: &[u8]) -> GetServerInfoResponse {
            let statement = encode_certificate(self.id, spki);
            let signature = self.identity.sign(&signing_input(Label::Certificate, &statement));
            GetServerInfoResponse {
                name: "server-a".into(),
                server_id: self.id.to_string(),
                identity_key: ed25519_spki(self.identity.public_key().as_ref().try_into().unwrap()).to_vec().into(),
                certificate_statement: statement.into(),
                certificate_signature: signature.as_ref().to_vec().into(),
                protocol_version: "1.0".into(),
                ..Default::default()
            }
        }
    }

    fn certificate() -> (Vec<u8>, Vec<u8>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".into()]).unwrap().self_signed(&key).unwrap();
        (certificate.der().to_vec(), rcgen::PublicKeyData::subject_public_key_info(&key))
    }

    #[test]
    fn a_server_is_who_signed_the_certificate_in_use() {
        let server = Server::new(1);
        let (der, spki) = certificate();
        let info = server.info(&spki);
        let introduction = Introduction { server_id: server.id, name: "server-a".into() };
        assert_eq!(check(&info, &der, Some(server.id)).unwrap(), introduction);
        assert_eq!(check(&info, &der, None).unwrap(), introduction, "with a CA the id is learned");
    }

    #[test]
    fn another_servers_certificate_or_identity_is_refused() {
        let (server, other) = (Server::new(1), Server::new(2));
        let (der, spki) = certificate();
        let (other_der, other_spki) = certificate();
        let reason = |info: &GetServerInfoResponse, der: &[u8]| check(info, der, Some(server.id)).unwrap_err().reason;
        assert_eq!(reason(&other.info(&spki), &der), WRONG_IDENTITY, "another identity");
        assert_eq!(reason(&server.info(&spki), &other_der), WRONG_IDENTITY, "the words of another connection");
        assert_eq!(reason(&server.info(&other_spki), &der), WRONG_IDENTITY);
        let claims = GetServerInfoResponse { identity_key: server.info(&spki).identity_key, ..other.info(&spki) };
        assert_eq!(reason(&claims, &der), WRONG_IDENTITY, "another's signature");
    }

    #[test]
    fn a_server_of_another_major_version_is_left() {
        let server = Server::new(1);
        let (der, spki) = certificate();
        let info = GetServerInfoResponse { protocol_version: "2.0".into(), ..server.info(&spki) };
        assert!(check(&info, &der, None).unwrap_err().message.contains("protocol version `2.0`"));
    }
}
