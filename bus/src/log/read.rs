//! Reading the history of jobs, batches and workers. A job is read from its last event backwards along the links to its first event.

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

/// How many messages are read at once if they are not linked.
const CHUNK: usize = 256;
/// How often, and with what pause, messages are requested again that a replica does not have yet.
const BEHIND: (u32, Duration) = (100, Duration::from_millis(50));

/// An event of any kind, as it was read from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// An event of a job.
    Job(Box<job::Recorded>),
    /// An event of a batch.
    Batch(Box<batch::Recorded>),
    /// An event of a worker.
    Worker(Box<worker::Recorded>),
    /// An event of the deployment's runtimes.
    Runtimes(Box<Envelope<RuntimesEvent>>),
    /// An event of an image that the grid stores.
    Image(Box<image::Recorded>),
}

/// Decodes a stored event; `None` for a subject of a kind that this program does not know.
///
/// # Errors
/// If this program cannot read the event.
pub fn decode(subject: &str, sequence: u64, payload: &[u8]) -> Result<Option<Fact>, Error> {
    let failed = |source| Error::Decode { sequence, source };
    Ok(match EventSubject::parse(subject) {
        Some(EventSubject::Job { namespace, job, publisher }) => {
            let envelope = Envelope::from_json(payload).map_err(failed)?;
            Some(Fact::Job(Box::new(job::Recorded {
                namespace,
                job,
                publisher,
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

/// The messages under a filter after sequence `after`, oldest first. They are read backwards, along their links.
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

/// All messages of a job, in any namespace, oldest first, readable or not; empty if there is no such job.
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
    // A writer without an expected sequence broke the chain of links. The messages before that one are found by their subject.
    up_to(js, filter, last.sequence).await
}

/// The events under a filter up to sequence `last`, oldest first, linked or not. The event at `last` must be one of them.
pub(super) async fn up_to(js: &jetstream::Context, filter: String, last: u64) -> Result<Vec<Stored>, Error> {
    let client = js.client();
    let mut stored: Vec<Stored> = Vec::new();
    let mut missed = 0;
    while stored.last().is_none_or(|message| message.sequence < last) {
        let after = stored.last().map_or(0, |message| message.sequence);
        let piece = replay::piece(&client, EVENTS, &filter, after, CHUNK).await?;
        if piece.messages.is_empty() {
            // A replica that does not have it yet. Another replica may answer the next request.
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

/// The history of a worker.
#[derive(Debug, Clone, Default)]
pub struct WorkerHistory {
    /// The worker's readable events with their sequences, oldest first.
    pub events: Vec<(u64, WorkerEvent)>,
    /// The sequence of the worker's last event, readable or not; 0 if there is no such worker. The next event is appended after it.
    pub last: u64,
}

/// The history of a worker. Its events need not be linked, because its runner appends some without an expected sequence.
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

/// The state of a batch, from its first and its last event: everything except how its window moved. `None` if there is no such batch.
///
/// A window moves thousands of times, so the full history is not read. The state's sequence is that of the batch's last message, readable
/// or not, which the next writer must name.
///
/// # Errors
/// If the log cannot be read, or if the batch's first event cannot be read.
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
            debug!("skipped an event of batch {id}: {error}");
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

/// All readable events of a job, in any namespace, oldest first; empty if there is no such job.
///
/// An event after the submission that cannot be read, for example of a newer version, is skipped: it must not prevent the job from being
/// ended or rescheduled. The event before it then carries its sequence, which the next writer must name.
///
/// # Errors
/// If the log cannot be read, or if the submission cannot be read.
pub async fn history(js: &jetstream::Context, id: JobId) -> Result<Vec<job::Recorded>, Error> {
    let mut events: Vec<job::Recorded> = Vec::new();
    for message in everything(js, id).await? {
        match (decode(&message.subject, message.sequence, &message.payload), events.last_mut()) {
            (Ok(Some(Fact::Job(recorded))), _) => events.push(*recorded),
            (Ok(_), _) => {}
            (Err(error), Some(before)) => {
                debug!("skipped an event of job {id}: {error}");
                before.sequence = message.sequence;
            }
            (Err(error), None) => return Err(error),
        }
    }
    Ok(events)
}

/// The current state of a job; `None` if there is no such job.
///
/// # Errors
/// If the log cannot be read.
pub async fn job(js: &jetstream::Context, id: JobId) -> Result<Option<Job>, Error> {
    Ok(Job::replay(&history(js, id).await?))
}
