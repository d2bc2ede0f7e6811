//! What a recipient is told of a file, encrypted in a message: which, where it lies, how large, and its key.

use std::fmt;

use prost::{Message as _, bytes::Bytes};
use socp::{
    file::{CHUNK_BYTES, MANIFEST_LABEL, chunks},
    id::{FileId, ServerId},
    message::SealedPart,
    v1::FileManifest,
};
use zeroize::Zeroizing;

use crate::{content, failure::Failure, private_key::SymmetricKey, render};

/// Bytes of a file's name: more than file systems take, and a bound for a message.
const NAME_BYTES_MAX: usize = 1024;

/// What a recipient needs to fetch and read a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Which file.
    pub id: FileId,
    /// The home that keeps it.
    pub home: ServerId,
    /// What its sender calls it; hostile, see [`crate::file_name`].
    pub name: String,
    /// Bytes of it.
    pub bytes: u64,
    /// The key of its chunks.
    pub key: SymmetricKey,
    /// Of the encrypted bytes.
    pub ciphertext_sha256: [u8; 32],
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest").field("id", &self.id).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Manifest {
    /// What the message says beside it, for clients that know no files.
    pub fn text(&self) -> String {
        format!("[file] {}, {}", render::clean(&self.name), size(self.bytes))
    }

    fn encode(&self) -> Vec<u8> {
        FileManifest {
            file_id: self.id.to_string(),
            home_id: self.home.to_string(),
            name: self.name.clone(),
            bytes: self.bytes,
            chunk_bytes: CHUNK_BYTES as u32,
            key: Bytes::copy_from_slice(&self.key[..]),
            ciphertext_sha256: Bytes::copy_from_slice(&self.ciphertext_sha256),
        }
        .encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let manifest = FileManifest::decode(bytes).ok()?;
        let is_known = u64::from(manifest.chunk_bytes) == CHUNK_BYTES && manifest.name.len() <= NAME_BYTES_MAX;
        chunks(manifest.bytes).filter(|_| is_known)?;
        Some(Self {
            id: FileId::parse(&manifest.file_id)?,
            home: ServerId::parse(&manifest.home_id)?,
            name: manifest.name,
            bytes: manifest.bytes,
            key: Zeroizing::new(manifest.key[..].try_into().ok()?),
            ciphertext_sha256: manifest.ciphertext_sha256[..].try_into().ok()?,
        })
    }

    /// Encrypts it for a message with this content key and header, whose text has this nonce.
    pub fn seal(&self, content_key: &[u8; 32], header: &[u8], text_nonce: [u8; 12]) -> Result<SealedPart, Failure> {
        content::seal_part(content_key, MANIFEST_LABEL, header, text_nonce, self.encode())
    }

    /// Decrypts one; `None` for whatever reason.
    pub fn open(content_key: &[u8; 32], header: &[u8], sealed: &SealedPart) -> Option<Self> {
        Self::decode(&content::open_part(content_key, MANIFEST_LABEL, header, sealed)?)
    }
}

/// A size for people.
pub fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = None;
    while size >= 1024.0
        && let Some(next) = units.next()
    {
        size /= 1024.0;
        unit = Some(next);
    }
    match unit {
        Some(unit) => format!("{size:.1} {unit}"),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn manifest() -> Manifest {
        Manifest {
            id: FileId::from_bytes(&[3; 16]).unwrap(),
            home: ServerId::of_key(&[1; 32]),
            name: "report.pdf".into(),
            bytes: 1_300_000,
            key: Zeroizing::new([5; 32]),
            ciphertext_sha256: [6; 32],
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_refused_with_any_field_out_of_form() {
        let good = manifest();
        assert_eq!(Manifest::decode(&good.encode()), Some(good.clone()));
        let with = |change: fn(&mut FileManifest)| {
            let mut manifest = FileManifest::decode(&good.encode()[..]).unwrap();
            change(&mut manifest);
            Manifest::decode(&manifest.encode_to_vec())
        };
        assert!(with(|_| {}).is_some());
        assert!(with(|manifest| manifest.name = "n".repeat(NAME_BYTES_MAX)).is_some());
        assert_eq!(with(|manifest| manifest.name = "n".repeat(NAME_BYTES_MAX + 1)), None);
        assert_eq!(with(|manifest| manifest.chunk_bytes = 65_535), None);
        assert_eq!(with(|manifest| manifest.bytes = u64::MAX), None);
        assert_eq!(with(|manifest| manifest.key = manifest.key.slice(1..)), None);
        assert_eq!(with(|manifest| manifest.ciphertext_sha256.clear()), None);
        assert_eq!(with(|manifest| manifest.file_id.push('0')), None);
        assert_eq!(with(|manifest| manifest.home_id.clear()), None);
    }

    #[test]
    fn the_key_is_not_in_what_is_logged_and_the_name_cannot_steer_a_terminal() {
        let hostile = Manifest { name: "a\u{1b}[2J\nb".into(), ..manifest() };
        assert!(!format!("{hostile:?}").contains("5, 5"));
        assert_eq!(hostile.text(), "[file] a[2J b, 1.2 MiB");
        assert_eq!([0, 1023, 1024, 1 << 31].map(size), ["0 bytes", "1023 bytes", "1.0 KiB", "2.0 GiB"]);
    }
}
