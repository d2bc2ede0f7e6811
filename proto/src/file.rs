//! Files as servers see them: an id, a size, whose it is and who may fetch it.
//!
//! What is encrypted and how is the client's business; the sizes that follow from it, and the labels, are here.

use crate::{
    id::FileId, message::Address, name::UserName, rejection::Rejection, statement::invalid, v1::CreateFileRequest,
};

/// Bytes of a chunk before encryption: the only number of this version. Large enough that tags and calls cost little, small
/// enough to be held many times over.
pub const CHUNK_BYTES: u64 = 64 * 1024;

/// Bytes that encryption adds to a chunk.
pub const TAG_BYTES: u64 = 16;

/// Begins the additional data of a chunk, and is all of it.
pub const CHUNK_LABEL: &[u8] = b"socp.v1.FileChunk\0";

/// Begins the additional data of a manifest; the message's header follows.
pub const MANIFEST_LABEL: &[u8] = b"socp.v1.FileManifest\0";

/// How many chunks a file has; an empty one has one. `None` beyond what a chunk's index can count.
pub fn chunks(bytes: u64) -> Option<u64> {
    let chunks = bytes.div_ceil(CHUNK_BYTES).max(1);
    (chunks <= u64::from(u32::MAX)).then_some(chunks)
}

/// Bytes of a file once it is encrypted. `None` if it has too many chunks.
pub fn sealed_bytes(bytes: u64) -> Option<u64> {
    Some(bytes + chunks(bytes)? * TAG_BYTES)
}

/// A file that a home keeps, or is to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Which.
    pub id: FileId,
    /// The user of this home who sends it.
    pub owner: UserName,
    /// Who may fetch it.
    pub recipient: Address,
    /// Bytes of it, encrypted.
    pub bytes: u64,
}

impl File {
    /// Reads what a user asks room for. Rejects: STATEMENT_INVALID, NAME_INVALID.
    pub fn parse(owner: UserName, asked: &CreateFileRequest) -> Result<Self, Rejection> {
        Ok(Self {
            id: parse_id(&asked.file_id)?,
            owner,
            recipient: Address::parse(&asked.recipient, &asked.recipient_home_id, "recipient_home_id")?,
            bytes: Some(asked.bytes).filter(|bytes| *bytes >= TAG_BYTES).ok_or_else(|| invalid("bytes"))?,
        })
    }
}

/// Reads a file's id in text form. Rejects: STATEMENT_INVALID.
pub fn parse_id(text: &str) -> Result<FileId, Rejection> {
    FileId::parse(text).ok_or_else(|| invalid("file_id"))
}

/// A file as it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The file.
    pub file: File,
    /// When room was made for it, Unix milliseconds.
    pub created_unix_ms: u64,
    /// Whether all of it is there.
    pub is_whole: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_as_many_tags_as_chunks_and_an_empty_one_has_one() {
        for (bytes, tags) in [(0, 1), (1, 1), (65_535, 1), (65_536, 1), (65_537, 2), (131_072, 2)] {
            assert_eq!(sealed_bytes(bytes), Some(bytes + 16 * tags), "{bytes}");
        }
        let most = u64::from(u32::MAX) * CHUNK_BYTES;
        assert_eq!(chunks(most), Some(u64::from(u32::MAX)));
        assert_eq!((chunks(most + 1), sealed_bytes(most + 1)), (None, None));
    }
}
