//! How long the contents that jobs name are kept.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// How long the contents that jobs name are kept after the jobs have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Their inputs, so that they can be run again.
    pub inputs: Duration,
    /// Their outputs, if a job does not say so itself; `None`: permanently.
    pub outputs: Option<Duration>,
    /// Installed packages, after their last use.
    pub packages: Duration,
    /// Whether outputs are given up if their manifest is lost permanently; otherwise nothing is removed until it can be read.
    pub despite_lost: bool,
}

/// How long contents are kept, at one point in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) retention: Retention,
    pub(crate) now: DateTime<Utc>,
}

impl Retention {
    /// How long inputs are kept by default: 30 days.
    pub const INPUTS: Duration = Duration::from_secs(30 * 24 * 3600);
    /// How long unused packages are kept by default: 90 days.
    pub const PACKAGES: Duration = Duration::from_secs(90 * 24 * 3600);

    /// When the outputs of a job expire that ended at `ended`, and asked for `own` milliseconds; `None`: never.
    pub(crate) fn outputs_until(&self, ended: DateTime<Utc>, own: Option<u64>) -> Option<DateTime<Utc>> {
        later(ended, own.map(Duration::from_millis).or(self.outputs)?)
    }
}

impl Moment {
    /// When the outputs of a job expire that ended at `ended`, in milliseconds since 1970, and asked for `own` milliseconds; `None`: never.
    pub(crate) fn outputs_until(&self, ended: i64, own: Option<u64>) -> Option<DateTime<Utc>> {
        self.retention.outputs_until(DateTime::from_timestamp_millis(ended)?, own)
    }

    /// The inputs of jobs that ended at this moment or before, in milliseconds since 1970, are no longer kept.
    pub(crate) fn inputs_horizon(&self) -> i64 {
        horizon(self.now, self.retention.inputs)
    }

    /// Whether packages that were used last at `used` are to be removed; a worker that needs them installs them again.
    pub(crate) fn forgets(&self, used: DateTime<Utc>) -> bool {
        later(used, self.retention.packages).is_some_and(|until| until < self.now)
    }
}

/// `now` minus a span, in milliseconds since 1970; the smallest number if the span is too long.
pub(crate) fn horizon(now: DateTime<Utc>, span: Duration) -> i64 {
    let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    now.timestamp_millis().saturating_sub(span)
}

fn later(time: DateTime<Utc>, span: Duration) -> Option<DateTime<Utc>> {
    time.checked_add_signed(TimeDelta::from_std(span).ok()?)
}
