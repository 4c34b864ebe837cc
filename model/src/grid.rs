//! Workers, and the state of the grid.

use std::{collections::BTreeMap, fmt};

use bus::{
    ids::{Attempt, JobId, Queue, SessionId, WorkerId},
    spec::ExecutorKind,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// All workers.
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
    /// Whether its session goes on.
    pub state: WorkerState,
    /// The CPUs that it offers, in thousandths.
    pub cpu_milli: u32,
    /// Memory that it offers, in bytes.
    pub memory_bytes: u64,
    /// The queues that it serves.
    pub queues: Vec<Queue>,
    /// The executors that it has.
    pub executors: Vec<ExecutorKind>,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
    /// Versions of its programs.
    pub versions: BTreeMap<String, String>,
    /// The machine's host name.
    pub host: String,
    /// When its session began.
    pub registered_at: DateTime<Utc>,
    /// When its session was lost, or left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// The time of its last heartbeat.
    pub last_beat: Option<DateTime<Utc>>,
    /// The attempts that it runs, according to its last heartbeat.
    pub running: Vec<Running>,
    /// The machine's load average over a minute.
    pub load: Option<f32>,
    /// CPUs that are free, in thousandths.
    pub cpu_milli_free: Option<u32>,
    /// Memory that is free, in bytes.
    pub memory_bytes_free: Option<u64>,
    /// When it was cordoned: it takes no new work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned_at: Option<DateTime<Utc>>,
    /// The operator's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon_reason: Option<String>,
    /// Whether its jobs are to leave it as well.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drain: bool,
    /// When the jobs that still run are stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_deadline: Option<DateTime<Utc>>,
    /// Until when it may be silent, because its runner announced a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarting_until: Option<DateTime<Utc>>,
}

impl WorkerView {
    /// Whether it is live and takes new work.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.state == WorkerState::Live && self.cordoned_at.is_none()
    }

    /// Its state, together with what an operator or its runner announced.
    #[must_use]
    pub fn status(&self) -> WorkerStatus {
        if self.state != WorkerState::Live {
            return WorkerStatus::State(self.state.clone());
        }
        match (self.restarting_until, self.cordoned_at) {
            (Some(_), _) => WorkerStatus::Restarting,
            // A heartbeat after the drain began says what the worker still runs.
            (None, Some(since)) if self.drain && self.running.is_empty() && self.last_beat.is_some_and(|beat| beat > since) => {
                WorkerStatus::Drained
            }
            (None, Some(_)) if self.drain => WorkerStatus::Draining,
            (None, Some(_)) => WorkerStatus::Cordoned,
            (None, None) => WorkerStatus::State(WorkerState::Live),
        }
    }
}

/// The state of a worker's last session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerState {
    /// It goes on.
    Live,
    /// The watcher gave it up.
    Lost,
    /// It ended in order.
    Left,
    /// A state that this version does not know.
    Other(String),
}

impl WorkerState {
    /// Its name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Live => "live",
            Self::Lost => "lost",
            Self::Left => "left",
            Self::Other(text) => text,
        }
    }
}

impl From<String> for WorkerState {
    fn from(text: String) -> Self {
        match text.as_str() {
            "live" => Self::Live,
            "lost" => Self::Lost,
            "left" => Self::Left,
            _ => Self::Other(text),
        }
    }
}

impl Serialize for WorkerState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for WorkerState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// What a worker does, in one word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerStatus {
    /// Its runner announced a restart.
    Restarting,
    /// It takes no new work.
    Cordoned,
    /// It takes no new work, and its jobs are to leave it.
    Draining,
    /// Its jobs have left it.
    Drained,
    /// Nothing was announced.
    State(WorkerState),
}

impl fmt::Display for WorkerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restarting => "restarting",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::State(state) => state.as_str(),
        })
    }
}

/// The result of a cordon, a drain or an uncordon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cordon {
    /// Which worker.
    pub worker: WorkerId,
    /// Whether it is cordoned: it takes no new work.
    pub cordoned: bool,
    /// Whether its jobs are to leave it as well.
    pub drain: bool,
    /// When the jobs that still run are stopped.
    #[serde(default)]
    pub deadline: Option<DateTime<Utc>>,
    /// The operator's reason.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether the command changed anything.
    pub changed: bool,
    /// The worker's last event.
    pub sequence: u64,
}

/// For `skip_serializing_if`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A running attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The job.
    pub job: JobId,
    /// Its attempt.
    pub attempt: Attempt,
}

/// The health of the API.
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

/// How far the tables have caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Projection {
    /// The last event that the tables hold.
    pub sequence: u64,
    /// The last event in the log.
    pub last: u64,
}
