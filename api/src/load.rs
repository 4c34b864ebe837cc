//! What stands in the log of a job or a worker, also where some of it cannot be read: that is set aside, and the rest counts.

use bus::{
    ids::{EventId, JobId},
    job::{Job, JobEvent},
    stream::{
        EVENTS,
        follow::Follower,
        read::{self, Fact},
    },
    subjects,
};
use bytes::Bytes;
use tracing::debug;

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
    /// Where that stands.
    pub(crate) submitted: u64,
}

/// Reads a job; nothing where there is none. What stands behind its submission and cannot be read moves it on by its sequence,
/// so that what is said next follows that too.
///
/// # Errors
/// If the log cannot be read, or the submission itself cannot.
pub(crate) async fn job(js: &async_nats::jetstream::Context, id: JobId) -> Result<Option<Loaded>, read::Error> {
    let mut loaded: Option<Loaded> = None;
    for entry in entries(js, id).await? {
        match (read::decode(&entry.subject, entry.sequence, &entry.payload), loaded.as_mut()) {
            (Ok(Some(Fact::Job(recorded))), Some(loaded)) => {
                if let Some(next) = Job::evolve(Some(loaded.job.clone()), &recorded) {
                    loaded.job = next;
                }
            }
            (Ok(Some(Fact::Job(recorded))), None) => {
                loaded = Job::evolve(None, &recorded).map(|job| Loaded {
                    job,
                    first: recorded.envelope.id,
                    submitted: recorded.sequence,
                });
            }
            (Ok(_), _) => {}
            (Err(error), Some(loaded)) => {
                debug!("job {id}: set aside: {error}");
                loaded.job.sequence = entry.sequence;
            }
            (Err(error), None) => return Err(error),
        }
    }
    Ok(loaded)
}

/// Everything that is stored of a job, oldest first.
///
/// # Errors
/// If the log cannot be read.
pub(crate) async fn entries(js: &async_nats::jetstream::Context, id: JobId) -> Result<Vec<Entry>, read::Error> {
    let filter = subjects::job_filter_anywhere(id);
    let linked: Vec<Entry> = read::back_to(js, EVENTS, &filter, 0).await?.into_iter().map(Entry::from).collect();
    let (Some(first), Some(last)) = (linked.first(), linked.last()) else {
        return Ok(linked);
    };
    // Whoever wrote without an expected sequence broke the chain of links.
    let begins = matches!(
        read::decode(&first.subject, first.sequence, &first.payload),
        Ok(Some(Fact::Job(recorded))) if matches!(recorded.envelope.event, JobEvent::Submitted(_))
    );
    if begins {
        Ok(linked)
    } else {
        Ok(all(js, filter, last.sequence).await)
    }
}

/// Everything under a filter up to a sequence that it is known to have, oldest first, whether it is linked or not.
pub(crate) async fn all(js: &async_nats::jetstream::Context, filter: String, last: u64) -> Vec<Entry> {
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

impl From<read::Stored> for Entry {
    fn from(stored: read::Stored) -> Self {
        Self {
            subject: stored.subject,
            sequence: stored.sequence,
            payload: stored.payload,
        }
    }
}
