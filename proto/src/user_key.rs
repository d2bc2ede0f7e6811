//! Users' public keys: RSA of exactly 4096 bits with exponent 65537.
//!
//! DER is canonical, so the SubjectPublicKeyInfo (RFC 5280, RFC 8017) of such a key has one possible form: fixed
//! bytes around the modulus. Comparing with it is stricter than parsing, and there is no parser to attack.

use prost::bytes::Bytes;

use crate::{id::KeyFingerprint, limits::RSA_BYTES, rejection::Rejection, v1::Reason};

const PREFIX: [u8; 33] = [
    0x30, 0x82, 0x02, 0x22, // SEQUENCE, 546 bytes
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05,
    0x00, // rsaEncryption, NULL
    0x03, 0x82, 0x02, 0x0f, 0x00, // BIT STRING, 527 bytes, no unused bits
    0x30, 0x82, 0x02, 0x0a, // SEQUENCE, 522 bytes
    0x02, 0x82, 0x02, 0x01, 0x00, // INTEGER, 513 bytes with a leading zero
];
const SUFFIX: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01]; // INTEGER 65537

/// A public key of the one acceptable form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserKey(Bytes);

impl UserKey {
    /// Takes DER SubjectPublicKeyInfo. Rejects: BAD_KEY, for any other algorithm, size, exponent or encoding.
    pub fn parse(spki: &Bytes) -> Result<Self, Rejection> {
        let modulus = spki.strip_prefix(&PREFIX).and_then(|rest| rest.strip_suffix(&SUFFIX));
        match modulus {
            Some(modulus) if is_4096_bit_odd(modulus) => Ok(Self(spki.clone())),
            _ => Err(Rejection::new(
                Reason::BadKey,
                "the public key is not RSA of 4096 bits with exponent 65537 in DER SubjectPublicKeyInfo",
            )),
        }
    }

    /// The DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> &Bytes {
        &self.0
    }

    /// The inner RSAPublicKey (PKCS#1) in DER, as some libraries want it.
    pub fn pkcs1(&self) -> &[u8] {
        &self.0[24..]
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of_spki(&self.0)
    }
}

fn is_4096_bit_odd(modulus: &[u8]) -> bool {
    modulus.len() == RSA_BYTES && modulus[0] & 0x80 != 0 && modulus[RSA_BYTES - 1] & 1 == 1
}

/// Bytes of the right form that are nobody's key, for tests in which no RSA signature is checked.
#[cfg(test)]
pub(crate) fn shaped_like_a_key(seed: u8) -> Bytes {
    let mut spki = PREFIX.to_vec();
    spki.extend([0xff; RSA_BYTES - 1]);
    spki.push(seed | 1);
    spki[40] = seed;
    spki.extend(SUFFIX);
    spki.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_size_exponent_or_form_is_bad() {
        let good = shaped_like_a_key(3);
        assert!(UserKey::parse(&good).is_ok());
        let spoil = |index: usize, value: u8| {
            let mut key = good.to_vec();
            key[index] = value;
            UserKey::parse(&key.into()).unwrap_err().reason
        };
        let last = good.len() - 1;
        assert_eq!(spoil(last, 3), Reason::BadKey, "exponent 65539");
        assert_eq!(spoil(33, 0x7f), Reason::BadKey, "4095 bits");
        assert_eq!(spoil(last - 5, 2), Reason::BadKey, "an even modulus");
        assert_eq!(spoil(14, 0x0a), Reason::BadKey, "another algorithm");
        assert_eq!(UserKey::parse(&good.slice(1..)).unwrap_err().reason, Reason::BadKey);
        assert_eq!(UserKey::parse(&Bytes::new()).unwrap_err().reason, Reason::BadKey);
        assert_eq!(UserKey::parse(&good).unwrap().pkcs1()[0], 0x30);
    }
}
