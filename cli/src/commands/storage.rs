//! `rgrid storage`: what the grid keeps, what for, and for how long.

use std::{process::ExitCode, time::Duration};

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use model::{Amount, GcReport, StorageView};
use serde_json::json;

use crate::{
    connect::Connect,
    output::{Align, ago, clock, duration, print, print_json, print_line, size, table},
    values::Patience,
};

const EXAMPLES: &str = "\
Examples:
  rgrid storage                    the result of the last scan: what is stored, why, and until when
  rgrid storage --now              scan the store now, which may take a while
  rgrid storage gc --dry-run       what a pass would remove now
  rgrid storage gc                 remove files that have been unreferenced for longer than the grace period

A pass never removes inputs of jobs that have not ended, caches, logs, or outputs that have not expired (rgrid run --keep-outputs). The \
API makes a pass by itself from time to time (rgrid api --gc-every).";

/// What is younger than this, and after which nothing happened, is of now.
const OF_NOW: Duration = Duration::from_secs(10);

/// Show which files the grid stores, why, and for how long
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct StorageArgs {
    #[command(subcommand)]
    verb: Option<StorageVerb>,
    /// Scan the store now, instead of showing the result of the last scan
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Subcommand)]
enum StorageVerb {
    /// Remove files that have been unreferenced for longer than the grace period
    Gc(GcArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Args)]
struct GcArgs {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// How long an unreferenced file is kept after it was found to be unreferenced [default: as the API is set]
    ///
    /// Less than the time from a submission's upload to its acceptance may cost one that is under way its files: it is refused then.
    #[arg(long, value_name = "TIME")]
    grace: Option<Patience>,
    /// How long the inputs of jobs are kept that have ended [default: as the API is set]
    #[arg(long, value_name = "TIME")]
    keep_inputs: Option<Patience>,
    /// How long installed packages are kept that no worker fetches [default: as the API is set]
    #[arg(long, value_name = "TIME")]
    keep_packages: Option<Patience>,
    /// Go on where a job's list of outputs is lost for good, and give up what it named: nobody can fetch that any more
    #[arg(long)]
    despite_lost: bool,
    #[command(flatten)]
    show: ShowArgs,
}

