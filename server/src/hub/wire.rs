//! Encoded watch messages, written by hand where an entry is encoded already.
//!
//! An entry is encoded once ([`Shown`]) however often it is sent: in snapshots, in deltas, to filtered and unfiltered watchers. Its
//! key statement, which is most of it, is put behind that where it is wanted. A message of changes is these bytes behind small headers, and messages may be joined by
//! concatenation, since their contract has no `oneof` on the top level. A whole message is kept in its gRPC frame, so that the same bytes
//! go out to everybody. Nothing here knows who watches.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use prost::{
    Message as _,
    bytes::Bytes,
    encoding::{self, WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use socp::{
    directory::{Destination, Entry},
    v1::{self, KeyDetail, RemovalReason},
};

use super::filter::Detail;

/// Bytes before each message: that it is not compressed, and its length (gRPC over HTTP/2, `Length-Prefixed-Message`).
pub const FRAME_HEAD: usize = 5;

/// A message in its frame, as it goes out. A message has less than 4 GiB.
pub fn framed(message: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(FRAME_HEAD + message.len());
    frame.extend_from_slice(&[0; FRAME_HEAD]);
    frame.extend_from_slice(message);
    close(frame)
}

/// A frame whose message was written behind room for its head.
pub fn close(mut frame: Vec<u8>) -> Bytes {
    let length = u32::try_from(frame.len() - FRAME_HEAD).expect("messages are bounded far below");
    frame[1..FRAME_HEAD].copy_from_slice(&length.to_be_bytes());
    frame.into()
}

/// The message in a frame.
pub fn message(frame: &[u8]) -> &[u8] {
    &frame[FRAME_HEAD..]
}

/// An entry with its encoding, made when it is first wanted.
#[derive(Debug)]
pub struct Shown {
    /// The entry.
    pub entry: Arc<Entry>,
    /// Without the key statement, which is in memory once.
    encoded: OnceLock<Bytes>,
}

/// What stands in a change: an encoded `DirectoryEntry` or `RemovedEntry`.
pub struct Body<'a> {
    bytes: Cow<'a, [u8]>,
    /// The field of an entry that is not among the bytes. Fields may come in any order.
    statement: Option<&'a v1::SignedKeyStatement>,
}

/// The field number of `DirectoryEntry.key_statement`.
const KEY_STATEMENT: u32 = 9;

impl Body<'_> {
    fn len(&self) -> usize {
        let statement = self.statement.map_or(0, |statement| encoding::message::encoded_len(KEY_STATEMENT, statement));
        self.bytes.len() + statement
    }

    fn put(&self, message: &mut Vec<u8>) {
        message.extend_from_slice(&self.bytes);
        if let Some(statement) = self.statement {
            encoding::message::encode(KEY_STATEMENT, statement, message);
        }
    }
}

impl From<Vec<u8>> for Body<'_> {
    fn from(encoded: Vec<u8>) -> Self {
        Self { bytes: encoded.into(), statement: None }
    }
}

impl Shown {
    /// Keeps an entry to be shown.
    pub fn new(entry: Arc<Entry>) -> Arc<Self> {
        Arc::new(Self { entry, encoded: OnceLock::new() })
    }

    /// The encoded `DirectoryEntry`.
    pub fn body(&self, detail: Detail) -> Body<'_> {
        let encode = || self.entry.to_contract(KeyDetail::Fingerprint).encode_to_vec().into();
        let statement = match detail {
            Detail::Statement => Some(&self.entry.statement.signed),
            Detail::Fingerprint => None,
        };
        Body { bytes: Cow::Borrowed(&self.encoded.get_or_init(encode)[..]), statement }
    }

    /// About how many bytes it takes in messages of both forms, whether made or not.
    pub fn cost(&self) -> usize {
        let entry = &*self.entry;
        let names = 3 * (entry.address.user.as_str().len() + entry.server_name.as_str().len());
        let texts = entry.display_name.len() + entry.status.len();
        let signed = &entry.statement.signed;
        let statement = signed.statement.len() + signed.signature.len() + signed.previous_signature.len();
        2 * (256 + names + texts) + statement
    }
}

/// The field numbers of a `DirectoryChange`.
const REVISION: u32 = 1;

/// What happened, by its field number in `DirectoryChange`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// Came online, or is part of the present state.
    Added = 2,
    /// Stays online with another content.
    Updated = 3,
    /// Is not shown any more.
    Removed = 4,
}

