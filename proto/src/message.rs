//! Messages and posts as servers see them: a readable header, and bytes that only the recipient can open.
//!
//! Reading checks form, sizes and the header's fields; the sender's signature is checked apart, as in
//! [`crate::statement`]. Encrypting and decrypting is the client's business; the labels it needs are here.

use alloc::string::ToString;

use prost::{Message as _, bytes::Bytes};

use crate::{
    id::{ContentHash, KeyFingerprint, MessageId, ServerId},
    limits::{MESSAGE_AGE_MS_MAX, MESSAGE_AHEAD_MS_MAX, MESSAGE_STATEMENT_BYTES_MAX, WRAPS_MAX},
    name::UserName,
    rejection::Rejection,
    signed::Label,
    statement::{RsaCheck, invalid, is_rsa_sized, own, too_large},
    user_key::UserKey,
    v1::{self, ChannelKeyWrap, Reason, SealedMessage, SealedPost},
};

/// The one suite of this version: RSA-4096 OAEP and PSS with SHA-256, AES-256-GCM, HKDF-SHA-256.
pub const SUITE: u32 = 1;

/// The one channel.
pub const PUBLIC_CHANNEL: &str = "public";

/// Hashed before a content key to commit to it.
pub const KEY_COMMITMENT_LABEL: &[u8] = b"socp.v1.KeyCommitment\0";

/// Begins the HKDF info of a post's key; the message id in text form follows.
pub const POST_KEY_LABEL: &[u8] = b"socp.v1.PostKey\0";

/// Begins the additional data of a receipt; the message's header follows.
pub const RECEIPT_LABEL: &[u8] = b"socp.v1.Receipt\0";

/// A user of a certain home.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The home.
    pub home: ServerId,
    /// The bare name.
    pub user: UserName,
}

impl Address {
    pub(crate) fn parse(user: &str, home_id: &str, field: &'static str) -> Result<Self, Rejection> {
        Ok(Self { home: ServerId::parse(home_id).ok_or_else(|| invalid(field))?, user: UserName::parse(user)? })
    }
}

/// Who made a message or post, and under which id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorship {
    /// The sender.
    pub sender: Address,
    /// The key that signs.
    pub sender_key: KeyFingerprint,
    /// The sender's id for it, the same in every retry.
    pub id: MessageId,
    /// Hash of the signed bytes.
    pub hash: ContentHash,
    /// When, by the sender's clock, Unix milliseconds.
    pub time_unix_ms: u64,
}

impl Authorship {
    /// Reads what the headers of messages and posts have in common, under the signed bytes they stand in.
    fn parse(
        sender: Address,
        sender_key: &Bytes,
        message_id: &str,
        time_unix_ms: i64,
        statement: &Bytes,
    ) -> Result<Self, Rejection> {
        Ok(Self {
            sender,
            sender_key: fingerprint(sender_key, "sender_key_sha256")?,
            id: MessageId::parse(message_id).ok_or_else(|| invalid("message_id"))?,
            hash: ContentHash::of(statement),
            time_unix_ms: u64::try_from(time_unix_ms).map_err(|_| invalid("time_unix_ms"))?,
        })
    }

    /// Checks the signed time against the server's. Rejects: TIME_OUT_OF_RANGE.
    pub fn check_time(&self, now_unix_ms: u64) -> Result<(), Rejection> {
        check_time(self.time_unix_ms, now_unix_ms)
    }
}

/// Checks a time that a user signed against the server's. Rejects: TIME_OUT_OF_RANGE.
pub(crate) fn check_time(time_unix_ms: u64, now_unix_ms: u64) -> Result<(), Rejection> {
    let oldest = now_unix_ms.saturating_sub(MESSAGE_AGE_MS_MAX);
    let newest = now_unix_ms.saturating_add(MESSAGE_AHEAD_MS_MAX);
    if (oldest..=newest).contains(&time_unix_ms) {
        return Ok(());
    }
    let message = "the signed time is more than 7 days old or 5 minutes ahead; check the clock";
    Err(Rejection::new(Reason::TimeOutOfRange, message)
        .with("time_unix_ms", time_unix_ms.to_string())
        .with("server_time_unix_ms", now_unix_ms.to_string()))
}

/// Something beside the text, encrypted under a message's content key: the manifest of a file, or a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPart {
    /// The nonce of the encryption.
    pub nonce: [u8; 12],
    /// Ciphertext and tag.
    pub ciphertext: Bytes,
}

