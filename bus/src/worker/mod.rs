//! Workers: their events, their heartbeats and their inventory.

mod decide;

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::decide::{Command, Rejection, Worker, decide};
use crate::{
    envelope::{DecodeError, Envelope, Event, data},
    ids::{Attempt, JobId, Queue, SessionId, Token, WorkerId},
    spec::ExecutorKind,
};

/// The key in a worker's versions that says why its containers may reach the cloud's metadata service.
pub const METADATA_OPEN: &str = "metadata_open";

/// Every event of a worker. The envelope's `type` names the variant and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum WorkerEvent {
    /// A runner began a session for the worker.
    Registered(Registered),
    /// The worker's heartbeats stopped.
    Lost(Lost),
    /// The worker's runner ended the session in an orderly shutdown.
    Left(Left),
    /// The worker's runner is about to restart. It will resume the attempts whose containers keep running.
    Restarting(Restarting),
    /// An operator cordoned the worker: it takes no new jobs.
    Cordoned(Cordoned),
    /// An operator uncordoned the worker: it takes jobs again.
    Uncordoned(Uncordoned),
    /// The worker's inventory, published by a runner of an earlier version.
    Equipped(Equipped),
}

/// `worker.registered.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Registered {
    /// The session that begins. Attempts of all other sessions of this worker have ended.
    pub session: SessionId,
    /// The CPUs that the worker offers, in thousandths.
    pub cpu_milli: u32,
    /// The memory that the worker offers, in bytes.
    pub memory_bytes: u64,
    /// The queues that the worker serves.
    pub queues: Vec<Queue>,
    /// The executors that the worker has.
    pub executors: Vec<ExecutorKind>,
    /// The operator's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Versions of rgrid, the kernel, Docker and others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    /// The machine's host name.
    pub host: String,
    /// The runner's process id on that machine.
    pub pid: u32,
    /// The runner stops its attempts on its own when no heartbeat was acknowledged for this long, in milliseconds; absent: it does not.
    /// The watcher must wait longer than this before it declares the worker lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_fence_ms: Option<u64>,
}

/// `worker.lost.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// The lost session. Its attempts are rescheduled.
    pub session: SessionId,
    /// The time of the last heartbeat; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_beat: Option<DateTime<Utc>>,
}

/// `worker.left.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Left {
    /// The session that ended.
    pub session: SessionId,
}

/// `worker.restarting.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restarting {
    /// The session that continues after the restart.
    pub session: SessionId,
    /// Until when missing heartbeats are ignored.
    pub deadline: DateTime<Utc>,
}

/// `worker.cordoned.v1`: valid across the worker's sessions, until the worker is uncordoned.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Cordoned {
    /// Whether the worker drains: it also gives up the jobs that it has.
    #[serde(default, skip_serializing_if = "crate::spec::is_false")]
    pub drain: bool,
    /// When a drain interrupts the commands that still run, so that their jobs run on another worker; absent: no deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// The reason that the operator gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `worker.uncordoned.v1`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Uncordoned {}

/// The complete inventory of a worker. It is the data of `worker.equipped.v1`, which earlier runners appended to the log at each change.
/// Newer runners publish it as [`CurrentEquipment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Equipped {
    /// The session that publishes the inventory.
    pub session: SessionId,
    /// The runtimes that the worker has, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runtimes: BTreeMap<Token, Equipment>,
    /// The images that the worker has: from name to Docker's own id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// The platform of the worker's containers (`linux/amd64`); absent: it runs no containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// What a worker has of one runtime.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Equipment {
    /// The versions of the runtime's interpreters. The first is the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// The runtime's images. The first one that the worker has is used; if it has none of them, the last one is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

/// The inventory of a worker, on `rgrid.equipment.<worker>`. The worker publishes it after it has registered, at each change, and every
/// hour. Only the last message of each worker is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CurrentEquipment {
    /// When the session was registered (`time` of its `worker.registered.v1`). The inventory is only valid for that registration, even if
    /// the next one has the same session: a runner of another version may have started.
    pub registered_at: DateTime<Utc>,
    /// The inventory.
    #[serde(flatten)]
    pub equipped: Equipped,
}

impl CurrentEquipment {
    /// The inventory is published again after this time, even without a change. That corrects the stream after it was purged, or after
    /// another process published for this worker.
    pub const REPEAT_AFTER: Duration = Duration::from_secs(3_600);
    /// How long the stream keeps an inventory (by the stream's definition).
    pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
}