/// Appends one change to a message.
pub fn put_change(message: &mut Vec<u8>, revision: u64, happening: Happening, body: &Body<'_>) {
    let field = happening as u32;
    let length = key_len(REVISION)
        + encoded_len_varint(revision)
        + key_len(field)
        + encoded_len_varint(body.len() as u64)
        + body.len();
    message.reserve(length + 8);
    encode_key(CHANGES, WireType::LengthDelimited, message);
    encode_varint(length as u64, message);
    encode_key(REVISION, WireType::Varint, message);
    encode_varint(revision, message);
    encode_key(field, WireType::LengthDelimited, message);
    encode_varint(body.len() as u64, message);
    body.put(message);
}

/// The field number of `WatchDirectoryResponse.changes`.
const CHANGES: u32 = 1;

/// The encoded removal of an entry.
pub fn removal(entry: &Entry, reason: RemovalReason) -> Vec<u8> {
    entry.to_removal(reason).encode_to_vec()
}

/// The encoded removal of the entry of a user who moved.
pub fn departure(entry: &Entry, destination: &Destination) -> Vec<u8> {
    entry.to_move(destination).encode_to_vec()
}

/// Appends the resume token of the revision that the message ends.
pub fn put_token(message: &mut Vec<u8>, token: String) {
    let tail = v1::WatchDirectoryResponse { resume_token: token, ..Default::default() };
    message.extend_from_slice(&tail.encode_to_vec());
}

/// The end of the present state, framed.
pub fn end_mark(revision: u64, entries: u64, digest: Bytes, token: String) -> Bytes {
    let mark = v1::WatchDirectoryResponse {
        end_mark: Some(v1::EndMark { revision, entries, digest }),
        resume_token: token,
        ..Default::default()
    };
    framed(&mark.encode_to_vec())
}

/// Nothing changed for a while; framed.
pub fn bookmark(revision: u64, digest: Bytes, token: String) -> Bytes {
    let bookmark = v1::WatchDirectoryResponse {
        bookmark: Some(v1::Bookmark { revision, digest }),
        resume_token: token,
        ..Default::default()
    };
    framed(&bookmark.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use socp::v1::directory_change::Change;

    use super::*;
    use crate::hub::testing::entry;

    #[test]
    fn a_message_written_by_hand_is_read_as_the_contract_says() {
        let shown = Shown::new(Arc::new(entry("alice", 1)));
        for detail in [Detail::Statement, Detail::Fingerprint] {
            let mut message = Vec::new();
            put_change(&mut message, 300, Happening::Added, &shown.body(detail));
            put_change(&mut message, 301, Happening::Updated, &shown.body(detail));
            put_change(&mut message, 302, Happening::Removed, &removal(&shown.entry, RemovalReason::Left).into());
            put_token(&mut message, "token".to_owned());
            let contract = shown.entry.to_contract(detail.contract());
            assert_eq!(contract.key_statement.is_some(), detail == Detail::Statement);
            let removed = shown.entry.to_removal(RemovalReason::Left);
            let change = |revision, change| v1::DirectoryChange { revision, change: Some(change) };
            let expected = v1::WatchDirectoryResponse {
                changes: vec![
                    change(300, Change::Added(contract.clone())),
                    change(301, Change::Updated(contract)),
                    change(302, Change::Removed(removed)),
                ],
                resume_token: "token".to_owned(),
                ..Default::default()
            };
            assert_eq!(v1::WatchDirectoryResponse::decode(&message[..]), Ok(expected));
        }
    }

    #[test]
    fn a_frame_says_how_long_its_message_is() {
        assert_eq!(framed(&[7; 300])[..6], [0, 0, 0, 1, 44, 7]);
        assert_eq!(framed(&[])[..], [0; 5]);
        assert_eq!(close(vec![0, 0, 0, 0, 0, 1, 2]), framed(&[1, 2]));
        assert_eq!(message(&framed(&[1, 2])), [1, 2]);
    }

    #[test]
    fn the_cost_of_an_entry_covers_its_encodings() {
        let shown = Shown::new(Arc::new(entry("alice", 1)));
        let encoded = shown.body(Detail::Statement).len() + shown.body(Detail::Fingerprint).len();
        assert!((encoded..2 * encoded).contains(&shown.cost()), "{encoded} {}", shown.cost());
    }
}
