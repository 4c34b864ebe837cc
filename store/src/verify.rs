//! Verifies a content against its SHA-256 while it passes.

use bus::ids::Digest;
use bytes::Bytes;
use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use sha2::{Digest as _, Sha256};

/// The size and the digest of what has passed so far.
#[derive(Default)]
pub(super) struct Meter {
    hasher: Sha256,
    size: u64,
}

impl Meter {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn finish(self) -> (Digest, u64) {
        (Digest::finish(self.hasher), self.size)
    }

    /// Returns the size if the bytes have the digest `expected`; otherwise the error says what they are.
    pub(super) fn check(self, expected: &Digest) -> Result<u64, String> {
        match self.finish() {
            (actual, size) if actual == *expected => Ok(size),
            (actual, size) => Err(format!("its {size} bytes have the SHA-256 {actual}")),
        }
    }
}

/// Passes `source` on, one chunk behind: the last chunk is passed on only when the whole content has the digest `expected`. So a
/// reader that stops at the announced size has either the right content, or an error.
pub(super) fn verified<S, E, F>(source: S, expected: Digest, wrong: F) -> BoxStream<'static, Result<Bytes, E>>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    E: Send + 'static,
    F: FnOnce(String) -> E + Send + 'static,
{
    let start = (source, Meter::default(), None::<Bytes>, wrong);
    stream::unfold(Some(start), move |state| async move {
        let (mut source, mut meter, mut held, wrong) = state?;
        loop {
            match source.next().await {
                Some(Ok(chunk)) => {
                    meter.update(&chunk);
                    if let Some(before) = held.replace(chunk) {
                        return Some((Ok(before), Some((source, meter, held, wrong))));
                    }
                }
                Some(Err(error)) => return Some((Err(error), None)),
                None => {
                    return match meter.check(&expected) {
                        Ok(_) => held.map(|last| (Ok(last), None)),
                        Err(why) => Some((Err(wrong(why)), None)),
                    };
                }
            }
        }
    })
    // Some readers poll again after the end.
    .fuse()
    .boxed()
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;

    use super::*;

    async fn read(chunks: &'static [&'static str], expected: &str) -> (Vec<Bytes>, Result<(), String>) {
        let source = stream::iter(chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))));
        let mut stream = verified(source, Digest::of(expected.as_bytes()), |why| why);
        let mut seen = Vec::new();
        loop {
            match stream.try_next().await {
                Ok(Some(chunk)) => seen.push(chunk),
                Ok(None) => return (seen, Ok(())),
                Err(error) => return (seen, Err(error)),
            }
        }
    }

    #[tokio::test]
    async fn the_last_chunk_waits_for_the_digest() {
        assert_eq!(
            read(&["ab", "cd", "e"], "abcde").await,
            (vec!["ab".into(), "cd".into(), "e".into()], Ok(()))
        );
        assert_eq!(read(&[], "").await, (vec![], Ok(())));
        let (seen, end) = read(&["ab", "cd", "x"], "abcde").await;
        assert_eq!(seen, ["ab", "cd"]);
        assert!(end.expect_err("wrong content").contains("5 bytes have the SHA-256"));
    }
}
