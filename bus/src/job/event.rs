//! What can happen to a job.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    envelope::{DecodeError, Event, data},
    ids::{Attempt, Digest, SessionId, WorkerId},
    spec::{ExecutorKind, JobSpec, is_false, policy::Clock},
};

/// Everything that can happen to a job. The envelope's `type` names the variant and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum JobEvent {
    /// It was accepted, and is ready to run, unless its spec names conditions.
    Submitted(Box<Submitted>),
    /// A worker took it.
    Claimed(Claimed),
    /// Its command runs.
    Started(Started),
    /// Its attempt ended on its worker; what it made is committed by this.
    Finished(Box<Finished>),
    /// The worker that took it gives it back: it had no room for it after all, or is being shut down.
    Returned(Returned),
    /// Its attempt was given up, and another may be made.
    Rescheduled(Box<Rescheduled>),
    /// A user asked for its end while a worker had it.
    CancelRequested(CancelRequested),
    /// It ended without running, or without its worker, because a user asked for that.
    Cancelled(Cancelled),
    /// Its attempts are used up.
    Died(Died),
    /// What it waited for is true, or its pause after a failure is over; it is ready to run.
    Released(Box<Released>),
    /// It waited longer than it may.
    Expired(Expired),
    /// An operator revived it; it is ready to run.
    Requeued(Box<Requeued>),
}

/// `job.submitted.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Submitted {
    /// What is to be run.
    pub spec: JobSpec,
}

/// `job.claimed.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claimed {
    /// Which try this is.
    pub attempt: Attempt,
    /// Whose.
    pub worker: WorkerId,
    /// The worker's session that took it.
    pub session: SessionId,
}

/// `job.started.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// Which try this is.
    pub attempt: Attempt,
    /// The session that runs it.
    pub session: SessionId,
    /// How it is executed.
    pub executor: ExecutorKind,
    /// What it runs in: the image and its digest, or the interpreter's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

/// `job.finished.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finished {
    /// Which try this is.
    pub attempt: Attempt,
    /// The session that ran it.
    pub session: SessionId,
    /// How it ended.
    pub outcome: Outcome,
    /// What it left behind, every byte of it stored; absent where it left nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<ManifestRef>,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
    /// It failed, and is tried again so long after this event, in milliseconds; absent: this is the job's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// The list of an attempt's outputs and log segments ([`crate::output::manifest::Manifest`]), stored by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ManifestRef {
    /// The manifest's own SHA-256.
    pub sha256: Digest,
    /// How many output files it lists.
    pub files: u64,
    /// How many symbolic links.
    #[serde(default, skip_serializing_if = "is_none")]
    pub links: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// Bytes written to standard output.
    pub stdout_bytes: u64,
    /// Bytes written to standard error.
    pub stderr_bytes: u64,
    /// How many inputs it lists that the command removed or renamed.
    #[serde(default, skip_serializing_if = "is_none")]
    pub deleted: u64,
    /// How many sentences it has for the user: on outputs that could not be kept, and on patterns that named none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub notes: u64,
}

impl ManifestRef {
    /// Whether the attempt left anything that is to be brought to its user's directory, or said about that.
    #[must_use]
    pub const fn has_any(&self) -> bool {
        self.files > 0 || self.links > 0 || self.deleted > 0 || self.notes > 0
    }
}

/// What an attempt used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// From the command's start to its end, in milliseconds.
    pub wall_ms: u64,
    /// User and system time, in milliseconds; absent where it could not be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// The largest resident memory, in bytes; absent where it could not be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// How an attempt ended on its worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The command ended with 0.
    Succeeded,
    /// The command ended with another code.
    Failed {
        /// The code, 1 to 255.
        exit_code: i32,
    },
    /// A signal ended the command, and not one of ours.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// It ran longer than it may.
    TimedOut {
        /// The limit that it passed, in milliseconds.
        limit_ms: u64,
        /// Which of its clocks that was.
        #[serde(default, skip_serializing_if = "Clock::is_attempt")]
        clock: Clock,
    },
    /// It used more memory than it may.
    OutOfMemory {
        /// The limit that it passed, in bytes; absent where the machine itself ran out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit_bytes: Option<u64>,
    },
    /// A user asked for its end.
    Cancelled,
    /// It could not be run, or what it made could not be kept.
    Error {
        /// What was tried, what went wrong, what to do.
        message: String,
        /// Whether its program was not found, which a shell tells with another exit code than anything else that cannot be run.
        #[serde(default, skip_serializing_if = "is_false")]
        not_found: bool,
    },
}

impl Outcome {
    /// The exit code that stands for this end in a shell: the command's own, 128 + the signal, and otherwise the
    /// codes of coreutils' `timeout` (124), of a SIGKILL (137), of a SIGINT (130), of a command that is not found (127) and of one
    /// that cannot be run (126).
    #[must_use]
    pub const fn exit_code(&self) -> i32 {
        match self {
            Self::Succeeded => 0,
            Self::Failed { exit_code } => *exit_code,
            Self::Signalled { signal } => 128_i32.saturating_add(*signal),
            Self::TimedOut { .. } => 124,
            Self::OutOfMemory { .. } => 137,
            Self::Cancelled => 130,
            Self::Error { not_found: true, .. } => 127,
            Self::Error { .. } => 126,
        }
    }
}

