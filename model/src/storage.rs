//! What is in the store, and what of it nobody needs.

use bus::ids::{BatchId, Digest, JobId, PassId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// So many contents, and their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Amount {
    /// How many.
    pub files: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
}

impl Amount {
    /// Counts one more.
    pub const fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }

    /// Takes so much off.
    pub const fn less(self, other: Self) -> Self {
        Self {
            files: self.files.saturating_sub(other.files),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// The store, by what its contents are there for. Each content counts once, for the first of these that it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Uses {
    /// Inputs of jobs that have not ended.
    pub live_inputs: Amount,
    /// Outputs that have not expired.
    pub outputs: Amount,
    /// Logs, and the lists of what attempts left behind.
    pub logs: Amount,
    /// What an index of a cache, or another event, names.
    pub caches: Amount,
    /// Inputs of jobs that have ended, kept so that they can be run again.
    pub ended_inputs: Amount,
    /// What nothing refers to.
    pub unused: Amount,
}

/// What `GET /v1/storage` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageView {
    /// Where the store is, without credentials.
    pub store: String,
    /// When the store was looked at: what is said of it is of then.
    #[serde(default = "Utc::now")]
    pub looked_at: DateTime<Utc>,
    /// How many events came into the log after that.
    #[serde(default)]
    pub events_since: u64,
    /// All contents together.
    pub all: Amount,
    /// By what they are there for.
    pub uses: Uses,
    /// What is not kept by content: snapshots, and indices of caches.
    pub other: Amount,
    /// Of what nothing refers to, how much goes when.
    pub going: Going,
    /// The jobs with the largest outputs and logs, the largest first.
    pub jobs: Vec<JobUse>,
    /// The batches, likewise.
    pub batches: Vec<BatchUse>,
    /// What is kept for how long.
    pub keeping: Kept,
    /// The attempt that runs for the longest time: nothing goes that was not found unused before it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<HeldBy>,
    /// The last pass that removed what nothing refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_pass: Option<GcReport>,
}

/// When what nothing refers to goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Going {
    /// What a pass would remove now.
    pub due: Amount,
    /// What has been found unused, and waits for its grace to be over.
    pub waiting: Amount,
    /// What the next pass finds unused for the first time.
    pub found_next: Amount,
    /// When the first of those that wait may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<DateTime<Utc>>,
    /// When the last of them may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<DateTime<Utc>>,
}

/// What a job left in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobUse {
    /// Which job.
    pub job: JobId,
    /// The batch that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchId>,
    /// Its outputs and its log, in bytes; what it shares with others counts for each.
    pub bytes: u64,
    /// When its outputs expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// What a batch's jobs left in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchUse {
    /// Which batch.
    pub batch: BatchId,
    /// How many of its jobs left something.
    pub jobs: u64,
    /// Their outputs and logs, in bytes.
    pub bytes: u64,
}

/// What is kept for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// How long a content stays that nothing refers to, in milliseconds, from when that is found.
    pub grace_ms: u64,
    /// How long the inputs of a job that has ended, in milliseconds.
    pub inputs_ms: u64,
    /// How long the outputs of a job that does not say so itself, in milliseconds; none: for ever.
    pub outputs_ms: Option<u64>,
    /// How long installed packages that nobody uses, in milliseconds.
    #[serde(default)]
    pub packages_ms: u64,
    /// How often a pass is made by itself, in milliseconds; none: never.
    pub every_ms: Option<u64>,
}

/// An attempt that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBy {
    /// Whose.
    pub job: JobId,
    /// When it was claimed.
    pub claimed_at: DateTime<Utc>,
}

/// What a pass came to: the answer to `POST /v1/storage/gc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Which pass; none of a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<PassId>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Whether it only looked.
    #[serde(default)]
    pub dry_run: bool,
    /// The grace that it went by, in milliseconds.
    pub grace_ms: u64,
    /// Of how many events it learnt what is used.
    pub events: u64,
    /// How many of them it read; of the others it knew from the pass before.
    #[serde(default)]
    pub read: u64,
    /// All contents that it saw.
    pub all: Amount,
    /// What nothing refers to.
    pub unused: Amount,
    /// Of that, what it found so for the first time.
    pub found: Amount,
    /// What it removed; of a dry run, what it would have.
    pub removed: Amount,
    /// Installed packages that it forgot, since nobody had used them for long; what they were stored as goes after the grace.
    #[serde(default)]
    pub packages: u64,
    /// The jobs whose lists of outputs are lost, and with them what they named (`despite_lost`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<JobId>,
    /// The first of the removed contents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<Digest>,
    /// When the next content may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<DateTime<Utc>>,
    /// The attempt that runs for the longest time, where it holds something back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<HeldBy>,
    /// Why it ended before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}
