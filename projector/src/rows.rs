//! The rows of the tables, and how they follow from a folded job or worker.
//!
//! Postgres rejects some values that the log may hold (a NUL in a text, a time before 4713 BC, a number above 2^63). They must not stop
//! the fold: each becomes the nearest value that Postgres accepts.

use std::{borrow::Cow, collections::BTreeMap};

use bus::{
    envelope::Envelope,
    ids::{Attempt, BatchId, Digest, JobId, SessionId, WorkerId},
    job::{AttemptEnd, AttemptRecord, End, Job, JobEvent, ManifestRef, Outcome, Phase, State, Usage},
    spec::{ExecutorKind, JobSpec},
    worker::{Equipped, Recorded, WorkerEvent},
};
use chrono::{DateTime, Utc};
use serde::Serialize;

/// The earliest time that Postgres accepts, in seconds from 1970: the Julian day 0.
const EARLIEST: i64 = -210_866_803_200;

/// The part of a job's row that never changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewJob {
    pub(crate) submitted_sequence: u64,
    pub(crate) namespace: String,
    pub(crate) queue: String,
    pub(crate) name: String,
    pub(crate) labels: Option<String>,
    pub(crate) spec: String,
    /// Its batch, and its number there.
    pub(crate) batch: Option<(BatchId, u32)>,
    /// The key under which its result may be reused.
    pub(crate) reuse_key: Option<Digest>,
    pub(crate) submitted_at: DateTime<Utc>,
    pub(crate) state: JobState,
}

/// The part of a job's row that changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobState {
    pub(crate) id: JobId,
    pub(crate) sequence: u64,
    pub(crate) state: State,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    pub(crate) due_at: Option<DateTime<Utc>>,
    pub(crate) cancel_requested_at: Option<DateTime<Utc>>,
    pub(crate) cancel_reason: Option<String>,
    pub(crate) attempt: u32,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) outcome: Option<String>,
}

/// An attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AttemptRow {
    pub(crate) job: JobId,
    pub(crate) number: u32,
    pub(crate) worker: WorkerId,
    pub(crate) session: SessionId,
    pub(crate) executor: Option<ExecutorKind>,
    pub(crate) environment: Option<String>,
    pub(crate) claimed_at: DateTime<Utc>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    pub(crate) outcome: Option<String>,
    pub(crate) usage: Option<Usage>,
    pub(crate) manifest: Option<ManifestRef>,
}

/// A worker, by its last session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkerRow {
    pub(crate) id: WorkerId,
    pub(crate) session: SessionId,
    pub(crate) state: &'static str,
    pub(crate) cpu_milli: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) queues: Vec<String>,
    pub(crate) executors: Vec<String>,
    pub(crate) labels: String,
    pub(crate) versions: String,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) registered_at: DateTime<Utc>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
    /// Until when its session may be silent, because its runner restarts.
    pub(crate) restarting_until: Option<DateTime<Utc>>,
    pub(crate) cordon: Option<Cordon>,
    /// The inventory of its session, if its runner published it in the log, as earlier versions did.
    pub(crate) equipment: Option<String>,
    pub(crate) sequence: u64,
}

/// A cordoned worker takes no new work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cordon {
    pub(crate) at: DateTime<Utc>,
    pub(crate) reason: Option<String>,
    pub(crate) drain: bool,
    pub(crate) deadline: Option<DateTime<Utc>>,
}

/// An output file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArtifactRow {
    pub(crate) job: JobId,
    pub(crate) attempt: Attempt,
    pub(crate) position: i32,
    pub(crate) path: String,
    pub(crate) sha256: Digest,
    pub(crate) size: u64,
    pub(crate) executable: bool,
}

/// A message that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) reason: String,
}

impl Skipped {
    /// The longest reason that is kept, in characters.
    const REASON_MAX: usize = 500;

    pub(crate) fn new(sequence: u64, subject: &str, reason: &str) -> Self {
        Self {
            sequence,
            subject: text(subject),
            reason: text(reason).chars().take(Self::REASON_MAX).collect(),
        }
    }
}

