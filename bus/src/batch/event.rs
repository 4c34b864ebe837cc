//! What can happen to a batch.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    envelope::{DecodeError, Event, data},
    ids::{BatchId, Digest},
    spec::is_false,
};

/// Everything that can happen to a batch. The envelope's `type` names the variant and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum BatchEvent {
    /// Its members are about to be submitted.
    Submitted(BatchSubmitted),
    /// All of its members are in the log.
    Sealed(BatchSealed),
    /// Slots of its window were given to members.
    Advanced(BatchAdvanced),
    /// Too many of its members failed.
    Stopped(BatchStopped),
    /// A user ended it.
    Cancelled(BatchCancelled),
}

/// `batch.submitted.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchSubmitted {
    /// What to call it in lists.
    pub name: String,
    /// How many members it has; the one at each place from 0 on is the job whose identity is made of the batch and that place.
    pub total: u32,
    /// How many of them may be ready, claimed or running at once; absent: as many as there are workers for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    /// With so many failed members it is stopped; absent: it never is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<u32>,
    /// Whether members that run are ended too when it is stopped.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fail_fast: bool,
    /// The batch whose members it tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<BatchId>,
    /// The SHA-256 of what was handed in: who sends the same again completes it, and who sends something else is refused.
    pub sha256: Digest,
}

/// `batch.sealed.v1`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct BatchSealed {}

/// `batch.advanced.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchAdvanced {
    /// The places of the members that were given a slot. Their `job.released.v1` are stored together with this, or none of it is.
    pub released: Vec<u32>,
}

/// `batch.stopped.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchStopped {
    /// How many of its members had failed by then.
    pub failures: u32,
}

/// `batch.cancelled.v1`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct BatchCancelled {
    /// What the user said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl BatchSubmitted {
    /// Whether a watcher has to mind it: it limits how many run, or how many may fail.
    #[must_use]
    pub const fn is_minded(&self) -> bool {
        self.parallel.is_some() || self.max_failures.is_some()
    }
}

impl Event for BatchEvent {
    fn kind(&self) -> &'static str {
        match self {
            Self::Submitted(_) => "batch.submitted.v1",
            Self::Sealed(_) => "batch.sealed.v1",
            Self::Advanced(_) => "batch.advanced.v1",
            Self::Stopped(_) => "batch.stopped.v1",
            Self::Cancelled(_) => "batch.cancelled.v1",
        }
    }

    fn decode(kind: &str, raw: &RawValue) -> Result<Self, DecodeError> {
        Ok(match kind {
            "batch.submitted.v1" => Self::Submitted(data(kind, raw)?),
            "batch.sealed.v1" => Self::Sealed(data(kind, raw)?),
            "batch.advanced.v1" => Self::Advanced(data(kind, raw)?),
            "batch.stopped.v1" => Self::Stopped(data(kind, raw)?),
            "batch.cancelled.v1" => Self::Cancelled(data(kind, raw)?),
            _ => return Err(DecodeError::UnknownType { kind: kind.to_owned() }),
        })
    }
}
