//! How the stubs put messages into bytes: as tonic's own codec does, with buffers that begin small.
//!
//! tonic keeps two buffers of 8 KiB for each call as long as it is open, and a stream may be open for days while nothing happens.

use core::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Bytes of a buffer at first: most requests, answers and events fit. It grows with what does not.
const BUFFER_BYTES: usize = 256;

/// Messages that are ready at once are joined up to so many bytes, as by tonic's default.
const YIELD_BYTES: usize = 32 * 1024;

/// Encodes `E` and decodes `D`.
pub struct SmallBuffers<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for SmallBuffers<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E: Message + Send + 'static, D: Message + Default + Send + 'static> Codec for SmallBuffers<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = ProstEncoder<E>;
    type Decoder = ProstDecoder<D>;

    fn encoder(&mut self) -> ProstEncoder<E> {
        ProstEncoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> ProstDecoder<D> {
        ProstDecoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}
