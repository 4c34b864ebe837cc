//! The events of a batch.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    envelope::{DecodeError, Event, data},
    ids::{BatchId, Digest},
    spec::is_false,
};

/// Every event of a batch. The envelope's `type` names the variant and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum BatchEvent {
    /// The batch was accepted. Its members are about to be submitted.
    Submitted(BatchSubmitted),
    /// All members are in the log.
    Sealed(BatchSealed),
    /// Slots of the batch's window were given to members.
    Advanced(BatchAdvanced),
    /// Too many members failed.
    Stopped(BatchStopped),
    /// A user cancelled the batch.
    Cancelled(BatchCancelled),
}

/// `batch.submitted.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchSubmitted {
    /// The batch's name in lists.
    pub name: String,
    /// The number of members. The batch's id and an index from 0 determine the id of each member's job.
    pub total: u32,
    /// How many members may be ready, claimed or running at once; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    /// The batch is stopped at this number of failed members; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<u32>,
    /// Whether running members are cancelled when the batch is stopped.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fail_fast: bool,
    /// The batch whose members this batch retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<BatchId>,
    /// The SHA-256 of the submission. A client that sends the same submission again completes the batch; another submission is refused.
    pub sha256: Digest,
}

/// `batch.sealed.v1`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct BatchSealed {}

/// `batch.advanced.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchAdvanced {
    /// The indexes of the members that received a slot. This event and their `job.released.v1` are stored together or not at all.
    pub released: Vec<u32>,
}

/// `batch.stopped.v1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchStopped {
    /// How many members had failed.
    pub failures: u32,
}

/// `batch.cancelled.v1`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct BatchCancelled {
    /// The reason that the user gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl BatchSubmitted {
    /// Whether a watcher must watch this batch, because it limits how many members run or may fail.
    #[must_use]
    pub const fn has_limits(&self) -> bool {
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
