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
    v1::{MessageHeader, MessageStatement, SealedMessage, SendMessageRequest},
};
use socp_client::{private_key::PrivateKey, seal};
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
