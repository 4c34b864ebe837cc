//! Marks on unused contents: they allow to remove them without removing a content that a client is about to use.
//!
//! ```text
//!            a pass finds it unused          still unused after the grace period                  removed
//!   free ───────────────────────────▶ unused ──────────────────────────────▶ being deleted ─────────────▶ free
//!     ▲   a client looks it up, or it is used    │
//!     └──────────────────────────────────────────┘
//! ```
//!
//! Each step writes the content's shard and expects the shard's last sequence, so that a renewal and a removal cannot overlap. A content that
//! a client was told to be in the store stays for the grace period from then on, in which the client names it in the log. A content that is
//! being deleted counts as missing, and is stored again once it has been deleted.

mod lease;
mod noted;
mod shard;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    self,
    context::PublishErrorKind,
    message::PublishMessage,
    stream::{DirectGetErrorKind, LastRawMessageErrorKind, Stream},
};
use bus::{ids::Digest, log::MARKS, subjects};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;

pub use self::{
    lease::{LIFE, Lease, Leased},
    shard::Shard,
};
use super::Error;

/// How long marks that were read are used without checking for changes.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How long a look-up is valid when the upload ends; after that, the marks are checked again.
const LOOKUP_VALID: Duration = Duration::from_secs(2);
/// How much longer than the grace period a mark must exist before its content may be removed: longer than any of the above.
pub const MARGIN: Duration = Duration::from_secs(3);
/// How long a pass may remove a content after it marked it as being deleted: much shorter than [`LIFE`], after which another pass may take
/// over, so that a pass that stood still never removes a content that was stored again meanwhile.
pub const REMOVING: Duration = Duration::from_secs(60);
/// How many times a change of a shard is retried after a conflict.
const TRIES: u32 = 200;

/// The marks, on `JetStream`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Marks {
    js: jetstream::Context,
    stream: Stream<()>,
    view: Arc<Mutex<View>>,
}

/// A copy of the marks, which is valid while the stream has not changed.
#[derive(Debug, Default)]
struct View {
    /// When the stream was last checked for changes, and its last sequence then.
    checked: Option<(Instant, u64)>,
    shards: HashMap<u8, Arc<Shard>>,
}

/// The result of looking up contents.
#[derive(Debug)]
pub(super) struct Held {
    /// Those that are being deleted.
    pub(super) being_deleted: HashSet<Digest>,
    /// The others have no mark older than this.
    pub(super) since: Instant,
}

impl Held {
    /// Whether it is certain that none of them has been removed since.
    pub(super) fn is_valid(&self) -> bool {
        self.since.elapsed() < LOOKUP_VALID
    }
}

impl Marks {
    /// The marks on the server that `js` is connected to. The stream must be there when they are used ([`bus::log::setup`]).
    ///
    /// # Errors
    /// The context cannot name streams.
    pub async fn open(js: &jetstream::Context) -> Result<Self, Error> {
        let stream = js.get_stream_no_info(MARKS).await;
        Ok(Self {
            stream: stream.map_err(|error| failed("reach the marks", error))?,
            js: js.clone(),
            view: Arc::default(),
        })
    }

    /// Removes the marks from contents, for a caller that is about to report whether they are in the store.
    pub(super) async fn hold(&self, digests: &[Digest]) -> Result<Held, Error> {
        let since = self.check().await?;
        let mut marked: HashMap<u8, Vec<Digest>> = HashMap::new();
        for digest in digests {
            if self.shard(Shard::of(digest)).await?.contains(digest) {
                marked.entry(Shard::of(digest)).or_default().push(*digest);
            }
        }
        let mut being_deleted = HashSet::new();
        for (shard, digests) in marked {
            being_deleted.extend(self.amend(shard, |marks| marks.renew(&digests)).await?);
        }
        Ok(Held { being_deleted, since })
    }

    /// Makes sure that the copy is fresh; returns the time for which it is valid.
    async fn check(&self) -> Result<Instant, Error> {
        if let Some((checked, _)) = self.view.lock().checked
            && checked.elapsed() < FRESH_FOR
        {
            return Ok(checked);
        }
        let now = Instant::now();
        let info = self.stream.get_info().await.map_err(|error| failed("look for marks", error))?;
        let last = info.state.last_sequence;
        let mut view = self.view.lock();
        if view.checked.is_none_or(|(_, seen)| seen != last) {
            view.shards.clear();
        }
        view.checked = Some((now, last));
        Ok(now)
    }

