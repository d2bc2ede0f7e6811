//! Posts to the public channel: encrypted once under a key that every member's device derives from the sender's channel key.

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use prost::{Message as _, bytes::Bytes};
use socp::{
    message::{Address, POST_KEY_LABEL, PUBLIC_CHANNEL, Post, SUITE},
    signed::Label,
    user_key::UserKey,
    v1::{PostHeader, PostStatement, SealedPost},
};
use zeroize::Zeroizing;

use crate::{
    content,
    failure::Failure,
    private_key::{PrivateKey, SymmetricKey},
    public_key,
};

/// What a post says of itself.
pub struct Draft<'a> {
    /// UUIDv7, the same in every retry.
    pub message_id: &'a str,
    /// Who sends.
    pub sender: &'a Address,
    /// Which channel key.
    pub key_id: [u8; 16],
    /// The channel key.
    pub channel_key: &'a SymmetricKey,
    /// Posts under that key before.
    pub counter: u64,
    /// The sender's clock.
    pub time_unix_ms: i64,
    /// The text.
    pub text: &'a str,
}

/// The length of a symmetric key, as HKDF wants it.
pub struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

/// The key of one post: HKDF-SHA-256 of the channel key, the post's salt, and a label with the post's id.
pub fn derive_key(channel_key: &[u8; 32], salt: &[u8; 32], message_id: &str) -> Option<SymmetricKey> {
    let mut key = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, salt)
        .extract(channel_key)
        .expand(&[POST_KEY_LABEL, message_id.as_bytes()], Bytes32)
        .and_then(|okm| okm.fill(&mut key[..]))
        .ok()?;
    Some(key)
}

/// Encrypts and signs a post.
pub fn seal(key: &PrivateKey, draft: &Draft<'_>) -> Result<SealedPost, Failure> {
    let salt: [u8; 32] = content::random()?;
    let header = PostHeader {
        suite: SUITE,
        message_id: draft.message_id.to_owned(),
        sender: draft.sender.user.to_string(),
        sender_home_id: draft.sender.home.to_string(),
        sender_key_sha256: Bytes::copy_from_slice(key.public().fingerprint().as_bytes()),
        channel: PUBLIC_CHANNEL.to_owned(),
        key_id: Bytes::copy_from_slice(&draft.key_id),
        salt: Bytes::copy_from_slice(&salt),
        counter: draft.counter,
        time_unix_ms: draft.time_unix_ms,
    }
    .encode_to_vec();
    let post_key = derive_key(draft.channel_key, &salt, draft.message_id)
        .ok_or_else(|| Failure::failed("key derivation failed"))?;
    seal_under(key, &post_key, draft.text, header)
}

/// The same under any encoded header and the post's key: for vectors of what must be refused, too.
pub fn seal_under(
    key: &PrivateKey,
    post_key: &SymmetricKey,
    text: &str,
    header: Vec<u8>,
) -> Result<SealedPost, Failure> {
    let encrypted = content::encrypt(post_key, &header, text)?;
    let statement: Bytes = PostStatement {
        header: header.into(),
        nonce: Bytes::copy_from_slice(&encrypted.nonce),
        ciphertext: encrypted.ciphertext,
        key_commitment: Bytes::copy_from_slice(&encrypted.key_commitment),
    }
    .encode_to_vec()
    .into();
    Ok(SealedPost { signature: key.sign(Label::Post, &statement)?, statement })
}

/// Tells whether the known key of the sender signed the post.
pub fn is_by(sender_key: &UserKey, post: &Post) -> bool {
    post.authorship.sender_key == sender_key.fingerprint() && public_key::verify(&post.check(sender_key))
}

/// Decrypts a post whose signature was checked with [`is_by`]; `None` for whatever reason.
pub fn decrypt(channel_key: &[u8; 32], post: &Post) -> Option<String> {
    let post_key = derive_key(channel_key, &post.salt, &post.authorship.id.to_string())?;
    content::decrypt(&post_key, &post.header, post.nonce, &post.ciphertext, &post.key_commitment)
}

#[cfg(test)]
mod tests {
    use socp::{
        id::{ServerId, hex},
        name::UserName,
    };

    use super::*;
    use crate::private_key::test_keys::{ALICE, BOB};

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn sealed(text: &str) -> SealedPost {
        let sender = Address { home: ServerId::of_key(&[1; 32]), user: UserName::parse("alice").unwrap() };
        let channel_key = Zeroizing::new([5; 32]);
        let draft = Draft {
            message_id: ID,
            sender: &sender,
            key_id: [6; 16],
            channel_key: &channel_key,
            counter: 0,
            time_unix_ms: 1,
            text,
        };
        seal(&ALICE, &draft).unwrap()
    }

    #[test]
    fn a_post_opens_under_its_channel_key_only() {
        let post = Post::parse(&sealed("hello, all")).unwrap();
        assert!(is_by(ALICE.public(), &post) && !is_by(BOB.public(), &post));
        assert_eq!(decrypt(&[5; 32], &post).as_deref(), Some("hello, all"));
        assert_eq!(decrypt(&[4; 32], &post), None);
    }

    #[test]
    fn a_post_that_was_altered_is_not_by_its_sender() {
        let mut sealed = sealed("hello, all");
        let mut statement = PostStatement::decode(&sealed.statement[..]).unwrap();
        let mut header = PostHeader::decode(&statement.header[..]).unwrap();
        header.counter = 1;
        statement.header = header.encode_to_vec().into();
        sealed.statement = statement.encode_to_vec().into();
        let post = Post::parse(&sealed).unwrap();
        assert!(!is_by(ALICE.public(), &post));
        assert_eq!(decrypt(&[5; 32], &post), None, "the header is the additional data");
    }

    #[test]
    fn a_posts_key_is_hkdf_of_channel_key_salt_and_id() {
        let key = derive_key(&[1; 32], &[2; 32], ID).unwrap();
        // Python: HKDF(algorithm=SHA256(), length=32, salt=b"\2"*32, info=b"socp.v1.PostKey\0" + ID).derive(b"\1"*32)
        assert_eq!(hex(&key[..]), "092c287e41453eecc1f5eda108ad27b3a2f0f4bd0807fe78dcefc1dbf6bc4293");
        assert_ne!(*derive_key(&[1; 32], &[3; 32], ID).unwrap(), *key);
        assert_ne!(*derive_key(&[1; 32], &[2; 32], &ID.replace('0', "1")).unwrap(), *key);
    }
}
