//! The private key on disk: PKCS#8 in PEM, encrypted with scrypt and AES-256-CBC (RFC 8018, RFC 7914), mode 0600.
//!
//! A key written without a passphrase is plain PKCS#8, and only because the user said so.

use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use pkcs8::{
    EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument,
    der::pem::PemLabel as _,
    pkcs5::{pbes2, scrypt},
};
use zeroize::Zeroizing;

use crate::{failure::Failure, passphrase, private_file, private_key::PrivateKey};

/// scrypt cost: 2^16 blocks of 1 KiB, so 64 MiB and a fifth of a second per guess.
const SCRYPT_LOG_N: u8 = 16;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 1;

/// Writes the key, encrypted unless there is no passphrase.
pub fn write(path: &Path, key: &PrivateKey, passphrase: Option<&str>) -> Result<(), Failure> {
    private_file::write(path, encode(key, passphrase)?.as_bytes())
}

/// The PEM text of a key, encrypted unless there is no passphrase.
pub fn encode(key: &PrivateKey, passphrase: Option<&str>) -> Result<Zeroizing<String>, Failure> {
    let der = key.pkcs8()?;
    let broken = |_| Failure::failed("the key cannot be encoded");
    match passphrase {
        None => SecretDocument::try_from(&der[..])
            .and_then(|document| document.to_pem(PrivateKeyInfo::PEM_LABEL, LineEnding::LF))
            .map_err(|_| Failure::failed("the key cannot be encoded")),
        Some(passphrase) => {
            let (mut salt, mut iv) = ([0; 16], [0; 16]);
            for random in [&mut salt, &mut iv] {
                rand::fill(random).map_err(|_| Failure::failed("the system gives no random bytes"))?;
            }
            let cost = scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P, 32)
                .map_err(|_| Failure::failed("scrypt does not take these parameters"))?;
            let parameters = pbes2::Parameters::scrypt_aes256cbc(cost, &salt, &iv)
                .map_err(|_| Failure::failed("PBES2 does not take these parameters"))?;
            PrivateKeyInfo::try_from(&der[..])
                .map_err(broken)?
                .encrypt_with_params(parameters, passphrase)
                .and_then(|document| Ok(document.to_pem(EncryptedPrivateKeyInfo::PEM_LABEL, LineEnding::LF)?))
                .map_err(broken)
        }
    }
}

/// Whether the PEM text of a key is of an encrypted one.
pub fn is_encrypted(text: &str) -> bool {
    SecretDocument::from_pem(text).is_ok_and(|(label, _)| label == EncryptedPrivateKeyInfo::PEM_LABEL)
}

/// Reads the key, asking for the passphrase only where it is encrypted.
pub fn read(path: &Path, source: &passphrase::Source) -> Result<PrivateKey, Failure> {
    parse(&text(path)?, &path.display().to_string(), source)
}

/// Reads the key in force, and of others those that open as it does: nobody is asked twice.
pub fn read_all(
    path: &Path,
    others: &[PathBuf],
    source: &passphrase::Source,
) -> Result<(PrivateKey, Vec<PrivateKey>), Failure> {
    let text = text(path)?;
    let source = match (is_encrypted(&text), others) {
        (true, [_, ..]) => passphrase::Source::Given(source.read(&format!("Passphrase of `{}`: ", path.display()))?),
        _ => source.clone(),
    };
    let key = parse(&text, &path.display().to_string(), &source)?;
    let quiet = if matches!(source, passphrase::Source::Given(_)) { source } else { passphrase::Source::Nowhere };
    Ok((key, others.iter().filter_map(|other| read(other, &quiet).ok()).collect()))
}

/// The PEM text in a file.
pub fn text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    private_file::read(path)?.map(Zeroizing::new).ok_or_else(|| {
        Failure::failed(format!("there is no key in `{}`", path.display()))
            .hint("register anew, or bring the key with `--key FILE`")
    })
}

/// The key in a PEM text, which is from this file.
pub fn parse(text: &str, file: &str, source: &passphrase::Source) -> Result<PrivateKey, Failure> {
    let not_a_key = || {
        Failure::failed(format!("`{file}` is not a private key in PKCS#8 PEM"))
            .hint("`openssl pkcs8 -topk8` converts other forms")
    };
    let (label, document) = SecretDocument::from_pem(text).map_err(|_| not_a_key())?;
    if label == PrivateKeyInfo::PEM_LABEL {
        return PrivateKey::from_pkcs8(document.as_bytes());
    }
    if label != EncryptedPrivateKeyInfo::PEM_LABEL {
        return Err(not_a_key());
    }
    let encrypted = EncryptedPrivateKeyInfo::try_from(document.as_bytes()).map_err(|_| not_a_key())?;
    let passphrase = source.read(&format!("Passphrase of `{file}`: "))?;
    let plain = encrypted.decrypt(passphrase.as_bytes()).map_err(|_| {
        Failure::failed(format!("the passphrase does not open `{file}`"))
            .hint("it was chosen at `socp register`; `SOCP_PASSPHRASE` and `--passphrase-file` go before the prompt")
    })?;
    PrivateKey::from_pkcs8(plain.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_key::test_keys::ALICE;

    #[test]
    fn only_the_passphrase_it_was_written_with_opens_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write(&path, &ALICE, Some("open sesame")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        let key = read(&path, &passphrase::Source::Given("open sesame".to_owned().into())).unwrap();
        assert_eq!(key.public(), ALICE.public());
        let wrong = read(&path, &passphrase::Source::Given("sesame".to_owned().into())).unwrap_err();
        assert!(wrong.message.contains("does not open"), "{wrong}");
    }

    #[test]
    fn a_key_without_a_passphrase_asks_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write(&path, &ALICE, None).unwrap();
        assert_eq!(read(&path, &passphrase::Source::Nowhere).unwrap().public(), ALICE.public());
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write(&path, &ALICE, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        assert!(read(&path, &passphrase::Source::Nowhere).unwrap_err().message.contains("there is no key"));
        private_file::write(&path, b"hello").unwrap();
        assert!(read(&path, &passphrase::Source::Nowhere).unwrap_err().message.contains("is not a private key"));
    }
}