impl SealedPart {
    /// Reads one that may be absent. Rejects: STATEMENT_INVALID with the field that holds the nonce.
    fn parse(nonce: &[u8], ciphertext: Bytes, field: &'static str) -> Result<Option<Self>, Rejection> {
        if nonce.is_empty() && ciphertext.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { nonce: nonce.try_into().map_err(|_| invalid(field))?, ciphertext }))
    }
}

/// A message that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who made it.
    pub authorship: Authorship,
    /// To whom.
    pub recipient: Address,
    /// The key it is encrypted to.
    pub recipient_key: KeyFingerprint,
    /// Whether it is for a recipient who is online only.
    pub requires_online: bool,
    /// The nonce of the encryption.
    pub nonce: [u8; 12],
    /// Commitment to the content key.
    pub key_commitment: [u8; 32],
    /// Encoded header, the additional data.
    pub header: Bytes,
    /// Ciphertext and tag.
    pub ciphertext: Bytes,
    /// Whether its sender asks for receipts.
    pub wants_receipts: bool,
    /// The encrypted manifest, if it brings a file.
    pub file: Option<SealedPart>,
    /// The encrypted receipt, if it is one.
    pub receipt: Option<SealedPart>,
    /// The bytes as received.
    pub sealed: SealedMessage,
}

impl Message {
    /// Reads a sealed message without checking its signature.
    /// Rejects: TOO_LARGE, STATEMENT_INVALID, UNKNOWN_TYPE (suite), NAME_INVALID.
    pub fn parse(sealed: &SealedMessage) -> Result<Self, Rejection> {
        check_sizes(&sealed.statement, &sealed.signature)?;
        if !is_rsa_sized(&sealed.wrapped_key) {
            return Err(invalid("wrapped_key"));
        }
        let sealed = SealedMessage {
            statement: own(&sealed.statement),
            signature: own(&sealed.signature),
            wrapped_key: own(&sealed.wrapped_key),
        };
        let content = v1::MessageStatement::decode(sealed.statement.clone()).map_err(|_| invalid("statement"))?;
        let header = v1::MessageHeader::decode(content.header.clone()).map_err(|_| invalid("header"))?;
        check_suite(header.suite)?;
        let file = SealedPart::parse(&content.file_nonce, content.file_ciphertext, "file_nonce")?;
        let receipt = SealedPart::parse(&content.receipt_nonce, content.receipt_ciphertext, "receipt_nonce")?;
        Ok(Self {
            authorship: Authorship::parse(
                Address::parse(&header.sender, &header.sender_home_id, "sender_home_id")?,
                &header.sender_key_sha256,
                &header.message_id,
                header.time_unix_ms,
                &sealed.statement,
            )?,
            recipient: Address::parse(&header.recipient, &header.recipient_home_id, "recipient_home_id")?,
            recipient_key: fingerprint(&header.recipient_key_sha256, "recipient_key_sha256")?,
            requires_online: header.require_online,
            wants_receipts: header.wants_receipts,
            nonce: content.nonce[..].try_into().map_err(|_| invalid("nonce"))?,
            key_commitment: content.key_commitment[..].try_into().map_err(|_| invalid("key_commitment"))?,
            header: content.header,
            ciphertext: content.ciphertext,
            file,
            receipt,
            sealed,
        })
    }

    /// The sender's signature, to be checked against a key known independently of the message.
    pub fn check(&self, sender: &UserKey) -> RsaCheck {
        RsaCheck::new(sender, Label::Message, &self.sealed.statement, &self.sealed.signature)
    }
}

/// A post that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Who made it.
    pub authorship: Authorship,
    /// Which of the sender's channel keys.
    pub key_id: [u8; 16],
    /// Salt of the post's key.
    pub salt: [u8; 32],
    /// Posts under this channel key before.
    pub counter: u64,
    /// The nonce of the encryption.
    pub nonce: [u8; 12],
    /// Commitment to the post's key.
    pub key_commitment: [u8; 32],
    /// Encoded header, the additional data.
    pub header: Bytes,
    /// Ciphertext and tag.
    pub ciphertext: Bytes,
    /// The bytes as received.
    pub sealed: SealedPost,
}

