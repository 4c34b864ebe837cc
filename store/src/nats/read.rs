//! Reads an object: its chunks in batches of direct gets, some ahead of the reader.
//!
//! Direct gets need no consumer, so that a small file costs two round trips, and any server of a cluster answers them.
//! They have no flow control; what is in flight is bounded by [`Bucket::inbound`] instead.

use std::{ops::Range, sync::Arc, time::Duration};

use async_nats::{Message, Request, StatusCode};
use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use serde::Serialize;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{bucket::Bucket, error::Error, info::ObjectInfo};

/// The approximate size of one batch, in bytes.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// How many batches are in flight or wait for the reader.
const BATCHES_AHEAD: usize = 3;

/// How long the server may be silent within a batch.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// The chunk size that is assumed if the metadata does not give it.
const CHUNK_SIZE_UNKNOWN: usize = 1024 * 1024;

/// The bytes of an object within `range`, as they are stored; the caller checks them.
pub(super) fn content(bucket: &Arc<Bucket>, info: &ObjectInfo, range: Range<u64>) -> BoxStream<'static, Result<Bytes, Error>> {
    if range.is_empty() {
        return stream::empty().boxed();
    }
    let chunks = Arc::new(Chunks {
        subject: bucket.chunk_subject(&info.nuid),
        name: info.name.clone(),
        size: info
            .options
            .as_ref()
            .and_then(|options| options.max_chunk_size)
            .filter(|size| *size > 0)
            .unwrap_or(CHUNK_SIZE_UNKNOWN),
        bucket: Arc::clone(bucket),
    });
    match info.places() {
        Some((size, places)) => {
            let first = range.start / size as u64;
            let end = range.end.div_ceil(size as u64);
            // Within `usize`, since they index `places`.
            let placed = chunks.placed(&places[first as usize..end as usize]);
            let offset = first * size as u64;
            cut(placed, range.start - offset..range.end - offset, info.name.clone())
        }
        None => cut(chunks.walked(info.chunks), range, info.name.clone()),
    }
}

/// The bytes of a stream within `range`; an error if it ends before.
fn cut(chunks: BoxStream<'static, Result<Bytes, Error>>, range: Range<u64>, name: String) -> BoxStream<'static, Result<Bytes, Error>> {
    stream::try_unfold((chunks, 0u64), move |(mut chunks, mut at)| {
        let (range, name) = (range.clone(), name.clone());
        async move {
            while at < range.end {
                let Some(mut chunk) = chunks.try_next().await? else {
                    return Err(Error::Torn {
                        name,
                        why: format!("it ends after {at} bytes"),
                    });
                };
                let start = at;
                at += chunk.len() as u64;
                if at > range.start {
                    // Both are at most the chunk's length.
                    chunk.truncate((range.end - start).min(chunk.len() as u64) as usize);
                    let chunk = chunk.slice(range.start.saturating_sub(start) as usize..);
                    return Ok(Some((chunk, (chunks, at))));
                }
            }
            Ok(None)
        }
    })
    // Some readers ask again after the end.
    .fuse()
    .boxed()
}

/// The chunks of one object.
struct Chunks {
    bucket: Arc<Bucket>,
    subject: String,
    name: String,
    /// The bytes of a chunk, at most.
    size: usize,
}

#[derive(Serialize)]
struct DirectGet<'a> {
    seq: u64,
    next_by_subj: &'a str,
    batch: usize,
}

impl Chunks {
    fn batch_len(&self) -> usize {
        (BATCH_BYTES / self.size).clamp(1, 256)
    }

