//! The receiving end of streaming calls over one HTTP/2 connection, without IO: bytes in, messages out.
//!
//! A load tool shares the machine with the servers that it measures, so that its watchers have to be cheap. This is as much of
//! HTTP/2 (RFC 9113) and gRPC as it takes to ask once and read for long: requests are sent before anything is read, response
//! headers are looked at for their end flag only, and messages are handed over where they lie. Windows are as large as those of
//! the client's own transport. What a server answers instead of a stream is learned by an ordinary call beforehand.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::frame::{
    ACK, DATA, END_HEADERS, END_STREAM, FRAME_BYTES_MAX, GOAWAY, HEADERS, PADDED, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, headers, put_frame,
};

/// Bytes that a stream may have on its way: what the client's own transport grants.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;

/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 5 * 1024 * 1024;

/// The window that a connection begins with, RFC 9113, section 6.9.2.
const FIRST_WINDOW: u32 = 65_535;

/// Bytes of a message: those of a watch stay under 1 MiB.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

const FRAME_HEADER: usize = 9;
const MESSAGE_HEADER: usize = 5;

/// Why a connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The server ended a stream.
    Ended,
    /// The server ended a stream or the connection with this error code.
    Reset(u32),
    /// What came is no HTTP/2, or no gRPC, of the kind that is understood here.
    Malformed,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the server ended the stream"),
            Self::Reset(code) => write!(f, "the server reset it, HTTP/2 error code {code}"),
            Self::Malformed => f.write_str("what the server sent is not understood"),
        }
    }
}

/// What is asked of a server, the same on each stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `HOST:PORT`.
    pub authority: String,
    /// `/package.Service/Method`.
    pub path: String,
    /// The session token.
    pub token: String,
    /// The encoded message.
    pub message: Vec<u8>,
}

/// One connection with its streams.
#[derive(Debug)]
pub struct Calls {
    /// The beginning of a frame.
    partial: Vec<u8>,
    streams: Vec<Stream>,
    /// Bytes read and not yet granted anew.
    read: u32,
    /// Whether anything is granted anew.
    grants: bool,
}

#[derive(Debug, Default)]
struct Stream {
    /// The beginning of a message.
    partial: Vec<u8>,
    read: u32,
}

impl Calls {
    /// Begins a call for each of these, which are appended to the request's message; the bytes are to be sent first.
    pub fn begin(request: &Request, more: &[Vec<u8>]) -> (Self, Vec<u8>) {
        Self::begin_within(STREAM_WINDOW, request, more)
    }

    /// Begins one call, of whose answer so many bytes may come, and no more.
    pub fn begin_short(window: u32, request: &Request) -> (Self, Vec<u8>) {
        let (calls, out) = Self::begin_within(window, request, &[Vec::new()]);
        (Self { grants: false, ..calls }, out)
    }

    fn begin_within(window: u32, request: &Request, more: &[Vec<u8>]) -> (Self, Vec<u8>) {
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // No push, and the window of each stream.
        let mut settings = vec![0, 2, 0, 0, 0, 0, 0, 4];
        settings.extend_from_slice(&window.to_be_bytes());
        put_frame(&mut out, SETTINGS, 0, 0, &settings);
        put_frame(&mut out, WINDOW_UPDATE, 0, 0, &(CONNECTION_WINDOW - FIRST_WINDOW).to_be_bytes());
        let headers = headers(request);
        for (stream, more) in more.iter().enumerate() {
            let length = request.message.len() + more.len();
            let mut message = vec![0];
            message.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
            message.extend_from_slice(&request.message);
            message.extend_from_slice(more);
            put_frame(&mut out, HEADERS, END_HEADERS, id_of(stream), &headers);
            put_frame(&mut out, DATA, END_STREAM, id_of(stream), &message);
        }
        let streams = more.iter().map(|_| Stream::default()).collect();
        (Self { partial: Vec::new(), streams, read: 0, grants: true }, out)
    }

