//! What the log of all events takes, and how it grows.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What `GET /v1/log` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLogView {
    /// The name of its stream.
    pub stream: String,
    /// What it holds, in bytes.
    pub bytes: u64,
    /// What it may hold, in bytes; none: as much as there is room for.
    pub bound: Option<u64>,
    /// The smallest bound that it can be given now, in bytes.
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
    /// When the last was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<DateTime<Utc>>,
    /// What came in the last hour; none where it holds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hour: Option<Growth>,
    /// What came in the last day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<Growth>,
    /// Above how many bytes no new jobs are taken; none without a bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_jobs_above: Option<u64>,
    /// Above how many bytes no attempt begins: the rest is for what ends jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_attempts_above: Option<u64>,
    /// What it takes now.
    pub takes: Takes,
    /// The streams beside it that keep what came last.
    #[serde(default)]
    pub windows: Vec<WindowView>,
}

/// A stream that forgets its oldest messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowView {
    /// The name of the stream.
    pub stream: String,
    /// What is in it: `heartbeats`, or `output`, which is what running jobs print.
    pub keeps: String,
    /// What it holds, in bytes.
    pub bytes: u64,
    /// What it may hold, in bytes.
    pub bound: Option<u64>,
    /// When the oldest was stored that it still has; none where it holds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_at: Option<DateTime<Utc>>,
}

/// What came in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// How long it is, in milliseconds: less than an hour or a day where the log is younger.
    pub span_ms: u64,
    /// How many events came.
    pub events: u64,
    /// What they take, in bytes, by the mean size of all events.
    pub bytes: u64,
    /// In how many milliseconds the log is full at this pace; none where it has no bound, or does not grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_in_ms: Option<u64>,
    /// In how many it takes no new jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_jobs_in_ms: Option<u64>,
}

/// What a log takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Takes {
    /// New jobs, and all else.
    Everything,
    /// Attempts and ends of the jobs that are there.
    Attempts,
    /// What ends a job that runs.
    Ends,
    /// Nothing: it is full.
    Nothing,
}

/// What `POST /v1/log/bound` is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBound {
    /// What the log may hold, in bytes.
    pub bytes: u64,
}
