//! How long what jobs name is kept.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// How long what jobs name is kept after they have ended, and what is kept for them besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// Their inputs, so that they can be run again.
    pub inputs: Duration,
    /// Their outputs, where they do not say themselves; nothing: for ever.
    pub outputs: Option<Duration>,
    /// Installed packages, after their last use.
    pub packages: Duration,
    /// Whether what a list of outputs named is given up with it, where that is lost for good; else nothing is removed until it is there again.
    pub despite_lost: bool,
}

/// How long things are kept, seen from one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) keeping: Keeping,
    pub(crate) now: DateTime<Utc>,
}

impl Keeping {
    /// How long inputs are kept unless another time is given: 30 days.
    pub const INPUTS: Duration = Duration::from_secs(30 * 24 * 3600);
    /// How long unused packages are kept unless another time is given: 90 days.
    pub const PACKAGES: Duration = Duration::from_secs(90 * 24 * 3600);

    /// When the outputs of a job expire that ended at `ended`, and asked for `own` milliseconds; nothing: never.
    pub(crate) fn outputs_until(&self, ended: DateTime<Utc>, own: Option<u64>) -> Option<DateTime<Utc>> {
        later(ended, own.map(Duration::from_millis).or(self.outputs)?)
    }
}

impl Moment {
    /// When the outputs of a job expire that ended at `ended`, in milliseconds since 1970, and asked for `own` milliseconds; nothing: never.
    pub(crate) fn outputs_until(&self, ended: i64, own: Option<u64>) -> Option<DateTime<Utc>> {
        self.keeping.outputs_until(DateTime::from_timestamp_millis(ended)?, own)
    }

    /// The inputs of jobs that ended at this moment or before, in milliseconds since 1970, are kept no longer.
    pub(crate) fn inputs_horizon(&self) -> i64 {
        horizon(self.now, self.keeping.inputs)
    }

    /// Whether packages that were used last at `used` are to be forgotten: whoever needs them installs them again.
    pub(crate) fn forgets(&self, used: DateTime<Utc>) -> bool {
        later(used, self.keeping.packages).is_some_and(|until| until < self.now)
    }
}

/// The moment that is a span before `now`, in milliseconds since 1970; the least number, where the span goes back for ever.
pub(crate) fn horizon(now: DateTime<Utc>, span: Duration) -> i64 {
    let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    now.timestamp_millis().saturating_sub(span)
}

fn later(time: DateTime<Utc>, span: Duration) -> Option<DateTime<Utc>> {
    time.checked_add_signed(TimeDelta::from_std(span).ok()?)
}
