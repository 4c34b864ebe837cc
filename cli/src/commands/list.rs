//! `rgrid list`: which jobs there are.

use std::process::ExitCode;

use bus::job::State;
use chrono::{DateTime, Utc};
use clap::Args;
use model::{BatchList, JobList, JobView};

use crate::{
    commands::batch_words,
    connect::Connect,
    find::now as log_end,
    output::{Align, ago, describe_wait, duration, one_line, print, print_json, print_line, table},
    values::Pair,
};

/// Jobs that are asked for at once.
const PAGE: usize = 500;

const EXAMPLES: &str = "\
Examples:
  rgrid list
  rgrid list --state running --queue gpu
  rgrid list --state dead                dead jobs, and why they are dead
  rgrid list --label campaign=spring --all --json | jq -r '.jobs[].id'";

/// List jobs, newest first
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
pub(crate) struct ListArgs {
    /// Only jobs in this state: held, queued, claimed, running, retrying, succeeded, failed, timed_out, out_of_memory, cancelled or dead
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// Only jobs in this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Only jobs with this label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Option<Pair>,
    /// Only jobs with this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only jobs whose last attempt was on this worker
    #[arg(long, value_name = "NAME")]
    worker: Option<String>,
    /// Only jobs with this namespace
    #[arg(long, value_name = "NAME", env = "RGRID_NAMESPACE")]
    namespace: Option<String>,
    /// List batches instead of jobs
    #[arg(long, conflicts_with_all = ["state", "queue", "label", "name", "worker", "all"])]
    batches: bool,
    /// At most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// List all, without a limit
    #[arg(long, short, conflicts_with = "limit")]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    if args.batches {
        return batches(&args).await;
    }
    let jobs = fetch(&args).await?;
    if args.json {
        print_json(&jobs)?;
    } else if jobs.jobs.is_empty() {
        print_line("no jobs")?;
    } else {
        print(&render(&jobs.jobs, args.state.and_then(About::of), Utc::now()))?;
        if jobs.next.is_some() {
            eprintln!("… and older jobs: use --limit N, or --all");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn batches(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    let mut query = vec![
        ("min_sequence", log_end(&client).await?.to_string()),
        ("limit", args.limit.min(1_000).to_string()),
    ];
    query.extend(args.namespace.iter().map(|name| ("namespace", name.clone())));
    let list: BatchList = client.get("/v1/batches", &query).await?;
    if args.json {
        print_json(&list)?;
    } else if list.batches.is_empty() {
        print_line("no batches")?;
    } else {
        print(&batch_words::batches(&list.batches))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(args: &ListArgs) -> anyhow::Result<JobList> {
    let client = args.connect.client()?;
    let most = if args.all { usize::MAX } else { args.limit as usize };
    let mut query: Vec<(&str, String)> = vec![("min_sequence", log_end(&client).await?.to_string())];
    query.extend(args.state.map(|state| ("state", state.to_string())));
    query.extend(args.label.as_ref().map(|pair| ("label", format!("{}={}", pair.key, pair.value))));
    let named = [
        ("queue", &args.queue),
        ("name", &args.name),
        ("worker", &args.worker),
        ("namespace", &args.namespace),
    ];
    query.extend(named.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    let mut all = JobList {
        jobs: Vec::new(),
        next: None,
        projected: 0,
    };
    loop {
        let mut page = query.clone();
        page.push(("limit", PAGE.min(most - all.jobs.len()).to_string()));
        page.extend(all.next.take().map(|next| ("before", next)));
        let list: JobList = client.get("/v1/jobs", &page).await?;
        all.projected = list.projected;
        all.next = list.next;
        all.jobs.extend(list.jobs);
        if all.next.is_none() || all.jobs.len() >= most {
            return Ok(all);
        }
    }
}

/// What more is to be said of jobs that are all in one state.
#[derive(Debug, Clone, Copy)]
enum About {
    /// Why they ended.
    Cause,
    /// What they wait for.
    Wait,
}

impl About {
    const fn of(state: State) -> Option<Self> {
        match state {
            State::Failed | State::TimedOut | State::OutOfMemory | State::Cancelled | State::Dead => Some(Self::Cause),
            State::Held | State::Retrying => Some(Self::Wait),
            State::Queued | State::Claimed | State::Running | State::Succeeded => None,
        }
    }
}

fn render(jobs: &[JobView], about: Option<About>, now: DateTime<Utc>) -> String {
    let mut columns = vec![
        ("JOB", Align::Left),
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("EXIT", Align::Right),
        ("TRY", Align::Right),
        ("WORKER", Align::Left),
        ("TOOK", Align::Right),
        ("SUBMITTED", Align::Left),
    ];
    columns.extend(about.map(|about| match about {
        About::Cause => ("WHY", Align::Left),
        About::Wait => ("WAITS", Align::Left),
    }));
    let row = |job: &JobView| {
        let mut row = row(job, now);
        row.extend(about.map(|about| one_line(&words(job, about, now), 200)));
        row
    };
    table(&columns, jobs.iter().map(row).collect())
}

fn words(job: &JobView, about: About, now: DateTime<Utc>) -> String {
    let words = match about {
        About::Cause => job.message.clone(),
        About::Wait => describe_wait(job, now),
    };
    words.unwrap_or_else(|| "-".to_owned())
}

fn row(job: &JobView, now: DateTime<Utc>) -> Vec<String> {
    let dash = || "-".to_owned();
    let took = job
        .started_at
        .and_then(|start| job.ended_at.unwrap_or(now).signed_duration_since(start).to_std().ok());
    vec![
        job.id.to_string(),
        one_line(&job.name, 32),
        job.state.to_string(),
        job.exit_code.map_or_else(dash, |code| code.to_string()),
        job.attempt.map_or_else(dash, |attempt| attempt.to_string()),
        job.worker.as_ref().map_or_else(dash, ToString::to_string),
        took.map_or_else(dash, duration),
        ago(job.submitted_at, now),
    ]
}
