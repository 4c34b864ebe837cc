//! `rgrid workers`: who works.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::Args;
use model::{WorkerState, WorkerStatus, WorkerView, Workers};

use crate::{
    connect::Connect,
    find::now as log_end,
    output::{Align, ago, cpus, duration, one_line, print, print_json, print_line, size, table},
};

/// List the workers: their capacity, their free capacity, and their running jobs
#[derive(Debug, Args)]
pub(crate) struct WorkersArgs {
    /// Include workers that left or were lost
    #[arg(long, short)]
    all: bool,
    /// Print JSON, with all workers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn workers(args: WorkersArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    let query = [("min_sequence", log_end(&client).await?)];
    let answer: Workers = client.get("/v1/workers", &query).await?;
    if args.json {
        print_json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown: Vec<&WorkerView> = answer
        .workers
        .iter()
        .filter(|worker| args.all || worker.state == WorkerState::Live)
        .collect();
    if shown.is_empty() {
        print_line("no worker is live; start one with `rgrid runner`, or see those that left with --all")?;
        return Ok(ExitCode::SUCCESS);
    }
    let columns = [
        ("WORKER", Align::Left),
        ("STATE", Align::Left),
        ("CPUS FREE", Align::Right),
        ("MEMORY FREE", Align::Right),
        ("LOAD", Align::Right),
        ("RUNNING", Align::Right),
        ("QUEUES", Align::Left),
        ("EXECUTORS", Align::Left),
        ("BEAT", Align::Left),
    ];
    let now = Utc::now();
    print(&table(&columns, shown.into_iter().map(|worker| row(worker, now)).collect()))?;
    Ok(ExitCode::SUCCESS)
}

fn row(worker: &WorkerView, now: DateTime<Utc>) -> Vec<String> {
    let free_of = |free: Option<String>, all: String| free.map_or_else(|| format!("-/{all}"), |free| format!("{free}/{all}"));
    vec![
        worker.id.to_string(),
        standing(worker, now),
        free_of(worker.cpu_milli_free.map(cpus), cpus(worker.cpu_milli)),
        free_of(worker.memory_bytes_free.map(size), size(worker.memory_bytes)),
        worker.load.map_or_else(|| "-".to_owned(), |load| format!("{load:.2}")),
        worker.running.len().to_string(),
        join(&worker.queues),
        join(&worker.executors),
        worker.last_beat.map_or_else(|| "-".to_owned(), |beat| ago(beat, now)),
    ]
}

/// How it stands, with what an operator said of it.
fn standing(worker: &WorkerView, now: DateTime<Utc>) -> String {
    let status = worker.status();
    let mut text = status.to_string();
    if worker.state != WorkerState::Live || worker.cordoned_at.is_none() {
        return text;
    }
    let left = worker.drain_deadline.filter(|_| status == WorkerStatus::Draining);
    if let Some(left) = left.and_then(|deadline| deadline.signed_duration_since(now).to_std().ok()) {
        text.push_str(&format!(", {} left", duration(left)));
    }
    if let Some(reason) = &worker.cordon_reason {
        text.push_str(&format!(": {}", one_line(reason, 40)));
    }
    text
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
