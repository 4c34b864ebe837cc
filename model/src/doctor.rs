//! The diagnosis of a grid.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The answer of `GET /v1/doctor`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The findings, the worst first; empty if nothing is wrong.
    pub findings: Vec<Finding>,
    /// Numbers about the grid.
    pub summary: Summary,
}

/// A problem of the grid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, in one word: `nats`, `streams`, `postgres`, `projector`, `watcher`, `workers`, `clocks`, `queues`, `log`, `inbox`,
    /// `refused`, `undeliverable`, `jobs`, `store`; of the command line: `api`, `disk`.
    pub topic: String,
    /// What is wrong.
    pub what: String,
    /// Since when, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// What to do about it.
    pub r#do: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something went wrong, or is about to.
    Warning,
    /// It may be intended, and is worth knowing.
    Notice,
}

/// Numbers about the grid; those that could not be read are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The nats-server's version.
    pub nats: Option<String>,
    /// How many servers store the log.
    pub replicas: u8,
    /// Which failures the log survives.
    pub durability: String,
    /// Events in the log.
    pub events: Option<u64>,
    /// The size of the log and its bound, in bytes.
    pub log_bytes: Option<(u64, u64)>,
    /// Live workers.
    pub workers: Option<usize>,
    /// Jobs that workers have claimed.
    pub running: Option<u64>,
    /// Jobs that wait for a worker, a time or other jobs.
    pub waiting: Option<u64>,
}

impl Finding {
    /// Something does not work.
    #[must_use]
    pub fn error(topic: &str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Severity::Error, topic, what.into(), advice.into())
    }

    /// Something went wrong, or is about to.
    #[must_use]
    pub fn warning(topic: &str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Severity::Warning, topic, what.into(), advice.into())
    }

    /// Worth knowing.
    #[must_use]
    pub fn notice(topic: &str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Severity::Notice, topic, what.into(), advice.into())
    }

    /// Adds since when.
    #[must_use]
    pub fn since(self, since: Option<DateTime<Utc>>) -> Self {
        Self { since, ..self }
    }

    fn new(severity: Severity, topic: &str, what: String, advice: String) -> Self {
        Self {
            severity,
            topic: topic.to_owned(),
            what,
            since: None,
            r#do: advice,
        }
    }
}
