//! `rgrid cancel`: ends jobs.

use std::process::ExitCode;

use api::view::JobView;
use bus::ids::JobId;
use clap::Args;
use serde_json::{Value, json};

use crate::{
    client::{Client, Connect, Error, find_job},
    failure::sentence,
    output::{print_json, print_line},
};

const EXAMPLES: &str = "\
Examples:
  rgrid cancel last
  rgrid cancel 0190f3c2 4c1d77aa --reason 'wrong input'

Exit codes: 0 if each job is cancelled or about to be, 1 if one had ended or is unknown.";

/// End jobs, wherever they stand
///
/// A job that waits is cancelled at once. One that runs is asked to end (SIGTERM), and killed a few seconds later; what it had
/// written until then is kept.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CancelArgs {
    /// Which jobs: ids, parts of ids, or `last`
    #[arg(value_name = "JOB", required = true)]
    jobs: Vec<String>,
    /// What to say of it in the job's history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Answer in JSON: an array of the jobs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn cancel(args: CancelArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    let mut all_well = true;
    let mut answers: Vec<Value> = Vec::new();
    for text in &args.jobs {
        match cancel_one(&client, text, args.reason.as_deref()).await {
            Ok(job) if args.json => answers.push(serde_json::to_value(job)?),
            Ok(job) if job.state.is_end() => print_line(&format!("{} is cancelled", job.id))?,
            Ok(job) => print_line(&format!("{} is being cancelled", job.id))?,
            Err(error) => {
                all_well = false;
                eprintln!("error: cannot cancel {text}: {}", sentence(&error));
                answers.push(json!({ "job": text, "error": sentence(&error) }));
            }
        }
    }
    if args.json {
        print_json(&answers)?;
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn cancel_one(client: &Client, text: &str, reason: Option<&str>) -> anyhow::Result<JobView> {
    let job = find_job(client, text).await?;
    Ok(request_cancel(client, job, reason).await?)
}

/// Asks for a job's end.
pub(crate) async fn request_cancel(client: &Client, job: JobId, reason: Option<&str>) -> Result<JobView, Error> {
    client.post(&format!("/v1/jobs/{job}/cancel"), &json!({ "reason": reason })).await
}
