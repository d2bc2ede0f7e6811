//! Key statements, logins and certificate statements: made by one side, read by the other, here for both.
//!
//! Reading checks form and content; checking the signature is a separate, slow step, so a value of these types says
//! nothing about who signed it until [`KeyStatement::checks`] or the like were carried out.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use prost::{Message as _, bytes::Bytes};

use crate::{
    id::{ServerId, StatementHash, sha256},
    limits::{KEY_STATEMENT_BYTES_MAX, RSA_BYTES},
    name::UserName,
    rejection::Rejection,
    signed::{Label, signing_input},
    user_key::UserKey,
    v1::{self, Reason, SignedKeyStatement},
};

/// One RSA-PSS signature to be checked: SHA-256, MGF1 with SHA-256, salt of 32 bytes (RFC 8017).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RsaCheck {
    /// The key that must have signed.
    pub key: UserKey,
    /// What must have been signed, label included.
    pub message: Bytes,
    /// The signature, 512 bytes if it is to match.
    pub signature: Bytes,
}

impl RsaCheck {
    /// The check of a labelled statement.
    pub fn new(key: &UserKey, label: Label, statement: &[u8], signature: &Bytes) -> Self {
        Self { key: key.clone(), message: signing_input(label, statement).into(), signature: signature.clone() }
    }
}

/// A key statement that was read, with the signed bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatement {
    /// The user's bare name.
    pub user: UserName,
    /// The home.
    pub home: ServerId,
    /// The key it claims.
    pub key: UserKey,
    /// Place in the user's chain, from 1.
    pub number: u64,
    /// The statement before this one; `None` for number 1.
    pub previous: Option<StatementHash>,
    /// The bytes as received.
    pub signed: SignedKeyStatement,
    hash: StatementHash,
}

impl KeyStatement {
    /// Encodes the part that is signed, for a client that registers or rotates.
    pub fn encode(
        user: &UserName,
        home: ServerId,
        key: &UserKey,
        number: u64,
        previous: Option<StatementHash>,
    ) -> Vec<u8> {
        v1::KeyStatement {
            user: user.to_string(),
            home_id: home.to_string(),
            public_key: key.spki().clone(),
            number,
            previous_sha256: previous.map_or_else(Bytes::new, |hash| Bytes::copy_from_slice(hash.as_bytes())),
        }
        .encode_to_vec()
    }

    /// Reads a signed statement without checking its signatures.
    /// Rejects: TOO_LARGE, STATEMENT_INVALID, NAME_INVALID, BAD_KEY.
    pub fn parse(signed: &SignedKeyStatement) -> Result<Self, Rejection> {
        let size = signed.statement.len() + signed.signature.len() + signed.previous_signature.len();
        if size > KEY_STATEMENT_BYTES_MAX {
            return Err(too_large(KEY_STATEMENT_BYTES_MAX));
        }
        let signed = SignedKeyStatement {
            statement: own(&signed.statement),
            signature: own(&signed.signature),
            previous_signature: own(&signed.previous_signature),
        };
        let content = v1::KeyStatement::decode(&signed.statement[..]).map_err(|_| invalid("key_statement"))?;
        let previous = match &content.previous_sha256[..] {
            [] => None,
            hash => Some(StatementHash::from_bytes(hash).ok_or_else(|| invalid("previous_sha256"))?),
        };
        let first = content.number == 1;
        if content.number == 0 || first != previous.is_none() || first != signed.previous_signature.is_empty() {
            return Err(invalid("number"));
        }
        Ok(Self {
            user: UserName::parse(&content.user)?,
            home: ServerId::parse(&content.home_id).ok_or_else(|| invalid("home_id"))?,
            key: UserKey::parse(&content.public_key)?,
            number: content.number,
            previous,
            hash: statement_hash(&signed),
            signed,
        })
    }

    /// The hash by which servers and adverts name this statement; covers the signatures.
    pub fn hash(&self) -> StatementHash {
        self.hash
    }

    /// The signatures to check: by the key itself, and for a rotation by the key before it.
    pub fn checks(&self, previous: Option<&KeyStatement>) -> Vec<RsaCheck> {
        let by = |key: &UserKey, signature: &Bytes| {
            RsaCheck::new(key, Label::KeyStatement, &self.signed.statement, signature)
        };
        let mut checks = Vec::from([by(&self.key, &self.signed.signature)]);
        checks.extend(previous.map(|previous| by(&previous.key, &self.signed.previous_signature)));
        checks
    }

    /// Tells whether this statement may follow `previous` in a chain (signatures apart).
    pub fn follows(&self, previous: &KeyStatement) -> bool {
        self.user == previous.user
            && self.home == previous.home
            && previous.number.checked_add(1) == Some(self.number)
            && self.previous == Some(previous.hash())
    }
}

/// SHA-256 over a label and the three parts of a signed statement, each behind its length (4 bytes, big endian).
pub fn statement_hash(signed: &SignedKeyStatement) -> StatementHash {
    let length = |bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    StatementHash::new(sha256(&[
        b"socp.v1.SignedKeyStatement\0",
        &length(&signed.statement),
        &signed.statement,
        &length(&signed.signature),
        &signed.signature,
        &length(&signed.previous_signature),
        &signed.previous_signature,
    ]))
}

/// Encodes what a login signs.
pub fn encode_login(server: ServerId, user: &UserName, nonce: &[u8; 32]) -> Vec<u8> {
    v1::LoginStatement { server_id: server.to_string(), user: user.to_string(), nonce: Bytes::copy_from_slice(nonce) }
        .encode_to_vec()
}

/// What a login says, read without checking its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The server that it is meant for.
    pub server: ServerId,
    /// Who logs in.
    pub user: UserName,
    /// The nonce of the challenge.
    pub nonce: [u8; 32],
}

