//! What is written of HTTP/2 (RFC 9113): frames, and header blocks (RFC 7541) that use no table but the static one.

use super::call::Request;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// Bytes of a frame: what is granted when nothing is said.
pub(super) const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Appends a frame.
pub fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends what a server says before its first message: settings, and the headers of a response.
pub fn put_response_head(out: &mut Vec<u8>) {
    put_frame(out, SETTINGS, 0, 0, &[]);
    let mut block = vec![0x88]; // `:status: 200`, RFC 7541, appendix A.
    put_literal(&mut block, 31, "application/grpc");
    put_frame(out, HEADERS, END_HEADERS, 1, &block);
}

/// Appends a message as frames of the first stream.
pub fn put_message(out: &mut Vec<u8>, message: &[u8]) {
    let mut data = vec![0];
    data.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    data.extend_from_slice(message);
    data.chunks(FRAME_BYTES_MAX).for_each(|part| put_frame(out, DATA, 0, 1, part));
}

/// The header block: fields of the static table (RFC 7541, appendix A) and literals that enter no table.
pub(super) fn headers(request: &Request) -> Vec<u8> {
    let mut block = vec![0x83, 0x87]; // `:method: POST`, `:scheme: https`.
    put_literal(&mut block, 4, &request.path);
    put_literal(&mut block, 1, &request.authority);
    put_literal(&mut block, 31, "application/grpc");
    block.push(0);
    put_text(&mut block, "te");
    put_text(&mut block, "trailers");
    put_literal(&mut block, 23, &format!("Bearer {}", request.token));
    block
}

/// A field whose name is in the static table, never to be indexed: representation `0001`, a prefix of 4 bits.
fn put_literal(block: &mut Vec<u8>, name: u8, value: &str) {
    if name < 15 {
        block.push(0x10 | name);
    } else {
        block.extend_from_slice(&[0x1f, name - 15]);
    }
    put_text(block, value);
}

/// A text without Huffman coding: its length with a prefix of 7 bits.
fn put_text(block: &mut Vec<u8>, text: &str) {
    match text.len() {
        length @ 0..127 => block.push(length as u8),
        length => {
            block.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                block.push((rest % 128) as u8 | 0x80);
                rest /= 128;
            }
            block.push(rest as u8);
        }
    }
    block.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_has_its_length_in_several_bytes() {
        let mut block = Vec::new();
        put_text(&mut block, &"x".repeat(126));
        assert_eq!(block[0], 126);
        block.clear();
        put_text(&mut block, &"x".repeat(127 + 300));
        assert_eq!(&block[..3], [127, 0xac, 0x02]); // 300, RFC 7541, section 5.1.
    }
}
