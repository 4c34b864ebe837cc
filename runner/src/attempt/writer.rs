//! Appending the events of one job for a worker.

use std::time::Duration;

use bus::{
    envelope::Envelope,
    ids::EventId,
    job::{Command, Job, JobEvent, Recorded, Rejection},
    log::{
        append,
        writer::{self, Decision, Loaded, Writer},
    },
};
use tracing::warn;

/// The pause before an event is appended again to a log that is full.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Why a command's event is not in the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The job, as it is now, rejects the command; most often because another attempt has the job.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The log could not be written, or not be read after another writer was first.
    #[error(transparent)]
    Write(#[from] writer::Error),
}

/// Appends one job's events, each behind the last one that is known here: the log is read only after a conflict.
#[derive(Debug)]
pub(crate) struct JobWriter {
    writer: Writer,
    job: Job,
    /// The sequence of the job's last event.
    last: u64,
    cause: Option<EventId>,
    correlation: Option<EventId>,
}

impl JobWriter {
    /// A writer for a job that is known from its ready event, which holds all that a worker needs.
    #[must_use]
    pub(crate) fn new(writer: Writer, job: Job, ready: &Envelope<JobEvent>) -> Self {
        Self {
            writer,
            last: job.sequence,
            job,
            cause: Some(ready.id),
            correlation: Some(ready.correlation_id.unwrap_or(ready.id)),
        }
    }

    /// A writer for a job that is known from its whole history; nothing where that holds no job.
    #[must_use]
    pub(crate) fn resume(writer: Writer, history: &[Recorded]) -> Option<Self> {
        let (first, last) = (history.first()?, history.last()?);
        Some(Self {
            writer,
            job: Job::replay(history)?,
            last: last.sequence,
            cause: Some(last.envelope.id),
            correlation: Some(last.envelope.correlation_id.unwrap_or(first.envelope.id)),
        })
    }

    /// The job as far as it is known here.
    #[must_use]
    pub(crate) const fn job(&self) -> &Job {
        &self.job
    }

    /// Decides on a command, appends its event, and returns the event's sequence. Where the log is full, an event of a claimed attempt
    /// waits for room for as long as that takes: without the event, the attempt would be made twice.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn append(&mut self, command: Command) -> Result<u64, Error> {
        let mut waits = false;
        loop {
            match self.write(&command).await {
                Err(Error::Write(writer::Error::Append(error @ append::Error::Full { .. })))
                    if !matches!(command, Command::Claim { .. }) =>
                {
                    if !std::mem::replace(&mut waits, true) {
                        warn!(job.id = %self.job.id, "an event of job {} waits for room in the log: {error}", self.job.id);
                    }
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                appended => return appended,
            }
        }
    }

    async fn write(&mut self, command: &Command) -> Result<u64, Error> {
        let mut loaded = Loaded {
            state: Some(self.job.clone()),
            last: self.last,
            correlation: self.correlation,
            cause: self.cause,
        };
        let decision = self.writer.write_from(&mut loaded, &self.job.id, command).await;
        (self.last, self.cause) = (loaded.last, loaded.cause);
        if let Some(job) = loaded.state {
            self.job = job;
        }
        match decision? {
            Decision::Appended { sequence, .. } => Ok(sequence),
            Decision::Rejected(rejection) => Err(rejection.into()),
        }
    }
}
