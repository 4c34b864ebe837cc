//! Saying what happens to a job: decide, append, and where another writer was faster, read and decide again.

use std::time::Duration;

use bus::{
    envelope::{Actor, Envelope},
    ids::EventId,
    job::{self, Command, Job, Phase, Recorded, Rejection, decide},
    log::{
        append::{self, Append, Log},
        read,
    },
};
use tracing::{debug, warn};

/// How often a command is decided anew before it is given up: every conflict is another writer's progress, and a job has few.
const TRIES: u32 = 10;

/// How often what an attempt has to say is tried again where the log is full.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Why a command is not in the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// As the job stands now, the command changes nothing; above all: the attempt is not ours any more.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It could not be appended.
    #[error(transparent)]
    Append(#[from] append::Error),
    /// The job could not be read again.
    #[error(transparent)]
    Read(#[from] read::Error),
}

/// Speaks for one job in the name of a worker.
#[derive(Debug)]
pub(crate) struct Scribe {
    log: Log,
    js: async_nats::jetstream::Context,
    actor: Actor,
    job: Job,
    cause: EventId,
    correlation: EventId,
}

impl Scribe {
    /// Speaks for a job that is known from its ready event.
    #[must_use]
    pub(crate) fn new(log: Log, js: async_nats::jetstream::Context, actor: Actor, job: Job, ready: &Envelope<job::JobEvent>) -> Self {
        Self {
            log,
            js,
            actor,
            job,
            cause: ready.id,
            correlation: ready.correlation_id.unwrap_or(ready.id),
        }
    }

    /// Speaks on for a job that is known from its whole history; nothing where that is none.
    #[must_use]
    pub(crate) fn resume(log: Log, js: async_nats::jetstream::Context, actor: Actor, history: &[Recorded]) -> Option<Self> {
        let (first, last) = (history.first()?, history.last()?);
        Some(Self {
            log,
            js,
            actor,
            job: Job::replay(history)?,
            cause: last.envelope.id,
            correlation: last.envelope.correlation_id.unwrap_or(first.envelope.id),
        })
    }

    /// The job as far as it is known here.
    #[must_use]
    pub(crate) const fn job(&self) -> &Job {
        &self.job
    }

    /// Appends what the command comes to, and returns its sequence. Where the log is full, what is said of an attempt that was claimed
    /// waits for room for as long as that takes: should it be dropped, the work would be done twice.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn say(&mut self, command: Command) -> Result<u64, Error> {
        let (mut tries, mut waits) = (0, false);
        let claims = match (&command, &self.job.phase) {
            (Command::Claim { .. }, Phase::Queued { next }) => Some(*next),
            (_, _) => None,
        };
        loop {
            let event = decide(Some(&self.job), command.clone())?;
            let mut envelope = Envelope::new(self.actor.clone(), event);
            envelope.causation_id = Some(self.cause);
            envelope.correlation_id = Some(self.correlation);
            match self
                .log
                .append(Append::job(&self.job.namespace, self.job.id, self.job.sequence, &envelope))
                .await
            {
                Ok(sequence) => {
                    self.cause = envelope.id;
                    let recorded = Recorded {
                        namespace: self.job.namespace.clone(),
                        job: self.job.id,
                        publisher: Some(self.actor.clone()),
                        sequence,
                        envelope,
                    };
                    if let Some(job) = Job::evolve(Some(self.job.clone()), &recorded) {
                        self.job = job;
                    }
                    return Ok(sequence);
                }
                Err(append::Error::Conflict { filter, expected }) if tries < TRIES => {
                    debug!("somebody else spoke of {filter} after {expected}; reading it again");
                    tries += 1;
                    self.job = read::job(&self.js, self.job.id).await?.ok_or(Rejection::Absent)?;
                    // The ready event came late: its attempt was made and lost, or the job was requeued. A claim now would be one of
                    // the next attempt, of which whoever claims here knows nothing; that one's own ready event is on its way.
                    let queued = matches!(self.job.phase, Phase::Queued { .. });
                    if claims.is_some_and(|next| queued && self.job.phase != Phase::Queued { next }) {
                        return Err(Rejection::NotQueued.into());
                    }
                }
                Err(error @ append::Error::Full { .. }) if !matches!(command, Command::Claim { .. }) => {
                    if !std::mem::replace(&mut waits, true) {
                        warn!(job.id = %self.job.id, "what is to be said of job {} waits for room: {error}", self.job.id);
                    }
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
