//! TLS configurations of all listeners and of the federation dialler: aws-lc-rs, TLS 1.3 only.
//!
//! Clients are shown the client-facing certificate and asked for none. Between servers both sides show the self-signed
//! certificate of their identity, and each side takes exactly the servers that are admitted at that moment: the hash of the
//! certificate's public key must be the id of one, and the handshake must be signed with that key. Names, dates and issuers
//! in those certificates mean nothing. A server that is not admitted gets no further than the handshake.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use socp::id::{ServerId, ed25519_key_of_spki};

use crate::identity::ServerIdentity;

/// HTTP/1.1 as an application protocol.
pub const HTTP_1: &[u8] = b"http/1.1";

/// Application protocols of the TCP listener, best first.
const TCP_PROTOCOLS: [&[u8]; 2] = [b"h2", HTTP_1];

/// Application protocol of everything over QUIC.
const QUIC_PROTOCOL: &[u8] = b"h3";

/// Strangers that are logged as warnings: more of them is somebody who makes keys.
const REPORTED_MAX: usize = 64;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// For clients over TCP.
pub fn client_tcp(certificate: &Arc<CertifiedKey>) -> ServerConfig {
    client(certificate, TCP_PROTOCOLS.map(<[u8]>::to_vec).into())
}

/// For clients over QUIC.
pub fn client_quic(certificate: &Arc<CertifiedKey>) -> ServerConfig {
    client(certificate, vec![QUIC_PROTOCOL.to_vec()])
}

