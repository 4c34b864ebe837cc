//! The life of a job as two pure functions: [`decide`] turns a command into an event, [`Job::evolve`] turns events into the job's state.
//!
//! Live code and replay share these functions, so they always agree. This module has no clock and does no I/O.

mod decide;
mod due;
mod event;
mod evolve;
mod policy;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};

pub use self::{
    decide::{Command, Rejection, decide},
    due::Due,
    event::{
        CancelRequested, Cancelled, Claimed, Died, Expired, Finished, JobEvent, LossCause, ManifestRef, Outcome, Released, Requeued,
        Rescheduled, Returned, Started, Submitted, Usage,
    },
    policy::DependencyState,
};
use crate::{
    envelope::{Actor, Envelope},
    ids::{Attempt, JobId, Namespace, SessionId, WorkerId},
    spec::{ExecutorKind, JobSpec, policy::Clock},
};

/// An event of a job, as it was read from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The job's namespace, from the subject.
    pub namespace: Namespace,
    /// The job, from the subject.
    pub job: JobId,
    /// The actor that the subject names; `None` for a ready subject, to which only the API and the watcher may publish.
    pub publisher: Option<Actor>,
    /// The event's sequence in the stream `RGRID_EVENTS`.
    pub sequence: u64,
    /// The event with its envelope.
    pub envelope: Envelope<JobEvent>,
}

/// The phase that a job is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The job waits for a time, or for other jobs.
    Held {
        /// The earliest time at which the job may become ready; `None` if only other jobs or its batch matter.
        until: Option<DateTime<Utc>>,
    },
    /// The job waits for a worker.
    Queued {
        /// The next attempt's number.
        next: Attempt,
    },
    /// A worker has claimed the job and prepares this attempt.
    Claimed {
        /// The attempt's number.
        attempt: Attempt,
    },
    /// The job's command runs.
    Running {
        /// The attempt's number.
        attempt: Attempt,
    },
    /// The attempt failed and the job pauses before its retry, or its worker returned the job to the queue.
    Retrying {
        /// The next attempt's number.
        next: Attempt,
        /// When the job becomes ready; `None`: at once, because its worker returned it.
        due: Option<DateTime<Utc>>,
    },
    /// The job has ended. Only a dead or expired job can be requeued.
    Ended(End),
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// An attempt ended on its worker.
    Finished(Outcome),
    /// A user cancelled the job while no worker had it.
    Cancelled,
    /// The job has no attempts left.
    Dead(LossCause),
    /// The job waited longer than its limit.
    Expired {
        /// The limit that was exceeded.
        clock: Clock,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
}

/// The state of a job, as users, tables and URLs spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The job waits for a time, or for other jobs.
    Held,
    /// The job waits for a worker.
    Queued,
    /// A worker has claimed the job and prepares the attempt.
    Claimed,
    /// The job's command runs.
    Running,
    /// The attempt failed and the job pauses before its retry, or its worker returned the job to the queue.
    Retrying,
    /// The command exited with 0.
    Succeeded,
    /// The command exited with another code or was ended by a signal, or it could not be run.
    Failed,
    /// The job exceeded a time limit: of the attempt, of its time in the queue, or of the whole job.
    TimedOut,
    /// The attempt used more memory than its limit.
    OutOfMemory,
    /// A user cancelled the job.
    Cancelled,
    /// The job has no attempts left.
    Dead,
}

impl State {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 11] = [
        Self::Held,
        Self::Queued,
        Self::Claimed,
        Self::Running,
        Self::Retrying,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::OutOfMemory,
        Self::Cancelled,
        Self::Dead,
    ];

    /// The state as users, tables and URLs spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Queued => "queued",
            Self::Claimed => "claimed",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::OutOfMemory => "out_of_memory",
            Self::Cancelled => "cancelled",
            Self::Dead => "dead",
        }
    }

    /// Whether the job has ended.
    #[must_use]
    pub const fn is_end(self) -> bool {
        !matches!(self, Self::Held | Self::Queued | Self::Claimed | Self::Running | Self::Retrying)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for State {
    type Err = crate::ids::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| crate::ids::ParseError {
                text: text.to_owned(),
                expected: "a job's state (held, queued, claimed, running, retrying, succeeded, failed, timed_out, out_of_memory, cancelled or dead)",
            })
    }
}

impl Outcome {
    /// The state of a job whose last attempt had this outcome.
    #[must_use]
    pub const fn state(&self) -> State {
        match self {
            Self::Succeeded => State::Succeeded,
            Self::Failed { .. } | Self::Signalled { .. } | Self::Error { .. } => State::Failed,
            Self::TimedOut { .. } => State::TimedOut,
            Self::OutOfMemory { .. } => State::OutOfMemory,
            Self::Cancelled => State::Cancelled,
        }
    }
}

