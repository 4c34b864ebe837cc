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
    output::{counted, print_json, print_line},
    run::submit::explain_indeterminate,
};

const EXAMPLES: &str = "\
Examples:
  rgrid retry last --failed-only && rgrid attach last

The new batch has the same files, options and --parallel limit. It is linked to the old batch, and so is each of its jobs.";

/// Run the jobs of an ended batch again as a new batch, and print its id
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RetryArgs {
    /// The batch: an id, or `last`
    #[arg(value_name = "BATCH")]
    batch: String,
    /// Only jobs that did not succeed
    #[arg(long)]
    failed_only: bool,
    /// Print JSON
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
        .map_err(|error| explain_indeterminate(error, "batch", &new))?;
    if args.json {
        print_json(&answer)?;
    } else {
        crate::output::say!("{} of batch {} will run again", counted(answer.total as usize, "job"), batch.id);
        print_line(&answer.id.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
