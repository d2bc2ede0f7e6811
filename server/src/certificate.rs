//! The certificate that clients are shown: the operator's own, or one made here under a small CA.
//!
//! It is not the identity: gRPC's C core and browsers take no Ed25519, and an operator may have a certificate from a public
//! CA. The identity key signs the certificate's public key instead, so that a client which knows the server id needs no CA.
//! A self-made certificate is made anew at a start when the names have changed or its end has come near; the CA stays.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use socp::{
    identity::Identity as _,
    signed::{Label, signing_input},
    statement::encode_certificate,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use crate::{
    data_folder::{DataFolderError, Layout, read_private, read_public, write_private, write_public},
    identity::ServerIdentity,
};

const DAY: Duration = Duration::from_secs(86_400);

/// How long a self-made certificate is good. Apple's systems take no more than 825 days, whatever the CA.
const CERTIFICATE_TIME: Duration = DAY.saturating_mul(820);

/// What must be left of it at a start; otherwise it is made anew. Long, since a server may then run for a year.
const CERTIFICATE_TIME_LEFT_MIN: Duration = DAY.saturating_mul(400);

/// How long the CA is good: longer than a machine lives, since whoever trusts it must be told when it changes.
const CA_TIME: Duration = DAY.saturating_mul(365 * 20);

/// Names by which a server can always be reached on its own machine.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The certificate cannot be had. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file of the data folder cannot be read or written.
    #[error(transparent)]
    File(#[from] DataFolderError),
    /// A file holds something else than it should.
    #[error("`{}` does not hold {expected}: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the operator's cannot be read.
    #[error("cannot read `{}`: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The operator's key is not that of the operator's certificate.
    #[error("the key in `{}` does not belong to the certificate in `{}`", .key.display(), .certificate.display())]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The library failed: no randomness, a name that cannot stand in a certificate, or a bug.
    #[error("cannot make a certificate: {0}")]
    Generate(String),
}

impl CertificateError {
    /// What the operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::File(error) => error.hint(),
            Self::Malformed { path, .. } => {
                format!(
                    "replace `{}`; one that the server made itself can be deleted, and is made anew",
                    path.display()
                )
            }
            Self::Unreadable { .. } => {
                "check `[tls]` in the configuration, and that the user that runs socp-server may read it".into()
            }
            Self::Mismatch { .. } => {
                "name a certificate and its own key under `[tls]`, the certificate first in its file".into()
            }
            Self::Generate(_) => "check `public_names`: each is a DNS name or an IP address".into(),
        }
    }
}

/// Files with a certificate and key of the operator's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFiles {
    /// PEM: the certificate, then those between it and its CA.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// The certificate that clients are shown, and the proof that it is this server's.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// Chain and key, for rustls.
    pub certified: Arc<CertifiedKey>,
    /// Where the CA's certificate is, if it was made here.
    pub ca: Option<PathBuf>,
    /// An encoded `CertificateStatement` about it.
    pub statement: Vec<u8>,
    /// The identity's signature over that statement.
    pub signature: [u8; 64],
}

