//! Compression of contents in transit (zstd, RFC 8878), if it saves enough.

use std::io;

use async_compression::{
    Level,
    tokio::bufread::{ZstdDecoder, ZstdEncoder},
    zstd::DParameter,
};
use bytes::Bytes;
use futures::Stream;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::ZSTD_WINDOW_LOG_MAX;

/// The name of the coding in `Content-Encoding` and `Accept-Encoding` (RFC 9659).
pub const ZSTD: &str = "zstd";
/// The header with the decompressed length of a compressed body, in bytes.
pub const DECODED_LENGTH: &str = "rgrid-content-length";
/// A smaller content is not compressed, in bytes.
pub const MIN_BYTES: u64 = 64 << 10;
/// How much of a content is tested for whether compression pays, in bytes.
pub const SAMPLE: usize = 64 << 10;
/// Bytes in one chunk.
const CHUNK: usize = 64 << 10;

/// Whether compression pays for a content with this beginning: it must save at least a fifth.
#[must_use]
pub fn pays(beginning: &[u8]) -> bool {
    let sample = &beginning[..beginning.len().min(SAMPLE)];
    zstd::bulk::compress(sample, 1).is_ok_and(|small| small.len() * 5 <= sample.len() * 4)
}

/// Compresses a content.
pub fn encode<S>(content: S) -> impl Stream<Item = io::Result<Bytes>> + Send
where
    S: Stream<Item = io::Result<Bytes>> + Send,
{
    ReaderStream::with_capacity(ZstdEncoder::with_quality(StreamReader::new(content), Level::Fastest), CHUNK)
}

/// The limit of a decompressor's window.
#[must_use]
pub fn window_log_max() -> DParameter {
    DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX)
}

/// Decompresses a content. A window above the limit is an error.
pub fn decode<S>(content: S) -> impl Stream<Item = io::Result<Bytes>> + Send
where
    S: Stream<Item = io::Result<Bytes>> + Send,
{
    ReaderStream::with_capacity(ZstdDecoder::with_params(StreamReader::new(content), &[window_log_max()]), CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_window_is_bounded() -> io::Result<()> {
        use std::io::Write as _;

        use futures::TryStreamExt as _;
        // Content-free, and large enough that the window is not cut to its size.
        let plain = vec![0; 64 << 20];
        for (log, fits) in [(ZSTD_WINDOW_LOG_MAX, true), (ZSTD_WINDOW_LOG_MAX + 1, false), (27, false)] {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1)?;
            encoder.window_log(log)?;
            encoder.write_all(&plain)?;
            let small = encoder.finish()?;
            let decoded = decode(futures::stream::iter([Ok(Bytes::from(small))]));
            let bytes = decoded.try_fold(0, async |bytes, chunk| Ok(bytes + chunk.len())).await;
            assert_eq!(bytes.is_ok(), fits, "2^{log}: {bytes:?}");
        }
        Ok(())
    }

    #[test]
    fn the_beginning_of_a_content_shows_whether_compression_pays() {
        assert!(pays("a,b,c\n".repeat(10_000).as_bytes()));
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        assert!(!pays(&(0..SAMPLE).map(|_| noise()).collect::<Vec<u8>>()));
    }
}
