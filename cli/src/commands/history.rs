//! `rgrid history`: every event of a job, with who and when.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::Args;
use model::{History, HistoryEvent};

use crate::{
    connect::Connect,
    find::find_job,
    output::{Align, clock, describe_event, duration, print, print_json, table},
};

const EXAMPLES: &str = "\
Examples:
  rgrid history last
  rgrid history 0190f3c2-… --json | jq '.events[].type'

Each line is an event of the log (stream RGRID_EVENTS). Events are permanent. docs/events.md describes them.";

/// Show every event of a job: what happened, when, and which component recorded it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct HistoryArgs {
    /// The job: an id, a part of an id, or `last`
    #[arg(value_name = "JOB")]
    job: String,
    /// Print JSON: the stored events
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn history(args: HistoryArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    let job = find_job(&client, &args.job).await?;
    let history: History = client.get(&format!("/v1/jobs/{job}/history"), &()).await?;
    if args.json {
        print_json(&history)?;
    } else {
        print(&render(&history.events))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(events: &[HistoryEvent]) -> String {
    let columns = [
        ("SEQUENCE", Align::Right),
        ("TIME", Align::Left),
        ("AFTER", Align::Right),
        ("WHO", Align::Left),
        ("WHAT", Align::Left),
    ];
    let mut before: Option<DateTime<Utc>> = None;
    let rows = events.iter().map(|event| {
        let after = event
            .time
            .zip(before)
            .and_then(|(time, before)| time.signed_duration_since(before).to_std().ok());
        before = event.time.or(before);
        vec![
            event.sequence.to_string(),
            event.time.map_or_else(|| "?".to_owned(), clock),
            after.map(|span| format!("+{}", duration(span))).unwrap_or_default(),
            who(&event.actor),
            describe_event(event),
        ]
    });
    table(&columns, rows.collect())
}

fn who(actor: &str) -> String {
    actor
        .strip_prefix("w-")
        .map_or_else(|| actor.to_owned(), |worker| format!("worker {worker}"))
}