impl ClientCertificate {
    /// Takes the operator's files.
    pub fn of_operator(files: &OwnFiles, identity: &ServerIdentity) -> Result<Self, CertificateError> {
        let unreadable = |path: &Path, error: rustls::pki_types::pem::Error| {
            let reason = match error {
                rustls::pki_types::pem::Error::NoItemsFound => "there is nothing of the kind in it".to_owned(),
                error => error.to_string(),
            };
            CertificateError::Unreadable { path: path.to_owned(), reason }
        };
        let chain = CertificateDer::pem_file_iter(&files.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable(&files.certificate, error))?;
        if chain.is_empty() {
            return Err(unreadable(&files.certificate, rustls::pki_types::pem::Error::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable(&files.key, error))?;
        Self::new(chain, key, files, identity)
    }

    /// Takes the certificate of the data folder, and makes what is missing there or no longer good: for the machine's own
    /// names and `names`, each a DNS name or an IP address.
    pub fn self_made(
        layout: &Layout,
        names: &[String],
        identity: &ServerIdentity,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let names: BTreeSet<String> =
            LOCAL_NAMES.into_iter().map(canonical).chain(names.iter().map(|n| canonical(n))).collect();
        let (issuer, fresh) = load_or_make_ca(layout, identity, now)?;
        if fresh || !is_usable(layout, &names, now)? {
            make(layout, &names, &issuer, now)?;
        }
        let files = OwnFiles { certificate: layout.certificate(), key: layout.certificate_key() };
        // Made or checked just above; read back so that there is one way in.
        read_private(&files.key)?;
        Ok(Self { ca: Some(layout.ca()), ..Self::of_operator(&files, identity)? })
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        files: &OwnFiles,
        identity: &ServerIdentity,
    ) -> Result<Self, CertificateError> {
        let malformed = |path: &Path, expected, reason: String| CertificateError::Malformed {
            path: path.to_owned(),
            expected,
            reason,
        };
        let spki = spki(&chain[0]).map_err(|reason| malformed(&files.certificate, "a certificate", reason))?;
        let key = aws_lc_rs::default_provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| malformed(&files.key, "a usable private key", error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| CertificateError::Mismatch {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        })?;
        let statement = encode_certificate(identity.server_id(), &spki);
        let signature = identity.sign(&signing_input(Label::Certificate, &statement));
        Ok(Self { certified: Arc::new(certified), ca: None, statement, signature })
    }
}

/// DER SubjectPublicKeyInfo of a certificate.
fn spki(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    Ok(parsed.public_key().raw.to_vec())
}

/// One text for one name: addresses as the standard library prints them, DNS names in lower case.
fn canonical(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |address| address.to_string())
}

fn load_or_make_ca(
    layout: &Layout,
    identity: &ServerIdentity,
    now: SystemTime,
) -> Result<(Issuer<'static, KeyPair>, bool), CertificateError> {
    let params = ca_params(identity, now);
    if let (Some(_), Some(key)) = (read_public(&layout.ca())?, read_private(&layout.ca_key())?) {
        let key = KeyPair::from_pem(&key).map_err(|error| CertificateError::Malformed {
            path: layout.ca_key(),
            expected: "a private key",
            reason: error.to_string(),
        })?;
        return Ok((Issuer::new(params, key), false));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(generate)?;
    let certificate = params.self_signed(&key).map_err(generate)?;
    write_private(&layout.ca_key(), &key.serialize_pem())?;
    write_public(&layout.ca(), &certificate.pem())?;
    Ok((Issuer::new(params, key), true))
}

fn ca_params(identity: &ServerIdentity, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    // The same at every start, since it must equal the issuer in certificates made later.
    params.distinguished_name.push(DnType::CommonName, format!("socp CA of {}", identity.server_id().short()));
    params.not_before = (now - DAY).into();
    params.not_after = (now + CA_TIME).into();
    params
}

/// Tells whether the certificate on disk has these names, no others, and enough time left.
fn is_usable(layout: &Layout, names: &BTreeSet<String>, now: SystemTime) -> Result<bool, CertificateError> {
    let (Some(pem), Some(_)) = (read_public(&layout.certificate())?, read_private(&layout.certificate_key())?) else {
        return Ok(false);
    };
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return Ok(false) };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return Ok(false) };
    let end = now.duration_since(UNIX_EPOCH).unwrap_or_default() + CERTIFICATE_TIME_LEFT_MIN;
    let in_time = u64::try_from(certificate.validity().not_after.timestamp()).is_ok_and(|until| until > end.as_secs());
    let on_it: BTreeSet<String> = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(name).collect(),
        _ => BTreeSet::new(),
    };
    Ok(in_time && on_it == *names)
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

fn make(
    layout: &Layout,
    names: &BTreeSet<String>,
    issuer: &Issuer<'_, KeyPair>,
    now: SystemTime,
) -> Result<(), CertificateError> {
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>()).map_err(generate)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "socp server");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now - DAY).into();
    params.not_after = (now + CERTIFICATE_TIME).into();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(generate)?;
    let certificate = params.signed_by(&key, issuer).map_err(generate)?;
    write_private(&layout.certificate_key(), &key.serialize_pem())?;
    write_public(&layout.certificate(), &certificate.pem())?;
    Ok(())
}

fn generate(error: rcgen::Error) -> CertificateError {
    CertificateError::Generate(error.to_string())
}

#[cfg(test)]
mod tests;
