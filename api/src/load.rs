//! What stands in the log of a job or a worker, also where some of it cannot be read: that is set aside, and the rest counts.

use async_nats::jetstream::Context;
use bus::{
    ids::{EventId, JobId},
    job::Job,
    stream::{EVENTS, follow::Follower, read},
};
use bytes::Bytes;

/// Messages that are read at once.
const CHUNK: usize = 256;

/// A message as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    pub(crate) payload: Bytes,
}

/// A job as its events tell it now.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) job: Job,
    /// The event of its submission, which correlates all others.
    pub(crate) first: EventId,
}

/// Reads a job; nothing where there is none. What cannot be read of it is set aside (see [`read::history`]).
///
/// # Errors
/// If the log cannot be read, or the submission itself cannot.
pub(crate) async fn job(js: &Context, id: JobId) -> Result<Option<Loaded>, read::Error> {
    let history = read::history(js, id).await?;
    let Some(first) = history.first().map(|first| first.envelope.id) else {
        return Ok(None);
    };
    Ok(Job::replay(&history).map(|job| Loaded { job, first }))
}

/// Everything that is stored of a job, oldest first, whether it can be read or not.
///
/// # Errors
/// If the log cannot be read.
pub(crate) async fn entries(js: &Context, id: JobId) -> Result<Vec<Entry>, read::Error> {
    let stored = read::everything(js, id).await?;
    Ok(stored
        .into_iter()
        .map(|message| Entry {
            subject: message.subject,
            sequence: message.sequence,
            payload: message.payload,
        })
        .collect())
}

/// Everything under a filter up to a sequence that it is known to have, oldest first, whether it is linked or not.
pub(crate) async fn all(js: &Context, filter: String, last: u64) -> Vec<Entry> {
    let mut follower = Follower::new(js, EVENTS, vec![filter], 0);
    let mut entries = Vec::new();
    while entries.last().is_none_or(|entry: &Entry| entry.sequence < last) {
        entries.extend(follower.chunk(CHUNK).await.into_iter().map(|message| Entry {
            subject: message.subject,
            sequence: message.sequence,
            payload: message.payload,
        }));
    }
    entries
}
