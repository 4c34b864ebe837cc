//! The history of a job.

use bus::ids::EventId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A job's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The events, in their order.
    pub events: Vec<HistoryEvent>,
}

/// One event, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEvent {
    /// Its sequence in the log.
    pub sequence: u64,
    /// Its type, with its version: `job.claimed.v1`.
    pub r#type: String,
    /// Its id; absent if the message is not an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<EventId>,
    /// When it was made, by its actor's clock; absent as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<DateTime<Utc>>,
    /// Its actor.
    pub actor: String,
    /// The event that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<EventId>,
    /// The first event of the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<EventId>,
    /// Its data.
    pub data: Value,
    /// Why this program cannot decode it, if it cannot: such an event is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}
