//! A file as encrypted chunks: which chunk it is, and whether it is the last, stands in the nonce, so that reordering, dropping,
//! swapping and cutting off are all noticed (STREAM: Hoang, Reyhanitabar, Rogaway and Vizár 2015).
//!
//! The key is of one file alone: no chunk may be encrypted twice with other content under it, which whoever sends must see to.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use socp::file::{CHUNK_BYTES, CHUNK_LABEL, TAG_BYTES, chunks, sealed_bytes};

/// Bytes of a whole chunk and its tag.
pub const SEALED_CHUNK_BYTES: u64 = CHUNK_BYTES + TAG_BYTES;

/// A tag, which differs wherever two contents of one chunk do.
pub type Tag = [u8; TAG_BYTES as usize];

/// Encrypts and decrypts the chunks of one file.
#[derive(Debug)]
pub struct Cipher {
    key: LessSafeKey,
    bytes: u64,
    chunks: u64,
}

impl Cipher {
    /// For a file of so many bytes; `None` if it has more chunks than can be counted.
    pub fn new(key: &[u8; 32], bytes: u64) -> Option<Self> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some(Self { key, bytes, chunks: chunks(bytes)? })
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Bytes of all chunks, encrypted.
    pub fn sealed_bytes(&self) -> u64 {
        sealed_bytes(self.bytes).expect("the chunks were counted")
    }

    /// Bytes of a chunk before encryption.
    pub fn chunk_bytes(&self, index: u64) -> usize {
        let before = index.saturating_mul(CHUNK_BYTES);
        usize::try_from(self.bytes.saturating_sub(before).min(CHUNK_BYTES)).expect("a chunk fits")
    }

    fn nonce(&self, index: u64) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        let counted = u32::try_from(index).expect("there are no more chunks");
        nonce[7..11].copy_from_slice(&counted.to_be_bytes());
        nonce[11] = u8::from(index + 1 == self.chunks);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts a chunk in place, without its tag, which is given. `chunk` must have the bytes of this chunk.
    pub fn seal(&self, index: u64, chunk: &mut [u8]) -> Tag {
        assert!(index < self.chunks && chunk.len() == self.chunk_bytes(index), "it is this chunk");
        let tag = self.key.seal_in_place_separate_tag(self.nonce(index), Aad::from(CHUNK_LABEL), chunk);
        let tag = tag.expect("a chunk is much smaller than what the cipher takes");
        tag.as_ref().try_into().expect("a tag has this size")
    }

