//! A batch in words.

use std::fmt::Write as _;

use bus::job::State;
use model::{BatchView, MemberView};

use crate::output::{Align, ago, clock, duration, harmless, one_line, table};

/// Where a batch stands, for a person.
pub(crate) fn batch(view: &BatchView) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {}", harmless(&value));
    };
    line("batch", view.id.to_string());
    line("name", one_line(&view.name, 80));
    let reason = view.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    line("state", format!("{}{reason}", view.state.as_str()));
    let in_log: u64 = view.counts.values().sum();
    let missing = if in_log < u64::from(view.total) {
        format!(", of which {in_log} are submitted")
    } else {
        String::new()
    };
    line("jobs", format!("{}{missing}", view.total));
    for state in State::ALL {
        let count = view.count([state]);
        if count > 0 {
            line(&format!("  {state}"), count.to_string());
        }
    }
    view.parallel.iter().for_each(|parallel| line("at once", parallel.to_string()));
    view.retry_of.iter().for_each(|batch| line("retry of", batch.to_string()));
    line("submitted", clock(view.submitted_at));
    if let Some(ended) = view.ended_at {
        let took = ended
            .signed_duration_since(view.submitted_at)
            .to_std()
            .map(duration)
            .unwrap_or_default();
        line("ended", format!("{}, after {took}", clock(ended)));
    }
    text
}

/// Members that failed, and why.
pub(crate) fn failed(members: &[MemberView]) -> String {
    let row = |member: &MemberView| {
        let why = member.job.message.clone().unwrap_or_else(|| match member.job.exit_code {
            Some(code) => format!("exit code {code}"),
            None => "-".to_owned(),
        });
        vec![
            member.job.id.to_string(),
            one_line(&member.item, 40),
            member.job.state.to_string(),
            one_line(&why, 120),
        ]
    };
    let columns = [
        ("JOB", Align::Left),
        ("FOR", Align::Left),
        ("STATE", Align::Left),
        ("WHY", Align::Left),
    ];
    table(&columns, members.iter().map(row).collect())
}

/// Batches, one a line.
pub(crate) fn batches(batches: &[BatchView]) -> String {
    let now = chrono::Utc::now();
    let columns = [
        ("BATCH", Align::Left),
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("DONE", Align::Right),
        ("FAILED", Align::Right),
        ("JOBS", Align::Right),
        ("SUBMITTED", Align::Left),
    ];
    let row = |view: &BatchView| {
        let failed = view.count([State::Failed, State::TimedOut, State::OutOfMemory, State::Dead]);
        vec![
            view.id.to_string(),
            one_line(&view.name, 32),
            view.state.as_str().to_owned(),
            view.ended().to_string(),
            failed.to_string(),
            view.total.to_string(),
            ago(view.submitted_at, now),
        ]
    };
    table(&columns, batches.iter().map(row).collect())
}
