//! Numbers, sizes, spans and times as a person reads them.

use std::time::Duration;

use chrono::{DateTime, Local, SecondsFormat, Utc};

/// What an upload came to: how many files, how many of them the store had, how many bytes were sent and which way.
pub(crate) fn uploaded(sent: &client::Sent) -> String {
    let files = if sent.files == 1 {
        "1 file".to_owned()
    } else {
        format!("{} files", sent.files)
    };
    let straight = match sent.straight {
        0 => String::new(),
        all if all == sent.bytes => " directly to the store".to_owned(),
        some => format!(", {} of it directly to the store", size(some)),
    };
    let before = match sent.before {
        0 => String::new(),
        before => format!(", after {} from an earlier, interrupted upload", size(before)),
    };
    format!("{files}, {} already there; {} sent{straight}{before}", sent.there, size(sent.bytes))
}

/// Bytes: `512 B`, `1.5 MB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// So many of something: `1 output`, `3 outputs`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// CPUs in thousandths: `2`, `0.5`.
pub(crate) fn cpus(milli: u32) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A span of time: `340 ms`, `2.5 s`, `3m 20s`, `2h 5m`, `4d 1h`.
pub(crate) fn duration(span: Duration) -> String {
    let (millis, seconds) = (span.as_millis(), span.as_secs());
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// How long ago a time was.
pub(crate) fn ago(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    match now.signed_duration_since(time).to_std() {
        Ok(span) if span >= Duration::from_secs(1) => {
            format!("{} ago", duration(Duration::from_secs(span.as_secs()))).replace(".0 s", " s")
        }
        Ok(_) | Err(_) => "now".to_owned(),
    }
}

/// A time of day to the millisecond, with its date, by this machine's clock.
pub(crate) fn clock(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local)
        .to_rfc3339_opts(SecondsFormat::Millis, false)
        .replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [size(0), size(999), size(1000), size(1_500_000), size(999_999), size(5 << 40)],
            ["0 B", "999 B", "1.0 kB", "1.5 MB", "1.0 MB", "5.5 TB"]
        );
        assert_eq!([cpus(2000), cpus(500), cpus(10), cpus(12_000)], ["2", "0.5", "0.01", "12"]);
        let spans = [340, 2_500, 200_000, 7_500_000, 350_000_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(spans, ["340 ms", "2.5 s", "3m 20s", "2h 5m", "4d 1h"]);
    }
}
