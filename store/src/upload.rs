//! The upload of one object, which becomes visible at its end.

use bus::ids::Digest;
use bytes::Bytes;
use object_store::{ObjectStore, PutMultipartOptions, PutOptions, PutPayload, WriteMultipart};
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::{Error, Files, key::content_key, nats::CallerVerifies, open::MIB};

/// A content of at most this many bytes is stored with a single put.
pub(super) const SINGLE_MAX: usize = MIB;

/// How many parts of one upload are in flight.
const PARTS_IN_FLIGHT: usize = 4;

/// S3 allows 10,000 parts; some are left in reserve.
const PARTS_MAX: u64 = 9_000;

/// An upload that removes what it sent if it is dropped or aborted.
pub(super) struct ContentUpload {
    digest: Digest,
    /// Runs the cleanup, if it is dropped.
    cleanups: TaskTracker,
    /// `None` once it has ended.
    parts: Option<WriteMultipart>,
}

impl ContentUpload {
    /// Begins to store `digest`, of `size` bytes if that is known.
    pub(super) async fn begin(files: &Files, digest: Digest, size: Option<u64>) -> Result<Self, Error> {
        let mut options = PutMultipartOptions::default();
        options.extensions.insert(CallerVerifies(digest));
        let upload = files
            .store
            .put_multipart_opts(&content_key(&digest), options)
            .await
            .map_err(Error::storing)?;
        let needed = usize::try_from(size.unwrap_or(0).div_ceil(PARTS_MAX)).unwrap_or(usize::MAX);
        let part_size = files.part_size.max(needed.next_multiple_of(MIB));
        Ok(Self {
            digest,
            cleanups: files.cleanups.clone(),
            parts: Some(WriteMultipart::new_with_chunk_size(upload, part_size)),
        })
    }

    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        parts.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(Error::storing)?;
        parts.put(bytes);
        Ok(())
    }

    /// Makes the object visible. The caller has verified it.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        match self.parts.take() {
            Some(parts) => parts.finish().await.map(drop).map_err(Error::storing),
            None => Ok(()),
        }
    }

    /// Removes what was sent.
    pub(super) async fn abort(mut self) {
        if let Some(parts) = self.parts.take() {
            abort(self.digest, parts).await;
        }
    }
}

impl Drop for ContentUpload {
    fn drop(&mut self) {
        // A future that was cancelled. If the process ends before the cleanup, the sweep of NATS, or the S3 bucket's rule for incomplete
        // uploads, removes the parts.
        if let (Some(parts), Ok(runtime)) = (self.parts.take(), tokio::runtime::Handle::try_current()) {
            self.cleanups.spawn_on(abort(self.digest, parts), &runtime);
        }
    }
}

async fn abort(digest: Digest, parts: WriteMultipart) {
    if let Err(error) = parts.abort().await {
        warn!(%digest, "parts of the aborted upload of {digest} may be left in the store: {error}");
    }
}

/// Stores a content from memory. The caller has computed its digest.
pub(super) async fn put_single(files: &Files, digest: Digest, content: PutPayload) -> Result<(), Error> {
    let mut options = PutOptions::default();
    options.extensions.insert(CallerVerifies(digest));
    files
        .store
        .put_opts(&content_key(&digest), content, options)
        .await
        .map(drop)
        .map_err(Error::storing)
}
