//! `rgrid retry`: runs the jobs of a batch again.

use std::process::ExitCode;

use bus::ids::BatchId;
use clap::Args;
use model::BatchAnswer;
use reqwest::Method;
use serde_json::json;

use crate::{
    connect::Connect,
    find::{now, the_batch},
    output::{print_json, print_line},
    run::submit::unsure,
};

const EXAMPLES: &str = "\
Examples:
  rgrid retry last --failed-only && rgrid attach last

The new batch has the same files, options and window, and is linked to the old one, as each of its jobs is.";

/// Run the jobs of a batch that has ended again, as a new batch; prints its id
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RetryArgs {
    /// Which batch: an id, or `last`
    #[arg(value_name = "BATCH")]
    batch: String,
    /// Only those that did not succeed
    #[arg(long)]
    failed_only: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn retry(args: RetryArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    let batch = the_batch(&client, &args.batch).await?;
    let new = BatchId::new();
    let asked = json!({
        "id": new,
        "failed_only": args.failed_only,
        "min_sequence": now(&client).await?,
    });
    let path = format!("/v1/batches/{}/retry", batch.id);
    let answer: BatchAnswer = client
        .insist(|| client.request(Method::POST, &path).json(&asked))
        .await
        .map_err(|error| unsure(error, "batch", &new))?;
    if args.json {
        print_json(&answer)?;
    } else {
        crate::output::say!("{} jobs of batch {} run again", answer.total, batch.id);
        print_line(&answer.id.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