    /// A shard as of the last check, or later.
    async fn shard(&self, shard: u8) -> Result<Arc<Shard>, Error> {
        let (seen, checked) = {
            let view = self.view.lock();
            (view.shards.get(&shard).cloned(), view.checked)
        };
        if let Some(marks) = seen {
            return Ok(marks);
        }
        let (marks, _) = self.read(shard).await?;
        let marks = Arc::new(marks);
        let mut view = self.view.lock();
        if view.checked.map(|(_, last)| last) == checked.map(|(_, last)| last) {
            view.shards.insert(shard, Arc::clone(&marks));
        }
        Ok(marks)
    }

    /// A shard and the sequence of its last write, 0 if there was none.
    ///
    /// # Errors
    /// The server does not answer, or the message is not a shard.
    pub async fn read(&self, shard: u8) -> Result<(Shard, u64), Error> {
        let Some((payload, sequence, stored)) = last(&self.js, &self.stream, &subjects::marks(shard)).await? else {
            return Ok((Shard::default(), 0));
        };
        let marks: Shard = serde_json::from_slice(&payload).map_err(|error| failed("understand the marks", error))?;
        Ok((marks.stored_at(stored), sequence))
    }

    /// Changes the current state of a shard.
    ///
    /// # Errors
    /// The server does not answer, or every try met a conflict.
    pub async fn amend<T>(&self, shard: u8, mut change: impl FnMut(&mut Shard) -> T) -> Result<T, Error> {
        for _ in 0..TRIES {
            let (before, sequence) = self.read(shard).await?;
            let mut marks = before.clone();
            let outcome = change(&mut marks);
            if marks == before {
                return Ok(outcome);
            }
            let json = serde_json::to_vec(&marks).map_err(|error| failed("write the marks", error))?;
            if write(&self.js, subjects::marks(shard), json.into(), sequence).await?.is_some() {
                self.view.lock().shards.insert(shard, Arc::new(marks));
                return Ok(outcome);
            }
        }
        Err(failed(
            "change the marks",
            std::io::Error::other("other writers keep changing them"),
        ))
    }
}

/// A pass that began at `started` may remove contents that were marked before the returned time: their grace period was over by then, and
/// they were marked before any attempt that still runs was claimed. So a content that such an attempt stored, or found in the store, stays
/// until the attempt ends; and the pass has read every event that names a content within its grace period.
#[must_use]
pub fn due(started: DateTime<Utc>, oldest_claim: Option<DateTime<Utc>>, grace: Duration) -> DateTime<Utc> {
    let horizon = oldest_claim.map_or(started, |claimed| claimed.min(started));
    let span = TimeDelta::from_std(grace.saturating_add(MARGIN)).unwrap_or(TimeDelta::MAX);
    horizon.checked_sub_signed(span).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// The last message of a subject. With replicas, the stream's leader is asked: another server may lag behind.
async fn last(js: &jetstream::Context, stream: &Stream<()>, subject: &str) -> Result<Option<(Bytes, u64, DateTime<Utc>)>, Error> {
    let read = |error: Box<dyn std::error::Error + Send + Sync>| Error::Marks {
        doing: "read the marks",
        source: error,
    };
    let message = if js.client().server_info().cluster.is_some() {
        match stream.get_last_raw_message_by_subject(subject).await {
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
            answer => answer.map_err(|error| read(error.into()))?,
        }
    } else {
        match stream.direct_get_last_for_subject(subject).await {
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
            answer => answer.map_err(|error| read(error.into()))?,
        }
    };
    let stored = DateTime::from_timestamp(message.time.unix_timestamp(), message.time.nanosecond()).unwrap_or_default();
    Ok(Some((message.payload, message.sequence, stored)))
}

/// Writes to a subject, if its last sequence is the expected one; returns the new one. A write without an answer is an error; reading again
/// shows whether it was stored.
async fn write(js: &jetstream::Context, subject: String, payload: Bytes, expected: u64) -> Result<Option<u64>, Error> {
    let message = PublishMessage::build()
        .payload(payload)
        .expected_stream(MARKS)
        .expected_last_subject_sequence(expected);
    let failed_to_write = |error| failed("write the marks", error);
    let sent = js.send_publish(subject, message).await.map_err(failed_to_write)?;
    match sent.await {
        Ok(ack) => Ok(Some(ack.sequence)),
        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(None),
        Err(error) => Err(failed_to_write(error)),
    }
}

fn failed(doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Marks {
        doing,
        source: source.into(),
    }
}
