//! Measured times, rounded to what is shown.

use std::time::Duration;

/// Seconds (or a ratio) to three digits.
pub(super) fn seconds(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Milliseconds to three digits.
pub(super) fn millis(time: Duration) -> f64 {
    seconds(time.as_secs_f64() * 1000.0)
}
