//! Identifiers: fixed-size values that are made by hashing a key or a document, or by parsing text.
//!
//! None of them can be built from a bare string or array outside its module except through a named constructor,
//! so that a fingerprint never passes for a server id.

use alloc::string::String;
use core::fmt;

use sha2::{Digest as _, Sha256};

/// SHA-256 of some parts, one after the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Lower-case hexadecimal text of some bytes.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

/// The bytes of lower-case hexadecimal text of exactly `N` bytes; `None` for anything else.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Takes bytes as received; `None` unless there are exactly as many as the id has.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Reads the hexadecimal text form, lower case.
            pub fn parse(text: &str) -> Option<Self> {
                parse_hex(text).map(Self)
            }

            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("..)")
            }
        }
    };
}

identifier! {
    /// A server: SHA-256 of the DER SubjectPublicKeyInfo of its Ed25519 identity key.
    ServerId, 32
}

identifier! {
    /// A user's key: SHA-256 of its DER SubjectPublicKeyInfo.
    KeyFingerprint, 32
}

identifier! {
    /// A signed key statement, signatures included.
    StatementHash, 32
}

identifier! {
    /// The bytes that the sender of a message or post signed, without the label.
    ContentHash, 32
}

identifier! {
    /// One start of a server: random, made with its epoch.
    StartId, 16
}

identifier! {
    /// A session's public name; says nothing about its token.
    SessionId, 16
}

identifier! {
    /// A device of a user: random, made by it once.
    DeviceId, 16
}

identifier! {
    /// A file: random, made by its sender.
    FileId, 16
}

identifier! {
    /// SHA-256 of a bearer token: what the core knows of it, so that the token itself is in no state and no log.
    TokenHash, 32
}

/// DER of SubjectPublicKeyInfo up to the key itself, for Ed25519 (RFC 8410).
const ED25519_SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl ServerId {
    /// The id of the server with this raw Ed25519 public key.
    pub fn of_key(key: &[u8; 32]) -> Self {
        Self(sha256(&[&ED25519_SPKI_PREFIX, key]))
    }

    /// The first 8 hexadecimal digits, for a label that must tell two claimants of a name apart.
    pub fn short(&self) -> String {
        hex(&self.0[..4])
    }
}

/// The raw Ed25519 public key inside a DER SubjectPublicKeyInfo; `None` if it is anything else.
pub fn ed25519_key_of_spki(spki: &[u8]) -> Option<[u8; 32]> {
    spki.strip_prefix(&ED25519_SPKI_PREFIX)?.try_into().ok()
}

/// The DER SubjectPublicKeyInfo of a raw Ed25519 public key.
pub fn ed25519_spki(key: &[u8; 32]) -> [u8; 44] {
    let mut spki = [0; 44];
    spki[..12].copy_from_slice(&ED25519_SPKI_PREFIX);
    spki[12..].copy_from_slice(key);
    spki
}

impl KeyFingerprint {
    /// The fingerprint of a key in DER SubjectPublicKeyInfo.
    pub fn of_spki(spki: &[u8]) -> Self {
        Self(sha256(&[spki]))
    }
}

impl ContentHash {
    /// The hash of a message's or post's signed bytes.
    pub fn of(statement: &[u8]) -> Self {
        Self(sha256(&[statement]))
    }
}

impl TokenHash {
    /// The hash of a bearer token's text.
    pub fn of(token: &str) -> Self {
        Self(sha256(&[b"socp.v1.Token\0", token.as_bytes()]))
    }
}

impl StatementHash {
    pub(crate) fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

/// A message's id: a UUID of version 7 (RFC 9562).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId([u8; 16]);

impl MessageId {
    /// Takes the 16 bytes of an id; `None` if it is of another version.
    pub fn from_bytes(bytes: &[u8; 16]) -> Option<Self> {
        (bytes[6] >> 4 == 7 && bytes[8] >> 6 == 0b10).then_some(Self(*bytes))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads the usual text form, lower case with hyphens; `None` for anything else or another version.
    pub fn parse(text: &str) -> Option<Self> {
        let groups = [8, 4, 4, 4, 12];
        let mut digits = String::with_capacity(32);
        let mut parts = text.split('-');
        for length in groups {
            digits.push_str(parts.next().filter(|part| part.len() == length)?);
        }
        let bytes: [u8; 16] = parse_hex(&digits)?;
        Self::from_bytes(&bytes).filter(|_| parts.next().is_none())
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn parse_after_print_is_identity() {
        let id = ServerId::of_key(&[7; 32]);
        assert_eq!(ServerId::parse(&id.to_string()), Some(id));
        let text = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(MessageId::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn only_exact_text_is_an_id() {
        let text = ServerId::of_key(&[7; 32]).to_string();
        for wrong in [&text[1..], &text.to_uppercase(), "", &(text.clone() + "0")] {
            assert_eq!(ServerId::parse(wrong), None, "{wrong}");
        }
        for wrong in [
            "01890a5d-ac96-474b-bcce-b302099a8057",
            "01890a5dac96774bbcceb302099a8057",
            "01890a5d-ac96-774b-bcce-b302099a8057-",
        ] {
            assert_eq!(MessageId::parse(wrong), None, "{wrong}");
        }
    }
}
