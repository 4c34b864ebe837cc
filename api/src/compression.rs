//! Contents that travel compressed (zstd, RFC 8878), where that pays: on the way to another machine, and where they shrink.

use std::io;

use async_compression::{
    Level,
    tokio::bufread::{ZstdDecoder, ZstdEncoder},
};
use bytes::Bytes;
use futures::Stream;
use tokio_util::io::{ReaderStream, StreamReader};

/// The name of the coding in `Content-Encoding` and `Accept-Encoding` (RFC 9659).
pub const ZSTD: &str = "zstd";
/// The header that says how long a compressed body is when it is decompressed, in bytes.
pub const DECODED_LENGTH: &str = "rgrid-content-length";
/// A content of fewer bytes travels as it is.
pub const MIN_BYTES: u64 = 64 << 10;
/// How much of its beginning tells whether a content shrinks, in bytes.
pub const SAMPLE: usize = 64 << 10;
/// Bytes that are handed on at once.
const CHUNK: usize = 64 << 10;

/// Whether it pays to compress what begins so: a fifth or more must be saved.
#[must_use]
pub fn pays(beginning: &[u8]) -> bool {
    let sample = &beginning[..beginning.len().min(SAMPLE)];
    zstd::bulk::compress(sample, 1).is_ok_and(|small| small.len() * 5 <= sample.len() * 4)
}

/// A content, compressed as it comes.
pub fn encode<S>(content: S) -> impl Stream<Item = io::Result<Bytes>> + Send
where
    S: Stream<Item = io::Result<Bytes>> + Send,
{
    ReaderStream::with_capacity(ZstdEncoder::with_quality(StreamReader::new(content), Level::Fastest), CHUNK)
}

/// What was compressed, as it was before.
pub fn decode<S>(content: S) -> impl Stream<Item = io::Result<Bytes>> + Send
where
    S: Stream<Item = io::Result<Bytes>> + Send,
{
    ReaderStream::with_capacity(ZstdDecoder::new(StreamReader::new(content)), CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shrinks_is_told_by_its_beginning() {
        assert!(pays("a,b,c\n".repeat(10_000).as_bytes()));
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        assert!(!pays(&(0..SAMPLE).map(|_| noise()).collect::<Vec<u8>>()));
    }
}
