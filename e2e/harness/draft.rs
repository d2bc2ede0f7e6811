//! Messages sealed by hand, honestly and otherwise.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use prost::{Message as _, bytes::Bytes};
use socp::{
    message::Address,
    signed::Label,
    user_key::UserKey,
    v1::{ChannelKeyWrap, MessageHeader, MessageStatement, SealedMessage, SealedPost, SendMessageRequest},
};
use socp_client::{post, private_key::PrivateKey, public_key, seal};
use tonic::Status;

use super::{caller::Caller, soon};

/// The clock, Unix milliseconds.
pub fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    i64::try_from(since.as_millis()).expect("the clock is set")
}

/// A UUIDv7 that was not used before in this run.
pub fn message_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let millis = now_unix_ms();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:08x}-{:04x}-7abc-8def-{next:012x}", millis >> 16, millis & 0xffff)
}

/// A message as the real client would seal it.
pub fn sealed(from: &Caller, to: &Address, key: &UserKey, text: &str) -> SealedMessage {
    let draft = seal::Draft {
        message_id: &message_id(),
        sender: &from.address,
        recipient: to,
        recipient_key: key,
        time_unix_ms: now_unix_ms(),
        wants_receipts: false,
        text,
        beside: &seal::Beside::Nothing,
    };
    seal::seal(&from.key, &draft).expect("it can be sealed")
}

/// The channel key of all posts that are made here.
const CHANNEL_KEY: [u8; 32] = [5; 32];

/// Its id.
pub const CHANNEL_KEY_ID: [u8; 16] = [6; 16];

/// A post as the real client would seal it.
pub fn sealed_post(from: &Caller, text: &str) -> SealedPost {
    let draft = post::Draft {
        message_id: &message_id(),
        sender: &from.address,
        key_id: CHANNEL_KEY_ID,
        channel_key: &CHANNEL_KEY.into(),
        counter: 0,
        time_unix_ms: now_unix_ms(),
        text,
    };
    post::seal(&from.key, &draft).expect("it can be sealed")
}

/// The channel key wrapped to a member.
pub fn channel_key_for(member: &Address, key: &UserKey) -> ChannelKeyWrap {
    ChannelKeyWrap {
        recipient: member.user.to_string(),
        recipient_home_id: member.home.to_string(),
        recipient_key_sha256: Bytes::copy_from_slice(key.fingerprint().as_bytes()),
        wrapped_key: public_key::wrap(key, &CHANNEL_KEY).expect("a key wraps"),
    }
}

/// Changes what is signed, and signs it anew with this key.
pub fn resigned(sealed: &SealedMessage, key: &PrivateKey, change: impl FnOnce(&mut MessageStatement)) -> SealedMessage {
    let mut statement = MessageStatement::decode(&sealed.statement[..]).expect("it was encoded here");
    change(&mut statement);
    let statement: Bytes = statement.encode_to_vec().into();
    let signature = key.sign(Label::Message, &statement).expect("a key signs");
    SealedMessage { signature, statement, wrapped_key: sealed.wrapped_key.clone() }
}

/// Changes the header, and signs it anew with this key.
pub fn readdressed(sealed: &SealedMessage, key: &PrivateKey, change: impl FnOnce(&mut MessageHeader)) -> SealedMessage {
    resigned(sealed, key, |statement| {
        let mut header = MessageHeader::decode(&statement.header[..]).expect("it was encoded here");
        change(&mut header);
        statement.header = header.encode_to_vec().into();
    })
}

/// Changes one bit.
pub fn flipped(bytes: &Bytes, index: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[index] ^= 1;
    bytes.into()
}

/// Submits a message.
pub fn send(from: &Caller, message: SealedMessage) -> Result<(), Status> {
    let request = from.request(SendMessageRequest { message: Some(message) });
    soon(from.messages().send_message(request)).map(drop)
}
