//! What the API answers, as types; the command line reads the same ones.
//!
//! Fields that are absent in a light view ([`JobView::attempts`] in a list) are empty, and never wrong.

use std::collections::BTreeMap;

use bus::{
    frame::Stream,
    ids::{Attempt, Digest, EventId, JobId, Namespace, Queue, SessionId, WorkerId},
    job::{AttemptEnd, AttemptRecord, End, Job, LossCause, ManifestRef, Outcome, Phase, State, Usage},
    spec::{ExecutorKind, Priority, RelPath, Resources},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A job, as far as it got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its identity.
    pub id: JobId,
    /// Whose it is.
    pub namespace: Namespace,
    /// What to call it.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// The program or script and its arguments.
    pub command: Vec<String>,
    /// The interpreter that the command is handed to.
    #[serde(default)]
    pub runtime: Option<String>,
    /// The container image it asked for.
    #[serde(default)]
    pub image: Option<String>,
    /// The lane it waits in.
    pub queue: Queue,
    /// Which work goes first.
    pub priority: Priority,
    /// The user's own marks.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it asks of a worker.
    pub resources: Resources,
    /// How long one attempt may run, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// When it was accepted.
    pub submitted_at: DateTime<Utc>,
    /// When the command of its last attempt started.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<DateTime<Utc>>,
    /// Whether a user asked for its end.
    #[serde(default)]
    pub cancel_requested: bool,
    /// Its last attempt, if a worker ever took it.
    #[serde(default)]
    pub attempt: Option<Attempt>,
    /// The worker of its last attempt.
    #[serde(default)]
    pub worker: Option<WorkerId>,
    /// Every try at it, in order. Empty in a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptView>,
    /// The exit code that stands for its end in a shell (see [`Outcome::exit_code`]); none while it has not ended, or where no attempt of it did.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// What is to be said of its end, where its state alone does not say it.
    #[serde(default)]
    pub message: Option<String>,
    /// The sequence of its last event.
    pub sequence: u64,
}

/// One try at a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// Which try.
    pub number: Attempt,
    /// The worker that made it.
    pub worker: WorkerId,
    /// That worker's session.
    pub session: SessionId,
    /// How it was executed.
    #[serde(default)]
    pub executor: Option<ExecutorKind>,
    /// What it ran in.
    #[serde(default)]
    pub environment: Option<String>,
    /// When it was claimed.
    pub claimed_at: DateTime<Utc>,
    /// When its command started.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended or was given up.
    #[serde(default)]
    pub ended_at: Option<DateTime<Utc>>,
    /// How; none while it goes on.
    #[serde(default)]
    pub outcome: Option<AttemptOutcome>,
    /// What it used.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// What it left behind.
    #[serde(default)]
    pub manifest: Option<ManifestRef>,
}

/// How an attempt ended: on its worker, or given up. Both are told apart by `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AttemptOutcome {
    /// On its worker.
    Finished(Outcome),
    /// It was given up.
    Lost(LostAttempt),
}

/// An attempt that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LostAttempt {
    /// Nobody knows how it went on.
    Lost {
        /// Why it was given up.
        cause: LossCause,
    },
}

impl From<&AttemptRecord> for AttemptView {
    fn from(record: &AttemptRecord) -> Self {
        let (outcome, finished) = match &record.end {
            None => (None, None),
            Some(AttemptEnd::Finished(finished)) => (Some(AttemptOutcome::Finished(finished.outcome.clone())), Some(finished)),
            Some(AttemptEnd::Lost(cause)) => (Some(AttemptOutcome::Lost(LostAttempt::Lost { cause: cause.clone() })), None),
            Some(AttemptEnd::Cancelled) => (Some(AttemptOutcome::Finished(Outcome::Cancelled)), None),
        };
        Self {
            number: record.number,
            worker: record.worker.clone(),
            session: record.session,
            executor: record.executor,
            environment: record.environment.clone(),
            claimed_at: record.claimed_at,
            started_at: record.started_at,
            ended_at: record.ended_at,
            outcome,
            usage: finished.map(|finished| finished.usage),
            manifest: finished.and_then(|finished| finished.manifest.clone()),
        }
    }
}

