//! `rgrid log`: what the log of all events takes, how it grows, and what it may take.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use chrono::{DateTime, Utc};
use clap::Args;
use model::{EventLogView, Growth, NewBound, Takes, WindowView};

use crate::{
    connect::Connect,
    output::{ago, duration, print, print_json, size},
    values::ByteSize,
};

const EXAMPLES: &str = "\
Examples:
  rgrid log                        size, growth, and when the log will be full at this rate
  rgrid log --bound 32GiB          change the maximum size
  rgrid log --json | jq .day.full_in_ms

The log keeps every event of every job. Above 90 % of its maximum size, new jobs are refused; above 95 %, no attempt starts: the rest is reserved for events that
end jobs. The output of jobs is stored separately: see rgrid logs JOB.";

/// Show the size and growth of the event log, or change its maximum size
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogArgs {
    /// Set the maximum size of the log, such as 32GiB
    ///
    /// It cannot be less than the current size plus a tenth that is reserved for events that end jobs. The setting survives restarts.
    #[arg(long, value_name = "SIZE")]
    bound: Option<ByteSize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn log(args: LogArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    let view: EventLogView = match args.bound {
        Some(ByteSize(bytes)) => client.post("/v1/log/bound", &NewBound { bytes }).await?,
        None => client.get("/v1/log", &()).await?,
    };
    if args.json {
        print_json(&view)?;
    } else {
        print(&render(&view, Utc::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(view: &EventLogView, now: DateTime<Utc>) -> String {
    let mut text = String::new();
    let of = match view.bound.filter(|bound| *bound > 0) {
        Some(bound) => format!("of {} ({} %)", size(bound), u128::from(view.bytes) * 100 / u128::from(bound)),
        None => "without a bound".to_owned(),
    };
    let _ = writeln!(text, "{} holds {} {of} in {}", view.stream, size(view.bytes), events(view.events));
    if let (Some(first), Some(last)) = (view.first_at, view.last_at) {
        let (first, last) = (ago(first, now), ago(last, now));
        let _ = writeln!(text, "the first was stored {first}, the last {last}");
    }
    match (view.hour, view.day) {
        (Some(hour), Some(day)) if hour == day => text.push_str(&pace(&day)),
        (hour, day) => hour.iter().chain(&day).for_each(|growth| text.push_str(&pace(growth))),
    }
    let takes = match view.takes {
        Takes::Everything => "it accepts new jobs",
        Takes::Attempts => "it accepts NO NEW JOBS; existing jobs run and end",
        Takes::Ends => "it accepts NO NEW JOBS AND NO NEW ATTEMPTS; running jobs can end",
        Takes::Nothing => "it is FULL: running jobs cannot end until there is room",
    };
    text.push_str(takes);
    if view.takes != Takes::Everything {
        text.push_str("; raise its bound: `rgrid log --bound …`");
    }
    text.push('\n');
    if let (Some(jobs), Some(attempts)) = (view.no_jobs_above, view.no_attempts_above) {
        let _ = writeln!(
            text,
            "above {} (90 %) new jobs are refused, above {} (95 %) no attempt starts",
            size(jobs),
            size(attempts)
        );
    }
    for window in &view.windows {
        let _ = writeln!(text, "{}", kept(window, now));
    }
    text
}

/// How far back what is kept beside the log goes.
fn kept(window: &WindowView, now: DateTime<Utc>) -> String {
    let (what, is) = match window.keeps.as_str() {
        "heartbeats" => ("heartbeats", "are"),
        "output" => ("what running jobs print", "is"),
        other => (other, "is"),
    };
    let of = window.bound.map(|bound| format!(" of {}", size(bound))).unwrap_or_default();
    let since = window
        .first_at
        .map_or("since now".to_owned(), |first| format!("since {}", ago(first, now)));
    format!("{what} {is} kept for a day at most: {since} ({}{of})", size(window.bytes))
}

fn events(number: u64) -> String {
    if number == 1 {
        "1 event".to_owned()
    } else {
        format!("{number} events")
    }
}

/// How it grew, and when it is full at that pace.
fn pace(growth: &Growth) -> String {
    let span = Duration::from_millis(growth.span_ms);
    let grew = format!("in the last {}: {}, {}", rough(span), events(growth.events), size(growth.bytes));
    let reaches = |ms: u64| match ms {
        0 => "now".to_owned(),
        ms => format!("in {}", rough(Duration::from_millis(ms))),
    };
    match (growth.full_in_ms, growth.no_jobs_in_ms) {
        (Some(full), Some(jobs)) => format!("{grew}; full {} at this pace (no new jobs {})\n", reaches(full), reaches(jobs)),
        _ => format!("{grew}\n"),
    }
}

/// A span as one says it: `12 days`, `24 hours`, `5 minutes`; shorter ones to the second.
fn rough(span: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(365 * 86_400, "year"), (86_400, "day"), (3_600, "hour"), (60, "minute")];
    let seconds = span.as_secs();
    let unit = UNITS.into_iter().find(|(length, _)| seconds >= 2 * length);
    match unit {
        Some((length, unit)) => format!("{} {unit}s", seconds / length),
        None if seconds >= 60 => "1 minute".to_owned(),
        None => duration(span),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn view() -> EventLogView {
        let growth = |span_ms, events, full_in_ms| Growth {
            span_ms,
            events,
            bytes: events * 1_000,
            full_in_ms,
            no_jobs_in_ms: full_in_ms.map(|ms| ms / 6 * 5),
        };
        EventLogView {
            stream: "RGRID_EVENTS".to_owned(),
            bytes: 4_000_000_000,
            bound: Some(10_000_000_000),
            least_bound: 4_444_444_500,
            events: 4_000_000,
            first_sequence: 1,
            last_sequence: 4_000_000,
            first_at: Some(DateTime::UNIX_EPOCH),
            last_at: Some(DateTime::UNIX_EPOCH + chrono::TimeDelta::days(3)),
            hour: Some(growth(HOUR_MS, 1, None)),
            day: Some(growth(24 * HOUR_MS, 500_000, Some(12 * 24 * HOUR_MS))),
            no_jobs_above: Some(9_000_000_000),
            no_attempts_above: Some(9_500_000_000),
            takes: Takes::Everything,
            windows: vec![WindowView {
                stream: "RGRID_HEARTBEATS".to_owned(),
                keeps: "heartbeats".to_owned(),
                bytes: 268_000_000,
                bound: Some(268_435_456),
                first_at: Some(DateTime::UNIX_EPOCH + chrono::TimeDelta::days(3) - chrono::TimeDelta::hours(2)),
            }],
        }
    }

    #[test]
    fn use_and_growth_are_said_in_words() {
        let now = DateTime::UNIX_EPOCH + chrono::TimeDelta::days(3) + chrono::TimeDelta::seconds(2);
        assert_eq!(
            render(&view(), now),
            "RGRID_EVENTS holds 4.0 GB of 10.0 GB (40 %) in 4000000 events\n\
             the first was stored 3d 0h ago, the last 2 s ago\n\
             in the last 60 minutes: 1 event, 1.0 kB\n\
             in the last 24 hours: 500000 events, 500.0 MB; full in 12 days at this pace (no new jobs in 10 days)\n\
             it accepts new jobs\n\
             above 9.0 GB (90 %) new jobs are refused, above 9.5 GB (95 %) no attempt starts\n\
             heartbeats are kept for a day at most: since 2h 0m ago (268.0 MB of 268.4 MB)\n"
        );
    }

    #[test]
    fn a_log_that_refuses_says_what_to_do() {
        let text = render(
            &EventLogView {
                takes: Takes::Ends,
                ..view()
            },
            Utc::now(),
        );
        assert!(
            text.contains("NO NEW ATTEMPTS; running jobs can end; raise its bound: `rgrid log --bound …`"),
            "{text}"
        );
    }

    #[test]
    fn a_young_log_has_one_pace_and_an_empty_one_none() {
        let growth = view().day;
        let young = EventLogView { hour: growth, ..view() };
        assert_eq!(render(&young, Utc::now()).matches("in the last").count(), 1);
        let empty = EventLogView {
            hour: None,
            day: None,
            first_at: None,
            bound: None,
            no_jobs_above: None,
            ..view()
        };
        let text = render(&empty, Utc::now());
        assert!(text.contains("without a bound") && !text.contains("pace"), "{text}");
    }
}
