//! A profile in one file, to be carried to another device: the key as it is kept, encrypted, and all that the profile knows.
//!
//! ```text
//! {"socp_profile": 1,
//!  "key_pem": encrypted PKCS#8,
//!  "salt": HEX, "nonce": HEX, "ciphertext": HEX, "key_commitment": HEX}
//! ```
//!
//! The rest (user, server and its pin, other people's pins) is encrypted under a key that derives from the private key, so that
//! nobody else can read or alter it: HKDF-SHA-256, input the key's PKCS#8 DER, salt `salt`, info `socp profile export 1`. What
//! makes a device is left out (its id, its place in the inbox, its session): the other one makes its own.

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use serde::{Deserialize, Serialize};
use socp::{
    id::{KeyFingerprint, ServerId, hex, parse_hex},
    name::UserName,
};
use zeroize::Zeroizing;

use crate::{
    content,
    failure::Failure,
    keystore, passphrase,
    post::Bytes32,
    private_key::{PrivateKey, SymmetricKey},
};

/// The form of the file, and the label under which its key is derived.
const FORM: u32 = 1;
const LABEL: &[u8] = b"socp profile export 1";

/// Bytes of an exported file: pins of some 50,000 users, as text and in hexadecimal.
pub const EXPORT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What an exported profile says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// The user's bare name.
    pub user: String,
    /// `HOST:PORT`.
    pub server: String,
    /// The pin of the server.
    pub server_id: String,
    /// The server's own name.
    pub server_name: String,
    /// Of the key in the same file.
    pub key_fingerprint: String,
    /// The CA by which the server's certificate is checked as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// `pins.jsonl`.
    pub pins: String,
    /// `verified.jsonl`.
    pub verified: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    socp_profile: u32,
    key_pem: String,
    salt: String,
    nonce: String,
    ciphertext: String,
    key_commitment: String,
}

/// What was in a file, opened by the passphrase of its key.
pub struct Imported {
    /// The key, encrypted as it was.
    pub key_pem: Zeroizing<String>,
    /// All else.
    pub contents: Contents,
    /// Read from the contents.
    pub user: UserName,
    /// Read from the contents.
    pub server_id: ServerId,
    /// Read from the contents, and of this very key.
    pub key_fingerprint: KeyFingerprint,
}

fn derive(key: &PrivateKey, salt: &[u8; 32]) -> Result<SymmetricKey, Failure> {
    let mut derived = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, salt)
        .extract(&key.pkcs8()?)
        .expand(&[LABEL], Bytes32)
        .and_then(|okm| okm.fill(&mut derived[..]))
        .map_err(|_| Failure::failed("key derivation failed"))?;
    Ok(derived)
}

/// Makes the text of a file. `key_pem` must be encrypted and hold this key.
pub fn seal(key: &PrivateKey, key_pem: &str, contents: &Contents) -> Result<String, Failure> {
    let broken = |error: serde_json::Error| Failure::failed(error.to_string());
    let salt = content::random()?;
    let text = serde_json::to_string(contents).map_err(broken)?;
    let content_key = derive(key, &salt)?;
    let encrypted = content::encrypt(&content_key, LABEL, &text)?;
    let file = File {
        socp_profile: FORM,
        key_pem: key_pem.to_owned(),
        salt: hex(&salt),
        nonce: hex(&encrypted.nonce),
        ciphertext: hex(&encrypted.ciphertext),
        key_commitment: hex(&encrypted.key_commitment),
    };
    Ok(serde_json::to_string_pretty(&file).map_err(broken)? + "\n")
}