    /// Decrypts a chunk in place; `None` if it is not this chunk of this file.
    pub fn open<'a>(&self, index: u64, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        if index >= self.chunks || sealed.len() != self.chunk_bytes(index) + TAG_BYTES as usize {
            return None;
        }
        self.key.open_in_place(self.nonce(index), Aad::from(CHUNK_LABEL), sealed).ok().map(|plain| &*plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = CHUNK_BYTES as usize;

    fn content(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|place| (place % 251) as u8).collect()
    }

    fn sealed(key: &[u8; 32], plain: &[u8]) -> Vec<Vec<u8>> {
        let cipher = Cipher::new(key, plain.len() as u64).unwrap();
        let mut chunks: Vec<&[u8]> = plain.chunks(CHUNK).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let seal = |(index, chunk): (usize, &[u8])| {
            let mut chunk = chunk.to_vec();
            let tag = cipher.seal(index as u64, &mut chunk);
            chunk.extend(tag);
            chunk
        };
        let sealed: Vec<Vec<u8>> = chunks.into_iter().enumerate().map(seal).collect();
        assert_eq!(sealed.iter().map(|chunk| chunk.len() as u64).sum::<u64>(), cipher.sealed_bytes());
        sealed
    }

    /// What a reader who expects `bytes` makes of these chunks in this order.
    fn opened(key: &[u8; 32], bytes: usize, chunks: &[Vec<u8>]) -> Option<Vec<u8>> {
        let cipher = Cipher::new(key, bytes as u64).unwrap();
        let mut plain = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            plain.extend(cipher.open(index as u64, &mut chunk.clone())?);
        }
        (chunks.len() as u64 == cipher.chunks()).then_some(plain)
    }

    #[test]
    fn any_size_comes_back_as_it_was() {
        for bytes in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7] {
            let plain = content(bytes);
            let chunks = sealed(&[7; 32], &plain);
            assert_eq!(chunks.len(), bytes.div_ceil(CHUNK).max(1), "{bytes}");
            assert_eq!(opened(&[7; 32], bytes, &chunks), Some(plain), "{bytes}");
            assert_eq!(opened(&[8; 32], bytes, &chunks), None, "{bytes}: another key");
        }
    }

    #[test]
    fn the_bytes_are_those_that_another_implementation_makes() {
        let key: [u8; 32] = std::array::from_fn(|place| place as u8);
        let hex = |plain: &[u8]| socp::id::hex(&sealed(&key, plain).concat());
        // Node: createCipheriv("aes-256-gcm", key, nonce).setAAD("socp.v1.FileChunk\0"), nonce = 7 zero bytes, index, last
        assert_eq!(hex(b""), "5ddc6af396dd6e1ff6408b85ba2e1b27");
        assert_eq!(hex(b"hello, file"), "7db3d3902bd81078674234410ef6098661af97a82406d759a9e0eb");
        let whole = sealed(&key, &content(CHUNK + 1)).concat();
        let hash = socp::id::hex(&socp::id::sha256(&[&whole]));
        assert_eq!(whole.len(), 65_569);
        assert_eq!(hash, "ecc2bd82f304065f8172167d4f616882f1794991a353e494a0dcf542f504abbd");
    }

    #[test]
    fn chunks_that_are_reordered_dropped_swapped_repeated_or_cut_off_do_not_open() {
        let key = [7; 32];
        let bytes = 4 * CHUNK;
        let whole = sealed(&key, &content(bytes));
        for one in 0..4 {
            for other in 0..one {
                let mut swapped = whole.clone();
                swapped.swap(one, other);
                assert_eq!(opened(&key, bytes, &swapped), None, "{one} and {other} swapped");
            }
            let mut dropped = whole.clone();
            dropped.remove(one);
            assert_eq!(opened(&key, bytes, &dropped), None, "{one} dropped");
            // Though the manifest said so, too: each knows whether it is the last.
            assert_eq!(opened(&key, bytes - CHUNK, &dropped), None, "{one} dropped from a shorter file");
            let mut repeated = whole.clone();
            repeated.insert(one, whole[one].clone());
            assert_eq!(opened(&key, bytes + CHUNK, &repeated), None, "{one} repeated");
            let mut of_another = whole.clone();
            of_another[one] = sealed(&[9; 32], &content(bytes))[one].clone();
            assert_eq!(opened(&key, bytes, &of_another), None, "{one} of another file");
        }
    }

    #[test]
    fn one_byte_less_or_more_or_another_bit_is_noticed_at_any_size() {
        let key = [7; 32];
        for bytes in [0, 1, CHUNK, CHUNK + 1] {
            let whole = sealed(&key, &content(bytes));
            for chunk in 0..whole.len() {
                let length = whole[chunk].len();
                for change in [0, length / 2, length - 1] {
                    let mut altered = whole.clone();
                    altered[chunk][change] ^= 1;
                    assert_eq!(opened(&key, bytes, &altered), None, "{bytes}: bit of {chunk}");
                }
                let mut short = whole.clone();
                short[chunk].pop();
                assert_eq!(opened(&key, bytes, &short), None, "{bytes}: {chunk} short");
                let mut long = whole.clone();
                long[chunk].push(0);
                assert_eq!(opened(&key, bytes, &long), None, "{bytes}: {chunk} long");
            }
        }
    }
}
