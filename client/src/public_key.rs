//! What is done with other people's public keys: check signatures, wrap symmetric keys.

use aws_lc_rs::{
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey},
    signature::{ED25519, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey},
};
use prost::bytes::Bytes;
use socp::{
    limits::RSA_BYTES,
    signed::{Label, signing_input},
    statement::RsaCheck,
    user_key::UserKey,
};

/// Carries out one RSA-PSS check.
pub fn verify(check: &RsaCheck) -> bool {
    check.signature.len() == RSA_BYTES
        && UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, check.key.pkcs1())
            .verify(&check.message, &check.signature)
            .is_ok()
}

/// Checks a server's Ed25519 signature over a labelled statement.
pub fn verify_server(key: &[u8; 32], label: Label, statement: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(&signing_input(label, statement), signature).is_ok()
}

/// Wraps a symmetric key: OAEP, SHA-256, no label. `None` if the key has the form of a key and is none.
pub fn wrap(key: &UserKey, plain: &[u8; 32]) -> Option<Bytes> {
    let key = PublicEncryptingKey::from_der(key.spki()).and_then(|key| Ok(OaepPublicEncryptingKey::new(key)?));
    let mut wrapped = vec![0; RSA_BYTES];
    key.ok()?.encrypt(&OAEP_SHA256_MGF1SHA256, plain, &mut wrapped, None).ok()?;
    Some(wrapped.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_key::test_keys::{ALICE, BOB};

    #[test]
    fn a_signature_counts_for_its_label_key_and_bytes_only() {
        let signature = ALICE.sign(Label::Message, b"words").unwrap();
        let check = |key, label, statement| verify(&RsaCheck::new(key, label, statement, &signature));
        assert!(check(ALICE.public(), Label::Message, b"words"));
        assert!(!check(ALICE.public(), Label::Post, b"words"));
        assert!(!check(ALICE.public(), Label::Message, b"other"));
        assert!(!check(BOB.public(), Label::Message, b"words"));
    }
}
