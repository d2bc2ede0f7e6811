//! Encryption of a text, or of a file's manifest, under a symmetric key: AES-256-GCM with a header as additional data, and a
//! commitment to the key.
//!
//! The same for messages and posts, which differ in where the key comes from.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use prost::bytes::Bytes;
use socp::{
    id::sha256,
    message::{KEY_COMMITMENT_LABEL, SealedPart},
};
use zeroize::Zeroizing;

use crate::{failure::Failure, private_key::SymmetricKey};

/// What was made of a text.
pub struct Encrypted {
    /// Fresh and random.
    pub nonce: [u8; NONCE_LEN],
    /// Ciphertext and tag.
    pub ciphertext: Bytes,
    /// Commitment to the key.
    pub key_commitment: [u8; 32],
}

/// Fills an array from the system's random source.
pub fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Failure::failed("the system gives no random bytes"))?;
    Ok(bytes)
}

/// A fresh symmetric key.
pub fn random_key() -> Result<SymmetricKey, Failure> {
    Ok(Zeroizing::new(random()?))
}

/// The commitment to a key; GCM alone would let one ciphertext open under two keys.
fn commitment(key: &[u8; 32]) -> [u8; 32] {
    sha256(&[KEY_COMMITMENT_LABEL, key])
}

fn cipher(key: &[u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
}

/// Encrypts a text. The key must be fresh, or the nonces under it few: random nonces are good for 2^32 texts.
pub fn encrypt(key: &[u8; 32], header: &[u8], text: &str) -> Result<Encrypted, Failure> {
    encrypt_bytes(key, header, text.as_bytes().to_vec())
}

/// The same for any bytes, under any additional data.
pub fn encrypt_bytes(key: &[u8; 32], additional_data: &[u8], mut bytes: Vec<u8>) -> Result<Encrypted, Failure> {
    let nonce = random()?;
    cipher(key)
        .and_then(|cipher| {
            let (nonce, additional_data) = (Nonce::assume_unique_for_key(nonce), Aad::from(additional_data));
            cipher.seal_in_place_append_tag(nonce, additional_data, &mut bytes).ok()
        })
        .ok_or_else(|| Failure::failed("encryption failed"))?;
    Ok(Encrypted { nonce, ciphertext: bytes.into(), key_commitment: commitment(key) })
}

/// Encrypts what a message brings beside its text, under the text's key: its label and the header are the additional data, and
/// the nonce is another one than the text's. Gives nonce and ciphertext.
pub fn seal_part(
    key: &[u8; 32],
    label: &[u8],
    header: &[u8],
    text_nonce: [u8; NONCE_LEN],
    part: Vec<u8>,
) -> Result<SealedPart, Failure> {
    let Encrypted { nonce, ciphertext, .. } = encrypt_bytes(key, &[label, header].concat(), part)?;
    if nonce == text_nonce {
        return Err(Failure::failed("the system gives the same random bytes twice"));
    }
    Ok(SealedPart { nonce, ciphertext })
}

/// Decrypts what a message brings beside its text; `None` for whatever reason.
pub fn open_part(key: &[u8; 32], label: &[u8], header: &[u8], part: &SealedPart) -> Option<Zeroizing<Vec<u8>>> {
    decrypt_bytes(key, &[label, header].concat(), part.nonce, &part.ciphertext)
}

/// Decrypts any bytes; `None` for whatever reason.
pub fn decrypt_bytes(
    key: &[u8; 32],
    additional_data: &[u8],
    nonce: [u8; NONCE_LEN],
    ciphertext: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    let (nonce, additional_data) = (Nonce::assume_unique_for_key(nonce), Aad::from(additional_data));
    let plain = cipher(key)?.open_in_place(nonce, additional_data, &mut buffer).ok()?.len();
    buffer.truncate(plain);
    Some(buffer)
}

/// Decrypts a text; `None` for whatever reason.
pub fn decrypt(
    key: &[u8; 32],
    header: &[u8],
    nonce: [u8; NONCE_LEN],
    ciphertext: &[u8],
    key_commitment: &[u8; 32],
) -> Option<String> {
    if commitment(key) != *key_commitment {
        return None;
    }
    let plain = decrypt_bytes(key, header, nonce, ciphertext)?;
    std::str::from_utf8(&plain).ok().map(str::to_owned)
}