pub(crate) async fn storage(args: StorageArgs) -> anyhow::Result<ExitCode> {
    if let Some(StorageVerb::Gc(args)) = args.verb {
        return gc(args).await;
    }
    let client = args.show.connect.client()?;
    let view: StorageView = client.get("/v1/storage", &[("now", args.now)]).await?;
    if args.show.json {
        print_json(&view)?;
    } else {
        print(&render(&view, Utc::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn gc(args: GcArgs) -> anyhow::Result<ExitCode> {
    let client = args.show.connect.client()?;
    let asked = json!({
        "dry_run": args.dry_run,
        "grace_ms": args.grace.map(Patience::millis),
        "keep_inputs_ms": args.keep_inputs.map(Patience::millis),
        "keep_packages_ms": args.keep_packages.map(Patience::millis),
        "despite_lost": args.despite_lost,
    });
    let report: GcReport = client.post("/v1/storage/gc", &asked).await?;
    if args.show.json {
        print_json(&report)?;
    } else {
        print_line(&describe_event(&report, Utc::now()))?;
    }
    if let Some(why) = &report.stopped {
        crate::output::say_line("error", &format!("the pass stopped early: {why}"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn files(amount: Amount) -> String {
    let count = if amount.files == 1 {
        "1 file".to_owned()
    } else {
        format!("{} files", amount.files)
    };
    format!("{count} ({})", size(amount.bytes))
}

/// What a pass came to.
fn describe_event(report: &GcReport, now: DateTime<Utc>) -> String {
    let did = if report.dry_run { "would remove" } else { "removed" };
    let mut text = format!("{did} {}, of {} in the store", files(report.removed), files(report.all));
    if report.packages > 0 {
        let would = if report.dry_run { "would forget" } else { "forgot" };
        let them = if report.packages == 1 { "environment" } else { "environments" };
        text.push_str(&format!("; {would} {} unused {them} of packages", report.packages));
    }
    if let Some(job) = report.lost.first() {
        let more = match report.lost.len() {
            1 => String::new(),
            many => format!(" and {} more", many - 1),
        };
        text.push_str(&format!("; what job {job}{more} left is given up: the list of it is lost"));
    }
    let left = Amount {
        files: report.unused.files.saturating_sub(report.removed.files),
        bytes: report.unused.bytes.saturating_sub(report.removed.bytes),
    };
    if left.files > 0 {
        text.push_str(&format!("; nothing refers to {} more", files(left)));
        let next = report.next.and_then(|next| next.signed_duration_since(now).to_std().ok());
        match next {
            Some(next) => text.push_str(&format!(", the first of which may go in {}", duration(next))),
            None if report.found.files > 0 => {
                let grace = duration(Duration::from_millis(report.grace_ms));
                text.push_str(&format!(", found just now, which may go in {grace}"));
            }
            None => {}
        }
    }
    if let Some(held) = report.held_by.filter(|_| left.files > 0) {
        text.push_str(&format!(
            "; while job {} runs (since {}), nothing goes that was found after that",
            held.job,
            clock(held.claimed_at)
        ));
    }
    text
}

fn render(view: &StorageView, now: DateTime<Utc>) -> String {
    let uses = &view.uses;
    let kept = view.keeping;
    let span = |ms: u64| duration(Duration::from_millis(ms));
    let rows = [
        ("inputs of jobs that have not ended", uses.live_inputs, String::new()),
        (
            "outputs",
            uses.outputs,
            kept.outputs_ms.map_or_else(
                || "permanently, unless a job sets its own time".to_owned(),
                |ms| format!("{} after the job's end, unless the job sets its own time", span(ms)),
            ),
        ),
        ("logs, and lists of outputs", uses.logs, "permanently".to_owned()),
        (
            "caches",
            uses.caches,
            format!(
                "while an index names them; packages, {} after their last use",
                span(kept.packages_ms)
            ),
        ),
        (
            "inputs of jobs that have ended",
            uses.ended_inputs,
            format!("{} after the job's end", span(kept.inputs_ms)),
        ),
        ("unused", uses.unused, format!("{} after that is found", span(kept.grace_ms))),
        ("all", view.all, String::new()),
    ];
    let columns = [
        ("WHAT", Align::Left),
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
        ("KEPT", Align::Left),
    ];
    let rows = rows
        .into_iter()
        .map(|(what, amount, kept)| vec![what.to_owned(), amount.files.to_string(), size(amount.bytes), kept]);
    let (age, table) = (age(view, now).unwrap_or_default(), table(&columns, rows.collect()));
    let mut text = format!("store {}{age}\n\n{table}", view.store);
    text.push_str(&unused(view, now));
    text.push_str(&largest(view));
    text
}

/// How old what is said is, where it is not of now.
fn age(view: &StorageView, now: DateTime<Utc>) -> Option<String> {
    let old = now.signed_duration_since(view.looked_at).to_std().unwrap_or_default();
    (old >= OF_NOW || view.events_since > 0).then(|| {
        let since = match view.events_since {
            1 => "1 event".to_owned(),
            many => format!("{many} events"),
        };
        let ago = ago(view.looked_at, now);
        format!("\nas it was found {ago}, and {since} in the log before now; `rgrid storage --now` looks again")
    })
}

/// Of what nothing refers to, what goes when.
fn unused(view: &StorageView, now: DateTime<Utc>) -> String {
    let removal = &view.removal;
    let mut lines = Vec::new();
    if removal.due.files > 0 {
        lines.push(format!("{} can be removed now: `rgrid storage gc`", files(removal.due)));
    }
    if removal.waiting.files > 0 {
        let left = |time: Option<DateTime<Utc>>| {
            let left = time.and_then(|time| time.signed_duration_since(now).to_std().ok());
            duration(left.unwrap_or_default())
        };
        lines.push(format!(
            "{} can be removed in {} to {}",
            files(removal.waiting),
            left(removal.first),
            left(removal.last)
        ));
    }
    if removal.found_next.files > 0 {
        lines.push(format!("{} will be found unused by the next pass", files(removal.found_next)));
    }
    if let Some(held) = view.held_by.filter(|_| view.uses.unused.files > 0) {
        lines.push(format!(
            "while job {} runs (since {}), nothing goes that was found unused after that",
            held.job,
            clock(held.claimed_at)
        ));
    }
    let last = view.last_pass.as_ref().map(|last| {
        let stopped = last.stopped.as_ref().map(|why| format!("; it stopped early: {why}"));
        format!(
            "the last pass was {}, and removed {}{}",
            ago(last.started_at, now),
            files(last.removed),
            stopped.unwrap_or_default()
        )
    });
    lines.push(last.unwrap_or_else(|| "no storage pass has run yet".to_owned()));
    let lines: String = lines.into_iter().map(|line| format!("{line}\n")).collect();
    format!("\n{lines}")
}

fn largest(view: &StorageView) -> String {
    let until = |expires: Option<DateTime<Utc>>| expires.map_or_else(|| "-".to_owned(), clock);
    let mut text = String::new();
    if !view.batches.is_empty() {
        let columns = [("BATCH", Align::Left), ("JOBS", Align::Right), ("OUTPUTS AND LOGS", Align::Right)];
        let rows = view
            .batches
            .iter()
            .map(|of| vec![of.batch.to_string(), of.jobs.to_string(), size(of.bytes)]);
        text.push_str(&format!("\n{}", table(&columns, rows.collect())));
    }
    if !view.jobs.is_empty() {
        let columns = [
            ("JOB", Align::Left),
            ("OUTPUTS AND LOGS", Align::Right),
            ("OUTPUTS KEPT UNTIL", Align::Left),
        ];
        let rows = view
            .jobs
            .iter()
            .map(|of| vec![of.job.to_string(), size(of.bytes), until(of.expires_at)]);
        text.push_str(&format!("\n{}", table(&columns, rows.collect())));
    }
    text
}
