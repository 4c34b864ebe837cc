//! The events of a job.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    envelope::{DecodeError, Event, data},
    ids::{Attempt, Digest, SessionId, WorkerId},
    spec::{ExecutorKind, JobSpec, is_false, policy::Clock},
};

/// Every event of a job. The envelope's `type` names the variant and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum JobEvent {
    /// The API or intake accepted the job. The job is ready to run, unless its spec has start conditions.
    Submitted(Box<Submitted>),
    /// A worker claimed the job.
    Claimed(Claimed),
    /// The job's command started.
    Started(Started),
    /// The attempt ended on its worker. This event commits the attempt's outputs.
    Finished(Box<Finished>),
    /// The worker returned the job to the queue: it has no free slot for a prefetched job, or it is shutting down.
    Returned(Returned),
    /// The attempt was lost, and the job is ready to run again.
    Rescheduled(Box<Rescheduled>),
    /// A user requested the cancellation of a job that a worker has.
    CancelRequested(CancelRequested),
    /// A user cancelled the job. No worker had it, or its worker was lost.
    Cancelled(Cancelled),
    /// The job has no attempts left.
    Died(Died),
    /// The job's start conditions are met, or its pause after a failure is over. The job is ready to run.
    Released(Box<Released>),
    /// The job waited longer than its limit.
    Expired(Expired),
    /// An operator revived a dead or expired job. The job is ready to run.
    Requeued(Box<Requeued>),
}

/// `job.submitted.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Submitted {
    /// The job to run.
    pub spec: JobSpec,
}

/// `job.claimed.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claimed {
    /// The attempt's number.
    pub attempt: Attempt,
    /// The worker that claimed the job.
    pub worker: WorkerId,
    /// The worker's session that claimed the job.
    pub session: SessionId,
}

/// `job.started.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// The attempt's number.
    pub attempt: Attempt,
    /// The session that runs the attempt.
    pub session: SessionId,
    /// The executor that runs the command.
    pub executor: ExecutorKind,
    /// The environment of the command: the image and its digest, or the interpreter's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

/// `job.finished.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finished {
    /// The attempt's number.
    pub attempt: Attempt,
    /// The session that ran the attempt.
    pub session: SessionId,
    /// How the attempt ended.
    pub outcome: Outcome,
    /// The manifest of the attempt's outputs and logs, which are all stored; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<ManifestRef>,
    /// The resources that the attempt used.
    #[serde(default)]
    pub usage: Usage,
    /// The attempt failed, and the job is retried this many milliseconds after this event; absent: the job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// The list of an attempt's outputs and log segments ([`crate::output::manifest::Manifest`]), stored by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ManifestRef {
    /// The manifest's own SHA-256.
    pub sha256: Digest,
    /// The number of output files in the manifest.
    pub files: u64,
    /// The number of symbolic links in the manifest.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub links: u64,
    /// The total size of the output files, in bytes.
    pub bytes: u64,
    /// Bytes written to standard output.
    pub stdout_bytes: u64,
    /// Bytes written to standard error.
    pub stderr_bytes: u64,
    /// The number of inputs that the command removed or renamed.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub deleted: u64,
    /// The number of messages for the user: outputs that could not be kept, and patterns that matched no file.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub notes: u64,
}

impl ManifestRef {
    /// Whether a client has anything to copy to the user's directory, or to report about it.
    #[must_use]
    pub const fn has_any(&self) -> bool {
        self.files > 0 || self.links > 0 || self.deleted > 0 || self.notes > 0
    }
}

