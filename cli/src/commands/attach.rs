//! `rgrid attach`: follows a batch that was left.

use std::{path::Path, process::ExitCode};

use clap::Args;

use crate::{
    connect::Connect,
    find::{members, the_batch},
    run::{
        batch::{Homes, follow, report},
        interrupt::Interrupts,
    },
};

const EXAMPLES: &str = "\
Examples:
  rgrid run -d --batch 'data/*.csv' clean.py; rgrid attach last
  rgrid attach --no-download 0190f3c2-4a5b-7c00-8000-000000000001

What is in ./outputs already is not fetched again. Exit codes: 0 if all of its jobs succeeded, 1 if not.";

/// Follow a batch to its end, and bring its outputs here
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AttachArgs {
    /// Which batch: an id, or `last`
    #[arg(value_name = "BATCH")]
    batch: String,
    /// Leave the outputs in the store
    #[arg(long, visible_alias = "no-outputs")]
    no_download: bool,
    /// Outputs straight into ./outputs, and not into a directory for each job
    #[arg(long)]
    flat: bool,
    /// The batch as one JSON object on standard output when it ended
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn attach(args: AttachArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    let batch = the_batch(&client, &args.batch).await?;
    let names: Vec<String> = members(&client, batch.id, "")
        .await?
        .into_iter()
        .map(|member| member.item)
        .collect();
    let homes = (!args.no_download).then(|| Homes::new(Path::new("outputs"), &names, args.flat));
    let mut interrupts = Interrupts::new(false)?;
    let followed = Box::pin(follow(&client, batch.id, batch.total, homes, &mut interrupts)).await?;
    report::followed(&client, batch.id, followed, &names, args.json, &mut interrupts).await
}
