//! Lists, and what comes of submissions.

use bus::ids::{JobId, Namespace};
use serde::{Deserialize, Serialize};

use super::{job::JobView, problem::Problem};

/// The answer to a list of jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobList {
    /// The jobs, newest first, without their attempts.
    pub jobs: Vec<JobView>,
    /// What to give as `before` for those that follow; none where these were the last.
    pub next: Option<String>,
    /// The sequence that the tables had reached.
    #[serde(default)]
    pub projected: u64,
}

/// The answer to one submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub id: JobId,
    /// Where its submission stands in the log.
    pub sequence: u64,
    /// Whose it is.
    pub namespace: Namespace,
    /// Whether it was submitted before, under the same key or id.
    pub existed: bool,
    /// Whether it is an earlier job, made of the same, whose result is this one's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reused: bool,
    /// What the user should know: that nobody serves the queue, or that it fits no worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// The answer to an array of submissions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubmittedMany {
    /// What came of each, in order.
    pub jobs: Vec<SubmittedOne>,
}

/// The answer to a request that revives jobs by a filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequeuedMany {
    /// Those that are queued again.
    pub requeued: Vec<JobId>,
    /// Those that were not, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<LeftDead>,
    /// How many there are, where they were only counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching: Option<u64>,
    /// What to give as `before` for those that follow; none where these were the last.
    #[serde(default)]
    pub next: Option<i64>,
}

/// A job that was not revived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftDead {
    /// Which job.
    pub job: JobId,
    /// Why not.
    pub why: String,
}

/// The answer to a request that cancels jobs by a filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelledMany {
    /// Those that are cancelled, by this request or one before it.
    pub cancelled: Vec<JobId>,
    /// Those whose workers are asked to end them.
    pub cancelling: Vec<JobId>,
    /// Those that could not be asked for, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<NotCancelled>,
    /// How many there are, where they were only counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching: Option<u64>,
    /// What to give as `before` for those that follow; none where these were the last.
    #[serde(default)]
    pub next: Option<i64>,
}

/// A job that could not be cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotCancelled {
    /// Which job.
    pub job: JobId,
    /// Why not.
    pub why: String,
}

/// What came of one of several submissions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SubmittedOne {
    /// It is a job now.
    Job(Submitted),
    /// It was refused.
    Refused {
        /// Why.
        problem: Problem,
    },
}
