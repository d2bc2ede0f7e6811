//! Keys of a simulation: Ed25519 for servers, and RSA-4096 for users of runs from seeds.
//!
//! Checks of users' signatures are slow and happen outside the core, so the simulation does them as the server's shell does.
//! There are but a few keys of users, those of the golden vectors, since making one takes a second. Users of tests that tell a
//! story have only the form of a key, and what stands for a signature is their seal over the message; so do logins and
//! messages in most seeds, since signing takes 2 ms.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, RSA_PSS_2048_8192_SHA256, RSA_PSS_SHA256, UnparsedPublicKey},
};
use prost::bytes::Bytes;
use socp::{id::sha256, identity::Identity, statement::RsaCheck};

/// Results of checks that are remembered: every server of a run checks the same bytes, and the result is the same.
const REMEMBERED_MAX: usize = 65_536;

/// What a signature was checked for, and the result.
struct Checked {
    key: [u8; 32],
    message: Box<[u8]>,
    is_valid: bool,
}

thread_local! {
    /// By the signature.
    static REMEMBERED: RefCell<HashMap<[u8; 64], Checked>> = RefCell::default();
    static USERS_KEYS: Vec<(Bytes, rsa::KeyPair)> = users_keys();
}

/// The keys of the golden vectors, which everybody knows.
fn users_keys() -> Vec<(Bytes, rsa::KeyPair)> {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../vectors/keys.json")).expect("the vectors are JSON");
    let bytes = |text: &serde_json::Value| -> Vec<u8> {
        let text = text.as_str().expect("a key is text");
        let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("a key is in hexadecimal");
        (0..text.len()).step_by(2).map(byte).collect()
    };
    let users = vectors["users"].as_object().expect("the vectors have users").values();
    let pair = |user: &serde_json::Value| {
        let pair = rsa::KeyPair::from_pkcs8(&bytes(&user["private_key_pkcs8"])).expect("a private key in PKCS#8");
        (bytes(&user["public_key"]).into(), pair)
    };
    users.map(pair).collect()
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
        let Ok(name) = <[u8; 64]>::try_from(signature) else { return false };
        let known = REMEMBERED.with_borrow(|remembered| {
            let checked = remembered.get(&name)?;
            (checked.key == *key && *checked.message == *message).then_some(checked.is_valid)
        });
        if let Some(is_valid) = known {
            return is_valid;
        }
        let is_valid = UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok();
        REMEMBERED.with_borrow_mut(|remembered| {
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(name, Checked { key: *key, message: message.into(), is_valid });
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

/// A key of which the private part is known, as DER SubjectPublicKeyInfo. Several users have the same.
pub fn real_spki(number: usize) -> Bytes {
    USERS_KEYS.with(|keys| keys[number % keys.len()].0.clone())
}

/// The signature of the holder of a key: PSS, SHA-256, salt of 32 bytes; a seal where the private part is not known.
pub fn sign(spki: &[u8], message: &[u8]) -> Bytes {
    let signed = USERS_KEYS.with(|keys| {
        let (_, pair) = keys.iter().find(|(public, _)| public == spki)?;
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature).expect("a key signs");
        Some(signature.into())
    });
    signed.unwrap_or_else(|| seal(spki, message))
}

/// What stands for the signature of the holder of a key.
pub fn seal(spki: &[u8], message: &[u8]) -> Bytes {
    (0..16_u8).flat_map(|block| sha256(&[b"sim seal", spki, message, &[block]])).collect::<Vec<u8>>().into()
}

/// What the shell would find out about a check.
pub fn is_valid(checks: &[RsaCheck]) -> bool {
    checks.iter().all(|check| {
        let key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, check.key.pkcs1());
        check.signature == seal(check.key.spki(), &check.message)
            || key.verify(&check.message, &check.signature).is_ok()
    })
}
