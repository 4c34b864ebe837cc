//! Reading a job back: its last event by filter, and from there along the links to its first. And a worker.

use std::time::Duration;

use async_nats::jetstream;
use tracing::debug;

pub use super::stored::{Error, Stored};
use super::{EVENTS, ask::Asker, replay};
use crate::{
    batch::{self, Batch},
    envelope::Envelope,
    grid::{image, runtimes::RuntimesEvent},
    ids::{BatchId, JobId, WorkerId},
    job::{self, Job, JobEvent},
    subjects::{self, EventSubject},
    worker::{self, WorkerEvent},
};

/// Messages that are read at once where they are not linked.
const CHUNK: usize = 256;
/// How often, and with what pause, those are asked for again of which a replica does not know yet.
const BEHIND: (u32, Duration) = (100, Duration::from_millis(50));

/// An event of any kind, as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Of a job.
    Job(Box<job::Recorded>),
    /// Of a batch.
    Batch(Box<batch::Recorded>),
    /// Of a worker.
    Worker(Box<worker::Recorded>),
    /// Of the deployment's runtimes.
    Runtimes(Box<Envelope<RuntimesEvent>>),
    /// Of an image that the grid keeps.
    Image(Box<image::Recorded>),
}

/// Reads a stored event; nothing for a subject whose kind this program does not know.
///
/// # Errors
/// If the subject is an event's and the message is not one that this program can read.
pub fn decode(subject: &str, sequence: u64, payload: &[u8]) -> Result<Option<Fact>, Error> {
    let failed = |source| Error::Decode { sequence, source };
    Ok(match EventSubject::parse(subject) {
        Some(EventSubject::Job { namespace, job, speaker }) => {
            let envelope = Envelope::from_json(payload).map_err(failed)?;
            Some(Fact::Job(Box::new(job::Recorded {
                namespace,
                job,
                speaker,
                sequence,
                envelope,
            })))
        }
        Some(EventSubject::Batch { namespace, batch }) => {
            let envelope = Envelope::from_json(payload).map_err(failed)?;
            Some(Fact::Batch(Box::new(batch::Recorded {
                namespace,
                batch,
                sequence,
                envelope,
            })))
        }
        Some(EventSubject::Worker(worker)) => {
            let envelope = Envelope::from_json(payload).map_err(failed)?;
            Some(Fact::Worker(Box::new(worker::Recorded {
                worker,
                sequence,
                envelope,
            })))
        }
        Some(EventSubject::Runtimes) => Some(Fact::Runtimes(Box::new(Envelope::from_json(payload).map_err(failed)?))),
        Some(EventSubject::Image(name)) => {
            let envelope = Envelope::from_json(payload).map_err(failed)?;
            Some(Fact::Image(Box::new(image::Recorded { name, sequence, envelope })))
        }
        None => None,
    })
}

/// The messages under a filter that stand behind sequence `after`, oldest first, by walking their links.
///
/// # Errors
/// If the log cannot be read.
pub async fn back_to(js: &jetstream::Context, stream: &str, filter: &str, after: u64) -> Result<Vec<Stored>, Error> {
    let asker = Asker::of(js, stream).await?;
    let Some(mut next) = asker.last(filter).await? else {
        return Ok(Vec::new());
    };
    let mut stored = Vec::new();
    while next.sequence > after {
        let previous = next.previous();
        stored.push(next);
        if previous <= after {
            break;
        }
        next = asker.at(previous).await?;
    }
    stored.reverse();
    Ok(stored)
}

/// Everything that is stored of a job, in any namespace, oldest first, whether it can be read or not; nothing where there is no
/// such job.
///
/// # Errors
/// If the log cannot be read.
pub async fn everything(js: &jetstream::Context, id: JobId) -> Result<Vec<Stored>, Error> {
    let filter = subjects::job_filter_anywhere(id);
    let linked = back_to(js, EVENTS, &filter, 0).await?;
    let (Some(first), Some(last)) = (linked.first(), linked.last()) else {
        return Ok(linked);
    };
    let begins = matches!(
        decode(&first.subject, first.sequence, &first.payload),
        Ok(Some(Fact::Job(recorded))) if matches!(recorded.envelope.event, JobEvent::Submitted(_))
    );
    if begins {
        return Ok(linked);
    }
    // Whoever wrote without an expected sequence broke the chain of links: what stands before that is found by its subject.
    up_to(js, filter, last.sequence).await
}

