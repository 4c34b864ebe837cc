//! What happened to a job.

use bus::ids::EventId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A job's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// In the order that they happened.
    pub events: Vec<HistoryEvent>,
}

/// One event, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEvent {
    /// Where it stands in the log.
    pub sequence: u64,
    /// What happened, with the version of its shape: `job.claimed.v1`.
    pub r#type: String,
    /// Its identity; absent where it is no event at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<EventId>,
    /// When it was said, by the clock of who said it; absent as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<DateTime<Utc>>,
    /// Who said it.
    pub actor: String,
    /// The event that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<EventId>,
    /// The event that the whole chain began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<EventId>,
    /// What it says.
    pub data: Value,
    /// Why this program cannot read it, where it cannot: such an event is set aside, and the rest of the history counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}