/// Opens a file: its key by the passphrase, and by that the rest.
pub fn open(text: &str, what: &str, source: &passphrase::Source) -> Result<Imported, Failure> {
    let none = || Failure::failed(format!("`{what}` is no exported profile")).hint("`socp export FILE` makes one");
    let file: File = serde_json::from_str(text).map_err(|_| none())?;
    if file.socp_profile != FORM {
        return Err(Failure::failed(format!("`{what}` is of a form that this version does not know"))
            .hint("use the version of `socp` that exported it, or a newer one"));
    }
    if !keystore::is_encrypted(&file.key_pem) {
        return Err(none());
    }
    let key = keystore::parse(&file.key_pem, what, source)?;
    let altered = || {
        Failure::refused(
            "EXPORT_ALTERED",
            format!("`{what}` was altered, or is damaged: it is not what its key sealed"),
        )
        .hint("export it again; nothing was imported")
    };
    let salt = parse_hex(&file.salt).ok_or_else(altered)?;
    let nonce = parse_hex(&file.nonce).ok_or_else(altered)?;
    let commitment = parse_hex(&file.key_commitment).ok_or_else(altered)?;
    let ciphertext = bytes(&file.ciphertext).ok_or_else(altered)?;
    let content_key = derive(&key, &salt)?;
    let text = content::decrypt(&content_key, LABEL, nonce, &ciphertext, &commitment).ok_or_else(altered)?;
    let contents: Contents = serde_json::from_str(&text).map_err(|_| altered())?;
    let fingerprint = KeyFingerprint::parse(&contents.key_fingerprint);
    Ok(Imported {
        user: UserName::parse(&contents.user).map_err(|_| altered())?,
        server_id: ServerId::parse(&contents.server_id).ok_or_else(altered)?,
        key_fingerprint: fingerprint.filter(|it| *it == key.public().fingerprint()).ok_or_else(altered)?,
        key_pem: file.key_pem.into(),
        contents,
    })
}

/// Reads hexadecimal digits of any number.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| parse_hex::<1>(std::str::from_utf8(pair).ok()?).map(|[byte]| byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_key::test_keys::*;

    fn contents() -> Contents {
        Contents {
            user: "alice".into(),
            server: "127.0.0.1:7443".into(),
            server_id: ServerId::of_key(&[1; 32]).to_string(),
            server_name: "server-a".into(),
            key_fingerprint: ALICE.public().fingerprint().to_string(),
            ca_pem: None,
            pins: "a pin\n".into(),
            verified: String::new(),
        }
    }

    fn source(passphrase: &str) -> passphrase::Source {
        passphrase::Source::Given(passphrase.to_owned().into())
    }

    #[test]
    fn an_export_opens_by_the_passphrase_of_its_key_alone_and_only_as_it_was_made() {
        let pem = keystore::encode(&ALICE, Some("open sesame")).unwrap();
        let text = seal(&ALICE, &pem, &contents()).unwrap();
        assert!(!text.contains("server-a") && !text.contains("a pin"), "nobody else reads what it says");
        let imported = open(&text, "it", &source("open sesame")).unwrap();
        assert_eq!((imported.contents, &*imported.key_pem), (contents(), &*pem));
        let reason = |text: &str, passphrase: &str| open(text, "it", &source(passphrase)).err().unwrap();
        assert!(reason(&text, "open barley").message.contains("does not open"));
        for field in ["salt", "nonce", "ciphertext", "key_commitment"] {
            let mut file: serde_json::Value = serde_json::from_str(&text).unwrap();
            let digits = file[field].as_str().unwrap();
            let other = if digits.ends_with('0') { "1" } else { "0" };
            file[field] = format!("{}{other}", &digits[..digits.len() - 1]).into();
            assert_eq!(reason(&file.to_string(), "open sesame").reason, "EXPORT_ALTERED", "{field}");
            file[field] = "x".into();
            assert_eq!(reason(&file.to_string(), "open sesame").reason, "EXPORT_ALTERED", "{field}");
        }
        // Somebody else's key in front of it, or the contents of another profile behind the key.
        let mut file: serde_json::Value = serde_json::from_str(&text).unwrap();
        file["key_pem"] = keystore::encode(&MALLORY, Some("open sesame")).unwrap().as_str().into();
        assert_eq!(reason(&file.to_string(), "open sesame").reason, "EXPORT_ALTERED");
        let foreign = Contents { key_fingerprint: BOB.public().fingerprint().to_string(), ..contents() };
        let text = seal(&ALICE, &pem, &foreign).unwrap();
        assert_eq!(reason(&text, "open sesame").reason, "EXPORT_ALTERED");
    }

    #[test]
    fn what_is_no_export_or_of_a_later_form_or_holds_a_plain_key_is_refused() {
        let plain = keystore::encode(&ALICE, None).unwrap();
        let text = seal(&ALICE, &plain, &contents()).unwrap();
        let later = text.replacen("\"socp_profile\": 1", "\"socp_profile\": 2", 1);
        for (text, why) in [("nothing", "no exported profile"), (&text, "no exported profile"), (&later, "a form that")]
        {
            let failure = open(text, "it", &source("open sesame")).err().unwrap();
            assert!(failure.message.contains(why), "{failure}");
        }
    }
}
