//! When a job may start, how long it may take, and how often it is retried.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_false;
use crate::ids::JobId;

/// How many attempts may be lost with their workers before a job is dead. A job's spec can override it.
pub const MAX_LOSSES: u32 = 3;

/// The conditions for a job to become ready. All of them must be met.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The earliest start, in milliseconds after the submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// The earliest start, as a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
    /// The jobs that must have ended before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Dependency>,
    /// Whether the job needs a free slot of its batch. Set for the members of a batch with `parallel`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub window: bool,
}

impl Start {
    /// Whether there is no condition.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.delay_ms.is_none() && self.at.is_none() && self.after.is_empty() && !self.window
    }

    /// The earliest start; `None` if there is no condition on time.
    #[must_use]
    pub fn not_before(&self, submitted_at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.delay_ms.map(|delay| later(submitted_at, delay)).max(self.at)
    }
}

/// A job that another job waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// The job's id.
    pub job: JobId,
    /// How the job must end.
    #[serde(default)]
    pub on: DependsOn,
}

/// How a job must end for another to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DependsOn {
    /// It must succeed. If it ends in another way, the job that waits for it is cancelled.
    #[default]
    Succeeded,
    /// It may end in any way.
    Ended,
}

/// How failed attempts are retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The highest number of retries.
    pub max: u32,
    /// The exit codes after which the job is retried (see [`crate::job::Outcome::exit_code`]); empty: after every failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<i32>,
    /// The pause before the first retry, in milliseconds. It doubles with each retry.
    #[serde(default = "first_pause")]
    pub backoff_ms: u64,
    /// The longest pause, in milliseconds.
    #[serde(default = "longest_pause")]
    pub max_backoff_ms: u64,
}

const fn first_pause() -> u64 {
    1_000
}

const fn longest_pause() -> u64 {
    300_000
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max: 0,
            on: Vec::new(),
            backoff_ms: first_pause(),
            max_backoff_ms: longest_pause(),
        }
    }
}

impl Retry {
    /// The pause before the next attempt, after this many failures. It doubles with each failure, up to the maximum, and is spread over
    /// the upper half of that time, so that jobs that failed together are not all retried together. It is always the same for the same
    /// job and number of failures, so that every reader of the log computes the same time.
    #[must_use]
    pub fn pause(&self, job: JobId, failures: u32) -> Duration {
        let doubled = self
            .backoff_ms
            .saturating_mul(1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX));
        let whole = doubled.min(self.max_backoff_ms);
        Duration::from_millis(whole - (whole / 2).saturating_mul(spread(job, failures)) / 1_024)
    }
}

/// A number below 1,024 that looks random: splitmix64 of the job's random bits and the number of failures.
fn spread(job: JobId, failures: u32) -> u64 {
    #[allow(clippy::cast_possible_truncation, reason = "the low half is the random one")]
    let low = job.uuid().as_u128() as u64;
    let mut z = low.wrapping_add(u64::from(failures).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) >> 54
}

/// One of the three time limits of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The time of one attempt.
    #[default]
    Attempt,
    /// The time of each wait for a worker.
    Queue,
    /// The time of the whole job, from its submission or its last requeue.
    Total,
}

impl Clock {
    /// For `skip_serializing_if`.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(crate) const fn is_attempt(&self) -> bool {
        matches!(self, Self::Attempt)
    }
}

/// The time this many milliseconds later, or the latest time that can be represented.
#[must_use]
pub fn later(time: DateTime<Utc>, ms: u64) -> DateTime<Utc> {
    i64::try_from(ms)
        .ok()
        .and_then(TimeDelta::try_milliseconds)
        .and_then(|delta| time.checked_add_signed(delta))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_within_their_upper_half() {
        let retry = Retry {
            max: 99,
            backoff_ms: 1_000,
            max_backoff_ms: 10_000,
            on: Vec::new(),
        };
        for _ in 0..100 {
            let job = JobId::new();
            for (failures, whole) in [(1, 1_000), (2, 2_000), (4, 8_000), (5, 10_000), (70, 10_000)] {
                let pause = u64::try_from(retry.pause(job, failures).as_millis()).unwrap();
                assert!((whole / 2..=whole).contains(&pause), "{failures}: {pause}");
                assert_eq!(retry.pause(job, failures), retry.pause(job, failures));
            }
        }
    }

    #[test]
    fn jobs_that_failed_together_are_not_retried_together() {
        let retry = Retry {
            max: 1,
            ..Retry::default()
        };
        let pauses: std::collections::BTreeSet<_> = (0..100).map(|_| retry.pause(JobId::new(), 1)).collect();
        assert!(pauses.len() > 50, "{}", pauses.len());
    }

    #[test]
    fn a_time_that_cannot_be_represented_is_the_latest_time() {
        let start = Start {
            delay_ms: Some(u64::MAX),
            ..Start::default()
        };
        assert_eq!(start.not_before(Utc::now()), Some(DateTime::<Utc>::MAX_UTC));
    }
}
