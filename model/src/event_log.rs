//! The size of the log, and its growth.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The answer to `GET /v1/log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLogView {
    /// The name of its stream.
    pub stream: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Its bound, in bytes; none: unlimited.
    pub bound: Option<u64>,
    /// The smallest bound that can be set now, in bytes.
    pub least_bound: u64,
    /// How many events it holds.
    pub events: u64,
    /// The sequence of the first of them.
    pub first_sequence: u64,
    /// The sequence of the last one.
    pub last_sequence: u64,
    /// When the first was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_at: Option<DateTime<Utc>>,
    /// When the last was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<DateTime<Utc>>,
    /// Its growth in the last hour; none if it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hour: Option<Growth>,
    /// Its growth in the last day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<Growth>,
    /// Above this size no new jobs are accepted, in bytes; none without a bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_jobs_above: Option<u64>,
    /// Above this size no attempt begins, in bytes: the rest is reserved for the ends of jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_attempts_above: Option<u64>,
    /// What it accepts now.
    pub takes: Takes,
    /// The streams that keep only recent messages.
    #[serde(default)]
    pub windows: Vec<WindowView>,
}

/// A stream that drops its oldest messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowView {
    /// The name of the stream.
    pub stream: String,
    /// Its content: `heartbeats`, or `output` (of running jobs).
    pub keeps: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Its bound, in bytes.
    pub bound: Option<u64>,
    /// When its oldest message was stored; none if it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_at: Option<DateTime<Utc>>,
}

/// The growth of the log in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// The span, in milliseconds: less than an hour or a day if the log is younger.
    pub span_ms: u64,
    /// How many events were appended.
    pub events: u64,
    /// Their size in bytes, estimated from the mean size of all events.
    pub bytes: u64,
    /// In how many milliseconds the log is full at this rate; none if it has no bound, or does not grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_in_ms: Option<u64>,
    /// In how many milliseconds it accepts no new jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_jobs_in_ms: Option<u64>,
}

/// What a log accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Takes {
    /// New jobs, and everything else.
    Everything,
    /// Attempts and ends of existing jobs.
    Attempts,
    /// Ends of running jobs.
    Ends,
    /// Nothing: it is full.
    Nothing,
}

/// The body of `POST /v1/log/bound`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBound {
    /// The new bound, in bytes.
    pub bytes: u64,
}