impl From<&Job> for JobView {
    fn from(job: &Job) -> Self {
        let last = job.attempts.last();
        Self {
            id: job.id,
            namespace: job.namespace.clone(),
            name: job.spec.display_name().to_owned(),
            state: job.state(),
            command: job.spec.command.clone(),
            runtime: job.spec.runtime.as_ref().map(ToString::to_string),
            image: job.spec.image.clone(),
            queue: job.spec.queue.clone(),
            priority: job.spec.priority,
            labels: job.spec.labels.clone(),
            resources: job.spec.resources,
            timeout_ms: job.spec.timeout_ms,
            submitted_at: job.submitted_at,
            started_at: last.and_then(|attempt| attempt.started_at),
            ended_at: job.ended_at,
            cancel_requested: job.cancel_requested.is_some(),
            attempt: last.map(|attempt| attempt.number),
            worker: last.map(|attempt| attempt.worker.clone()),
            attempts: job.attempts.iter().map(AttemptView::from).collect(),
            exit_code: exit_code(&job.phase),
            message: message(job),
            sequence: job.sequence,
        }
    }
}

const fn exit_code(phase: &Phase) -> Option<i32> {
    match phase {
        Phase::Ended(End::Finished(outcome)) => Some(outcome.exit_code()),
        Phase::Ended(End::Cancelled) => Some(Outcome::Cancelled.exit_code()),
        Phase::Ended(End::Dead(_)) | Phase::Queued { .. } | Phase::Claimed { .. } | Phase::Running { .. } => None,
    }
}

/// What is to be said of a job's end, where its state alone does not say it.
fn message(job: &Job) -> Option<String> {
    let Phase::Ended(end) = &job.phase else { return None };
    let outcome = match end {
        End::Finished(outcome) => AttemptOutcome::Finished(outcome.clone()),
        End::Cancelled => AttemptOutcome::Finished(Outcome::Cancelled),
        End::Dead(cause) => AttemptOutcome::Lost(LostAttempt::Lost { cause: cause.clone() }),
    };
    let reason = job.cancel_requested.as_ref().and_then(|(_, reason)| reason.as_deref());
    message_of(&outcome, reason, job.attempts.len())
}

/// The same, from what a table holds of it.
pub(crate) fn message_of(outcome: &AttemptOutcome, reason: Option<&str>, attempts: usize) -> Option<String> {
    match outcome {
        AttemptOutcome::Finished(Outcome::Cancelled) => {
            Some(reason.map_or_else(|| "cancelled on request".to_owned(), |reason| format!("cancelled: {reason}")))
        }
        AttemptOutcome::Finished(other) => describe(other),
        AttemptOutcome::Lost(LostAttempt::Lost { cause }) => Some(format!("its {attempts} attempts are used up: {}", describe_loss(cause))),
    }
}

/// An outcome as a sentence, where there is more to say than success or an exit code.
#[must_use]
pub fn describe(outcome: &Outcome) -> Option<String> {
    Some(match outcome {
        Outcome::Succeeded | Outcome::Failed { .. } => return None,
        Outcome::Signalled { signal } => format!("signal {signal} ended it"),
        Outcome::TimedOut { limit_ms } => {
            #[allow(clippy::cast_precision_loss, reason = "a limit of 2^53 ms is 285,000 years")]
            let seconds = *limit_ms as f64 / 1000.0;
            format!("it ran longer than its timeout of {seconds} s, and was killed")
        }
        Outcome::OutOfMemory { limit_bytes: Some(limit) } => format!("it used more than its {limit} bytes of memory, and was killed"),
        Outcome::OutOfMemory { limit_bytes: None } => "the machine ran out of memory, and it was killed".to_owned(),
        Outcome::Cancelled => "cancelled on request".to_owned(),
        Outcome::Error { message } => message.clone(),
    })
}

/// The loss of an attempt as a sentence.
#[must_use]
pub fn describe_loss(cause: &LossCause) -> String {
    match cause {
        LossCause::WorkerLost { worker } => format!("worker {worker} was lost"),
        LossCause::SessionEnded { worker } => format!("worker {worker} was started anew"),
        LossCause::Orphaned { worker } => format!("worker {worker} no longer knew of it"),
    }
}

/// The answer to a list of jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobList {
    /// The jobs, newest first, without their attempts.
    pub jobs: Vec<JobView>,
    /// What to give as `before` for those that follow; none where these were the last.
    pub next: Option<String>,
    /// The sequence that the tables had reached.
    #[serde(default)]
    pub projected: u64,
}

