//! The contents of the store, by their use, and the storage pass.

use bus::ids::{BatchId, Digest, JobId, PassId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A number of contents, and their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Amount {
    /// How many.
    pub files: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
}

impl Amount {
    /// Adds one content.
    pub const fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }

    /// Subtracts an amount.
    pub const fn less(self, other: Self) -> Self {
        Self {
            files: self.files.saturating_sub(other.files),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// The contents of the store by their use. Each content counts once, for the first use in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Uses {
    /// Inputs of jobs that have not ended.
    pub live_inputs: Amount,
    /// Outputs that have not expired.
    pub outputs: Amount,
    /// Logs and manifests.
    pub logs: Amount,
    /// Contents that an index of a cache, or another event, names.
    pub caches: Amount,
    /// Inputs of jobs that have ended, kept so that they can be run again.
    pub ended_inputs: Amount,
    /// Contents that nothing refers to.
    pub unused: Amount,
}

/// The answer to `GET /v1/storage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageView {
    /// The store's URL, without credentials.
    pub store: String,
    /// When the store was surveyed.
    #[serde(default = "Utc::now")]
    pub looked_at: DateTime<Utc>,
    /// How many events were appended to the log after that.
    #[serde(default)]
    pub events_since: u64,
    /// All contents together.
    pub all: Amount,
    /// By their use.
    pub uses: Uses,
    /// Objects that are not contents: snapshots, and indices of caches.
    pub other: Amount,
    /// When unused contents are removed.
    #[serde(rename = "going")]
    pub removal: RemovalSchedule,
    /// The jobs with the largest outputs and logs, the largest first.
    pub jobs: Vec<JobUse>,
    /// The batches, likewise.
    pub batches: Vec<BatchUse>,
    /// How long contents are kept.
    pub keeping: RetentionView,
    /// The oldest running attempt: only contents that were found unused before it began are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<HeldBy>,
    /// The last storage pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_pass: Option<GcReport>,
}

/// When unused contents are removed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RemovalSchedule {
    /// Contents that a pass would remove now.
    pub due: Amount,
    /// Contents that were found unused, and whose grace period is not over.
    pub waiting: Amount,
    /// Contents that the next pass finds unused for the first time.
    pub found_next: Amount,
    /// When the first of the waiting contents may be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<DateTime<Utc>>,
    /// When the last of them may be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<DateTime<Utc>>,
}

/// The outputs and the log of a job in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobUse {
    /// Which job.
    pub job: JobId,
    /// The batch that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchId>,
    /// Its outputs and its log, in bytes; shared contents count for every job.
    pub bytes: u64,
    /// When its outputs expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// The outputs and logs of a batch's jobs in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchUse {
    /// Which batch.
    pub batch: BatchId,
    /// How many of its jobs have any.
    pub jobs: u64,
    /// Their outputs and logs, in bytes.
    pub bytes: u64,
}

/// How long contents are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionView {
    /// The grace period: how long an unused content is kept after it was found unused, in milliseconds.
    pub grace_ms: u64,
    /// How long the inputs of a job that has ended, in milliseconds.
    pub inputs_ms: u64,
    /// How long the outputs of a job that does not say so itself, in milliseconds; none: permanently.
    pub outputs_ms: Option<u64>,
    /// How long unused installed packages, in milliseconds.
    #[serde(default)]
    pub packages_ms: u64,
    /// How often a pass runs automatically, in milliseconds; none: never.
    pub every_ms: Option<u64>,
}

/// A running attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBy {
    /// Its job.
    pub job: JobId,
    /// When it was claimed.
    pub claimed_at: DateTime<Utc>,
}

/// The report of a storage pass: the answer to `POST /v1/storage/gc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Its id; none for a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<PassId>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Whether it was a dry run.
    #[serde(default)]
    pub dry_run: bool,
    /// Its grace period, in milliseconds.
    pub grace_ms: u64,
    /// How many events say which contents are used.
    pub events: u64,
    /// How many of them it read; the others are in the checkpoint.
    #[serde(default)]
    pub read: u64,
    /// All contents in the store.
    pub all: Amount,
    /// Contents that nothing refers to.
    pub unused: Amount,
    /// Of that, what it found so for the first time.
    pub found: Amount,
    /// What it removed, or in a dry run would have removed.
    pub removed: Amount,
    /// Installed packages whose entries it removed because they were unused; their archives are removed after the grace period.
    #[serde(default)]
    pub packages: u64,
    /// The jobs whose manifests are lost, and with them their outputs (`despite_lost`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<JobId>,
    /// The first of the removed contents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<Digest>,
    /// When the next content may be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<DateTime<Utc>>,
    /// The oldest running attempt, if it delays a removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<HeldBy>,
    /// Why it stopped early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}
