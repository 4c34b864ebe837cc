//! The part of a job's state that decides what its next event means. A [`Job`] takes a kilobyte, and a million may wait.

use bus::{
    ids::{Attempt, JobId, SessionId, WorkerId, default_token},
    job::{AttemptRecord, Job, Phase},
    spec::JobSpec,
};
use chrono::DateTime;
use serde::{Deserialize, Serialize};

/// The state of a job that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Standing {
    stage: StoredPhase,
    /// Whether a user has cancelled it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cancelled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredPhase {
    Held,
    Queued(Attempt),
    Claimed(Attempt, Option<Box<Holder>>),
    Running(Attempt, Option<Box<Holder>>),
    Retrying(Attempt),
}

/// The worker and the session that may report on an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Holder {
    worker: WorkerId,
    session: SessionId,
}

impl Standing {
    /// The state of a job; `None` if it has ended.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let holder = || {
            let live = job.live_attempt()?;
            Some(Box::new(Holder {
                worker: live.worker.clone(),
                session: live.session,
            }))
        };
        let stage = match job.phase {
            Phase::Held { .. } => StoredPhase::Held,
            Phase::Queued { next } => StoredPhase::Queued(next),
            Phase::Claimed { attempt } => StoredPhase::Claimed(attempt, holder()),
            Phase::Running { attempt } => StoredPhase::Running(attempt, holder()),
            Phase::Retrying { next, .. } => StoredPhase::Retrying(next),
            Phase::Ended(_) => return None,
        };
        Some(Self {
            stage,
            cancelled: job.cancel_requested.is_some(),
        })
    }

    /// A job that handles every event like the original one. Its other fields are not valid.
    pub(super) fn job(self, id: JobId) -> Job {
        let never = DateTime::UNIX_EPOCH;
        let (phase, holder) = match self.stage {
            StoredPhase::Held => (Phase::Held { until: None }, None),
            StoredPhase::Queued(next) => (Phase::Queued { next }, None),
            StoredPhase::Claimed(attempt, holder) => (Phase::Claimed { attempt }, holder.map(|holder| (attempt, holder))),
            StoredPhase::Running(attempt, holder) => (Phase::Running { attempt }, holder.map(|holder| (attempt, holder))),
            StoredPhase::Retrying(next) => (Phase::Retrying { next, due: never }, None),
        };
        let attempts = holder.map(|(number, holder)| AttemptRecord {
            number,
            worker: holder.worker,
            session: holder.session,
            claimed_at: never,
            started_at: None,
            executor: None,
            environment: None,
            ended_at: None,
            end: None,
        });
        Job {
            id,
            namespace: default_token(),
            spec: JobSpec::new(Vec::new()),
            submitted_at: never,
            cancel_requested: self.cancelled.then_some((never, None)),
            phase,
            ready_at: never,
            deadline: None,
            failures: 0,
            losses: 0,
            attempts: attempts.into_iter().collect(),
            ended_at: None,
            sequence: 0,
        }
    }
}
