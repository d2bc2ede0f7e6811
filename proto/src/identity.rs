//! A server's Ed25519 identity, as the core uses it.
//!
//! Ed25519 (RFC 8032) is deterministic, so signing and checking are functions of their arguments and may be called
//! from the core; which library does it is the shell's choice.

/// Signs as this server and checks what others signed.
pub trait Identity {
    /// The raw public key, 32 bytes.
    fn public_key(&self) -> [u8; 32];

    /// Signs with this server's key.
    fn sign(&self, message: &[u8]) -> [u8; 64];

    /// Tells whether `signature` over `message` is by `key`; false for a malformed key or signature.
    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool;
}