/// `job.returned.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Returned {
    /// The attempt that comes to nothing.
    pub attempt: Attempt,
    /// The session that claimed it.
    pub session: SessionId,
    /// Whether its command ran, and ended because its worker was being shut down; absent: it never ran.
    #[serde(default, skip_serializing_if = "is_false")]
    pub interrupted: bool,
}

/// `job.rescheduled.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rescheduled {
    /// The attempt that is given up; what it says from now on is refused.
    pub attempt: Attempt,
    /// Why.
    pub cause: LossCause,
    /// What is to be run, repeated so that a worker need not read the job's history.
    pub spec: JobSpec,
    /// How often it failed and was to be tried again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// When all of it must be over; absent: it may take as long as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
}

/// Why an attempt was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LossCause {
    /// Its worker's heartbeats lapsed.
    WorkerLost {
        /// Which worker.
        worker: WorkerId,
    },
    /// Its worker began a new session, or ended the one that the attempt belonged to.
    SessionEnded {
        /// Which worker.
        worker: WorkerId,
        /// Whether it ended in good order, as in a drain: such a loss does not count against the job.
        #[serde(default, skip_serializing_if = "is_false")]
        orderly: bool,
    },
    /// Its worker is alive and no longer knows it.
    Orphaned {
        /// Which worker.
        worker: WorkerId,
    },
}

/// `job.cancel_requested.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CancelRequested {
    /// What the user said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `job.cancelled.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cancelled {
    /// What the user said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `job.died.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Died {
    /// The last attempt, which was lost too.
    pub attempt: Attempt,
    /// Why that one was lost.
    pub cause: LossCause,
}

/// `job.released.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// The attempt that is to be made.
    pub attempt: Attempt,
    /// What is to be run, repeated so that a worker need not read the job's history.
    pub spec: JobSpec,
    /// How often it failed and was to be tried again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// When all of it must be over; absent: it may take as long as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
}

/// `job.expired.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Expired {
    /// Which of its clocks: `queue` or `total`.
    pub clock: Clock,
    /// The limit that it passed, in milliseconds.
    pub limit_ms: u64,
}

/// `job.requeued.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requeued {
    /// The attempt that is to be made. Its losses and failures before do not count any more, and its clocks begin anew.
    pub attempt: Attempt,
    /// What is to be run, repeated so that a worker need not read the job's history.
    pub spec: JobSpec,
    /// What the operator said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// For `skip_serializing_if`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_none(count: &u64) -> bool {
    *count == 0
}

/// For `skip_serializing_if`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl LossCause {
    /// Whether such a loss counts against the attempts that a job may lose.
    #[must_use]
    pub const fn counts(&self) -> bool {
        !matches!(self, Self::SessionEnded { orderly: true, .. })
    }
}

impl Event for JobEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Submitted(_) => "job.submitted.v1",
            Self::Claimed(_) => "job.claimed.v1",
            Self::Started(_) => "job.started.v1",
            Self::Finished(_) => "job.finished.v1",
            Self::Returned(_) => "job.returned.v1",
            Self::Rescheduled(_) => "job.rescheduled.v1",
            Self::CancelRequested(_) => "job.cancel_requested.v1",
            Self::Cancelled(_) => "job.cancelled.v1",
            Self::Died(_) => "job.died.v1",
            Self::Released(_) => "job.released.v1",
            Self::Expired(_) => "job.expired.v1",
            Self::Requeued(_) => "job.requeued.v1",
        }
    }

    fn decode(kind: &str, raw: &RawValue) -> Result<Self, DecodeError> {
        Ok(match kind {
            "job.submitted.v1" => Self::Submitted(data(kind, raw)?),
            "job.claimed.v1" => Self::Claimed(data(kind, raw)?),
            "job.started.v1" => Self::Started(data(kind, raw)?),
            "job.finished.v1" => Self::Finished(data(kind, raw)?),
            "job.returned.v1" => Self::Returned(data(kind, raw)?),
            "job.rescheduled.v1" => Self::Rescheduled(data(kind, raw)?),
            "job.cancel_requested.v1" => Self::CancelRequested(data(kind, raw)?),
            "job.cancelled.v1" => Self::Cancelled(data(kind, raw)?),
            "job.died.v1" => Self::Died(data(kind, raw)?),
            "job.released.v1" => Self::Released(data(kind, raw)?),
            "job.expired.v1" => Self::Expired(data(kind, raw)?),
            "job.requeued.v1" => Self::Requeued(data(kind, raw)?),
            _ => return Err(DecodeError::UnknownType { kind: kind.to_owned() }),
        })
    }
}
