//! A server's Ed25519 identity, as the core uses it.
//!
//! Ed25519 (RFC 8032) is deterministic, so signing and checking are functions of their arguments and may be called
//! from the core; which library does it is the shell's choice.

use prost::bytes::Bytes;

use crate::{
    mutation::{Mutation, is_on},
    output::Refusal,
    signed::{Label, signing_input},
};

/// Signs as this server and checks what others signed.
pub trait Identity {
    /// The raw public key, 32 bytes.
    fn public_key(&self) -> [u8; 32];

    /// Signs with this server's key.
    fn sign(&self, message: &[u8]) -> [u8; 64];

    /// Tells whether `signature` over `message` is by `key`; false for a malformed key or signature.
    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool;
}

/// This server's signature over a labelled statement.
pub(crate) fn signature(identity: &dyn Identity, label: Label, statement: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&identity.sign(&signing_input(label, statement)))
}

/// Checks a server's signature; gives the key.
pub(crate) fn verified_key(
    identity: &dyn Identity,
    label: Label,
    key: &[u8],
    statement: &[u8],
    signature: &[u8],
) -> Result<[u8; 32], Refusal> {
    let key: [u8; 32] = key.try_into().map_err(|_| Refusal::Malformed("origin_key"))?;
    if is_on(Mutation::SignatureNotChecked) || identity.verify(&key, &signing_input(label, statement), signature) {
        Ok(key)
    } else {
        Err(Refusal::BadSignature)
    }
}