impl Post {
    /// Reads a sealed post without checking its signature.
    /// Rejects: TOO_LARGE, STATEMENT_INVALID, UNKNOWN_TYPE (suite or channel), NAME_INVALID.
    pub fn parse(sealed: &SealedPost) -> Result<Self, Rejection> {
        check_sizes(&sealed.statement, &sealed.signature)?;
        let sealed = SealedPost { statement: own(&sealed.statement), signature: own(&sealed.signature) };
        let content = v1::PostStatement::decode(sealed.statement.clone()).map_err(|_| invalid("statement"))?;
        let header = v1::PostHeader::decode(content.header.clone()).map_err(|_| invalid("header"))?;
        check_suite(header.suite)?;
        if header.channel != PUBLIC_CHANNEL {
            return Err(Rejection::new(Reason::UnknownType, "the only channel is `public`").with("field", "channel"));
        }
        Ok(Self {
            authorship: Authorship::parse(
                Address::parse(&header.sender, &header.sender_home_id, "sender_home_id")?,
                &header.sender_key_sha256,
                &header.message_id,
                header.time_unix_ms,
                &sealed.statement,
            )?,
            key_id: header.key_id[..].try_into().map_err(|_| invalid("key_id"))?,
            salt: header.salt[..].try_into().map_err(|_| invalid("salt"))?,
            counter: header.counter,
            nonce: content.nonce[..].try_into().map_err(|_| invalid("nonce"))?,
            key_commitment: content.key_commitment[..].try_into().map_err(|_| invalid("key_commitment"))?,
            header: content.header,
            ciphertext: content.ciphertext,
            sealed,
        })
    }

    /// The sender's signature, to be checked against a key known independently of the post.
    pub fn check(&self, sender: &UserKey) -> RsaCheck {
        RsaCheck::new(sender, Label::Post, &self.sealed.statement, &self.sealed.signature)
    }
}

/// A channel key for one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrap {
    /// The member.
    pub recipient: Address,
    /// The member's key it is wrapped to.
    pub recipient_key: KeyFingerprint,
    /// As received.
    pub wrap: ChannelKeyWrap,
}

/// Reads the wraps of a post. Rejects: TOO_MANY, STATEMENT_INVALID, NAME_INVALID.
pub fn parse_wraps(wraps: &[ChannelKeyWrap]) -> Result<alloc::vec::Vec<Wrap>, Rejection> {
    if wraps.len() > WRAPS_MAX {
        return Err(Rejection::new(Reason::TooMany, "too many wraps in one post").with("limit", WRAPS_MAX.to_string()));
    }
    let parse = |wrap: &ChannelKeyWrap| {
        if !is_rsa_sized(&wrap.wrapped_key) {
            return Err(invalid("wrapped_key"));
        }
        Ok(Wrap {
            recipient: Address::parse(&wrap.recipient, &wrap.recipient_home_id, "recipient_home_id")?,
            recipient_key: fingerprint(&wrap.recipient_key_sha256, "recipient_key_sha256")?,
            wrap: ChannelKeyWrap {
                wrapped_key: own(&wrap.wrapped_key),
                recipient_key_sha256: own(&wrap.recipient_key_sha256),
                ..wrap.clone()
            },
        })
    };
    wraps.iter().map(parse).collect()
}

fn check_sizes(statement: &Bytes, signature: &Bytes) -> Result<(), Rejection> {
    if statement.len() > MESSAGE_STATEMENT_BYTES_MAX {
        return Err(too_large(MESSAGE_STATEMENT_BYTES_MAX));
    }
    if !is_rsa_sized(signature) {
        return Err(Rejection::new(Reason::InvalidSig, "the signature is not 512 bytes"));
    }
    Ok(())
}

fn check_suite(suite: u32) -> Result<(), Rejection> {
    if suite == SUITE {
        return Ok(());
    }
    Err(Rejection::new(Reason::UnknownType, "this server knows suite 1 only").with("field", "suite"))
}

fn fingerprint(bytes: &Bytes, field: &'static str) -> Result<KeyFingerprint, Rejection> {
    KeyFingerprint::from_bytes(bytes).ok_or_else(|| invalid(field))
}

#[cfg(test)]
mod tests {
    use alloc::{string::String, vec};

    use super::*;

    fn header() -> v1::MessageHeader {
        v1::MessageHeader {
            suite: SUITE,
            message_id: String::from("01890a5d-ac96-774b-bcce-b302099a8057"),
            sender: "alice".into(),
            sender_home_id: ServerId::of_key(&[1; 32]).to_string(),
            sender_key_sha256: Bytes::from_static(&[1; 32]),
            recipient: "bob".into(),
            recipient_home_id: ServerId::of_key(&[2; 32]).to_string(),
            recipient_key_sha256: Bytes::from_static(&[2; 32]),
            time_unix_ms: 1_000_000_000_000,
            require_online: false,
            wants_receipts: false,
        }
    }

