//! A job, its whole life as two pure functions: [`Job::evolve`] says what did happen, [`decide`] what should.
//!
//! Live code and replay share them, so they cannot drift apart. No clock and no I/O stand in here.

mod decide;
mod due;
mod event;
mod evolve;
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
};
use crate::{
    envelope::{Actor, Envelope},
    ids::{Attempt, JobId, Namespace, SessionId, WorkerId},
    spec::{ExecutorKind, JobSpec, policy::Clock},
};

/// An event of a job as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The job's namespace, from the subject.
    pub namespace: Namespace,
    /// The job, from the subject.
    pub job: JobId,
    /// Who the subject says is speaking; nothing for a ready subject, which only API and watcher may publish to.
    pub speaker: Option<Actor>,
    /// Where it stands in `RGRID_EVENTS`.
    pub sequence: u64,
    /// What happened.
    pub envelope: Envelope<JobEvent>,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It is not ready: it waits for a time, or for other jobs.
    Held {
        /// Not before then; nothing where no time matters.
        until: Option<DateTime<Utc>>,
    },
    /// It waits for a worker to make this attempt.
    Queued {
        /// The attempt that will be made.
        next: Attempt,
    },
    /// A worker has it and prepares this attempt.
    Claimed {
        /// Which try it is.
        attempt: Attempt,
    },
    /// Its command runs.
    Running {
        /// Which try it is.
        attempt: Attempt,
    },
    /// It failed and pauses before it is tried again, or its worker gave it back.
    Retrying {
        /// The attempt that will be made.
        next: Attempt,
        /// When it becomes ready; absent: at once, because its worker gave it back.
        due: Option<DateTime<Utc>>,
    },
    /// Nothing more will happen to it, unless a dead or expired one is requeued.
    Ended(End),
}

/// How a job ended for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// An attempt ended on its worker.
    Finished(Outcome),
    /// A user cancelled it while no worker had it.
    Cancelled,
    /// Its attempts are used up.
    Dead(LossCause),
    /// It waited longer than it may.
    Expired {
        /// Which of its clocks passed its limit.
        clock: Clock,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
}

/// The state of a job in one word, as users, tables and URLs spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for a time, or for other jobs.
    Held,
    /// It waits for a worker.
    Queued,
    /// A worker prepares it.
    Claimed,
    /// Its command runs.
    Running,
    /// It failed and pauses before it is tried again, or its worker gave it back.
    Retrying,
    /// It ended with 0.
    Succeeded,
    /// It ended otherwise, or could not be run.
    Failed,
    /// It ran, waited or took longer than it may.
    TimedOut,
    /// It used more memory than it may.
    OutOfMemory,
    /// A user ended it.
    Cancelled,
    /// Its attempts are used up.
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

    /// Whether nothing more will happen.
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
    /// The state of a job whose attempt ended so.
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

/// One try at the job, as far as it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Which try.
    pub number: Attempt,
    /// The worker that made it.
    pub worker: WorkerId,
    /// That worker's session.
    pub session: SessionId,
    /// When it was claimed.
    pub claimed_at: DateTime<Utc>,
    /// When its command started.
    pub started_at: Option<DateTime<Utc>>,
    /// How it was executed.
    pub executor: Option<ExecutorKind>,
    /// What it ran in.
    pub environment: Option<String>,
    /// When it ended or was given up.
    pub ended_at: Option<DateTime<Utc>>,
    /// How.
    pub end: Option<AttemptEnd>,
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEnd {
    /// On its worker, with what it left behind.
    Finished(Box<Finished>),
    /// Its worker gave it back before its command ran.
    Returned,
    /// Its worker gave it back, because it was being shut down and the command ended by that.
    Interrupted,
    /// It was given up.
    Lost(LossCause),
    /// It was cancelled after its worker was lost.
    Cancelled,
}

/// A job as its events tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its identity.
    pub id: JobId,
    /// Whose it is.
    pub namespace: Namespace,
    /// What is to be run.
    pub spec: JobSpec,
    /// When it was accepted.
    pub submitted_at: DateTime<Utc>,
    /// When a user asked for its end, and what they said.
    pub cancel_requested: Option<(DateTime<Utc>, Option<String>)>,
    /// Where it stands.
    pub phase: Phase,
    /// When it last became ready.
    pub ready_at: DateTime<Utc>,
    /// When all of it must be over, where its spec limits that.
    pub deadline: Option<DateTime<Utc>>,
    /// How often it failed and was to be tried again, since its submission or its last requeue.
    pub failures: u32,
    /// How many of its attempts were lost with their workers, since then too.
    pub losses: u32,
    /// Every try at it, in order.
    pub attempts: Vec<AttemptRecord>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// The sequence of its last event, which the next one must name.
    pub sequence: u64,
}

impl Job {
    /// Where it stands, in one word.
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

    /// The attempt that a worker has now.
    #[must_use]
    pub fn live_attempt(&self) -> Option<&AttemptRecord> {
        match self.phase {
            Phase::Claimed { .. } | Phase::Running { .. } => self.attempts.last(),
            Phase::Held { .. } | Phase::Queued { .. } | Phase::Retrying { .. } | Phase::Ended(_) => None,
        }
    }

    /// Whether this session has this attempt now, so that what it says of the attempt counts.
    #[must_use]
    pub fn is_held_by(&self, session: SessionId, attempt: Attempt) -> bool {
        self.live_attempt()
            .is_some_and(|live| live.number == attempt && live.session == session)
    }

    /// What the committed attempt left behind; nothing of one that failed and is tried again.
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
