//! Reads the log: all of it, or what came after the last checkpoint. Fails if any event is missing.

use std::{sync::Arc, time::Duration};

use bus::log::{
    EVENTS,
    follow::Follower,
    inspect::payload_at,
    whole::{Extent, Gap, Reading},
};
use store::Files;
use tracing::{debug, info, warn};

use super::{
    Error,
    checkpoint::{self, Checkpoints},
    fold::Fold,
    retention::{Moment, horizon},
    signed,
};
use crate::{error::chain, key::Key};

/// How long a read of the log may make no progress.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// How long the store may take to load a checkpoint, and to save one; after that, the whole log is read.
const LOAD_PATIENCE: Duration = Duration::from_secs(60);
const SAVE_PATIENCE: Duration = Duration::from_secs(120);
/// Messages in one chunk.
const CHUNK: usize = 512;
/// A checkpoint is written once this many percent of its events are new.
const NEW_HUNDREDTHS: u64 = 1;

/// What a survey needs.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) js: &'a async_nats::jetstream::Context,
    pub(super) files: &'a Files,
    pub(super) key: Key,
    pub(super) at: Moment,
    /// The last sequence of the log that was ever seen: events are missing from a log that ends before it.
    pub(super) seen: u64,
    /// How long a checkpoint remembers the inputs of ended jobs: at least as long as they are kept.
    pub(super) remembered: Duration,
}

/// The result of reading the log.
#[derive(Debug)]
pub(super) struct LogRead {
    pub(super) fold: Arc<Fold>,
    /// Its last sequence.
    pub(super) last: u64,
    /// How many events were read after the checkpoint.
    pub(super) read: u64,
}

/// Checks that no event is missing, by the server's counts and the last sequence ever seen; returns the log's extent, and when it was created.
///
/// # Errors
/// The server does not answer, or events are missing.
pub(super) async fn extent(js: &async_nats::jetstream::Context, seen: u64) -> Result<(Extent, i128), Error> {
    let stream = js.get_stream(EVENTS).await.map_err(|error| Error::Log(error.into()))?;
    let info = stream.cached_info();
    let extent = Extent {
        first: info.state.first_sequence,
        last: info.state.last_sequence,
        messages: info.state.messages,
    };
    extent.check(seen)?;
    Ok((extent, info.created.unix_timestamp_nanos()))
}

/// Reads the log up to its current end. Messages that cannot be delivered are read in another way.
///
/// # Errors
/// It cannot be read, or events are missing.
pub(super) async fn read_log(source: &Source<'_>) -> Result<LogRead, Error> {
    // Events before the checkpoint must not be missing either: the log may have been replaced.
    let (extent, log_made) = extent(source.js, source.seen).await?;
    let checkpoints = Checkpoints {
        js: source.js,
        files: source.files,
        key: source.key,
        log_made,
    };
    let (mut fold, begin) = known(&checkpoints, source, extent.last).await;
    let mut follower = Follower::new(source.js, EVENTS, Vec::new(), begin);
    let mut reading = Reading::after(begin);
    let before = fold.events;
    while reading.last() < extent.last {
        let chunk = tokio::time::timeout(STUCK_AFTER, follower.chunk(CHUNK)).await;
        for message in chunk.map_err(|error| Error::Log(error.into()))? {
            for unread in reading.take(message.sequence) {
                let payload = payload_at(source.js, unread).await.map_err(|error| Error::Log(error.into()))?;
                let missing = Gap::Missing {
                    count: 1,
                    near: Some(unread),
                };
                fold.take_unreadable(&payload.ok_or(missing)?);
            }
            fold.take(&message.subject, message.sequence, &message.payload, message.stored_at);
        }
    }
    let (last, read) = (reading.last(), fold.events - before);
    fold.forget(horizon(source.at.now, source.remembered));
    let fold = Arc::new(fold);
    if read > 0 && read.saturating_mul(100) >= fold.events.saturating_mul(NEW_HUNDREDTHS) {
        keep(&checkpoints, &fold, last).await;
    }
    Ok(LogRead { fold, last, read })
}

/// The fold of the last checkpoint and its sequence; an empty fold if there is none that may be used.
async fn known(checkpoints: &Checkpoints<'_>, source: &Source<'_>, last: u64) -> (Fold, u64) {
    match tokio::time::timeout(LOAD_PATIENCE, checkpoints.load(&source.at, last)).await {
        Ok(Ok((fold, sequence))) => {
            debug!("continuing from the checkpoint at sequence {sequence}");
            return (fold, sequence);
        }
        Ok(Err(checkpoint::Error::Signed(signed::Error::None))) => debug!("there is no checkpoint yet; reading the whole log"),
        Ok(Err(error @ (checkpoint::Error::Signed(signed::Error::Program) | checkpoint::Error::Forgotten))) => {
            info!("the storage checkpoint is not used: {error}; reading the whole log");
        }
        Ok(Err(error)) => warn!("the storage checkpoint is not used: {}; reading the whole log", chain(&error)),
        Err(_) => warn!("the storage checkpoint is not used: the store does not answer; reading the whole log"),
    }
    (Fold::default(), 0)
}

/// Saves a checkpoint. If that fails, the next pass reads more of the log.
async fn keep(checkpoints: &Checkpoints<'_>, fold: &Arc<Fold>, last: u64) {
    match tokio::time::timeout(SAVE_PATIENCE, checkpoints.save(Arc::clone(fold), last)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(
            "the storage checkpoint cannot be saved: {}; the next pass reads more of the log",
            chain(&error)
        ),
        Err(_) => warn!("the storage checkpoint cannot be saved: the store does not answer; the next pass reads more of the log"),
    }
}