/// The resources that an attempt used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// The time from the command's start to its end, in milliseconds.
    pub wall_ms: u64,
    /// User and system CPU time, in milliseconds; absent if it could not be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Peak resident memory, in bytes; absent if it could not be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// How an attempt ended on its worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The command exited with 0.
    Succeeded,
    /// The command exited with another code.
    Failed {
        /// The exit code, 1 to 255.
        exit_code: i32,
    },
    /// A signal that the worker did not send ended the command.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// The attempt exceeded a time limit.
    TimedOut {
        /// The limit, in milliseconds.
        limit_ms: u64,
        /// The limit that was exceeded: of the attempt, of the time in the queue, or of the whole job.
        #[serde(default, skip_serializing_if = "Clock::is_attempt")]
        clock: Clock,
    },
    /// The attempt used more memory than its limit.
    OutOfMemory {
        /// The limit, in bytes; absent if the machine itself ran out of memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit_bytes: Option<u64>,
    },
    /// A user cancelled the job.
    Cancelled,
    /// The command could not be run, or its outputs could not be stored.
    Error {
        /// What was tried, what went wrong, and what to do.
        message: String,
        /// Whether the program was not found. A shell reports that as exit code 127, and other programs that cannot be run as 126.
        #[serde(default, skip_serializing_if = "is_false")]
        not_found: bool,
    },
}

impl Outcome {
    /// The exit code of this outcome, as a shell reports it: the command's own code, or 128 + the signal. The other outcomes have the
    /// codes of coreutils' `timeout` (124), SIGKILL (137), SIGINT (130), a command that is not found (127), and one that cannot be run
    /// (126).
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
    /// The attempt that ended without a result.
    pub attempt: Attempt,
    /// The session that claimed the job.
    pub session: SessionId,
    /// Whether the command ran, and ended because its worker was shutting down; absent: the command never ran.
    #[serde(default, skip_serializing_if = "is_false")]
    pub interrupted: bool,
}

/// `job.rescheduled.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rescheduled {
    /// The lost attempt. The log rejects its later events.
    pub attempt: Attempt,
    /// Why the attempt was lost.
    pub cause: LossCause,
    /// The job to run. It is repeated here so that a worker does not read the job's history.
    pub spec: JobSpec,
    /// How many attempts failed and were retried.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// When the whole job must have ended; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
}

/// Why an attempt was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LossCause {
    /// The worker's heartbeats stopped.
    WorkerLost {
        /// The worker's id.
        worker: WorkerId,
    },
    /// The worker began a new session, or ended the session of the attempt.
    SessionEnded {
        /// The worker's id.
        worker: WorkerId,
        /// Whether the session ended in an orderly shutdown, for example a drain. Such a loss does not count towards the job's limit.
        #[serde(default, skip_serializing_if = "is_false")]
        orderly: bool,
    },
    /// The worker is alive, but does not have the attempt any more.
    Orphaned {
        /// The worker's id.
        worker: WorkerId,
    },
}

/// `job.cancel_requested.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CancelRequested {
    /// The reason that the user gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `job.cancelled.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cancelled {
    /// The reason that the user gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `job.died.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Died {
    /// The last attempt, which was lost.
    pub attempt: Attempt,
    /// Why the last attempt was lost.
    pub cause: LossCause,
}

/// `job.released.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// The next attempt's number.
    pub attempt: Attempt,
    /// The job to run. It is repeated here so that a worker does not read the job's history.
    pub spec: JobSpec,
    /// How many attempts failed and were retried.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    /// When the whole job must have ended; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
}

/// `job.expired.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Expired {
    /// The limit that was exceeded: `queue` or `total`.
    pub clock: Clock,
    /// The limit, in milliseconds.
    pub limit_ms: u64,
}

/// `job.requeued.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requeued {
    /// The next attempt's number. Earlier losses and failures do not count any more, and the time limits start again.
    pub attempt: Attempt,
    /// The job to run. It is repeated here so that a worker does not read the job's history.
    pub spec: JobSpec,
    /// The reason that the operator gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// For `skip_serializing_if`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero_u64(count: &u64) -> bool {
    *count == 0
}

/// For `skip_serializing_if`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl LossCause {
    /// Whether this loss counts towards the number of attempts that a job may lose.
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