impl NewJob {
    /// The row of a job that was submitted in this batch of events, as it is after it.
    pub(crate) fn new(job: &Job, spec: &JobSpec, submitted_sequence: u64) -> Self {
        Self {
            submitted_sequence,
            namespace: job.namespace.to_string(),
            queue: spec.queue.to_string(),
            name: text(spec.display_name()),
            labels: (!spec.labels.is_empty()).then(|| json(&clean(&spec.labels))),
            spec: json(spec),
            batch: spec.batch.as_ref().map(|member| (member.batch, member.index)),
            reuse_key: bus::spec::reuse::key(&job.namespace, spec),
            submitted_at: time(job.submitted_at),
            state: JobState::new(job),
        }
    }
}

impl JobState {
    pub(crate) fn new(job: &Job) -> Self {
        let last = job.attempts.last();
        let (exit_code, outcome) = match &job.phase {
            Phase::Held { .. } | Phase::Queued { .. } | Phase::Claimed { .. } | Phase::Running { .. } | Phase::Retrying { .. } => {
                (None, None)
            }
            Phase::Ended(End::Finished(outcome)) => (Some(outcome.exit_code()), Some(json(outcome))),
            Phase::Ended(End::Cancelled) => (Some(Outcome::Cancelled.exit_code()), Some(json(&Outcome::Cancelled))),
            Phase::Ended(End::Dead(cause)) => (None, Some(json(&LostOutcome::Lost { cause: cause.clone() }))),
            Phase::Ended(End::Expired { clock, limit_ms }) => {
                let (clock, limit_ms) = (*clock, *limit_ms);
                let code = Outcome::TimedOut { limit_ms, clock }.exit_code();
                (Some(code), Some(json(&LostOutcome::Expired { clock, limit_ms })))
            }
        };
        let due_at = job.ready_not_before();
        let (cancel_requested_at, cancel_reason) = match &job.cancel_requested {
            Some((at, reason)) => (Some(time(*at)), reason.as_deref().map(text)),
            None => (None, None),
        };
        Self {
            id: job.id,
            sequence: job.sequence,
            state: job.state(),
            started_at: last.and_then(|last| last.started_at).map(time),
            ended_at: job.ended_at.map(time),
            due_at: due_at.map(time),
            cancel_requested_at,
            cancel_reason,
            attempt: last.map_or(0, |last| last.number.0),
            worker: last.map(|last| last.worker.clone()),
            exit_code,
            outcome,
        }
    }

    /// The state, if the job ended without success.
    pub(crate) const fn failure(&self) -> Option<&'static str> {
        match self.state {
            State::Held | State::Queued | State::Claimed | State::Running | State::Retrying | State::Succeeded => None,
            State::Failed | State::TimedOut | State::OutOfMemory | State::Cancelled | State::Dead => Some(self.state.as_str()),
        }
    }
}

/// An end without a worker's outcome, in the format of the workers' outcomes.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum LostOutcome {
    /// Its worker gave it back before it ran.
    Returned,
    /// Its worker was being shut down, and gave it back.
    Interrupted,
    /// Its worker was lost.
    Lost {
        /// Why it was given up.
        cause: bus::job::LossCause,
    },
    /// It waited longer than it may.
    Expired {
        /// Which of its clocks passed its limit.
        clock: bus::spec::policy::Clock,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
}

impl AttemptRow {
    pub(crate) fn new(job: JobId, attempt: &AttemptRecord) -> Self {
        let (outcome, finished) = match &attempt.end {
            None => (None, None),
            Some(AttemptEnd::Finished(finished)) => (Some(json(&finished.outcome)), Some(finished)),
            Some(AttemptEnd::Returned) => (Some(json(&LostOutcome::Returned)), None),
            Some(AttemptEnd::Interrupted) => (Some(json(&LostOutcome::Interrupted)), None),
            Some(AttemptEnd::Lost(cause)) => (Some(json(&LostOutcome::Lost { cause: cause.clone() })), None),
            Some(AttemptEnd::Cancelled) => (Some(json(&Outcome::Cancelled)), None),
        };
        Self {
            job,
            number: attempt.number.0,
            worker: attempt.worker.clone(),
            session: attempt.session,
            executor: attempt.executor,
            environment: attempt.environment.as_deref().map(text),
            claimed_at: time(attempt.claimed_at),
            started_at: attempt.started_at.map(time),
            ended_at: attempt.ended_at.map(time),
            outcome,
            usage: finished.map(|finished| finished.usage),
            manifest: finished.and_then(|finished| finished.manifest.clone()),
        }
    }
}

impl WorkerRow {
    pub(crate) const LIVE: &'static str = "live";
    pub(crate) const LOST: &'static str = "lost";
    pub(crate) const LEFT: &'static str = "left";

