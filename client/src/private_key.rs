//! The user's private key in memory: signs, and unwraps what was encrypted to it.
//!
//! All operations are aws-lc-rs's, which run in constant time and clear their memory. The key never leaves this
//! type but to be written by [`crate::keystore`].

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey},
    signature::{KeyPair as _, RSA_PSS_SHA256},
};
use prost::bytes::Bytes;
use socp::{
    limits::RSA_BYTES,
    signed::{Label, signing_input},
    user_key::UserKey,
};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// A 32-byte symmetric key, cleared when dropped.
pub type SymmetricKey = Zeroizing<[u8; 32]>;

/// An RSA-4096 key that signs and unwraps.
pub struct PrivateKey {
    signing: KeyPair,
    unwrapping: OaepPrivateDecryptingKey,
    public: UserKey,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public.fingerprint())
    }
}

impl PrivateKey {
    /// Makes a new key; takes a second or more.
    pub fn generate() -> Result<Self, Failure> {
        let key = KeyPair::generate(KeySize::Rsa4096).map_err(|_| Failure::failed("cannot make an RSA key"))?;
        Self::new(key)
    }

    /// Takes DER PKCS#8. Fails for anything but RSA of 4096 bits with exponent 65537.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Failure> {
        let key = KeyPair::from_pkcs8(der)
            .map_err(|_| Failure::failed("the key is not an RSA private key in PKCS#8").hint(MAKE_ONE))?;
        Self::new(key)
    }

    fn new(signing: KeyPair) -> Result<Self, Failure> {
        let unusable = |_| Failure::failed("the key cannot be used");
        let der: PublicKeyX509Der<'_> = signing.public_key().as_der().map_err(unusable)?;
        let public = UserKey::parse(&Bytes::copy_from_slice(der.as_ref()))
            .map_err(|rejection| Failure::from(rejection).hint(MAKE_ONE))?;
        let pkcs8: Pkcs8V1Der<'_> = signing.as_der().map_err(unusable)?;
        let unwrapping = PrivateDecryptingKey::from_pkcs8(pkcs8.as_ref())
            .map_err(|_| Failure::failed("the key cannot be used"))
            .and_then(|key| OaepPrivateDecryptingKey::new(key).map_err(unusable))?;
        Ok(Self { signing, unwrapping, public })
    }

    /// The DER PKCS#8 form; cleared when dropped by the library's own type and copied to a cleared one.
    pub fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let der: Pkcs8V1Der<'_> = self.signing.as_der().map_err(|_| Failure::failed("the key cannot be encoded"))?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    /// The public part.
    pub fn public(&self) -> &UserKey {
        &self.public
    }

    /// Signs a labelled statement: PSS, SHA-256, salt of 32 bytes.
    pub fn sign(&self, label: Label, statement: &[u8]) -> Result<Bytes, Failure> {
        let mut signature = vec![0; RSA_BYTES];
        self.signing
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), &signing_input(label, statement), &mut signature)
            .map_err(|_| Failure::failed("signing failed"))?;
        Ok(signature.into())
    }

    /// Unwraps a symmetric key: OAEP, SHA-256, no label. `None` for whatever reason: a reason would be an oracle.
    pub fn unwrap(&self, wrapped: &[u8]) -> Option<SymmetricKey> {
        let mut plain = Zeroizing::new([0; RSA_BYTES]);
        let key = self.unwrapping.decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut plain[..], None).ok()?;
        let key: &[u8; 32] = (&*key).try_into().ok()?;
        Some(Zeroizing::new(*key))
    }
}

const MAKE_ONE: &str = "the key must be RSA of 4096 bits with exponent 65537 in PKCS#8; without `--key` one is made";

/// Keys shared by all tests of the process, since making one takes seconds.
#[cfg(test)]
pub(crate) mod test_keys {
    use std::sync::{Arc, LazyLock};

    use super::PrivateKey;

    pub(crate) static ALICE: LazyLock<Arc<PrivateKey>> = LazyLock::new(|| Arc::new(PrivateKey::generate().unwrap()));
    pub(crate) static BOB: LazyLock<Arc<PrivateKey>> = LazyLock::new(|| Arc::new(PrivateKey::generate().unwrap()));
    pub(crate) static MALLORY: LazyLock<Arc<PrivateKey>> = LazyLock::new(|| Arc::new(PrivateKey::generate().unwrap()));
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{encoding::AsDer as _, rsa};

    use super::{test_keys::*, *};
    use crate::public_key;

    #[test]
    fn what_is_wrapped_to_a_key_is_unwrapped_by_that_key_only() {
        let wrapped = public_key::wrap(ALICE.public(), &[7; 32]).unwrap();
        assert_eq!(*ALICE.unwrap(&wrapped).unwrap(), [7; 32]);
        assert!(BOB.unwrap(&wrapped).is_none());
        assert!(ALICE.unwrap(&wrapped[1..]).is_none());
    }

    #[test]
    fn a_key_of_another_size_is_refused() {
        let short = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = short.as_der().unwrap();
        assert_eq!(PrivateKey::from_pkcs8(der.as_ref()).unwrap_err().reason, "BAD_KEY");
        assert!(PrivateKey::from_pkcs8(b"no key").is_err());
    }

    #[test]
    fn nothing_secret_is_in_the_debug_form() {
        assert_eq!(format!("{:?}", **ALICE), format!("PrivateKey({})", ALICE.public().fingerprint()));
    }
}
