//! Answers to submissions, lists of jobs, and requests on several jobs.

use bus::ids::{JobId, Namespace};
use serde::{Deserialize, Serialize};

use super::{job::JobView, problem::Problem};

/// The answer to a list of jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobList {
    /// The jobs, newest first, without their attempts.
    pub jobs: Vec<JobView>,
    /// The cursor of the next page, to send as `before`; none on the last page.
    pub next: Option<String>,
    /// The last event that the tables held.
    #[serde(default)]
    pub projected: u64,
}

/// The answer to one submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// The job.
    pub id: JobId,
    /// The sequence of its submission in the log.
    pub sequence: u64,
    /// Its namespace.
    pub namespace: Namespace,
    /// Whether it was submitted before, under the same key or id.
    pub existed: bool,
    /// Whether it is an earlier job whose result is reused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reused: bool,
    /// A warning: no worker serves the queue, or no worker is large enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// The answer to an array of submissions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubmittedMany {
    /// The result of each submission, in order.
    pub jobs: Vec<SubmittedOne>,
}

/// The answer to a request that revives jobs by a filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequeuedMany {
    /// The jobs that were requeued.
    pub requeued: Vec<JobId>,
    /// The jobs that could not be requeued, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<NotRequeued>,
    /// How many jobs match, in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching: Option<u64>,
    /// The cursor of the next page, to send as `before`; none on the last page.
    #[serde(default)]
    pub next: Option<i64>,
}

/// A job that was not requeued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRequeued {
    /// Which job.
    pub job: JobId,
    /// Why not.
    pub why: String,
}

/// The answer to a request that cancels jobs by a filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelledMany {
    /// The jobs that are cancelled, by this request or an earlier one.
    pub cancelled: Vec<JobId>,
    /// The jobs whose workers have been asked to end them.
    pub cancelling: Vec<JobId>,
    /// The jobs that could not be cancelled, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<NotCancelled>,
    /// How many jobs match, in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching: Option<u64>,
    /// The cursor of the next page, to send as `before`; none on the last page.
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

/// The result of one submission in an array.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SubmittedOne {
    /// It was accepted.
    Job(Submitted),
    /// It was refused.
    Refused {
        /// Why.
        problem: Problem,
    },
}
