//! Keys of a simulation: real Ed25519 for servers, and for users only the form of an RSA key.
//!
//! Checks of users' signatures are slow and happen outside the core, so the simulation answers them itself: a
//! signature is good when it is the user's seal over the message.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use prost::bytes::Bytes;
use socp::{id::sha256, identity::Identity, statement::RsaCheck};

/// Results of checks that are remembered: every server of a run checks the same bytes, and the result is the same.
const REMEMBERED_MAX: usize = 65_536;

thread_local! {
    static REMEMBERED: RefCell<HashMap<Vec<u8>, bool>> = RefCell::default();
}

/// A server's identity from a seed.
#[derive(Clone)]
pub struct SimIdentity(Arc<Ed25519KeyPair>);

impl SimIdentity {
    pub fn new(seed: u64) -> Self {
        let seed = sha256(&[b"sim identity", &seed.to_be_bytes()]);
        Self(Arc::new(Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes are a seed")))
    }
}

impl Identity for SimIdentity {
    fn public_key(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().expect("an Ed25519 key is 32 bytes")
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature is 64 bytes")
    }

    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
        let all = [key, signature, message].concat();
        if let Some(is_valid) = REMEMBERED.with_borrow(|remembered| remembered.get(&all).copied()) {
            return is_valid;
        }
        let is_valid = UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok();
        REMEMBERED.with_borrow_mut(|remembered| {
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(all, is_valid);
        });
        is_valid
    }
}

/// DER SubjectPublicKeyInfo of the form of an RSA-4096 key; nobody has its private part.
pub fn user_spki(seed: &[u8]) -> Bytes {
    let mut spki = vec![
        0x30, 0x82, 0x02, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05,
        0x00, 0x03, 0x82, 0x02, 0x0f, 0x00, 0x30, 0x82, 0x02, 0x0a, 0x02, 0x82, 0x02, 0x01, 0x00,
    ];
    let mut modulus: Vec<u8> = (0..16_u8).flat_map(|block| sha256(&[b"sim key", seed, &[block]])).collect();
    modulus[0] |= 0x80;
    modulus[511] |= 1;
    spki.extend(modulus);
    spki.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
    spki.into()
}

/// What stands for the signature of the holder of a key.
pub fn seal(spki: &[u8], message: &[u8]) -> Bytes {
    (0..16_u8).flat_map(|block| sha256(&[b"sim seal", spki, message, &[block]])).collect::<Vec<u8>>().into()
}

/// What the shell would find out about a check.
pub fn is_valid(checks: &[RsaCheck]) -> bool {
    checks.iter().all(|check| check.signature == seal(check.key.spki(), &check.message))
}
