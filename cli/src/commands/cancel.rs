//! `rgrid cancel`: ends jobs.

use std::process::ExitCode;

use bus::{ids::BatchId, job::State};
use clap::Args;
use client::{Client, Error};
use futures::{StreamExt as _, stream};
use model::{BatchView, JobView};
use reqwest::Method;
use serde_json::{Value, json};

use super::cancel_many::{self, Which};
use crate::{
    connect::Connect,
    failure::sentence,
    find::{batch_by_id, find_job, until_ended},
    output::{print_json, print_line},
};

/// Jobs that are asked for at once.
const AT_ONCE: usize = 16;

const EXAMPLES: &str = "\
Examples:
  rgrid cancel last
  rgrid cancel 0190f3c2 4c1d77aa --reason 'wrong input'
  rgrid cancel --detach last            request the cancellation, and do not wait
  rgrid cancel --queue night --state queued
  rgrid cancel --label campaign=spring
  rgrid cancel --all                    all jobs of the namespace that have not ended

Exit codes: 0 if all jobs are cancelled (with --detach: or will be), 1 if a job had already ended or does not exist.";

/// Cancel jobs, and wait until they have ended
///
/// A job that is waiting for a time, another job or a worker is cancelled immediately. A running job receives SIGTERM, and is killed after its grace period; the outputs that it has written are kept. Cancelling a job twice has no further effect.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CancelArgs {
    /// The jobs: ids, parts of ids, or `last`; or batches: ids, or `last-batch`
    #[arg(value_name = "JOB", conflicts_with_all = ["queue", "label", "name", "worker", "state", "all"])]
    jobs: Vec<String>,
    #[command(flatten)]
    which: Which,
    /// Do not ask for confirmation of --all
    #[arg(long, short)]
    yes: bool,
    /// The reason, recorded in the job's history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Request the cancellation, and do not wait until the jobs have ended
    #[arg(long, short)]
    detach: bool,
    /// Print JSON: an array of the jobs; with a filter, {"cancelled": […], "cancelling": […], "left": […]}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn cancel(args: CancelArgs) -> anyhow::Result<ExitCode> {
    if args.jobs.is_empty() {
        let client = || args.connect.client();
        let asked = cancel_many::Asked {
            reason: args.reason.as_deref(),
            detach: args.detach,
            yes: args.yes,
            json: args.json,
        };
        return cancel_many::cancel_many(client, &args.which, asked).await;
    }
    let client = args.connect.client()?;
    let batches = batches(&client, &args).await?;
    let is_batch = |text: &String| batches.iter().any(|(named, _)| named == text);
    let jobs: Vec<String> = args.jobs.iter().filter(|text| !is_batch(text)).cloned().collect();
    let cancel_one = async |text: String| {
        let came = one(&client, &text, &args).await;
        (text, came)
    };
    let mut all_well = true;
    let mut answers: Vec<Value> = batches
        .iter()
        .map(|(_, view)| serde_json::to_value(view))
        .collect::<Result<_, _>>()?;
    // All are asked for before any is waited for long.
    let mut ended = stream::iter(jobs).map(cancel_one).buffered(AT_ONCE);
    while let Some((text, came)) = ended.next().await {
        match came {
            Ok(job) => {
                all_well &= !job.state.is_end() || job.state == State::Cancelled;
                if args.json {
                    answers.push(serde_json::to_value(job)?);
                } else {
                    print_line(&words(&job))?;
                }
            }
            Err(error) => {
                all_well = false;
                crate::output::say_line("error", &format!("cannot cancel {text}: {}", sentence(&error)));
                answers.push(json!({ "job": text, "error": sentence(&error) }));
            }
        }
    }
    if args.json {
        print_json(&answers)?;
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ends those that are batches.
async fn batches(client: &Client, args: &CancelArgs) -> anyhow::Result<Vec<(String, BatchView)>> {
    let mut cancelled = Vec::new();
    for text in &args.jobs {
        let Some(batch) = batch_by_id(client, text).await? else { continue };
        let reason = json!({ "reason": args.reason });
        let path = format!("/v1/batches/{}/cancel", batch.id);
        let _asked: Value = client.insist(|| client.request(Method::POST, &path).json(&reason)).await?;
        let view = if args.detach {
            batch
        } else {
            until_batch_ended(client, batch.id).await?
        };
        if !args.json {
            print_line(&if view.state.is_end() {
                let cancelled = view.count([State::Cancelled]);
                format!(
                    "batch {} is {}; {cancelled} of its {} jobs were cancelled",
                    view.id,
                    view.state.as_str(),
                    view.total
                )
            } else {
                format!("batch {} is being cancelled", view.id)
            })?;
        }
        cancelled.push((text.clone(), view));
    }
    Ok(cancelled)
}

/// A batch, once it has ended.
async fn until_batch_ended(client: &Client, id: BatchId) -> Result<BatchView, Error> {
    loop {
        match client.get::<BatchView, _>(&format!("/v1/batches/{id}"), &()).await {
            Ok(view) if view.state.is_end() => return Ok(view),
            Ok(_) => {}
            Err(error) if error.may_pass() => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

async fn one(client: &Client, text: &str, args: &CancelArgs) -> anyhow::Result<JobView> {
    let job = find_job(client, text).await?;
    let path = format!("/v1/jobs/{job}/cancel");
    let asked = json!({ "reason": args.reason });
    let view: JobView = client.insist(|| client.request(Method::POST, &path).json(&asked)).await?;
    if args.detach || view.state.is_end() {
        return Ok(view);
    }
    Ok(until_ended(client, job).await?)
}

fn words(job: &JobView) -> String {
    let id = job.id;
    match (job.state, &job.worker, job.started_at) {
        (State::Cancelled, Some(worker), Some(_)) => format!("{id} is cancelled; it ran on {worker}"),
        (State::Cancelled, _, _) => format!("{id} is cancelled"),
        (state, _, _) if state.is_end() => format!("{id} ended as {state} before it could be cancelled"),
        (_, _, _) => format!("{id} is being cancelled"),
    }
}
