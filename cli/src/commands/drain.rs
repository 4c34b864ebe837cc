//! `rgrid drain`: has everything leave a worker, and waits for that.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::Args;
use client::{Client, Error};
use model::{Cordon, JobList, JobView, WorkerState, WorkerView, Workers};
use serde_json::json;

use super::cordon::say;
use crate::{
    connect::Connect,
    find::now as log_end,
    output::{clock, duration, one_line, print_json, print_line},
    values::Span,
};

/// How often we look.
const LOOK: Duration = Duration::from_millis(300);
/// How many jobs are named that are waited for.
const NAMED: usize = 5;

const EXAMPLES: &str = "\
Examples:
  rgrid drain node-7                          wait until no job runs there
  rgrid drain node-7 --deadline 10m           stop jobs that still run after 10 minutes; they run on another worker
  rgrid drain node-7 --detach                 do not wait
  rgrid uncordon node-7                       let it take jobs again

Ctrl-C stops waiting; the drain continues. A drain survives restarts of the worker.

Exit codes: 0 if no job runs on the worker (with --detach: if the drain has started), 1 on failure.";

/// Drain a worker: it takes no new jobs, and its running jobs finish or move to another worker
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DrainArgs {
    /// The name of the worker, as in `rgrid workers`
    #[arg(value_name = "WORKER")]
    worker: String,
    /// How long running jobs may continue [default: no limit]; jobs that are stopped then run on another worker, and do not lose an attempt
    #[arg(long, value_name = "TIME")]
    deadline: Option<Span>,
    /// The reason, shown in `rgrid workers`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not wait
    #[arg(long, short)]
    detach: bool,
    /// Print JSON when done
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn drain(args: DrainArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    let body = json!({ "reason": args.reason, "deadline_ms": args.deadline.map(Span::millis) });
    let cordon = say(&client, &args.worker, "drain", &body).await?;
    if args.detach {
        if args.json {
            print_json(&cordon)?;
        } else {
            print_line(&format!("{} drains{}", cordon.worker, until(&cordon)))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    crate::output::say!("{} takes no new jobs{}", cordon.worker, until(&cordon));
    let end = wait(&client, &cordon).await?;
    if args.json {
        print_json(&json!({ "worker": cordon.worker, "state": end }))?;
    } else {
        print_line(&match end {
            "drained" => format!("{} is drained: no job runs there", cordon.worker),
            state => format!("{} is {state}: no job of it counts as running", cordon.worker),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn until(cordon: &Cordon) -> String {
    cordon
        .deadline
        .map(|deadline| format!("; jobs that have not ended at {} will run on another worker", clock(deadline)))
        .unwrap_or_default()
}

/// Waits until nothing runs on the worker, and says what it waits for each time that this changes.
async fn wait(client: &Client, cordon: &Cordon) -> anyhow::Result<&'static str> {
    let mut told = String::new();
    let mut away = false;
    loop {
        match look(client, cordon).await {
            Ok(Stand::Done(state)) => return Ok(state),
            Ok(Stand::Freed) => bail!("{} was uncordoned meanwhile, and takes jobs again", cordon.worker),
            Ok(Stand::Runs(jobs)) => {
                away = false;
                let words = words(&jobs, Utc::now());
                let key = jobs.iter().map(|job| job.id.to_string()).collect::<String>();
                if key != told {
                    crate::output::say!("{words}");
                    told = key;
                }
            }
            Err(error) if error.may_pass() => {
                if !std::mem::replace(&mut away, true) {
                    crate::output::say!("{error} Retrying; the drain continues.");
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How a draining worker stands.
enum Stand {
    /// Nothing runs there: it is drained, or it left or was lost.
    Done(&'static str),
    /// These run.
    Runs(Vec<JobView>),
    /// Somebody uncordoned it.
    Freed,
}

async fn look(client: &Client, cordon: &Cordon) -> Result<Stand, Error> {
    let worker = cordon.worker.to_string();
    let query = [
        ("worker", worker.clone()),
        ("state", "claimed,running".to_owned()),
        ("limit", "500".to_owned()),
        ("min_sequence", log_end(client).await?.max(cordon.sequence).to_string()),
    ];
    let list: JobList = client.get("/v1/jobs", &query).await?;
    let Workers { workers } = client.get("/v1/workers", &()).await?;
    let Some(view) = workers.into_iter().find(|view| view.id == cordon.worker) else {
        return Ok(Stand::Runs(list.jobs));
    };
    Ok(stand(&view, list, cordon))
}

fn stand(view: &WorkerView, list: JobList, cordon: &Cordon) -> Stand {
    match &view.state {
        WorkerState::Lost => return Stand::Done("lost"),
        WorkerState::Left => return Stand::Done("left"),
        WorkerState::Live | WorkerState::Other(_) => {}
    }
    let Some(cordoned_at) = view.cordoned_at else {
        // The tables may not have heard of the drain yet.
        return if list.projected >= cordon.sequence {
            Stand::Freed
        } else {
            Stand::Runs(list.jobs)
        };
    };
    // What it claimed just before it heard of the drain stands in its second beat after that at the latest.
    let heard = view
        .last_beat
        .is_some_and(|beat| beat > cordoned_at + chrono::TimeDelta::milliseconds(1_500));
    if list.jobs.is_empty() && view.running.is_empty() && heard {
        Stand::Done("drained")
    } else {
        Stand::Runs(list.jobs)
    }
}

fn words(jobs: &[JobView], now: DateTime<Utc>) -> String {
    let name = |job: &JobView| {
        let since = job.started_at.and_then(|start| now.signed_duration_since(start).to_std().ok());
        let since = since.map(|span| format!(", for {}", duration(span))).unwrap_or_default();
        format!("{} ({}{since})", job.id, one_line(&job.name, 32))
    };
    let mut names: Vec<String> = jobs.iter().take(NAMED).map(name).collect();
    if jobs.len() > NAMED {
        names.push(format!("{} more", jobs.len() - NAMED));
    }
    match jobs.len() {
        0 => "waiting for its next heartbeat, to confirm that no job runs there".to_owned(),
        1 => format!("waiting for 1 job: {}", names.join("")),
        many => format!("waiting for {many} jobs: {}", names.join(", ")),
    }
}
