//! A bound on HTTP/3 frames that must be held in memory as a whole.
//!
//! h3 collects every frame other than DATA completely before it looks at it, however long its header says it is; a peer
//! could thus fill our memory with one HEADERS frame. This follows the frame boundaries of a stream, without decoding
//! anything, and says stop at the frame header that announces too much. DATA is handed on as it comes, so it has no bound
//! here: flow control bounds it.

const DATA: u64 = 0x00;
const CONTROL_STREAM: u64 = 0x00;

/// The stream announces a frame above the bound.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Follows the frames of one stream.
pub(crate) struct FrameLimit {
    bytes_max: u64,
    next: Next,
    number: Number,
}

enum Next {
    StreamType,
    FrameType,
    Length { data: bool },
    Payload { left: u64 },
    Ignored,
}

/// A QUIC variable-length integer (RFC 9000, section 16) of which some bytes may be missing yet.
#[derive(Default)]
struct Number {
    value: u64,
    missing: Option<u8>,
}

impl Number {
    fn push(&mut self, byte: u8) -> Option<u64> {
        let missing = match self.missing {
            None => {
                self.value = u64::from(byte & 0x3f);
                (1 << (byte >> 6)) - 1
            }
            Some(missing) => {
                self.value = self.value << 8 | u64::from(byte);
                missing - 1
            }
        };
        self.missing = (missing > 0).then_some(missing);
        (missing == 0).then_some(self.value)
    }
}

impl FrameLimit {
    /// For a request stream, which starts with a frame.
    pub(crate) fn request(bytes_max: u64) -> FrameLimit {
        FrameLimit { bytes_max, next: Next::FrameType, number: Number::default() }
    }

    /// For a unidirectional stream, which starts with its type; only the control stream holds frames.
    pub(crate) fn uni(bytes_max: u64) -> FrameLimit {
        FrameLimit { next: Next::StreamType, ..FrameLimit::request(bytes_max) }
    }

    /// Looks at the next bytes of the stream.
    pub(crate) fn check(&mut self, mut bytes: &[u8]) -> Result<(), TooLong> {
        while let Some((&first, rest)) = bytes.split_first() {
            match self.next {
                Next::Ignored => return Ok(()),
                Next::Payload { left } => {
                    let here = left.min(bytes.len() as u64);
                    bytes = &bytes[here as usize..];
                    self.payload(left - here);
                    continue;
                }
                _ => bytes = rest,
            }
            let Some(number) = self.number.push(first) else {
                continue;
            };
            match self.next {
                Next::StreamType if number == CONTROL_STREAM => self.next = Next::FrameType,
                Next::StreamType => self.next = Next::Ignored,
                Next::FrameType => {
                    self.next = Next::Length { data: number == DATA };
                }
                Next::Length { data } if !data && number > self.bytes_max => return Err(TooLong),
                Next::Length { .. } => self.payload(number),
                Next::Payload { .. } | Next::Ignored => {}
            }
        }
        Ok(())
    }

    fn payload(&mut self, left: u64) {
        self.next = match left {
            0 => Next::FrameType,
            left => Next::Payload { left },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(limit: &mut FrameLimit, bytes: &[u8], step: usize) -> Result<(), TooLong> {
        bytes.chunks(step).try_for_each(|chunk| limit.check(chunk))
    }

    #[test]
    fn a_headers_frame_at_the_bound_passes_and_one_past_it_does_not_however_the_bytes_are_cut() {
        for step in 1..=7 {
            let mut at = vec![0x01, 0x40, 100];
            at.extend([0; 100]);
            at.extend([0x00, 0x02, 9, 9]);
            at.extend([0x01, 0x40, 101]);
            let (fits, past) = at.split_at(at.len() - 3);
            let mut limit = FrameLimit::request(100);
            assert_eq!(fed(&mut limit, fits, step), Ok(()), "step {step}");
            assert_eq!(fed(&mut limit, past, step), Err(TooLong), "step {step}");
        }
    }

    #[test]
    fn a_data_frame_has_no_bound() {
        let mut limit = FrameLimit::request(100);
        let announced = [0x00, 0xc0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(fed(&mut limit, &announced, 4), Ok(()));
        assert_eq!(fed(&mut limit, &[0x01; 1000], 64), Ok(()));
    }

    #[test]
    fn an_unknown_frame_is_bounded_on_the_control_stream_and_unknown_streams_are_not_read_as_frames() {
        let grease = [0x21, 0x80, 0, 1, 0];
        let mut control = FrameLimit::uni(100);
        assert_eq!(control.check(&[0x00]), Ok(()));
        assert_eq!(control.check(&grease), Err(TooLong));
        let mut encoder = FrameLimit::uni(100);
        assert_eq!(encoder.check(&[0x02]), Ok(()));
        assert_eq!(encoder.check(&grease), Ok(()));
    }
}
