//! The server's long-lived Ed25519 identity: made at first start, kept in the data folder, never changed.
//!
//! Its public key's hash is the server id. The key signs what the core wants signed, and stands in the self-signed
//! certificate by which peers know this server; that certificate is made anew at every start, since only its key counts.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::{
    encoding::AsBigEndian as _,
    hkdf::{HKDF_SHA256, Salt},
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use socp::{
    id::{ServerId, ed25519_spki},
    identity::Identity,
};
use socp_quic::ResetSecret;

use crate::data_folder::{DataFolderError, Layout, read_private, write_private};

/// The identity cannot be had. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] DataFolderError),
    /// The file is no Ed25519 key in PKCS#8.
    #[error("`{}` is not an Ed25519 private key in PKCS#8 PEM", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The library failed: no randomness, or a bug.
    #[error("cannot make a key: {0}")]
    Generate(String),
}

impl IdentityError {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::File(error) => error.hint(),
            Self::Malformed { path } => format!(
                "restore `{}` from a backup; without it this server becomes a new one, with another server id, and its users \
                 and peers must start over",
                path.display()
            ),
            Self::Generate(_) => "this should not happen; try again".into(),
        }
    }
}

/// The identity of this server. Cheap to clone; never printed.
#[derive(Clone)]
pub struct ServerIdentity {
    inner: Arc<Inner>,
}

struct Inner {
    key: Ed25519KeyPair,
    public_key: [u8; 32],
    pkcs8: Vec<u8>,
    certificate: CertificateDer<'static>,
}

/// A UDP port of this server. Each has a reset secret of its own, or one would tell the tokens of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpListener {
    /// The clients' port.
    Clients,
    /// The peers' port.
    Federation,
}

impl ServerIdentity {
    /// Makes a new identity and keeps it nowhere.
    pub fn generate() -> Result<Self, IdentityError> {
        let generate = |error: &dyn fmt::Display| IdentityError::Generate(error.to_string());
        let key = Ed25519KeyPair::generate().map_err(|error| generate(&error))?;
        let pkcs8 = key.to_pkcs8v1().map_err(|error| generate(&error))?;
        Self::from_pkcs8(pkcs8.as_ref().to_vec()).map_err(|error| generate(&error))
    }

    /// Reads the identity of a data folder; `None` if it has none yet.
    pub fn load(layout: &Layout) -> Result<Option<Self>, IdentityError> {
        let path = layout.identity_key();
        let Some(pem) = read_private(&path)? else { return Ok(None) };
        Self::parse(&pem, &path).map(Some)
    }

    /// Reads the identity key from its text, which was found there.
    pub fn parse(pem: &str, path: &Path) -> Result<Self, IdentityError> {
        let malformed = || IdentityError::Malformed { path: path.to_owned() };
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| malformed())?;
        Self::from_pkcs8(pkcs8.secret_pkcs8_der().to_vec()).map_err(|_| malformed())
    }

    /// Reads the identity of a data folder, and makes one where there is none; on disk before this returns.
    pub fn load_or_make(layout: &Layout) -> Result<Self, IdentityError> {
        if let Some(identity) = Self::load(layout)? {
            return Ok(identity);
        }
        let identity = Self::generate()?;
        let key = rcgen_key(&identity.inner.pkcs8).map_err(|error| IdentityError::Generate(error.to_string()))?;
        write_private(&layout.identity_key(), &key.serialize_pem())?;
        Ok(identity)
    }

    fn from_pkcs8(pkcs8: Vec<u8>) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let key = Ed25519KeyPair::from_pkcs8(&pkcs8)?;
        let public_key = key.public_key().as_ref().try_into()?;
        let certificate = self_signed(&rcgen_key(&pkcs8)?)?;
        Ok(Self { inner: Arc::new(Inner { key, public_key, pkcs8, certificate }) })
    }

    /// The server's id.
    pub fn server_id(&self) -> ServerId {
        ServerId::of_key(&self.inner.public_key)
    }

    /// DER SubjectPublicKeyInfo of the public key; its SHA-256 is the id.
    pub fn spki(&self) -> [u8; 44] {
        ed25519_spki(&self.inner.public_key)
    }

    /// The self-signed certificate that peers are shown.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.inner.certificate.clone()
    }

    /// By what a restarted listener is recognised by those who were connected to it; the same at each start.
    ///
    /// Derived from the private key (HKDF-SHA256), which it does not tell. So there is no second file to lose or to leave
    /// open, and a new identity is a new secret.
    pub fn reset_secret(&self, listener: UdpListener) -> ResetSecret {
        ResetSecret::new(self.derive(listener))
    }

    fn derive(&self, listener: UdpListener) -> [u8; 32] {
        let label: &[u8] = match listener {
            UdpListener::Clients => b"socp-server stateless reset, clients",
            UdpListener::Federation => b"socp-server stateless reset, federation",
        };
        let seed = self.inner.key.seed().expect("the key was read from its seed");
        let seed = seed.as_be_bytes().expect("a seed is 32 bytes");
        let mut secret = [0; 32];
        Salt::new(HKDF_SHA256, b"")
            .extract(seed.as_ref())
            .expand(&[label], HKDF_SHA256)
            .and_then(|derived| derived.fill(&mut secret))
            .expect("HKDF-SHA256 gives 32 bytes");
        secret
    }

    /// The private key of that certificate, for rustls.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.inner.pkcs8.clone()))
    }
}