impl Event for WorkerEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Registered(_) => "worker.registered.v1",
            Self::Lost(_) => "worker.lost.v1",
            Self::Left(_) => "worker.left.v1",
            Self::Restarting(_) => "worker.restarting.v1",
            Self::Cordoned(_) => "worker.cordoned.v1",
            Self::Uncordoned(_) => "worker.uncordoned.v1",
            Self::Equipped(_) => "worker.equipped.v1",
        }
    }

    fn decode(kind: &str, raw: &RawValue) -> Result<Self, DecodeError> {
        Ok(match kind {
            "worker.registered.v1" => Self::Registered(data(kind, raw)?),
            "worker.lost.v1" => Self::Lost(data(kind, raw)?),
            "worker.left.v1" => Self::Left(data(kind, raw)?),
            "worker.restarting.v1" => Self::Restarting(data(kind, raw)?),
            "worker.cordoned.v1" => Self::Cordoned(data(kind, raw)?),
            "worker.uncordoned.v1" => Self::Uncordoned(data(kind, raw)?),
            "worker.equipped.v1" => Self::Equipped(data(kind, raw)?),
            _ => return Err(DecodeError::UnknownType { kind: kind.to_owned() }),
        })
    }
}

/// An event of a worker, as it was read from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The worker, from the subject.
    pub worker: WorkerId,
    /// The event's sequence in the stream `RGRID_EVENTS`.
    pub sequence: u64,
    /// The event with its envelope.
    pub envelope: Envelope<WorkerEvent>,
}

/// The header of a watcher's heartbeat that says whether the watcher receives the broker's advisories about lost connections: `yes` or
/// `no`.
pub const ADVISORIES: &str = "Rgrid-Advisories";

/// One heartbeat of a session, with its load and its attempts. On `rgrid.hb.<worker>`, every second, or every three seconds while the
/// session has no job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// The session that sends the heartbeat.
    pub session: SessionId,
    /// The time by the worker's clock.
    pub time: DateTime<Utc>,
    /// The sequence of the session's last stored claim. With it, an attempt that is missing here is distinguished from one that was
    /// claimed later.
    pub last_claim: u64,
    /// Free CPUs, in thousandths.
    pub cpu_milli_free: u32,
    /// Free memory, in bytes.
    pub memory_bytes_free: u64,
    /// The machine's load average over one minute.
    pub load: f32,
    /// The attempts that the session is executing.
    pub attempts: Vec<(JobId, Attempt)>,
    /// The latest time until the next heartbeat, in milliseconds; absent: one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ms: Option<u32>,
    /// Leftovers of earlier attempts that the worker could not remove, with the reason: one sentence each, only the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<String>,
}

impl Heartbeat {
    /// The default interval between heartbeats.
    pub const PERIOD: Duration = Duration::from_secs(1);
    /// The interval between heartbeats of a session without jobs.
    pub const IDLE_PERIOD: Duration = Duration::from_secs(3);

    /// The latest time until the next heartbeat, at most [`Heartbeat::IDLE_PERIOD`].
    #[must_use]
    pub fn next(&self) -> Duration {
        let said = self.next_ms.map_or(Self::PERIOD, |next| Duration::from_millis(next.into()));
        said.clamp(Self::PERIOD, Self::IDLE_PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stream outlives versions of rgrid, so one version reads what another wrote.
    #[test]
    fn an_inventory_is_read_and_written_unchanged() -> Result<(), serde_json::Error> {
        let text = r#"{"registered_at":"2026-01-15T10:20:30.123456Z","session":"01890a5d-ac96-774b-bcce-b302099a8057","runtimes":{"python":{"versions":["3.11.2"],"images":["python:3-slim"]}},"images":{"python:3-slim":"sha256:3e"},"platform":"linux/amd64"}"#;
        let current: CurrentEquipment = serde_json::from_str(text)?;
        assert_eq!(serde_json::to_string(&current)?, text);
        let bare = r#"{"registered_at":"2026-01-15T10:20:30.123456Z","session":"01890a5d-ac96-774b-bcce-b302099a8057"}"#;
        let current: CurrentEquipment = serde_json::from_str(&bare.replace('}', r#","of_a_newer_version":1}"#))?;
        assert_eq!(serde_json::to_string(&current)?, bare);
        Ok(())
    }
}
