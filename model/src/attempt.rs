//! One attempt at a job, and how it ended.

use bus::{
    ids::{Attempt, SessionId, WorkerId},
    job::{AttemptEnd, AttemptRecord, LossCause, ManifestRef, Outcome, Usage},
    spec::{ExecutorKind, policy::Clock},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// One attempt at a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// Its number, from 1.
    pub number: Attempt,
    /// Its worker.
    pub worker: WorkerId,
    /// That worker's session.
    pub session: SessionId,
    /// The executor.
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
    /// When it ended or was lost.
    #[serde(default)]
    pub ended_at: Option<DateTime<Utc>>,
    /// How it ended; none while it runs.
    #[serde(default)]
    pub outcome: Option<AttemptOutcome>,
    /// The resources that it used.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// Its outputs and log.
    #[serde(default)]
    pub manifest: Option<ManifestRef>,
}

/// How an attempt ended: on its worker, or without an end there. `kind` distinguishes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AttemptOutcome {
    /// On its worker.
    Finished(Outcome),
    /// It was returned or lost, or the job expired before it.
    Lost(LostAttempt),
}

/// An end that was not reported by the attempt's worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LostAttempt {
    /// Its worker returned it without running it.
    Returned,
    /// Its worker was shut down, and returned it.
    Interrupted,
    /// It is not known how it ended.
    Lost {
        /// Why it was lost.
        cause: LossCause,
    },
    /// The job waited longer than it may.
    Expired {
        /// Which of its timeouts passed.
        clock: Clock,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
}

impl From<&AttemptRecord> for AttemptView {
    fn from(record: &AttemptRecord) -> Self {
        let (outcome, finished) = match &record.end {
            None => (None, None),
            Some(AttemptEnd::Finished(finished)) => (Some(AttemptOutcome::Finished(finished.outcome.clone())), Some(finished)),
            Some(AttemptEnd::Returned) => (Some(AttemptOutcome::Lost(LostAttempt::Returned)), None),
            Some(AttemptEnd::Interrupted) => (Some(AttemptOutcome::Lost(LostAttempt::Interrupted)), None),
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
