//! Marks on contents that nothing refers to: what lets them be removed without ever removing what somebody is about to use.
//!
//! ```text
//!            a pass finds it unused          unused still, and its grace is over          it is removed
//!   free ───────────────────────────▶ unused ──────────────────────────────▶ going ─────────────────────▶ free
//!     ▲  somebody asks for it, or it is in use   │
//!     └──────────────────────────────────────────┘
//! ```
//!
//! Each step is a write of the content's shard that expects the shard's last sequence, so that of a renewal and a removal one is
//! first and the other sees it. Whoever is told that a content is there has it for a grace from then on, in which to name it in the
//! log; what is on its way out is told to be absent, and is put again when it is gone.

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

/// For how long what was read of the marks is as good as new.
const FRESH: Duration = Duration::from_secs(1);
/// For how long it is enough to have looked before something is stored; behind that, it is looked again.
const GUARD: Duration = Duration::from_secs(2);
/// So much longer than its grace a mark stands, at least, before its content may go: longer than any of the above.
pub const MARGIN: Duration = Duration::from_secs(3);
/// For how long after it was taken out of use a content may be removed by the pass that took it: far shorter than [`LIFE`], after which
/// another pass may take it, so that a pass that stood still never removes what was put again meanwhile.
pub const REMOVING: Duration = Duration::from_secs(60);
/// How often a shard that others keep changing is read and written again.
const TRIES: u32 = 200;

/// The marks, on `JetStream`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Marks {
    js: jetstream::Context,
    stream: Stream<()>,
    view: Arc<Mutex<View>>,
}

/// What was read of the marks, and may be used again while nothing has changed.
#[derive(Debug, Default)]
struct View {
    /// When it was last asked whether something has changed, and the stream's last sequence then.
    checked: Option<(Instant, u64)>,
    shards: HashMap<u8, Arc<Shard>>,
}

/// What came of asking for contents.
#[derive(Debug)]
pub(super) struct Held {
    /// Those that are on their way out.
    pub(super) going: HashSet<Digest>,
    /// The others have no mark that is older than this.
    pub(super) since: Instant,
}

impl Held {
    /// Whether it is certain that none of them went meanwhile.
    pub(super) fn still(&self) -> bool {
        self.since.elapsed() < GUARD
    }
}

impl Marks {
    /// The marks on the server that `js` is connected to. The stream must be there when they are used ([`bus::log::setup`]).
    ///
    /// # Errors
    /// None, but for a context that cannot name streams.
    pub async fn open(js: &jetstream::Context) -> Result<Self, Error> {
        let stream = js.get_stream_no_info(MARKS).await;
        Ok(Self {
            stream: stream.map_err(|error| failed("reach the marks", error))?,
            js: js.clone(),
            view: Arc::default(),
        })
    }

    /// Takes the marks off contents, for somebody who is about to say whether they are there.
    pub(super) async fn hold(&self, digests: &[Digest]) -> Result<Held, Error> {
        let since = self.check().await?;
        let mut marked: HashMap<u8, Vec<Digest>> = HashMap::new();
        for digest in digests {
            if self.seen(Shard::of(digest)).await?.names(digest) {
                marked.entry(Shard::of(digest)).or_default().push(*digest);
            }
        }
        let mut going = HashSet::new();
        for (shard, digests) in marked {
            going.extend(self.amend(shard, |marks| marks.renew(&digests)).await?);
        }
        Ok(Held { going, since })
    }

    /// Makes sure that the view is fresh; returns the moment for which it holds.
    async fn check(&self) -> Result<Instant, Error> {
        if let Some((checked, _)) = self.view.lock().checked
            && checked.elapsed() < FRESH
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

    /// A shard as it was at the last check, or later.
    async fn seen(&self, shard: u8) -> Result<Arc<Shard>, Error> {
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
    /// The server does not answer, or what is written there is not a shard.
    pub async fn read(&self, shard: u8) -> Result<(Shard, u64), Error> {
        let Some((payload, sequence, stored)) = last(&self.js, &self.stream, &subjects::marks(shard)).await? else {
            return Ok((Shard::default(), 0));
        };
        let marks: Shard = serde_json::from_slice(&payload).map_err(|error| failed("understand the marks", error))?;
        Ok((marks.stored_at(stored), sequence))
    }

    /// Changes a shard, on what it is at that moment.
    ///
    /// # Errors
    /// The server does not answer, or others keep changing it.
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
            std::io::Error::other("others change them at this moment"),
        ))
    }
}

/// What was marked before this may go, in a pass that began at `started`: its grace was over by then, and it was marked before any
/// attempt that still runs was claimed. So whatever such an attempt stored, or found stored, stays until it ends; and what somebody
/// found there, and named in the log within the grace, the pass has read.
#[must_use]
pub fn due(started: DateTime<Utc>, oldest_claim: Option<DateTime<Utc>>, grace: Duration) -> DateTime<Utc> {
    let horizon = oldest_claim.map_or(started, |claimed| claimed.min(started));
    let span = TimeDelta::from_std(grace.saturating_add(MARGIN)).unwrap_or(TimeDelta::MAX);
    horizon.checked_sub_signed(span).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// The last message of a subject. With replicas the stream's leader is asked: another may not have heard of it.
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

/// Writes a subject, if its last sequence is the expected one; returns the new one. A write that was not answered counts as none:
/// whoever reads again finds out.
async fn write(js: &jetstream::Context, subject: String, payload: Bytes, expected: u64) -> Result<Option<u64>, Error> {
    let message = PublishMessage::build()
        .payload(payload)
        .expected_stream(MARKS)
        .expected_last_subject_sequence(expected);
    let unwritten = |error| failed("write the marks", error);
    let sent = js.send_publish(subject, message).await.map_err(unwritten)?;
    match sent.await {
        Ok(ack) => Ok(Some(ack.sequence)),
        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(None),
        Err(error) => Err(unwritten(error)),
    }
}

fn failed(doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Marks {
        doing,
        source: source.into(),
    }
}
