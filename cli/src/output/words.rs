//! Numbers, times and events as a person reads them.

use std::{fmt::Write as _, time::Duration};

use bus::{
    envelope::Event as _,
    ids::Attempt,
    job::{Finished, JobEvent, Outcome, State},
    spec::{
        JobSpec,
        policy::{Dependency, DependsOn, Start},
    },
};
use chrono::{DateTime, Local, SecondsFormat, Utc};
use model::{AttemptOutcome, HistoryEvent, INTERRUPTED, JobView, LostAttempt, RETURNED, describe, describe_expiry, describe_loss};

/// What an upload came to: how many files, how many of them the store had, how many bytes were sent and which way.
pub(crate) fn uploaded(sent: &client::Sent) -> String {
    let files = if sent.files == 1 {
        "1 file".to_owned()
    } else {
        format!("{} files", sent.files)
    };
    let straight = match sent.straight {
        0 => String::new(),
        all if all == sent.bytes => " straight to the store".to_owned(),
        some => format!(", {} of it straight to the store", size(some)),
    };
    let before = match sent.before {
        0 => String::new(),
        before => format!(", after {} that had arrived before", size(before)),
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

/// A text that holds a table's line together: control characters are shown, not done, and a long one is cut.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let mut line = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == most {
            line.push('…');
            break;
        }
        if is_harmful(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// A command as one would type it in a shell, on one line.
pub(crate) fn typed(command: &[String], most: usize) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "%+,-./:=@_^".contains(c);
    let quote = |word: &String| match word.as_str() {
        "" => "''".to_owned(),
        word if word.chars().all(is_plain) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    };
    one_line(&command.iter().map(quote).collect::<Vec<_>>().join(" "), most)
}

/// What a job that is not ready waits for; nothing for one that is, or was.
pub(crate) fn words_of_wait(job: &JobView, now: DateTime<Utc>) -> Option<String> {
    let left = job
        .due_at
        .map(|due| duration(due.signed_duration_since(now).to_std().unwrap_or_default()));
    match job.state {
        State::Held => {
            let time = job.due_at.filter(|due| *due > now || job.waits_for.is_empty());
            let until = time.zip(left).map(|(due, left)| format!("{} (in {left})", to_the_second(due)));
            let others = (!job.waits_for.is_empty()).then(|| words_of_others(&job.waits_for));
            let conditions: Vec<String> = until.into_iter().chain(others).collect();
            Some(format!("held until {}", conditions.join(", and until ")))
        }
        State::Retrying => {
            let failed = job.attempts.last().and_then(|attempt| attempt.outcome.as_ref());
            if let Some(AttemptOutcome::Lost(LostAttempt::Returned)) = failed {
                return Some("the worker that took it has no room for it; it waits for another one".to_owned());
            }
            if let Some(AttemptOutcome::Lost(LostAttempt::Interrupted)) = failed {
                return Some("the worker that ran it is being shut down; it waits for another one".to_owned());
            }
            let how = match failed {
                Some(AttemptOutcome::Finished(Outcome::Failed { exit_code })) => format!("failed with exit code {exit_code}"),
                Some(AttemptOutcome::Finished(outcome)) => describe(outcome).unwrap_or_else(|| "failed".to_owned()),
                Some(AttemptOutcome::Lost(_)) | None => "failed".to_owned(),
            };
            let most = job.retry.as_ref().map_or(0, |retry| retry.max);
            let left = left.unwrap_or_default();
            Some(if job.failures == 0 {
                format!("{how}; trying again in {left}")
            } else {
                format!("{how}; trying again in {left} ({} of {most} retries)", job.failures)
            })
        }
        _ => None,
    }
}

fn words_of_others(others: &[Dependency]) -> String {
    match others {
        [
            Dependency {
                job,
                on: DependsOn::Succeeded,
            },
        ] => format!("job {job} has succeeded"),
        [Dependency { job, on: DependsOn::Ended }] => format!("job {job} has ended"),
        many => format!("{} other jobs have ended", many.len()),
    }
}

/// A time of day to the second, with its date, by this machine's clock.
fn to_the_second(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// What an event says, in words.
pub(crate) fn words_of(event: &HistoryEvent) -> String {
    let unknown = || match &event.unreadable {
        Some(why) => format!(
            "{} {}; set aside: {}",
            event.r#type,
            one_line(&event.data.to_string(), 100),
            one_line(why, 200)
        ),
        None => format!("{} {}", event.r#type, event.data),
    };
    let Ok(raw) = serde_json::value::to_raw_value(&event.data) else {
        return unknown();
    };
    match JobEvent::decode(&event.r#type, &raw) {
        Ok(known) => words_of_job(&known),
        Err(_) => unknown(),
    }
}

fn words_of_job(event: &JobEvent) -> String {
    match event {
        JobEvent::Submitted(submitted) => format!("submitted: {}", words_of_spec(&submitted.spec)),
        JobEvent::Claimed(claimed) => format!("attempt {} claimed by worker {}", claimed.attempt, claimed.worker),
        JobEvent::Started(started) => {
            let what = started.environment.as_deref().map(|what| format!(" in {what}")).unwrap_or_default();
            format!("attempt {} started, executor {}{what}", started.attempt, started.executor)
        }
        JobEvent::Finished(finished) => words_of_end(finished),
        JobEvent::Returned(event) if event.interrupted => format!("attempt {} {INTERRUPTED}", event.attempt),
        JobEvent::Returned(event) => format!("attempt {} {RETURNED}", event.attempt),
        JobEvent::Rescheduled(event) => format!("attempt {} given up: {}; queued again", event.attempt, describe_loss(&event.cause)),
        JobEvent::CancelRequested(event) => with_reason("a user asked to cancel it", event.reason.as_deref()),
        JobEvent::Cancelled(event) => with_reason("cancelled", event.reason.as_deref()),
        JobEvent::Died(event) => format!(
            "attempt {} given up: {}; its attempts are used up",
            event.attempt,
            describe_loss(&event.cause)
        ),
        JobEvent::Released(event) if event.attempt == Attempt::FIRST => "what it waited for is true; queued".to_owned(),
        JobEvent::Released(_) => "queued again".to_owned(),
        JobEvent::Expired(event) => format!("given up: {}", describe_expiry(event.clock, event.limit_ms)),
        JobEvent::Requeued(event) => with_reason("requeued", event.reason.as_deref()),
    }
}

fn words_of_spec(spec: &JobSpec) -> String {
    let mut text = typed(&spec.command, 60);
    if let Some(runtime) = &spec.runtime {
        let _ = write!(text, ", runtime {runtime}");
    }
    if let Some(image) = &spec.image {
        let _ = write!(text, ", image {image}");
    }
    let (listed, listed_bytes) = spec.tree.map_or((0, 0), |tree| (tree.files, tree.bytes));
    let bytes = spec.inputs.iter().map(|input| input.size).sum::<u64>() + listed_bytes;
    match spec.inputs.len() as u64 + listed {
        0 => {}
        1 => text.push_str(&format!(", 1 input ({})", size(bytes))),
        many => text.push_str(&format!(", {many} inputs ({})", size(bytes))),
    }
    if let Some(stdin) = &spec.stdin {
        let _ = write!(text, ", standard input ({})", size(stdin.size));
    }
    let _ = write!(text, ", queue {}", spec.queue);
    if let Some(start) = &spec.start {
        text.push_str(&words_of_start(start));
    }
    text
}

fn words_of_start(start: &Start) -> String {
    let mut text = ", held".to_owned();
    if let Some(ms) = start.delay_ms {
        let _ = write!(text, " for {}", duration(Duration::from_millis(ms)));
    }
    if let Some(at) = start.at {
        let _ = write!(text, " until {}", clock(at));
    }
    if !start.after.is_empty() {
        let _ = write!(text, " until {}", words_of_others(&start.after));
    }
    text
}

fn words_of_end(finished: &Finished) -> String {
    let how = match &finished.outcome {
        Outcome::Succeeded => "succeeded".to_owned(),
        Outcome::Failed { exit_code } => format!("failed with exit code {exit_code}"),
        Outcome::Cancelled => "cancelled".to_owned(),
        Outcome::TimedOut { .. } | Outcome::OutOfMemory { .. } | Outcome::Signalled { .. } | Outcome::Error { .. } => {
            format!("failed: {}", describe(&finished.outcome).unwrap_or_default())
        }
    };
    let mut text = format!(
        "attempt {} {how}, after {}",
        finished.attempt,
        duration(Duration::from_millis(finished.usage.wall_ms))
    );
    if let Some(cpu) = finished.usage.cpu_ms {
        let _ = write!(text, ", CPU {}", duration(Duration::from_millis(cpu)));
    }
    if let Some(memory) = finished.usage.memory_bytes {
        let _ = write!(text, ", memory {}", size(memory));
    }
    if let Some(ms) = finished.retry_after_ms {
        let _ = write!(text, "; to be tried again in {}", duration(Duration::from_millis(ms)));
    }
    let Some(manifest) = &finished.manifest else { return text };
    let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    if manifest.files > 0 {
        let _ = write!(text, "; {} ({})", counted(number(manifest.files), "output"), size(manifest.bytes));
    }
    if manifest.deleted > 0 {
        let _ = write!(text, "; removed {} of its inputs", manifest.deleted);
    }
    if manifest.notes > 0 {
        let _ = write!(text, "; {} on outputs in its log", counted(number(manifest.notes), "remark"));
    }
    text
}

fn with_reason(what: &str, reason: Option<&str>) -> String {
    reason.map_or_else(|| what.to_owned(), |reason| format!("{what}: {reason}"))
}

/// A text that others chose, with what would move the cursor, begin a line or turn the direction of writing shown as what it is.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// What does something instead of being shown: it controls a terminal (C0, DEL, C1), begins a line, or turns the direction of writing.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON with such characters in its texts as JSON's own escapes, so that it says the same. Those below U+0020 are escaped in it already.
pub(crate) fn harmless_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_harmful(c) {
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A text of several lines that others wrote, each line of it harmless and indented; of a long one the beginning.
pub(crate) fn shown_lines(text: &str, most: usize) -> String {
    let mut lines: Vec<String> = text.lines().take(most).map(|line| format!("  {}", harmless(line))).collect();
    if text.lines().nth(most).is_some() {
        lines.push("  …".to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use bus::{
        envelope::{Actor, Envelope},
        ids::{JobId, SessionId, WorkerId, default_token},
        job::{Claimed, Job, Recorded, Returned, Submitted},
    };

    use super::*;

    #[test]
    fn a_name_moves_no_cursor_and_begins_no_line() {
        assert_eq!(
            harmless("a\nrgrid: all is well \u{1b}[2K\u{202e}ü"),
            "a\\nrgrid: all is well \\u{1b}[2K\\u{202e}ü"
        );
    }

    #[test]
    fn no_character_that_does_something_is_left() {
        let all: String = (0..=0x2100).filter_map(char::from_u32).collect();
        for shown in [harmless(&all), one_line(&all, usize::MAX), harmless_json(&all.replace('\n', ""))] {
            for c in ["\u{1b}", "\u{7f}", "\u{9b}", "\n", "\r", "\u{202e}", "\u{2067}", "\u{2028}"] {
                assert!(!shown.contains(c), "{c:?}");
            }
        }
        let said = serde_json::json!({ "reason": "a\u{1b}[2J\u{9b}\u{202e}\u{7f}\n" });
        let shown = harmless_json(&said.to_string());
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"),
            said,
            "it says the same"
        );
    }

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

    #[test]
    fn what_was_given_back_is_told_so() {
        let (worker, session, attempt): (WorkerId, _, _) = ("w".parse().expect("a token"), SessionId::new(), Attempt::FIRST);
        let by_worker = Actor::Worker(worker.clone());
        let spec = JobSpec::new(vec!["true".to_owned()]);
        let told = [
            (None, JobEvent::Submitted(Box::new(Submitted { spec }))),
            (Some(by_worker.clone()), JobEvent::Claimed(Claimed { attempt, worker, session })),
            (
                Some(by_worker),
                JobEvent::Returned(Returned {
                    attempt,
                    session,
                    interrupted: false,
                }),
            ),
        ];
        let job = JobId::new();
        let history = told.map(|(publisher, event)| Recorded {
            namespace: default_token(),
            job,
            publisher,
            sequence: 1,
            envelope: Envelope::new(Actor::Api, event),
        });
        assert_eq!(
            words_of_job(&history[2].envelope.event),
            "attempt 1 given back, unrun: its worker had no room for it"
        );
        let job = JobView::from(&Job::replay(&history).expect("it was submitted"));
        let words = words_of_wait(&job, Utc::now());
        assert_eq!(
            words.as_deref(),
            Some("the worker that took it has no room for it; it waits for another one")
        );
    }

    #[test]
    fn a_name_cannot_break_a_table() {
        assert_eq!(one_line("a\nb\u{1b}[31m", 40), "a\\nb\\u{1b}[31m");
        assert_eq!(one_line("abcdef", 3), "abc…");
        let command = ["a.py", "", "b c", "it's", "ü\n"].map(str::to_owned);
        assert_eq!(typed(&command, 99), r"a.py '' 'b c' 'it'\''s' 'ü\n'");
    }
}