    /// The chunks at known sequences. Each batch is fetched by a task, so that chunks also arrive while the
    /// reader does something else.
    fn placed(self: Arc<Self>, places: &[u64]) -> BoxStream<'static, Result<Bytes, Error>> {
        let batches: Vec<Vec<u64>> = places.chunks(self.batch_len()).map(<[u64]>::to_vec).collect();
        stream::iter(batches)
            .map(move |places| {
                let chunks = Arc::clone(&self);
                let tasks = chunks.bucket.tasks.clone();
                let task = AbortOnDropHandle::new(tasks.spawn(async move { chunks.fetch_placed(&places).await }));
                async move { task.await.map_err(|error| Error::request("read chunks")(error.into()))? }
            })
            .buffered(BATCHES_AHEAD)
            .map_ok(|chunks| stream::iter(chunks.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    async fn fetch_placed(&self, places: &[u64]) -> Result<Vec<Bytes>, Error> {
        let found = self.fetch(places[0], places.len()).await?;
        if found.iter().map(|(sequence, _)| sequence).eq(places) {
            return Ok(found.into_iter().map(|(_, chunk)| chunk).collect());
        }
        Err(Error::Torn {
            name: self.name.clone(),
            why: "its chunks are not at the sequences in its metadata".to_owned(),
        })
    }

    /// All chunks in turn: for objects of other writers, which do not store the sequences of the chunks.
    fn walked(self: Arc<Self>, count: usize) -> BoxStream<'static, Result<Bytes, Error>> {
        stream::try_unfold((0, count), move |(after, left)| {
            let chunks = Arc::clone(&self);
            async move {
                if left == 0 {
                    return Ok::<_, Error>(None);
                }
                let found = chunks.fetch(after + 1, chunks.batch_len().min(left)).await?;
                let last = found.last().map_or(after, |(sequence, _)| *sequence);
                let left = left - found.len();
                let batch = stream::iter(found.into_iter().map(|(_, chunk)| Ok(chunk)));
                Ok(Some((batch, (last, left))))
            }
        })
        .try_flatten()
        .boxed()
    }

    /// `count` chunks from the stream sequence `from` on, with their sequences. Asks again after a lost answer, and
    /// where a server may not have all of them yet.
    async fn fetch(&self, from: u64, count: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        let kib = u32::try_from((self.size * count).div_ceil(1024)).unwrap_or(u32::MAX).min(8 * 1024);
        let _permit = self
            .bucket
            .inbound
            .acquire_many(kib)
            .await
            .map_err(|error| Error::request("read chunks")(error.into()))?;
        let policy = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(20))
            .with_max_times(5)
            .with_jitter();
        let fetched = (|| self.fetch_once(from, count)).retry(policy).await?;
        Ok(fetched)
    }

    async fn fetch_once(&self, from: u64, count: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        let failed = |source| Error::Request {
            doing: "read chunks",
            source,
        };
        let context = &self.bucket.context;
        let client = context.client();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(error.into()))?;
        let get = DirectGet {
            seq: from,
            next_by_subj: &self.subject,
            batch: count,
        };
        let payload = serde_json::to_vec(&get).map_err(|error| failed(error.into()))?;
        let request = Request::new().inbox(inbox).payload(payload.into());
        let subject = format!("DIRECT.GET.{}", self.bucket.stream_name);
        context.send_request(subject, request).await.map_err(|error| failed(error.into()))?;
        let mut found = Vec::with_capacity(count);
        while found.len() < count {
            let answer = timeout(SILENCE_MAX, answers.next()).await.map_err(|error| failed(error.into()))?;
            let answer = answer.ok_or_else(|| failed("the connection was closed".into()))?;
            match answer.status {
                None => found.push(chunk(answer).ok_or_else(|| failed("a chunk without its sequence".into()))?),
                // The end of the batch, or nothing found at all.
                Some(StatusCode::NOT_FOUND) => return Err(self.incomplete(found.len(), count)),
                Some(status) if status.as_u16() == 204 => return Err(self.incomplete(found.len(), count)),
                Some(status) => {
                    return Err(failed(
                        format!("the server answered {status} {}", answer.description.unwrap_or_default()).into(),
                    ));
                }
            }
        }
        Ok(found)
    }

    fn incomplete(&self, found: usize, wanted: usize) -> Error {
        Error::Torn {
            name: self.name.clone(),
            why: format!("{} of its chunks are missing", wanted - found),
        }
    }
}

fn chunk(answer: Message) -> Option<(u64, Bytes)> {
    let sequence = answer.headers?.get("Nats-Sequence")?.as_str().parse().ok()?;
    Some((sequence, answer.payload))
}
