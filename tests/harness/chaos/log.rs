//! The log, as the checker reads it: each event in the few words that matter to a promise.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use bus::{
    ids::{Attempt, BatchId, JobId, SessionId, WorkerId},
    job::{Job, JobEvent, Outcome, Recorded},
    log::{
        EVENTS,
        follow::{Followed, Follower},
        read::{self, Fact},
    },
    worker::WorkerEvent,
};

use super::Micros;

/// An event, and when the broker stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where it stands.
    pub sequence: u64,
    /// When it was stored.
    pub at: Micros,
    /// What it says.
    pub what: What,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Of a job.
    Job {
        /// Which.
        job: JobId,
        /// What happened to it.
        word: Word,
        /// Whether `Job::evolve` let it count.
        counted: bool,
    },
    /// A worker began a session.
    Registered(WorkerId, SessionId),
    /// A worker was given up.
    Lost(WorkerId, SessionId),
    /// A worker ended its session in good order.
    Left(WorkerId, SessionId),
    /// Something else of a worker.
    OfWorker(WorkerId),
    /// Something of a batch.
    OfBatch(BatchId),
    /// It cannot be read.
    Unreadable(String),
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It was accepted.
    Submitted {
        /// Whether it waits for something before it is ready.
        held: bool,
    },
    /// A worker took it.
    Claimed(Attempt, WorkerId, SessionId),
    /// Its command runs.
    Started(Attempt, SessionId),
    /// Its attempt ended on its worker.
    Finished {
        /// Which try.
        attempt: Attempt,
        /// Whose session.
        session: SessionId,
        /// Whether the command ended with 0.
        succeeded: bool,
        /// Whether it failed and is tried again.
        again: bool,
    },
    /// The worker that took it gave it back.
    Returned(Attempt, SessionId),
    /// Its worker's shutdown ended it.
    Interrupted(Attempt, SessionId),
    /// Its attempt was given up, and another may be made.
    Rescheduled(Attempt),
    /// What it waited for is true; this attempt may be made.
    Released(Attempt),
    /// An operator revived it; this attempt may be made.
    Requeued(Attempt),
    /// A user asked for its end.
    CancelRequested,
    /// It ended because a user asked for that.
    Cancelled,
    /// Its attempts are used up.
    Died(Attempt),
    /// It waited longer than it may.
    Expired,
}

impl Word {
    fn of(event: &JobEvent) -> Self {
        match event {
            JobEvent::Submitted(submitted) => Self::Submitted {
                held: submitted.spec.start.is_some(),
            },
            JobEvent::Claimed(claimed) => Self::Claimed(claimed.attempt, claimed.worker.clone(), claimed.session),
            JobEvent::Started(started) => Self::Started(started.attempt, started.session),
            JobEvent::Finished(finished) => Self::Finished {
                attempt: finished.attempt,
                session: finished.session,
                succeeded: finished.outcome == Outcome::Succeeded,
                again: finished.retry_after_ms.is_some(),
            },
            JobEvent::Returned(returned) if returned.interrupted => Self::Interrupted(returned.attempt, returned.session),
            JobEvent::Returned(returned) => Self::Returned(returned.attempt, returned.session),
            JobEvent::Rescheduled(rescheduled) => Self::Rescheduled(rescheduled.attempt),
            JobEvent::CancelRequested(_) => Self::CancelRequested,
            JobEvent::Cancelled(_) => Self::Cancelled,
            JobEvent::Died(died) => Self::Died(died.attempt),
            JobEvent::Released(released) => Self::Released(released.attempt),
            JobEvent::Requeued(requeued) => Self::Requeued(requeued.attempt),
            JobEvent::Expired(_) => Self::Expired,
        }
    }
}

/// Reads messages of `RGRID_EVENTS`, in their order.
#[derive(Debug, Default)]
pub struct Reader {
    jobs: HashMap<JobId, Job>,
}

impl Reader {
    /// Reads the next one; nothing for a subject that means nothing here.
    pub fn read(&mut self, message: &Followed) -> Option<Event> {
        let (sequence, at) = (message.sequence, message.stored_at.timestamp_micros());
        let what = match read::decode(&message.subject, sequence, &message.payload) {
            Ok(Some(Fact::Job(recorded))) => self.of_job(&recorded),
            Ok(Some(Fact::Batch(recorded))) => What::OfBatch(recorded.batch),
            Ok(Some(Fact::Worker(recorded))) => of_worker(recorded.worker, &recorded.envelope.event),
            Ok(Some(Fact::Runtimes(_) | Fact::Image(_)) | None) => return None,
            Err(error) => What::Unreadable(error.to_string()),
        };
        Some(Event { sequence, at, what })
    }

    /// Reads an event of a job that has been decoded, the next one in its order.
    pub fn of_job(&mut self, recorded: &Recorded) -> What {
        let before = self.jobs.remove(&recorded.job);
        let after = Job::evolve(before.clone(), recorded);
        let counted = match (before, &after) {
            (None, after) => after.is_some(),
            (Some(before), Some(after)) => {
                let sequence = after.sequence;
                *after != Job { sequence, ..before }
            }
            (Some(_), None) => true,
        };
        self.jobs.extend(after.map(|job| (recorded.job, job)));
        What::Job {
            job: recorded.job,
            word: Word::of(&recorded.envelope.event),
            counted,
        }
    }

    /// The jobs as `Job::evolve` folded them.
    #[must_use]
    pub fn jobs(&self) -> &HashMap<JobId, Job> {
        &self.jobs
    }
}

fn of_worker(worker: WorkerId, event: &WorkerEvent) -> What {
    match event {
        WorkerEvent::Registered(registered) => What::Registered(worker, registered.session),
        WorkerEvent::Lost(lost) => What::Lost(worker, lost.session),
        WorkerEvent::Left(left) => What::Left(worker, left.session),
        #[allow(unreachable_patterns, reason = "whatever else a worker says concerns no promise")]
        _ => What::OfWorker(worker),
    }
}

/// Reads the whole log as it stands now.
///
/// # Errors
/// If the stream cannot be reached.
pub async fn all(js: &jetstream::Context) -> Result<(Vec<Event>, Reader)> {
    let last = js
        .get_stream(EVENTS)
        .await
        .context("the log is there")?
        .cached_info()
        .state
        .last_sequence;
    let (mut reader, mut events) = (Reader::default(), Vec::new());
    let mut follower = Follower::new(js, EVENTS, Vec::new(), 0);
    let mut read = 0;
    while read < last {
        for message in follower.chunk(1_000).await {
            read = message.sequence;
            events.extend(reader.read(&message));
        }
    }
    Ok((events, reader))
}