impl Login {
    /// Reads the bytes of a login statement. Rejects: STATEMENT_INVALID, NAME_INVALID, TOO_LARGE.
    pub fn parse(statement: &Bytes, signature: &Bytes) -> Result<Self, Rejection> {
        if statement.len() + signature.len() > KEY_STATEMENT_BYTES_MAX {
            return Err(too_large(KEY_STATEMENT_BYTES_MAX));
        }
        let content = v1::LoginStatement::decode(&statement[..]).map_err(|_| invalid("statement"))?;
        Ok(Self {
            server: ServerId::parse(&content.server_id).ok_or_else(|| invalid("server_id"))?,
            user: UserName::parse(&content.user)?,
            nonce: content.nonce[..].try_into().map_err(|_| invalid("nonce"))?,
        })
    }
}

/// Encodes what a server signs of its TLS certificate: the hash of the certificate's SubjectPublicKeyInfo.
pub fn encode_certificate(server: ServerId, certificate_spki: &[u8]) -> Vec<u8> {
    v1::CertificateStatement {
        server_id: server.to_string(),
        certificate_key_sha256: Bytes::copy_from_slice(&sha256(&[certificate_spki])),
    }
    .encode_to_vec()
}

/// Tells whether a certificate statement is about `server` and this certificate; its signature is checked apart.
pub fn certificate_matches(statement: &[u8], server: ServerId, certificate_spki: &[u8]) -> bool {
    v1::CertificateStatement::decode(statement).is_ok_and(|content| {
        content.server_id == server.to_string() && content.certificate_key_sha256[..] == sha256(&[certificate_spki])
    })
}

/// Tells whether bytes can be an RSA-4096 signature or wrap at all, before anything slow is done with them.
pub fn is_rsa_sized(bytes: &[u8]) -> bool {
    bytes.len() == RSA_BYTES
}

/// A copy of bytes that will be kept: as received they are a part of the whole message they came in, which may be much
/// larger and would be kept with them.
pub(crate) fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The rejection of a field. Rejects: STATEMENT_INVALID.
pub fn invalid(field: &'static str) -> Rejection {
    let message: String = format!("`{field}` is malformed or not acceptable here");
    Rejection::new(Reason::StatementInvalid, message).with("field", field)
}

pub(crate) fn too_large(limit: usize) -> Rejection {
    Rejection::new(Reason::TooLarge, format!("larger than {limit} bytes")).with("limit_bytes", limit.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user_key::shaped_like_a_key;

    fn statement(number: u64, previous: Option<StatementHash>) -> SignedKeyStatement {
        let key = UserKey::parse(&shaped_like_a_key(5)).unwrap();
        let name = UserName::parse("alice").unwrap();
        let home = ServerId::of_key(&[1; 32]);
        SignedKeyStatement {
            statement: KeyStatement::encode(&name, home, &key, number, previous).into(),
            signature: Bytes::from_static(&[7; 512]),
            previous_signature: if number > 1 { Bytes::from_static(&[8; 512]) } else { Bytes::new() },
        }
    }

    #[test]
    fn a_statement_follows_only_the_one_it_names() {
        let first = KeyStatement::parse(&statement(1, None)).unwrap();
        let second = KeyStatement::parse(&statement(2, Some(first.hash()))).unwrap();
        assert!(second.follows(&first));
        assert_eq!(second.checks(Some(&first)).len(), 2);
        assert!(!first.follows(&second));
        let stray = KeyStatement::parse(&statement(2, Some(second.hash()))).unwrap();
        assert!(!stray.follows(&first));
    }

    #[test]
    fn nothing_follows_the_statement_of_the_last_number() {
        let last = KeyStatement::parse(&statement(u64::MAX, Some(statement_hash(&statement(1, None))))).unwrap();
        let after = KeyStatement::parse(&statement(2, Some(last.hash()))).unwrap();
        assert!(!after.follows(&last));
    }

    #[test]
    fn the_hash_covers_the_signatures() {
        let one = statement(1, None);
        let other = SignedKeyStatement { signature: Bytes::from_static(&[9; 512]), ..one.clone() };
        assert_ne!(statement_hash(&one), statement_hash(&other));
    }

    #[test]
    fn a_first_statement_has_no_previous_and_a_later_one_does() {
        let reason = |signed: &SignedKeyStatement| KeyStatement::parse(signed).unwrap_err().reason;
        assert_eq!(reason(&statement(0, None)), Reason::StatementInvalid);
        assert_eq!(reason(&statement(2, None)), Reason::StatementInvalid);
        let hash = statement_hash(&statement(1, None));
        assert_eq!(reason(&statement(1, Some(hash))), Reason::StatementInvalid);
    }

    #[test]
    fn a_statement_at_its_limit_is_read_and_one_past_it_is_too_large() {
        let mut signed = statement(1, None);
        let room = KEY_STATEMENT_BYTES_MAX - signed.statement.len();
        signed.signature = alloc::vec![1; room].into();
        assert!(KeyStatement::parse(&signed).is_ok());
        signed.signature = alloc::vec![1; room + 1].into();
        assert_eq!(KeyStatement::parse(&signed).unwrap_err().reason, Reason::TooLarge);
    }

    #[test]
    fn a_login_is_read_as_it_was_made() {
        let server = ServerId::of_key(&[1; 32]);
        let user = UserName::parse("alice").unwrap();
        let bytes: Bytes = encode_login(server, &user, &[3; 32]).into();
        let login = Login::parse(&bytes, &Bytes::new()).unwrap();
        assert_eq!(login, Login { server, user, nonce: [3; 32] });
    }
}
