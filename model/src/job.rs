//! A job and its attempts.

use std::collections::BTreeMap;

use bus::{
    batch::BatchMember,
    ids::{Attempt, JobId, Namespace, Queue, WorkerId},
    job::{End, Job, Outcome, Phase, State},
    spec::{
        Origin, Priority, Resources,
        policy::{Dependency, Retry},
    },
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{attempt::AttemptView, words::message};

/// The current state of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: State,
    /// The program or script and its arguments.
    pub command: Vec<String>,
    /// The runtime that interprets the command.
    #[serde(default)]
    pub runtime: Option<String>,
    /// The requested container image.
    #[serde(default)]
    pub image: Option<String>,
    /// Its queue.
    pub queue: Queue,
    /// Its priority.
    pub priority: Priority,
    /// The user's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The job that it repeats, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The resources that it needs.
    pub resources: Resources,
    /// How long one attempt may run, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// How long it may wait for a worker each time, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout_ms: Option<u64>,
    /// How long it may take in all, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_timeout_ms: Option<u64>,
    /// How it is retried if it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How many of its attempts failed and were retried. 0 in a list.
    #[serde(default)]
    pub failures: u32,
    /// The jobs that it waits for, while it is held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<Dependency>,
    /// When it was accepted.
    pub submitted_at: DateTime<Utc>,
    /// When a held job may start, or a failed one is retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<DateTime<Utc>>,
    /// When the command of its last attempt started.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<DateTime<Utc>>,
    /// Whether a user has cancelled it.
    #[serde(default)]
    pub cancel_requested: bool,
    /// Its last attempt, if it has had one.
    #[serde(default)]
    pub attempt: Option<Attempt>,
    /// The worker of its last attempt.
    #[serde(default)]
    pub worker: Option<WorkerId>,
    /// All its attempts, in order. Empty in a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptView>,
    /// The exit code that represents its end in a shell (see [`Outcome::exit_code`]); none if it has not ended, or no attempt of it has.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// A sentence about its end, if its state alone does not say enough.
    #[serde(default)]
    pub message: Option<String>,
    /// Its batch, and its index there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchMember>,
    /// The sequence of its last event.
    pub sequence: u64,
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
            origin: job.spec.origin,
            resources: job.spec.resources,
            timeout_ms: job.spec.timeout_ms,
            queue_timeout_ms: job.spec.queue_timeout_ms,
            total_timeout_ms: job.spec.total_timeout_ms,
            retry: job.spec.retry.clone(),
            failures: job.failures,
            waits_for: job.dependencies().to_vec(),
            submitted_at: job.submitted_at,
            due_at: job.ready_not_before(),
            started_at: last.and_then(|attempt| attempt.started_at),
            ended_at: job.ended_at,
            cancel_requested: job.cancel_requested.is_some(),
            attempt: last.map(|attempt| attempt.number),
            worker: last.map(|attempt| attempt.worker.clone()),
            attempts: job.attempts.iter().map(AttemptView::from).collect(),
            exit_code: exit_code(&job.phase),
            message: message(job),
            batch: job.spec.batch.clone(),
            sequence: job.sequence,
        }
    }
}

const fn exit_code(phase: &Phase) -> Option<i32> {
    match phase {
        Phase::Ended(End::Finished(outcome)) => Some(outcome.exit_code()),
        Phase::Ended(End::Cancelled) => Some(Outcome::Cancelled.exit_code()),
        Phase::Ended(End::Expired { limit_ms, clock }) => Some(
            Outcome::TimedOut {
                limit_ms: *limit_ms,
                clock: *clock,
            }
            .exit_code(),
        ),
        Phase::Ended(End::Dead(_))
        | Phase::Held { .. }
        | Phase::Queued { .. }
        | Phase::Claimed { .. }
        | Phase::Running { .. }
        | Phase::Retrying { .. } => None,
    }
}