/// The events under a filter, oldest first, linked or not, up to and with the one at `last`, which must be one of them.
pub(super) async fn up_to(js: &jetstream::Context, filter: String, last: u64) -> Result<Vec<Stored>, Error> {
    let client = js.client();
    let mut stored: Vec<Stored> = Vec::new();
    let mut missed = 0;
    while stored.last().is_none_or(|message| message.sequence < last) {
        let after = stored.last().map_or(0, |message| message.sequence);
        let piece = replay::piece(&client, EVENTS, &filter, after, CHUNK).await?;
        if piece.messages.is_empty() {
            // A replica that does not have it yet; another one is asked next, perhaps.
            missed += 1;
            if missed > BEHIND.0 {
                return Err(Error::Silent { what: filter });
            }
            tokio::time::sleep(BEHIND.1).await;
        }
        stored.extend(piece.messages);
    }
    Ok(stored)
}

/// What the log says of a worker.
#[derive(Debug, Clone, Default)]
pub struct WorkerHistory {
    /// Its events that can be read, each with its sequence, oldest first.
    pub events: Vec<(u64, WorkerEvent)>,
    /// The sequence of its last event, read or not, behind which the next one may be appended; 0: there is no such worker.
    pub last: u64,
}

/// Everything that is said of a worker. A worker's events need not be linked: its runner says some without looking.
///
/// # Errors
/// If the log cannot be read.
pub async fn worker(js: &jetstream::Context, id: &WorkerId) -> Result<WorkerHistory, Error> {
    let filter = subjects::worker(id);
    let asker = Asker::of(js, EVENTS).await?;
    let Some(newest) = asker.last(&filter).await? else {
        return Ok(WorkerHistory::default());
    };
    let stored = up_to(js, filter, newest.sequence).await?;
    let last = stored.last().map_or(newest.sequence, |last| last.sequence);
    let read = |message: Stored| match decode(&message.subject, message.sequence, &message.payload) {
        Ok(Some(Fact::Worker(recorded))) => Some((message.sequence, recorded.envelope.event)),
        Ok(_) | Err(_) => None,
    };
    let events = stored.into_iter().filter_map(read).collect();
    Ok(WorkerHistory { events, last })
}

/// A batch as its first and its last event tell it, which is all but how its window moved; nothing where there is none.
///
/// A window moves thousands of times, so that its history is not walked. Its sequence is that of the last message there, which
/// the next writer must name, read or not.
///
/// # Errors
/// If the log cannot be read, or the batch's first event cannot.
pub async fn batch(js: &jetstream::Context, id: BatchId) -> Result<Option<Batch>, Error> {
    let asker = Asker::of(js, EVENTS).await?;
    let Some(newest) = asker.last(&subjects::batch_anywhere(id)).await? else {
        return Ok(None);
    };
    let first = asker.first(&newest.subject).await?;
    let of_batch = |message: &Stored| match decode(&message.subject, message.sequence, &message.payload) {
        Ok(Some(Fact::Batch(recorded))) => Ok(Some(recorded)),
        Ok(_) => Ok(None),
        Err(error) => Err(error),
    };
    let last = newest.sequence;
    let newest = match of_batch(&newest) {
        Ok(recorded) => recorded,
        Err(error) => {
            debug!("of batch {id}, something is set aside: {error}");
            let all = up_to(js, newest.subject.clone(), last).await?;
            all.iter().rev().find_map(|message| of_batch(message).ok().flatten())
        }
    };
    let mut folded = None;
    for recorded in [of_batch(&first)?, newest].into_iter().flatten() {
        folded = Batch::evolve(folded, &recorded);
    }
    Ok(folded.map(|batch| Batch { sequence: last, ..batch }))
}

/// Every event of a job that can be read, in any namespace, oldest first; none where there is no such job.
///
/// What stands behind its submission and cannot be read, as an event of a newer version, is left out: it stops nobody from
/// ending the job, or from giving it to another worker. The event before it carries its sequence then, which the next writer
/// must name.
///
/// # Errors
/// If the log cannot be read, or the submission itself cannot.
pub async fn history(js: &jetstream::Context, id: JobId) -> Result<Vec<job::Recorded>, Error> {
    let mut events: Vec<job::Recorded> = Vec::new();
    for message in everything(js, id).await? {
        match (decode(&message.subject, message.sequence, &message.payload), events.last_mut()) {
            (Ok(Some(Fact::Job(recorded))), _) => events.push(*recorded),
            (Ok(_), _) => {}
            (Err(error), Some(before)) => {
                debug!("of job {id}, something is set aside: {error}");
                before.sequence = message.sequence;
            }
            (Err(error), None) => return Err(error),
        }
    }
    Ok(events)
}

/// A job as its events tell it now; nothing where there is no such job.
///
/// # Errors
/// If the log cannot be read.
pub async fn job(js: &jetstream::Context, id: JobId) -> Result<Option<Job>, Error> {
    Ok(Job::replay(&history(js, id).await?))
}
