//! The workers, and how the grid is.

use std::collections::BTreeMap;

use bus::{
    ids::{Attempt, JobId, Queue, SessionId, WorkerId},
    spec::ExecutorKind,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

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
    /// When its session was lost, or left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
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
    /// Since when it is to take no new work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned_at: Option<DateTime<Utc>>,
    /// What the operator said of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon_reason: Option<String>,
    /// Whether what it executes is to leave it as well.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drain: bool,
    /// When what has not left it by then is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_deadline: Option<DateTime<Utc>>,
    /// Until when it may be silent, because its runner restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarting_until: Option<DateTime<Utc>>,
}

impl WorkerView {
    /// Whether it lives, and takes new work.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.state == "live" && self.cordoned_at.is_none()
    }

    /// How it stands, in one word: live, cordoned, draining, drained, restarting, lost or left.
    #[must_use]
    pub fn standing(&self) -> &str {
        match (self.state.as_str(), self.restarting_until, self.cordoned_at) {
            ("live", Some(_), _) => "restarting",
            // What it runs is known from a beat after the word was said.
            ("live", None, Some(said)) if self.drain && self.running.is_empty() && self.last_beat.is_some_and(|beat| beat > said) => {
                "drained"
            }
            ("live", None, Some(_)) if self.drain => "draining",
            ("live", None, Some(_)) => "cordoned",
            (state, _, _) => state,
        }
    }
}

/// What an operator's word on a worker came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cordon {
    /// Which worker.
    pub worker: WorkerId,
    /// Whether it is to take no new work.
    pub cordoned: bool,
    /// Whether what it executes is to leave it as well.
    pub drain: bool,
    /// When what has not left it by then is ended.
    #[serde(default)]
    pub deadline: Option<DateTime<Utc>>,
    /// What the operator said of it.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether it stood otherwise before.
    pub changed: bool,
    /// The worker's last event.
    pub sequence: u64,
}

/// For `skip_serializing_if`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_false(value: &bool) -> bool {
    !*value
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