    fn sealed(header: &v1::MessageHeader, ciphertext: usize) -> SealedMessage {
        let statement = v1::MessageStatement {
            header: header.encode_to_vec().into(),
            nonce: Bytes::from_static(&[0; 12]),
            ciphertext: vec![0; ciphertext].into(),
            key_commitment: Bytes::from_static(&[0; 32]),
            ..v1::MessageStatement::default()
        };
        SealedMessage {
            statement: statement.encode_to_vec().into(),
            signature: vec![0; 512].into(),
            wrapped_key: vec![0; 512].into(),
        }
    }

    fn reason(sealed: &SealedMessage) -> Reason {
        Message::parse(sealed).unwrap_err().reason
    }

    #[test]
    fn a_message_at_its_limit_is_read_and_one_past_it_is_too_large() {
        let overhead = sealed(&header(), 60_000).statement.len() - 60_000;
        let fits = sealed(&header(), MESSAGE_STATEMENT_BYTES_MAX - overhead);
        assert_eq!(fits.statement.len(), MESSAGE_STATEMENT_BYTES_MAX);
        assert!(Message::parse(&fits).is_ok());
        assert_eq!(reason(&sealed(&header(), MESSAGE_STATEMENT_BYTES_MAX - overhead + 1)), Reason::TooLarge);
    }

    #[test]
    fn each_malformed_field_is_rejected_by_name() {
        let with = |change: fn(&mut v1::MessageHeader)| {
            let mut header = header();
            change(&mut header);
            reason(&sealed(&header, 10))
        };
        assert_eq!(with(|header| header.suite = 2), Reason::UnknownType);
        assert_eq!(with(|header| header.sender = "Bob".into()), Reason::NameInvalid);
        assert_eq!(with(|header| header.message_id.clear()), Reason::StatementInvalid);
        assert_eq!(with(|header| header.recipient_home_id.clear()), Reason::StatementInvalid);
        assert_eq!(with(|header| header.sender_key_sha256.clear()), Reason::StatementInvalid);
        assert_eq!(with(|header| header.time_unix_ms = -1), Reason::StatementInvalid);
        let mut short = sealed(&header(), 10);
        short.signature.truncate(511);
        assert_eq!(reason(&short), Reason::InvalidSig);
    }

    #[test]
    fn a_manifest_or_receipt_is_there_with_a_nonce_of_its_size_or_not_at_all() {
        let with = |is_receipt: bool, nonce: usize, ciphertext: usize| {
            let mut sealed = sealed(&header(), 10);
            let mut statement = v1::MessageStatement::decode(sealed.statement).unwrap();
            let (nonce, ciphertext) = (vec![1; nonce].into(), vec![2; ciphertext].into());
            if is_receipt {
                (statement.receipt_nonce, statement.receipt_ciphertext) = (nonce, ciphertext);
            } else {
                (statement.file_nonce, statement.file_ciphertext) = (nonce, ciphertext);
            }
            sealed.statement = statement.encode_to_vec().into();
            let parsed = Message::parse(&sealed).map(|message| (message.file.is_some(), message.receipt.is_some()));
            parsed.map_err(|rejection| rejection.reason)
        };
        for is_receipt in [false, true] {
            assert_eq!(with(is_receipt, 0, 0), Ok((false, false)));
            assert_eq!(with(is_receipt, 12, 100), Ok((!is_receipt, is_receipt)));
            for (nonce, ciphertext) in [(11, 100), (13, 100), (0, 100)] {
                assert_eq!(with(is_receipt, nonce, ciphertext), Err(Reason::StatementInvalid), "{nonce}");
            }
        }
    }

    #[test]
    fn a_signed_time_counts_from_7_days_ago_to_5_minutes_ahead() {
        let message = Message::parse(&sealed(&header(), 10)).unwrap();
        let time = message.authorship.time_unix_ms;
        let check = |now| message.authorship.check_time(now).is_ok();
        assert!(check(time + MESSAGE_AGE_MS_MAX) && !check(time + MESSAGE_AGE_MS_MAX + 1));
        assert!(check(time - MESSAGE_AHEAD_MS_MAX) && !check(time - MESSAGE_AHEAD_MS_MAX - 1));
    }
}
