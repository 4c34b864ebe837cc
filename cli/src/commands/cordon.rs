//! `rgrid cordon` and `rgrid uncordon`: whether a worker takes work.

use std::process::ExitCode;

use clap::Args;
use client::{Client, encode_path};
use model::Cordon;
use reqwest::Method;
use serde_json::json;

use crate::{
    connect::Connect,
    failure::sentence,
    output::{print_json, print_line},
};

const EXAMPLES: &str = "\
Examples:
  rgrid cordon node-7 --reason 'its disk is slow'
  rgrid workers
  rgrid uncordon node-7

A cordon survives restarts of the worker. The worker's running jobs continue; to move them away too, see `rgrid drain --help`.";

/// Stop workers from taking new jobs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CordonArgs {
    /// The names of the workers, as in `rgrid workers`
    #[arg(value_name = "WORKER", required = true)]
    workers: Vec<String>,
    /// The reason, shown in `rgrid workers`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON: an array with one object for each worker
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Let cordoned or drained workers take jobs again
#[derive(Debug, Args)]
pub(crate) struct UncordonArgs {
    /// The names of the workers, as in `rgrid workers`
    #[arg(value_name = "WORKER", required = true)]
    workers: Vec<String>,
    /// Print JSON: an array with one object for each worker
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn cordon(args: CordonArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    let body = json!({ "reason": args.reason });
    each(&client, &args.workers, "cordon", &body, args.json).await
}

pub(crate) async fn uncordon(args: UncordonArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    each(&client, &args.workers, "uncordon", &json!({}), args.json).await
}

async fn each(client: &Client, workers: &[String], verb: &str, body: &serde_json::Value, as_json: bool) -> anyhow::Result<ExitCode> {
    let (mut all_well, mut answers) = (true, Vec::new());
    for worker in workers {
        match say(client, worker, verb, body).await {
            Ok(cordon) if as_json => answers.push(serde_json::to_value(cordon)?),
            Ok(cordon) => print_line(&words(&cordon))?,
            Err(error) => {
                all_well = false;
                crate::output::say_line("error", &format!("cannot {verb} {worker}: {}", sentence(&error)));
                answers.push(json!({ "worker": worker, "error": sentence(&error) }));
            }
        }
    }
    if as_json {
        print_json(&answers)?;
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says a word on a worker.
pub(super) async fn say(client: &Client, worker: &str, verb: &str, body: &serde_json::Value) -> anyhow::Result<Cordon> {
    // A `/` would name another page.
    let worker = encode_path(worker).replace('/', "%2F");
    let path = format!("/v1/workers/{worker}/{verb}");
    Ok(client.insist(|| client.request(Method::POST, &path).json(body)).await?)
}

fn words(cordon: &Cordon) -> String {
    let worker = &cordon.worker;
    match (cordon.cordoned, cordon.drain, cordon.changed) {
        (true, false, true) => format!("{worker} takes no new jobs"),
        (true, false, false) => format!("{worker} takes no new jobs; it was already cordoned"),
        (true, true, _) => format!("{worker} takes no new jobs, and is still being drained"),
        (false, _, true) => format!("{worker} takes jobs again"),
        (false, _, false) => format!("{worker} was not cordoned; it takes jobs"),
    }
}
