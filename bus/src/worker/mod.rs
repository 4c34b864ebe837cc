//! Workers: what they register, how they beat, how they are lost.

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

/// What stands among a worker's versions where its containers may reach the cloud's metadata service: why.
pub const METADATA_OPEN: &str = "metadata_open";

/// Everything that can happen to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum WorkerEvent {
    /// A runner began a session for it.
    Registered(Registered),
    /// Its heartbeats lapsed.
    Lost(Lost),
    /// Its runner ended the session in good order.
    Left(Left),
    /// Its runner is about to restart, and comes back to the containers that it leaves running.
    Restarting(Restarting),
    /// An operator wants it to take no new work.
    Cordoned(Cordoned),
    /// An operator lets it take work again.
    Uncordoned(Uncordoned),
    /// Its runner, of an earlier version, says what it can run scripts by.
    Equipped(Equipped),
}

/// `worker.registered.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Registered {
    /// The session that begins; attempts of any other session of this worker are over.
    pub session: SessionId,
    /// CPUs that it offers, in thousandths.
    pub cpu_milli: u32,
    /// Memory that it offers, in bytes.
    pub memory_bytes: u64,
    /// The queues that it serves.
    pub queues: Vec<Queue>,
    /// The executors that it has.
    pub executors: Vec<ExecutorKind>,
    /// The operator's marks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Versions of what matters there: rgrid, the kernel, Docker.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    /// The machine's host name.
    pub host: String,
    /// The runner's process id there.
    pub pid: u32,
    /// After how long without an acknowledged heartbeat it ends its attempts by itself, in milliseconds; absent: it does not.
    /// Whoever gives the session up must wait longer than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_fence_ms: Option<u64>,
}

/// `worker.lost.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// The session that is given up; its attempts are rescheduled.
    pub session: SessionId,
    /// When it was last heard of; absent where it never was.
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
    /// The session that goes on after the restart.
    pub session: SessionId,
    /// Until when its silence does not count.
    pub deadline: DateTime<Utc>,
}

/// `worker.cordoned.v1`: it holds over the worker's sessions, until it is uncordoned.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Cordoned {
    /// Whether what it executes is to leave it as well.
    #[serde(default, skip_serializing_if = "crate::spec::is_false")]
    pub drain: bool,
    /// When a drain ends what is still running, which then runs elsewhere; absent: it may take as long as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// What the operator said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `worker.uncordoned.v1`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Uncordoned {}

/// What a worker can run scripts by, all of it. The data of `worker.equipped.v1`, which earlier runners appended to the log at each change;
/// now they say it as [`CurrentEquipment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Equipped {
    /// The session that says so.
    pub session: SessionId,
    /// The runtimes that it knows, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runtimes: BTreeMap<Token, Equipment>,
    /// The images that it has, by name, each with Docker's own id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// What its containers run on (`linux/amd64`); absent: it runs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// What a worker has of a runtime.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Equipment {
    /// The versions of its interpreters, the one that is taken where a job names none first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// The images for it: the first that is there is used, and the last is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

/// What a worker can run scripts by, on `rgrid.equipment.<worker>`: said once it is registered, when it changes, and each hour. Only
/// the last word of each worker is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CurrentEquipment {
    /// When the session was registered (`time` of that `worker.registered.v1`). What is said of one registration says nothing of the
    /// next, not even where the session is the same one: a runner of another version may have come.
    pub registered_at: DateTime<Utc>,
    /// What it has.
    #[serde(flatten)]
    pub equipped: Equipped,
}

impl CurrentEquipment {
    /// After how long it is said again, though nothing changed: whoever purges the stream, or speaks for a worker after its session, is
    /// put right by then.
    pub const AGAIN_AFTER: Duration = Duration::from_secs(3_600);
    /// For how long it is kept, by the definition of its stream.
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

/// An event of a worker as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The worker, from the subject.
    pub worker: WorkerId,
    /// Where it stands in `RGRID_EVENTS`.
    pub sequence: u64,
    /// What happened.
    pub envelope: Envelope<WorkerEvent>,
}

/// The header of a watcher's beat that says whether it hears of dead connections by the broker's advisories: `yes` or `no`.
pub const ADVISORIES: &str = "Rgrid-Advisories";

/// One heartbeat: that the session lives, its load, and what it is executing. On `rgrid.hb.<worker>`, every second; from a session
/// that waits for work, every three seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Beat {
    /// The session that lives.
    pub session: SessionId,
    /// When it beat, by the worker's clock.
    pub time: DateTime<Utc>,
    /// The sequence of its last stored claim, so that an attempt which the beat does not list can be told from one claimed later.
    pub last_claim: u64,
    /// CPUs that are free, in thousandths.
    pub cpu_milli_free: u32,
    /// Memory that is free, in bytes.
    pub memory_bytes_free: u64,
    /// The machine's load average over a minute.
    pub load: f32,
    /// What it is executing.
    pub attempts: Vec<(JobId, Attempt)>,
    /// In how many milliseconds the next one comes at the latest, if the session goes on as it does; a second where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ms: Option<u32>,
    /// What it could not remove of earlier attempts, and why: the first few of them, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<String>,
}

impl Beat {
    /// From one heartbeat to the next, where the session does not say otherwise.
    pub const PERIOD: Duration = Duration::from_secs(1);
    /// From one to the next of a session that waits for work: nobody waits for what it executes.
    pub const IDLE_PERIOD: Duration = Duration::from_secs(3);

    /// In how long the next one comes at the latest. Nobody may ask for more patience than [`Beat::IDLE_PERIOD`].
    #[must_use]
    pub fn next(&self) -> Duration {
        let said = self.next_ms.map_or(Self::PERIOD, |next| Duration::from_millis(next.into()));
        said.clamp(Self::PERIOD, Self::IDLE_PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its stream outlives versions: what one wrote, another reads.
    #[test]
    fn what_a_worker_has_is_read_as_it_was_written() -> Result<(), serde_json::Error> {
        let text = r#"{"registered_at":"2026-01-15T10:20:30.123456Z","session":"01890a5d-ac96-774b-bcce-b302099a8057","runtimes":{"python":{"versions":["3.11.2"],"images":["python:3-slim"]}},"images":{"python:3-slim":"sha256:3e"},"platform":"linux/amd64"}"#;
        let current: CurrentEquipment = serde_json::from_str(text)?;
        assert_eq!(serde_json::to_string(&current)?, text);
        let bare = r#"{"registered_at":"2026-01-15T10:20:30.123456Z","session":"01890a5d-ac96-774b-bcce-b302099a8057"}"#;
        let current: CurrentEquipment = serde_json::from_str(&bare.replace('}', r#","of_a_newer_version":1}"#))?;
        assert_eq!(serde_json::to_string(&current)?, bare);
        Ok(())
    }
}
