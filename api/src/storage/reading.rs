//! Reading the log: all of it, or what came after the last checkpoint. Where anything is missing, nothing can be concluded.

use std::{sync::Arc, time::Duration};

use bus::log::{
    EVENTS,
    completeness::{Extent, Incomplete, Position},
    follow::Follower,
    inspect::payload_at,
};
use store::Files;
use tracing::{debug, info, warn};

use super::{
    Error,
    checkpoint::{self, Checkpoints},
    fold::Fold,
    keeping::{Moment, horizon},
    signed,
};
use crate::{auth::Key, error::chain};

/// How long the log may stand still while it is read.
const STILL: Duration = Duration::from_secs(30);
/// How long the store may take to give a checkpoint; then the log is read instead. And how long it may take to store one.
const LOAD_PATIENCE: Duration = Duration::from_secs(60);
const SAVE_PATIENCE: Duration = Duration::from_secs(120);
/// Messages that are taken at once.
const CHUNK: usize = 512;
/// A checkpoint is written anew once so many hundredths of what it is the fold of are new: writing costs as much as all of it.
const NEW_HUNDREDTHS: u64 = 1;

/// What a look at the store works on.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) js: &'a async_nats::jetstream::Context,
    pub(super) files: &'a Files,
    pub(super) key: Key,
    pub(super) at: Moment,
    /// The last sequence of the log that was seen before: a log that ends before it is not whole.
    pub(super) seen: u64,
    /// For how long a checkpoint remembers the inputs of jobs that ended: at least as long as they are kept.
    pub(super) remembered: Duration,
}

/// The log as it was read.
#[derive(Debug)]
pub(super) struct LogRead {
    pub(super) fold: Arc<Fold>,
    /// Its last sequence.
    pub(super) last: u64,
    /// Events that were read, behind what a checkpoint knew.
    pub(super) read: u64,
}

/// Whether the log is whole as far as the server and those know who have seen it before, and where it ends.
///
/// # Errors
/// The server does not answer, or something is missing.
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

/// Reads the log up to what is its end now. What cannot be delivered is read as it is stored.
///
/// # Errors
/// It cannot be read, or is not whole.
pub(super) async fn read_log(source: &Source<'_>) -> Result<LogRead, Error> {
    // Also what stands before the checkpoint must be there still: who took it away may have put something else in its place.
    let (extent, log_made) = extent(source.js, source.seen).await?;
    let checkpoints = Checkpoints {
        js: source.js,
        files: source.files,
        key: source.key,
        log_made,
    };
    let (mut fold, begin) = known(&checkpoints, source, extent.last).await;
    let mut follower = Follower::new(source.js, EVENTS, Vec::new(), begin);
    let mut reading = Position::after(begin);
    let before = fold.events;
    while reading.last() < extent.last {
        let chunk = tokio::time::timeout(STILL, follower.chunk(CHUNK)).await;
        for message in chunk.map_err(|error| Error::Log(error.into()))? {
            for unread in reading.take(message.sequence) {
                let payload = payload_at(source.js, unread).await.map_err(|error| Error::Log(error.into()))?;
                let missing = Incomplete::Missing {
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

/// What the last checkpoint knows, and up to which sequence; where there is none that may be used, nothing.
async fn known(checkpoints: &Checkpoints<'_>, source: &Source<'_>, last: u64) -> (Fold, u64) {
    match tokio::time::timeout(LOAD_PATIENCE, checkpoints.load(&source.at, last)).await {
        Ok(Ok((fold, sequence))) => {
            debug!("goes on from the checkpoint at sequence {sequence}");
            return (fold, sequence);
        }
        Ok(Err(checkpoint::Error::Signed(signed::Error::None))) => debug!("there is no checkpoint yet; reading the whole log"),
        Ok(Err(error @ (checkpoint::Error::Signed(signed::Error::Program) | checkpoint::Error::Forgotten))) => {
            info!("the last checkpoint of the storage is not used: {error}; reading the whole log");
        }
        Ok(Err(error)) => warn!(
            "the last checkpoint of the storage is not used: {}; reading the whole log",
            chain(&error)
        ),
        Err(_) => warn!("the last checkpoint of the storage is not used: the store does not answer; reading the whole log"),
    }
    (Fold::default(), 0)
}

/// Keeps a checkpoint, if that can be: without it, the next pass reads more.
async fn keep(checkpoints: &Checkpoints<'_>, fold: &Arc<Fold>, last: u64) {
    match tokio::time::timeout(SAVE_PATIENCE, checkpoints.save(Arc::clone(fold), last)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(
            "no checkpoint of the storage is kept: {}; the next pass reads more of the log",
            chain(&error)
        ),
        Err(_) => warn!("no checkpoint of the storage is kept: the store does not answer; the next pass reads more of the log"),
    }
}