/// The answer to one submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub id: JobId,
    /// Where its submission stands in the log.
    pub sequence: u64,
    /// Whose it is.
    pub namespace: Namespace,
    /// Whether it was submitted before, under the same key.
    pub existed: bool,
    /// What the user should know: that nobody serves the queue, or that it fits no worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// The answer to an array of submissions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubmittedMany {
    /// What came of each, in order.
    pub jobs: Vec<SubmittedOne>,
}

/// What came of one of several submissions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SubmittedOne {
    /// It is a job now.
    Job(Submitted),
    /// It was refused.
    Refused {
        /// Why.
        problem: crate::error::Problem,
    },
}

/// A job's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// In the order that they happened.
    pub events: Vec<HistoryEvent>,
}

/// One event, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEvent {
    /// Where it stands in the log.
    pub sequence: u64,
    /// What happened, with the version of its shape: `job.claimed.v1`.
    pub r#type: String,
    /// Its identity.
    pub id: EventId,
    /// When it was said, by the clock of who said it.
    pub time: DateTime<Utc>,
    /// Who said it.
    pub actor: String,
    /// The event that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<EventId>,
    /// The event that the whole chain began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<EventId>,
    /// What it says.
    pub data: Value,
}

/// The output files of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifacts {
    /// The attempt that they were committed by; none where none was.
    pub attempt: Option<Attempt>,
    /// The files, by path.
    pub artifacts: Vec<ArtifactView>,
}

/// One output file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactView {
    /// Where it stood in the work directory.
    pub path: RelPath,
    /// The content's SHA-256.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it may be executed.
    #[serde(default)]
    pub executable: bool,
}

/// Hashes of contents: those that are asked for in a request to `/v1/files/missing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hashes {
    /// The contents' SHA-256s.
    pub sha256: Vec<Digest>,
}

/// Contents that are not in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Their SHA-256s.
    pub missing: Vec<Digest>,
}

/// What is known of every worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// By name.
    pub workers: Vec<WorkerView>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its name.
    pub id: WorkerId,
    /// Its last session.
    pub session: SessionId,
    /// `live`, `lost` or `left`.
    pub state: String,
    /// CPUs that it offers, in thousandths.
    pub cpu_milli: u32,
    /// Memory that it offers, in bytes.
    pub memory_bytes: u64,
    /// The queues that it serves.
    pub queues: Vec<Queue>,
    /// The executors that it has.
    pub executors: Vec<ExecutorKind>,
    /// The operator's marks.
    pub labels: BTreeMap<String, String>,
    /// Versions of what matters there.
    pub versions: BTreeMap<String, String>,
    /// The machine's host name.
    pub host: String,
    /// When its session began.
    pub registered_at: DateTime<Utc>,
    /// When it last beat.
    pub last_beat: Option<DateTime<Utc>>,
    /// What it is executing, by its last beat.
    pub running: Vec<Running>,
    /// The machine's load average over a minute.
    pub load: Option<f32>,
    /// CPUs that are free, in thousandths.
    pub cpu_milli_free: Option<u32>,
    /// Memory that is free, in bytes.
    pub memory_bytes_free: Option<u64>,
}

/// An attempt under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The job.
    pub job: JobId,
    /// Which try at it.
    pub attempt: Attempt,
}

/// How the API is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`, or `nats is away`.
    pub status: String,
    /// Whether NATS answers.
    pub nats: bool,
    /// Whether Postgres answers.
    pub postgres: bool,
    /// The program's version.
    pub version: String,
}

/// How far the tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Projection {
    /// The last event that the tables hold.
    pub sequence: u64,
    /// The last event in the log.
    pub last: u64,
}

/// `event: log` of a job's log: a piece of one stream, as text or, where its bytes are not UTF-8, in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPiece {
    /// Which stream.
    pub stream: Stream,
    /// When the runner read it, in microseconds since 1970.
    pub time_us: u64,
    /// The bytes, where they are UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The bytes in base64, where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// `event: attempt` of a job's log: what follows is of this attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAttempt {
    /// Which try.
    pub attempt: Attempt,
}

/// `event: gap` of a job's log: so many bytes of the framed log, headers included, are not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGap {
    /// How many bytes.
    pub bytes: u64,
}
