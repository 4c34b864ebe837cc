//! What is wrong with a grid, in plain words.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The answer of `GET /v1/doctor`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// What was found, the worst first; empty where everything is well.
    pub findings: Vec<Finding>,
    /// How the grid is besides.
    pub summary: Summary,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, in one word: `nats`, `streams`, `postgres`, `projector`, `watcher`, `workers`, `clocks`, `queues`, `log`, `inbox`,
    /// `refused`, `undeliverable`, `jobs`, `store`; of the command line: `api`, `disk`.
    pub topic: String,
    /// What is wrong.
    pub what: String,
    /// Since when, where that is known.
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
    /// It is meant to be so, and worth knowing.
    Notice,
}

/// How the grid is; what could not be asked is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The nats-server's version.
    pub nats: Option<String>,
    /// How many servers keep the log.
    pub replicas: u8,
    /// What that survives.
    pub durability: String,
    /// Events in the log.
    pub events: Option<u64>,
    /// What they take, in bytes, and how much they may.
    pub log_bytes: Option<(u64, u64)>,
    /// Workers that live.
    pub workers: Option<usize>,
    /// Jobs that workers have.
    pub running: Option<u64>,
    /// Jobs that wait, for a worker, a time or one another.
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

    /// Says since when.
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