fn client(certificate: &Arc<CertifiedKey>, protocols: Vec<Vec<u8>>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("aws-lc-rs has TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.clone())));
    config.alpn_protocols = protocols;
    // What a client could resume by would have to be kept for each of thousands, and saves it a signature that takes microseconds.
    config.send_tls13_tickets = 0;
    config
}

/// The servers that are let through the handshake: shared by the listener and the dialler, and replaced as the node says.
/// Nobody, to begin with.
#[derive(Clone, Debug, Default)]
pub struct Admitted(Arc<RwLock<Arc<BTreeSet<ServerId>>>>);

impl Admitted {
    /// Lets exactly these through from now on. Connections that stand are not looked at: the node closes their links.
    pub fn replace(&self, ids: Arc<BTreeSet<ServerId>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = ids;
    }

    fn contains(&self, id: &ServerId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

impl FromIterator<ServerId> for Admitted {
    fn from_iter<T: IntoIterator<Item = ServerId>>(ids: T) -> Self {
        let admitted = Self::default();
        admitted.replace(Arc::new(ids.into_iter().collect()));
        admitted
    }
}

impl<const N: usize> From<[ServerId; N]> for Admitted {
    fn from(ids: [ServerId; N]) -> Self {
        ids.into_iter().collect()
    }
}

/// For peers that dial this server: exactly the admitted ones get in.
pub fn federation_listener(identity: &ServerIdentity, admitted: impl Into<Admitted>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("aws-lc-rs has TLS 1.3")
        .with_client_cert_verifier(Arc::new(OnlyAdmitted::new(admitted.into())))
        .with_single_cert(vec![identity.certificate()], identity.private_key())
        .expect("the identity's certificate is made from its key");
    config.alpn_protocols = vec![QUIC_PROTOCOL.to_vec()];
    config
}

/// For dialling peers: exactly the admitted ones are taken. Whether it is the one that was dialled, the dialler checks by [`server_id`].
pub fn federation_dialler(identity: &ServerIdentity, admitted: impl Into<Admitted>) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("aws-lc-rs has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OnlyAdmitted::new(admitted.into())))
        .with_client_auth_cert(vec![identity.certificate()], identity.private_key())
        .expect("the identity's certificate is made from its key");
    config.alpn_protocols = vec![QUIC_PROTOCOL.to_vec()];
    // A resumed session would not be verified anew.
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// The server that a certificate of a finished federation handshake stands for; `None` if its key is no Ed25519 key.
pub fn server_id(certificate: &CertificateDer<'_>) -> Option<ServerId> {
    let spki = ParsedCertificate::try_from(certificate).ok()?.subject_public_key_info();
    ed25519_key_of_spki(&spki).map(|key| ServerId::of_key(&key))
}

/// Why the other server was refused.
#[derive(thiserror::Error)]
enum Refused {
    #[error("server id `{0}` is not admitted")]
    Stranger(ServerId),
    #[error("the certificate is not of an Ed25519 identity")]
    NoIdentity,
}

impl fmt::Debug for Refused {
    /// As for people: rustls shows an error of a verifier in this form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Takes the servers that are admitted, whoever dialled.
#[derive(Debug)]
struct OnlyAdmitted {
    admitted: Admitted,
    /// Strangers that were logged; they come again every second.
    reported: Mutex<BTreeSet<ServerId>>,
    provider: Arc<CryptoProvider>,
}

impl OnlyAdmitted {
    fn new(admitted: Admitted) -> Self {
        Self { admitted, reported: Mutex::default(), provider: provider() }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let refused = match server_id(certificate) {
            Some(id) if self.admitted.contains(&id) => return Ok(()),
            Some(id) => Refused::Stranger(id),
            None => Refused::NoIdentity,
        };
        self.report(&refused);
        Err(CertificateError::Other(OtherError(Arc::new(refused))).into())
    }

    /// Logs each of the first strangers once, where an operator sees it; a pin may be missing.
    fn report(&self, refused: &Refused) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        match refused {
            Refused::Stranger(id) if reported.len() < REPORTED_MAX && reported.insert(*id) => {
                tracing::warn!(reason = %refused, "refused a server in the federation handshake");
            }
            _ => tracing::debug!(reason = %refused, "refused a server in the federation handshake"),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for OnlyAdmitted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for OnlyAdmitted {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConnection, Connection, ServerConnection};

    use super::*;

    fn identity() -> ServerIdentity {
        ServerIdentity::generate().unwrap()
    }

    /// Runs a handshake in memory, and yields who the listening side then sees.
    fn shake(dialler: ClientConfig, listener: ServerConfig) -> Result<Option<ServerId>, Error> {
        let name = ServerName::try_from("any.name").unwrap();
        let mut near = Connection::from(ClientConnection::new(Arc::new(dialler), name).unwrap());
        let mut far = Connection::from(ServerConnection::new(Arc::new(listener)).unwrap());
        while near.is_handshaking() || far.is_handshaking() {
            pass(&mut near, &mut far)?;
            pass(&mut far, &mut near)?;
        }
        Ok(far.peer_certificates().and_then(|chain| server_id(&chain[0])))
    }

    fn pass(from: &mut Connection, to: &mut Connection) -> Result<(), Error> {
        let mut wire = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            to.read_tls(&mut wire).unwrap();
            to.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn pinned_servers_take_each_other_and_know_who_it_is() {
        let (a, b) = (identity(), identity());
        let seen = shake(federation_dialler(&a, [b.server_id()]), federation_listener(&b, [a.server_id()]));
        assert_eq!(seen.unwrap(), Some(a.server_id()));
    }

    #[test]
    fn the_set_of_admitted_servers_is_the_one_of_the_moment_on_both_sides() {
        let (a, b) = (identity(), identity());
        let (taken_by_a, taken_by_b) = (Admitted::default(), Admitted::default());
        let shaken = || {
            let (dialler, listener) =
                (federation_dialler(&a, taken_by_a.clone()), federation_listener(&b, taken_by_b.clone()));
            shake(dialler, listener).is_ok()
        };
        let only = |identity: &ServerIdentity| Arc::new(BTreeSet::from([identity.server_id()]));
        assert!(!shaken(), "nobody is, to begin with");
        taken_by_a.replace(only(&b));
        assert!(!shaken(), "the listening side does not take the other");
        taken_by_b.replace(only(&a));
        assert!(shaken());
        taken_by_a.replace(only(&a));
        assert!(!shaken(), "the dialling side does not any more");
        taken_by_a.replace(only(&b));
        taken_by_b.replace(Arc::default());
        assert!(!shaken(), "the listening side does not any more");
    }

    #[test]
    fn one_configuration_takes_a_server_from_the_moment_it_is_admitted_and_no_longer_than_that() {
        let (a, b) = (identity(), identity());
        let taken = Admitted::default();
        let listener = Arc::new(federation_listener(&b, taken.clone()));
        let shaken = || shake(federation_dialler(&a, [b.server_id()]), (*listener).clone()).is_ok();
        let states = [Arc::default(), Arc::new(BTreeSet::from([a.server_id()])), Arc::default()].map(|ids| {
            taken.replace(ids);
            shaken()
        });
        assert_eq!(states, [false, true, false]);
    }

    #[test]
    fn a_stranger_who_dials_is_refused_in_the_handshake() {
        let (a, b, stranger) = (identity(), identity(), identity());
        let refusal = shake(federation_dialler(&stranger, [b.server_id()]), federation_listener(&b, [a.server_id()]));
        let refusal = refusal.unwrap_err().to_string();
        assert!(refusal.contains(&stranger.server_id().to_string()), "{refusal}");
    }

    #[test]
    fn a_stranger_who_is_dialled_is_refused_in_the_handshake() {
        let (a, b, stranger) = (identity(), identity(), identity());
        let refusal = shake(federation_dialler(&a, [b.server_id()]), federation_listener(&stranger, [a.server_id()]));
        assert!(refusal.unwrap_err().to_string().contains(&stranger.server_id().to_string()));
    }

    #[test]
    fn a_peer_without_a_certificate_is_refused() {
        let (a, b) = (identity(), identity());
        let mut nameless = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OnlyAdmitted::new([b.server_id()].into())))
            .with_no_client_auth();
        nameless.alpn_protocols = vec![QUIC_PROTOCOL.to_vec()];
        shake(nameless, federation_listener(&b, [a.server_id()])).unwrap_err();
    }

    #[test]
    fn a_copied_certificate_without_its_key_is_refused() {
        let (a, b, thief) = (identity(), identity(), identity());
        let key = aws_lc_rs::sign::any_supported_type(&thief.private_key()).unwrap();
        let stolen = Arc::new(CertifiedKey::new(vec![a.certificate()], key));
        let mut dialler = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OnlyAdmitted::new([b.server_id()].into())))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(stolen)));
        dialler.alpn_protocols = vec![QUIC_PROTOCOL.to_vec()];
        let refusal = shake(dialler, federation_listener(&b, [a.server_id()])).unwrap_err();
        assert_eq!(refusal, Error::InvalidCertificate(CertificateError::BadSignature));
    }
}