/// One attempt at the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// The attempt's number.
    pub number: Attempt,
    /// The worker that claimed the job.
    pub worker: WorkerId,
    /// The worker's session.
    pub session: SessionId,
    /// When the worker claimed the job.
    pub claimed_at: DateTime<Utc>,
    /// When the command started.
    pub started_at: Option<DateTime<Utc>>,
    /// The executor that ran the command.
    pub executor: Option<ExecutorKind>,
    /// The environment of the command: the image and its digest, or the interpreter's path.
    pub environment: Option<String>,
    /// When the attempt ended or was lost.
    pub ended_at: Option<DateTime<Utc>>,
    /// How the attempt ended.
    pub end: Option<AttemptEnd>,
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The attempt ended on its worker, with these outputs.
    Finished(Box<Finished>),
    /// The worker returned the job before the command ran.
    Returned,
    /// The worker returned the job, because its shutdown interrupted the command.
    Interrupted,
    /// The attempt was lost.
    Lost(LossCause),
    /// The job was cancelled after the attempt's worker was lost.
    Cancelled,
}

/// The state of a job: the fold of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The job's id.
    pub id: JobId,
    /// The job's namespace.
    pub namespace: Namespace,
    /// The job to run.
    pub spec: JobSpec,
    /// When the job was accepted.
    pub submitted_at: DateTime<Utc>,
    /// When a user requested the cancellation, and the reason that the user gave.
    pub cancel_requested: Option<(DateTime<Utc>, Option<String>)>,
    /// The phase that the job is in.
    pub phase: Phase,
    /// When the job last became ready.
    pub ready_at: DateTime<Utc>,
    /// When the whole job must have ended, if its spec limits that.
    pub deadline: Option<DateTime<Utc>>,
    /// How many attempts failed and were retried, since the submission or the last requeue.
    pub failures: u32,
    /// How many attempts were lost with their workers, since the submission or the last requeue.
    pub losses: u32,
    /// Every attempt, in order.
    pub attempts: Vec<AttemptRecord>,
    /// When the job ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// The sequence of the job's last event. The writer of the next event names it as the expected sequence.
    pub sequence: u64,
}

impl Job {
    /// The state of the job, as users see it.
    #[must_use]
    pub const fn state(&self) -> State {
        match &self.phase {
            Phase::Held { .. } => State::Held,
            Phase::Queued { .. } => State::Queued,
            Phase::Claimed { .. } => State::Claimed,
            Phase::Running { .. } => State::Running,
            Phase::Retrying { .. } => State::Retrying,
            Phase::Ended(End::Finished(outcome)) => outcome.state(),
            Phase::Ended(End::Expired { .. }) => State::TimedOut,
            Phase::Ended(End::Cancelled) => State::Cancelled,
            Phase::Ended(End::Dead(_)) => State::Dead,
        }
    }

    /// The attempt that waits for a worker to claim it.
    #[must_use]
    pub const fn ready_attempt(&self) -> Option<Attempt> {
        match self.phase {
            Phase::Queued { next } => Some(next),
            Phase::Held { .. } | Phase::Retrying { .. } | Phase::Claimed { .. } | Phase::Running { .. } | Phase::Ended(_) => None,
        }
    }

    /// The current attempt, if a worker has the job.
    #[must_use]
    pub fn live_attempt(&self) -> Option<&AttemptRecord> {
        match self.phase {
            Phase::Claimed { .. } | Phase::Running { .. } => self.attempts.last(),
            Phase::Held { .. } | Phase::Queued { .. } | Phase::Retrying { .. } | Phase::Ended(_) => None,
        }
    }

    /// Whether this session has this attempt now, so that what it reports counts.
    #[must_use]
    pub fn is_held_by(&self, session: SessionId, attempt: Attempt) -> bool {
        self.live_attempt()
            .is_some_and(|live| live.number == attempt && live.session == session)
    }

    /// What the committed attempt reported; `None` if the job has not finished, or if the attempt is retried.
    #[must_use]
    pub fn finished(&self) -> Option<&Finished> {
        match (&self.phase, self.attempts.last()?.end.as_ref()?) {
            (Phase::Ended(End::Finished(_)), AttemptEnd::Finished(finished)) => Some(finished),
            (_, AttemptEnd::Finished(_) | AttemptEnd::Returned | AttemptEnd::Interrupted | AttemptEnd::Lost(_) | AttemptEnd::Cancelled) => {
                None
            }
        }
    }
}
