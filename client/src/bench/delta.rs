//! As much of a watch's message as it takes to count its changes: revision, what happened, and the user's bare name.
//!
//! Read in place by the field numbers of `socp.v1.WatchDirectoryResponse`; a test compares it with the contract.

use prost::encoding::{WireType, decode_key, decode_varint};

/// What happened, by its field number in `DirectoryChange`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The user came.
    Added,
    /// The user stays, with another content.
    Updated,
    /// The user left.
    Removed,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The server's own counter.
    pub revision: u64,
    /// What happened.
    pub happening: Happening,
    /// The bare name.
    pub name: &'a [u8],
}

/// What a message says besides its changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks<'a> {
    /// The present state is complete: its revision.
    pub end: Option<u64>,
    /// Where to resume.
    pub resume_token: Option<&'a [u8]>,
}

/// Reads a message; `None` if it is not one.
pub fn read<'a>(message: &'a [u8], each: &mut impl FnMut(Change<'a>)) -> Option<Marks<'a>> {
    let mut marks = Marks::default();
    fields(message, &mut |field, value| {
        match (field, value) {
            (1, Value::Bytes(change)) => each(read_change(change)?),
            (2, Value::Bytes(mark)) => {
                let mut revision = 0;
                fields(mark, &mut |field, value| {
                    if let (1, Value::Number(number)) = (field, value) {
                        revision = number;
                    }
                    Some(true)
                })?;
                marks.end = Some(revision);
            }
            (4, Value::Bytes(token)) => marks.resume_token = Some(token),
            _ => {}
        }
        Some(true)
    })?;
    Some(marks)
}

fn read_change(change: &[u8]) -> Option<Change<'_>> {
    let (mut revision, mut happened, mut name) = (0, None, &[][..]);
    fields(change, &mut |field, value| {
        match (field, value) {
            (1, Value::Number(number)) => revision = number,
            (2..=4, Value::Bytes(entry)) => {
                happened = Some(match field {
                    2 => Happening::Added,
                    3 => Happening::Updated,
                    _ => Happening::Removed,
                });
                name = read_name(entry)?;
            }
            _ => {}
        }
        Some(true)
    })?;
    Some(Change { revision, happening: happened?, name })
}

/// The bare name has one field number in entries and removals; what follows it is not looked at.
fn read_name(entry: &[u8]) -> Option<&[u8]> {
    let mut name = &[][..];
    fields(entry, &mut |field, value| {
        if let (2, Value::Bytes(text)) = (field, value) {
            name = text;
        }
        Some(field != 2)
    })?;
    Some(name)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Goes through the fields of a message for as long as `each` says so; `None` if it is malformed.
fn fields<'a>(mut bytes: &'a [u8], each: &mut impl FnMut(u32, Value<'a>) -> Option<bool>) -> Option<()> {
    while !bytes.is_empty() {
        let (field, kind) = decode_key(&mut bytes).ok()?;
        let mut take = |length: usize| {
            let (value, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            Some(value)
        };
        let value = match kind {
            WireType::Varint => Value::Number(decode_varint(&mut bytes).ok()?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Value::Bytes(value)
            }
            WireType::SixtyFourBit => take(8).map(|_| Value::Other)?,
            WireType::ThirtyTwoBit => take(4).map(|_| Value::Other)?,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        if !each(field, value)? {
            break;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use socp::v1::{DirectoryChange, DirectoryEntry, EndMark, RemovedEntry, WatchDirectoryResponse, directory_change};

    use super::*;

    fn entry(name: &str) -> DirectoryEntry {
        DirectoryEntry {
            user: format!("{name}@server-a"),
            name: name.into(),
            status: "here".into(),
            epoch: 1 << 40,
            sessions: 1,
            ..DirectoryEntry::default()
        }
    }

    fn change(revision: u64, change: directory_change::Change) -> DirectoryChange {
        DirectoryChange { revision, change: Some(change) }
    }

    fn message() -> Vec<u8> {
        let removed = RemovedEntry { user: "alice@server-a".into(), name: "alice".into(), ..RemovedEntry::default() };
        WatchDirectoryResponse {
            changes: vec![
                change(300, directory_change::Change::Added(entry("alice"))),
                change(301, directory_change::Change::Updated(entry("alice"))),
                change(301, directory_change::Change::Removed(removed)),
            ],
            end_mark: Some(EndMark { revision: 302, entries: 1, ..EndMark::default() }),
            resume_token: "token".into(),
            ..WatchDirectoryResponse::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn a_message_is_read_as_the_contract_says() {
        let bytes = message();
        let mut changes = Vec::new();
        let marks = read(&bytes, &mut |change| changes.push(change)).unwrap();
        let told = |revision, happening| Change { revision, happening, name: b"alice" };
        let expected = [told(300, Happening::Added), told(301, Happening::Updated), told(301, Happening::Removed)];
        assert_eq!(changes, expected);
        assert_eq!(marks, Marks { end: Some(302), resume_token: Some(b"token") });
        assert_eq!(read(&[], &mut |_| ()), Some(Marks::default()));
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        let bytes = message();
        let whole = bytes.len() - "token".len() - 2;
        for length in 1..whole {
            let read = read(&bytes[..length], &mut |_| ());
            let decoded = WatchDirectoryResponse::decode(&bytes[..length]);
            assert!(read.is_none() || decoded.is_ok(), "{length} bytes are taken");
        }
    }
}
