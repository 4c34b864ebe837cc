//! Writes an object: chunks in flight, then the metadata that makes it visible.

use std::{collections::VecDeque, mem, sync::Arc};

use async_nats::jetstream::context::PublishAckFuture;
use async_trait::async_trait;
use bus::ids::Digest;
use bytes::{Bytes, BytesMut};
use chrono::Utc;
use futures::FutureExt as _;
use object_store::{MultipartUpload, PutMode, PutPayload, PutResult, Result, UploadPart, path::Path};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::{AbortOnDropHandle, task_tracker::TaskTrackerToken};
use uuid::Uuid;

use super::{
    CallerVerifies,
    bucket::{Bucket, Committed},
    error::Error,
    info::{ObjectInfo, Options},
};

/// The most bytes of a chunk; a server's default `max_payload`, which a message without headers may fill.
const CHUNK_SIZE_MAX: usize = 1024 * 1024;

/// How many chunks of one upload may be without acknowledgement.
const IN_FLIGHT_MAX: usize = 16;

/// The upload of an object. If it is dropped before its end, its chunks are purged.
pub(super) struct ObjectUpload {
    bucket: Arc<Bucket>,
    name: String,
    nuid: String,
    subject: String,
    chunk_size: usize,
    /// The bytes that do not fill a chunk yet.
    rest: Vec<Bytes>,
    rest_len: usize,
    /// The digest, or the hasher that computes it.
    digest: Result<Digest, Sha256>,
    size: u64,
    acks: VecDeque<PublishAckFuture>,
    sequences: Vec<u64>,
    /// Whether chunks were sent that no metadata refers to yet.
    litter: bool,
    /// Keeps the bucket from being settled while the upload exists, also between two tasks.
    _open: TaskTrackerToken,
}

impl ObjectUpload {
    pub(super) fn begin(bucket: &Arc<Bucket>, location: &Path, known: Option<CallerVerifies>) -> Self {
        let nuid = Uuid::now_v7().simple().to_string();
        Self {
            subject: bucket.chunk_subject(&nuid),
            chunk_size: bucket.context.client().max_payload().clamp(1, CHUNK_SIZE_MAX),
            bucket: Arc::clone(bucket),
            name: location.to_string(),
            nuid,
            rest: Vec::new(),
            rest_len: 0,
            digest: known.map(|CallerVerifies(digest)| digest).ok_or_else(Sha256::new),
            size: 0,
            acks: VecDeque::with_capacity(IN_FLIGHT_MAX),
            sequences: Vec::new(),
            litter: false,
            _open: bucket.tasks.token(),
        }
    }

    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        self.size += bytes.len() as u64;
        if let Err(hasher) = &mut self.digest {
            hasher.update(&bytes);
        }
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(self.chunk_size - self.rest_len));
            self.rest_len += piece.len();
            self.rest.push(piece);
            if self.rest_len == self.chunk_size {
                self.send_rest().await?;
            }
        }
        Ok(())
    }

    async fn send_rest(&mut self) -> Result<(), Error> {
        self.rest_len = 0;
        let chunk = join(mem::take(&mut self.rest));
        while self.acks.len() >= IN_FLIGHT_MAX {
            self.await_ack().await?;
        }
        self.litter = true;
        let sent = self.bucket.context.publish(self.subject.clone(), chunk).await;
        self.acks
            .push_back(sent.map_err(|error| Error::request("send a chunk")(error.into()))?);
        Ok(())
    }

    /// Waits for the oldest chunk in flight. Its timeout begins here, so that a slow line delays the upload and does not fail it.
    async fn await_ack(&mut self) -> Result<(), Error> {
        let Some(ack) = self.acks.pop_front() else { return Ok(()) };
        let sequence = ack.await.map_err(|error| Error::request("store a chunk")(error.into()))?.sequence;
        if self.sequences.last().is_some_and(|last| *last >= sequence) {
            return Err(Error::Torn {
                name: self.name.clone(),
                why: "the chunks were not stored in the order they were sent".to_owned(),
            });
        }
        self.sequences.push(sequence);
        Ok(())
    }

    /// Makes the object visible, if `mode` allows.
    pub(super) async fn finish(mut self, mode: &PutMode) -> Result<PutResult> {
        let info = self.flush().await?;
        // From here on it may be unknown whether the metadata is stored, and refers to the chunks.
        let litter = mem::replace(&mut self.litter, false);
        let nuid = match self.bucket.commit(&info, mode).await {
            Ok(Committed::Stored { replaced }) => {
                if let Some(replaced) = replaced {
                    self.bucket.discard(&replaced.nuid).await;
                }
                info.nuid
            }
            Ok(Committed::Kept { nuid }) => {
                self.litter = litter;
                self.abort().await;
                nuid
            }
            Err(error) => {
                if !matches!(error, Error::Request { .. }) {
                    self.litter = litter;
                    self.abort().await;
                }
                return Err(error.into());
            }
        };
        Ok(PutResult {
            e_tag: Some(nuid),
            version: None,
            extensions: Default::default(),
        })
    }

    async fn flush(&mut self) -> Result<ObjectInfo, Error> {
        if self.rest_len > 0 {
            self.send_rest().await?;
        }
        while !self.acks.is_empty() {
            self.await_ack().await?;
        }
        let digest = match &self.digest {
            Ok(digest) => *digest,
            Err(hasher) => Digest::finish(hasher.clone()),
        };
        let mut info = ObjectInfo {
            name: self.name.clone(),
            bucket: self.bucket.name().to_string(),
            nuid: self.nuid.clone(),
            size: self.size,
            chunks: self.sequences.len(),
            modified: Some(Utc::now()),
            digest: Some(ObjectInfo::digest_text(&digest)),
            options: Some(Options {
                max_chunk_size: Some(self.chunk_size),
                link: None,
            }),
            ..ObjectInfo::default()
        };
        info.set_places(&self.sequences);
        Ok(info)
    }

    /// Aborts the upload, and purges its chunks.
    pub(super) async fn abort(mut self) {
        if mem::replace(&mut self.litter, false) {
            clean(Arc::clone(&self.bucket), self.nuid.clone(), mem::take(&mut self.acks)).await;
        }
    }
}