    /// Takes bytes; hands over each whole message with the place of its stream. What has to be sent is appended to `out`.
    pub fn receive(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        each: &mut impl FnMut(usize, &[u8]),
    ) -> Result<(), Broken> {
        if !self.partial.is_empty() {
            let mut joined = std::mem::take(&mut self.partial);
            joined.extend_from_slice(bytes);
            let mut rest = &joined[..];
            self.frames(&mut rest, out, each)?;
            self.partial = rest.to_vec();
            return Ok(());
        }
        self.frames(&mut bytes, out, each)?;
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn frames(
        &mut self,
        bytes: &mut &[u8],
        out: &mut Vec<u8>,
        each: &mut impl FnMut(usize, &[u8]),
    ) -> Result<(), Broken> {
        while let Some((header, rest)) = bytes.split_at_checked(FRAME_HEADER) {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            if length > FRAME_BYTES_MAX {
                return Err(Broken::Malformed);
            }
            let Some((payload, rest)) = rest.split_at_checked(length) else { break };
            let id = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
            self.frame(header[3], header[4], id, payload, out, each)?;
            *bytes = rest;
        }
        Ok(())
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        out: &mut Vec<u8>,
        each: &mut impl FnMut(usize, &[u8]),
    ) -> Result<(), Broken> {
        match kind {
            DATA => {
                let place = (id as usize).wrapping_sub(1) / 2;
                let stream = self.streams.get_mut(place).ok_or(Broken::Malformed)?;
                let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                if self.grants {
                    grant(&mut self.read, length, CONNECTION_WINDOW, 0, out);
                    grant(&mut stream.read, length, STREAM_WINDOW, id, out);
                }
                let data = if flags & PADDED == 0 { payload } else { unpadded(payload).ok_or(Broken::Malformed)? };
                stream.messages(data, &mut |message| each(place, message))?;
                if flags & END_STREAM != 0 { Err(Broken::Ended) } else { Ok(()) }
            }
            HEADERS if flags & END_STREAM != 0 => Err(Broken::Ended),
            RST_STREAM => Err(Broken::Reset(code(payload))),
            GOAWAY => Err(Broken::Reset(code(payload.get(4..).unwrap_or_default()))),
            SETTINGS if flags & ACK == 0 => {
                put_frame(out, SETTINGS, ACK, 0, &[]);
                Ok(())
            }
            PING if flags & ACK == 0 => {
                put_frame(out, PING, ACK, 0, payload);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Stream {
    fn messages(&mut self, data: &[u8], each: &mut impl FnMut(&[u8])) -> Result<(), Broken> {
        if self.partial.is_empty() {
            let rest = messages(data, each)?;
            self.partial.extend_from_slice(rest);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(data);
        let rest = messages(&joined, each)?;
        self.partial = rest.to_vec();
        Ok(())
    }
}

/// Hands over each whole message; gives what is left.
fn messages<'a>(mut data: &'a [u8], each: &mut impl FnMut(&[u8])) -> Result<&'a [u8], Broken> {
    while let Some((header, rest)) = data.split_at_checked(MESSAGE_HEADER) {
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if header[0] != 0 || length > MESSAGE_BYTES_MAX {
            return Err(Broken::Malformed);
        }
        let Some((message, rest)) = rest.split_at_checked(length) else { break };
        each(message);
        data = rest;
    }
    Ok(data)
}

/// Client streams have odd numbers.
fn id_of(stream: usize) -> u32 {
    u32::try_from(stream).unwrap_or(u32::MAX / 4) * 2 + 1
}

fn code(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn unpadded(payload: &[u8]) -> Option<&[u8]> {
    let (padding, data) = payload.split_first()?;
    data.get(..data.len().checked_sub(usize::from(*padding))?)
}

/// Grants anew what was read, once that is half of the window.
fn grant(read: &mut u32, length: u32, window: u32, id: u32, out: &mut Vec<u8>) {
    *read += length;
    if *read >= window / 2 {
        put_frame(out, WINDOW_UPDATE, 0, id, &read.to_be_bytes());
        *read = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::frame::{put_message, put_response_head},
        *,
    };

    fn calls(streams: usize) -> Calls {
        let request =
            Request { authority: "a:1".into(), path: "/s/m".into(), token: "t".repeat(200), message: vec![8, 1] };
        Calls::begin(&request, &vec![Vec::new(); streams]).0
    }

    fn framed(id: u32, flags: u8, messages: &[&[u8]]) -> Vec<u8> {
        let mut data = Vec::new();
        for message in messages {
            data.push(0);
            data.extend_from_slice(&(message.len() as u32).to_be_bytes());
            data.extend_from_slice(message);
        }
        let mut out = Vec::new();
        put_frame(&mut out, DATA, flags, id, &data);
        out
    }

    /// Messages with the places of their streams.
    type Got = Vec<(usize, Vec<u8>)>;

    fn read(calls: &mut Calls, bytes: &[u8]) -> (Result<(), Broken>, Got, Vec<u8>) {
        let (mut out, mut got) = (Vec::new(), Vec::new());
        let result = calls.receive(bytes, &mut out, &mut |place, message| got.push((place, message.to_vec())));
        (result, got, out)
    }

    #[test]
    fn messages_come_out_whole_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        put_response_head(&mut bytes);
        bytes.extend(framed(1, 0, &[b"one", b""]));
        bytes.extend(framed(3, 0, &[b"two"]));
        let long = vec![7; 40_000];
        put_message(&mut bytes, &long);
        let expected: Vec<(usize, Vec<u8>)> = vec![(0, b"one".into()), (0, vec![]), (1, b"two".into()), (0, long)];
        for cut in [1, 2, 3, 7, 100, 20_000, bytes.len()] {
            let mut calls = calls(2);
            let mut all = Vec::new();
            for part in bytes.chunks(cut) {
                let (result, got, _) = read(&mut calls, part);
                assert_eq!(result, Ok(()));
                all.extend(got);
            }
            assert_eq!(all, expected, "in parts of {cut}");
        }
    }

    #[test]
    fn pings_and_settings_are_answered_and_windows_granted_anew() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, SETTINGS, 0, 0, &[]);
        put_frame(&mut bytes, PING, 0, 0, b"12345678");
        put_frame(&mut bytes, PING, ACK, 0, b"87654321");
        let mut expected = Vec::new();
        put_frame(&mut expected, SETTINGS, ACK, 0, &[]);
        put_frame(&mut expected, PING, ACK, 0, b"12345678");
        let mut calls = calls(1);
        assert_eq!(read(&mut calls, &bytes).2, expected);
        let mut granted = Vec::new();
        for _ in 0..1024 * 1024 / 16_000 + 1 {
            granted.extend(read(&mut calls, &framed(1, 0, &[&[0; 15_995]])).2);
        }
        let stream = 16_000_u32 * 66;
        let mut expected = Vec::new();
        put_frame(&mut expected, WINDOW_UPDATE, 0, 1, &stream.to_be_bytes());
        assert_eq!(granted, expected, "of the stream at its half, of the connection not yet");
    }

    #[test]
    fn who_asks_for_little_grants_its_window_once() {
        let request = Request { authority: "a:1".into(), path: "/s/m".into(), token: String::new(), message: vec![] };
        let (mut calls, out) = Calls::begin_short(16_384, &request);
        assert!(out.windows(6).any(|setting| setting == [0, 4, 0, 0, 0x40, 0]), "the stream's window");
        for _ in 0..200 {
            assert!(read(&mut calls, &framed(1, 0, &[&[0; 15_995]])).2.is_empty());
        }
        let mut ping = Vec::new();
        put_frame(&mut ping, PING, 0, 0, b"12345678");
        assert!(!read(&mut calls, &ping).2.is_empty(), "but it lives");
    }

    #[test]
    fn the_end_of_a_stream_or_connection_is_told() {
        let end = |kind, flags, payload: &[u8]| {
            let mut bytes = Vec::new();
            put_frame(&mut bytes, kind, flags, 1, payload);
            read(&mut calls(1), &bytes).0
        };
        assert_eq!(end(HEADERS, END_STREAM | END_HEADERS, &[0x88]), Err(Broken::Ended));
        assert_eq!(end(DATA, END_STREAM, &[]), Err(Broken::Ended));
        assert_eq!(end(RST_STREAM, 0, &8_u32.to_be_bytes()), Err(Broken::Reset(8)));
        assert_eq!(end(GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, 11]), Err(Broken::Reset(11)));
        assert_eq!(end(DATA, 0, &[1, 0, 0, 0, 0]), Err(Broken::Malformed), "a compressed message");
        assert_eq!(end(DATA, PADDED, &[9, 0]), Err(Broken::Malformed), "more padding than there is");
        let (result, _, _) = read(&mut calls(1), &framed(3, 0, &[b"?"]));
        assert_eq!(result, Err(Broken::Malformed), "a stream that nobody opened");
    }

    #[test]
    fn a_frame_or_message_over_its_limit_is_refused_before_it_is_kept() {
        let mut longest = vec![0, 0x40, 0, DATA, PADDED, 0, 0, 0, 1];
        assert_eq!(read(&mut calls(1), &longest).0, Ok(()), "16 KiB");
        longest[2] = 1;
        assert_eq!(read(&mut calls(1), &longest).0, Err(Broken::Malformed), "and a byte");
        let message = |length: u32| {
            let mut data = vec![0];
            data.extend_from_slice(&length.to_be_bytes());
            let mut bytes = Vec::new();
            put_frame(&mut bytes, DATA, 0, 1, &data);
            read(&mut calls(1), &bytes).0
        };
        assert_eq!(message(MESSAGE_BYTES_MAX as u32), Ok(()));
        assert_eq!(message(MESSAGE_BYTES_MAX as u32 + 1), Err(Broken::Malformed));
    }
}