    /// Folds an event into a worker; nothing before its first registration.
    ///
    /// An event of a session that is not the last one changes only the sequence.
    pub(crate) fn evolve(worker: Option<&Self>, recorded: &Recorded) -> Option<Self> {
        let Envelope { time: at, event, .. } = &recorded.envelope;
        let ended = |state, session: SessionId| {
            let mut row = worker?.clone();
            if row.session == session && row.state != Self::LEFT {
                row.state = state;
                row.ended_at = Some(time(*at));
            }
            row.sequence = recorded.sequence;
            Some(row)
        };
        match event {
            WorkerEvent::Registered(event) => Some(Self {
                id: recorded.worker.clone(),
                session: event.session,
                state: Self::LIVE,
                cpu_milli: event.cpu_milli,
                memory_bytes: event.memory_bytes,
                queues: event.queues.iter().map(ToString::to_string).collect(),
                executors: event.executors.iter().map(ToString::to_string).collect(),
                labels: json(&clean(&event.labels)),
                versions: json(&clean(&event.versions)),
                host: text(&event.host),
                pid: event.pid,
                registered_at: time(*at),
                ended_at: None,
                restarting_until: None,
                equipment: None,
                cordon: worker.and_then(|worker| worker.cordon.clone()),
                sequence: recorded.sequence,
            }),
            WorkerEvent::Lost(event) => ended(Self::LOST, event.session),
            WorkerEvent::Left(event) => ended(Self::LEFT, event.session),
            WorkerEvent::Restarting(event) => Some(Self {
                restarting_until: (worker?.session == event.session).then(|| time(event.deadline)),
                sequence: recorded.sequence,
                ..worker?.clone()
            }),
            WorkerEvent::Cordoned(event) => Some(Self {
                cordon: Some(Cordon {
                    at: time(*at),
                    reason: event.reason.as_deref().map(text),
                    drain: event.drain,
                    deadline: event.deadline.map(time),
                }),
                sequence: recorded.sequence,
                ..worker?.clone()
            }),
            WorkerEvent::Equipped(event) => {
                let mut row = worker?.clone();
                if row.session == event.session {
                    row.equipment = Some(equipment(event));
                }
                row.sequence = recorded.sequence;
                Some(row)
            }
            WorkerEvent::Uncordoned(_) => Some(Self {
                cordon: None,
                sequence: recorded.sequence,
                ..worker?.clone()
            }),
        }
    }
}

/// Whether an event of this kind may change the live attempt.
pub(crate) const fn touches_attempt(event: &JobEvent) -> bool {
    !matches!(event, JobEvent::Submitted(_) | JobEvent::CancelRequested(_))
}

/// A text that Postgres accepts: without NUL.
pub(crate) fn text(text: &str) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text.to_owned()
    }
}

/// A time that Postgres accepts.
pub(crate) fn time(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(EARLIEST, 0).map_or(time, |earliest| time.max(earliest))
}

/// A number that Postgres accepts.
pub(crate) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that Postgres accepts.
pub(crate) fn integer(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A worker's inventory as JSON that `jsonb` accepts: without NUL, and without the session, which is a column.
pub(crate) fn equipment(event: &Equipped) -> String {
    let cleaned = |texts: &[String]| texts.iter().map(|one| text(one)).collect::<Vec<_>>();
    let runtimes: BTreeMap<_, _> = event
        .runtimes
        .iter()
        .map(|(name, one)| {
            (
                name.as_str(),
                serde_json::json!({ "versions": cleaned(&one.versions), "images": cleaned(&one.images) }),
            )
        })
        .collect();
    json(&serde_json::json!({ "runtimes": runtimes, "images": clean(&event.images), "platform": event.platform.as_deref().map(text) }))
}

/// Labels that `jsonb` accepts: without NUL.
fn clean(labels: &BTreeMap<String, String>) -> Cow<'_, BTreeMap<String, String>> {
    if labels.iter().any(|(key, value)| key.contains('\0') || value.contains('\0')) {
        Cow::Owned(labels.iter().map(|(key, value)| (text(key), text(value))).collect())
    } else {
        Cow::Borrowed(labels)
    }
}

#[allow(
    clippy::expect_used,
    reason = "no value here holds a map with keys that are not text, which is all that could fail"
)]
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a row's value is JSON")
}