impl Drop for ObjectUpload {
    fn drop(&mut self) {
        if self.litter
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let purge = clean(Arc::clone(&self.bucket), self.nuid.clone(), mem::take(&mut self.acks));
            self.bucket.tasks.spawn_on(purge, &runtime);
        }
    }
}

/// Purges the chunks of an upload, once none of them can still arrive.
async fn clean(bucket: Arc<Bucket>, nuid: String, acks: VecDeque<PublishAckFuture>) {
    for ack in acks {
        // Stored, refused or lost: it is no longer in flight.
        drop(ack.await);
    }
    bucket.discard(&nuid).await;
}

fn join(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.swap_remove(0);
    }
    let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in &pieces {
        joined.extend_from_slice(piece);
    }
    joined.freeze()
}

type Part = (PutPayload, oneshot::Sender<Result<()>>);

/// An upload in parts. The parts are in the order of the calls, however their futures are polled, so one task writes all of them.
#[derive(Debug)]
pub(super) struct Multipart {
    /// Ends with the upload once all parts are written; with none if one of them failed. Dropped first: a closed queue would
    /// tell the writer that all is written.
    writer: Option<AbortOnDropHandle<Option<ObjectUpload>>>,
    /// Unbounded, since `put_part` cannot wait; the caller bounds it by awaiting its parts.
    parts: Option<mpsc::UnboundedSender<Part>>,
}

impl Multipart {
    pub(super) fn start(upload: ObjectUpload) -> Self {
        let (parts, queue) = mpsc::unbounded_channel();
        let tasks = upload.bucket.tasks.clone();
        let writer = AbortOnDropHandle::new(tasks.spawn(write_parts(upload, queue)));
        Self {
            parts: Some(parts),
            writer: Some(writer),
        }
    }

    async fn close(&mut self) -> Result<ObjectUpload> {
        self.parts = None;
        let writer = self.writer.take().ok_or_else(stopped)?;
        writer.await?.ok_or_else(stopped)
    }
}

async fn write_parts(mut upload: ObjectUpload, mut queue: mpsc::UnboundedReceiver<Part>) -> Option<ObjectUpload> {
    while let Some((part, done)) = queue.recv().await {
        for bytes in part {
            if let Err(error) = upload.write(bytes).await {
                // If the sender is gone, `complete` returns the error.
                let _gone = done.send(Err(error.into()));
                upload.abort().await;
                return None;
            }
        }
        let _gone = done.send(Ok(()));
    }
    Some(upload)
}

fn stopped() -> object_store::Error {
    object_store::Error::Generic {
        store: "nats",
        source: "the upload has already failed or ended".into(),
    }
}

#[async_trait]
impl MultipartUpload for Multipart {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (done, result) = oneshot::channel();
        let sent = self.parts.as_ref().is_some_and(|parts| parts.send((data, done)).is_ok());
        async move {
            if !sent {
                return Err(stopped());
            }
            result.await.unwrap_or_else(|_| Err(stopped()))
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.close().await?.finish(&PutMode::Overwrite).await
    }

    async fn abort(&mut self) -> Result<()> {
        if self.writer.is_some()
            && let Ok(upload) = self.close().await
        {
            upload.abort().await;
        }
        Ok(())
    }
}
