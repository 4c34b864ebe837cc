//! Workers: what they register, how they beat, how they are lost.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    envelope::{DecodeError, Envelope, Event, data},
    ids::{Attempt, JobId, Queue, SessionId, WorkerId},
    spec::ExecutorKind,
};

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

impl Event for WorkerEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Registered(_) => "worker.registered.v1",
            Self::Lost(_) => "worker.lost.v1",
            Self::Left(_) => "worker.left.v1",
        }
    }

    fn decode(kind: &str, raw: &RawValue) -> Result<Self, DecodeError> {
        Ok(match kind {
            "worker.registered.v1" => Self::Registered(data(kind, raw)?),
            "worker.lost.v1" => Self::Lost(data(kind, raw)?),
            "worker.left.v1" => Self::Left(data(kind, raw)?),
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

/// One heartbeat: that the session lives, its load, and what it is executing. On `rgrid.hb.<worker>`, every second.
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
}