impl Identity for ServerIdentity {
    fn public_key(&self) -> [u8; 32] {
        self.inner.public_key
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.inner.key.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerIdentity({})", self.server_id())
    }
}

fn rcgen_key(pkcs8: &[u8]) -> Result<KeyPair, rcgen::Error> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &rcgen::PKCS_ED25519)
}

fn self_signed(key: &KeyPair) -> Result<CertificateDer<'static>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "socp server identity");
    Ok(params.self_signed(key)?.der().clone())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;
    use crate::data_folder::DataFolder;

    fn folder() -> (tempfile::TempDir, DataFolder) {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(Layout::new(parent.path().join("data"))).unwrap();
        (parent, folder)
    }

    #[test]
    fn the_identity_is_the_same_after_a_restart() {
        let (_parent, folder) = folder();
        assert!(ServerIdentity::load(folder.layout()).unwrap().is_none());
        let first = ServerIdentity::load_or_make(folder.layout()).unwrap();
        let again = ServerIdentity::load_or_make(folder.layout()).unwrap();
        assert_eq!(first.server_id(), again.server_id());
        assert_eq!(first.sign(b"x"), again.sign(b"x"));
        assert_eq!(fs::metadata(folder.layout().identity_key()).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn each_listener_has_a_reset_secret_that_outlives_a_restart() {
        let (_parent, folder) = folder();
        let first = ServerIdentity::load_or_make(folder.layout()).unwrap();
        let again = ServerIdentity::load_or_make(folder.layout()).unwrap();
        let other = ServerIdentity::generate().unwrap();
        for listener in [UdpListener::Clients, UdpListener::Federation] {
            assert_eq!(first.derive(listener), again.derive(listener));
            assert_ne!(first.derive(listener), other.derive(listener));
        }
        assert_ne!(first.derive(UdpListener::Clients), first.derive(UdpListener::Federation));
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_left_alone() {
        let (_parent, folder) = folder();
        let path = folder.layout().identity_key();
        write_private(&path, "not a key").unwrap();
        let error = ServerIdentity::load_or_make(folder.layout()).unwrap_err();
        assert!(matches!(error, IdentityError::Malformed { .. }), "{error}");
        assert!(error.hint().contains("backup"));
        assert_eq!(fs::read_to_string(path).unwrap(), "not a key");
    }

    #[test]
    fn a_signature_is_good_for_its_key_and_message_only() {
        let (one, other) = (ServerIdentity::generate().unwrap(), ServerIdentity::generate().unwrap());
        let signature = one.sign(b"message");
        assert!(other.verify(&one.public_key(), b"message", &signature));
        assert!(!other.verify(&other.public_key(), b"message", &signature));
        assert!(!other.verify(&one.public_key(), b"massage", &signature));
        assert!(!other.verify(&one.public_key(), b"message", &signature[..63]));
        assert!(!other.verify(&one.public_key(), b"message", b""));
    }

    #[test]
    fn the_id_is_the_hash_of_the_public_key() {
        let identity = ServerIdentity::generate().unwrap();
        assert_eq!(socp::id::sha256(&[&identity.spki()]), *identity.server_id().as_bytes());
    }
}
