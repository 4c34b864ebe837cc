//! `rgrid attach`: follows a batch that was left.

use std::{path::Path, process::ExitCode};

use clap::Args;

use crate::{
    connect::Connect,
    find::{members, the_batch},
    run::{
        batch::{OutputDirs, follow, report},
        interrupt::Interrupts,
    },
};

const EXAMPLES: &str = "\
Examples:
  rgrid run -d --batch 'data/*.csv' clean.py; rgrid attach last
  rgrid attach --no-download 0190f3c2-4a5b-7c00-8000-000000000001

Files that are already in ./outputs are not fetched again. Exit codes: 0 if all jobs succeeded, 1 otherwise.";

/// Follow a batch until it ends, and save its outputs here
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AttachArgs {
    /// The batch: an id, or `last`
    #[arg(value_name = "BATCH")]
    batch: String,
    /// Leave the outputs in the store
    #[arg(long, visible_alias = "no-outputs")]
    no_download: bool,
    /// Save outputs directly in ./outputs, without a directory for each job
    #[arg(long)]
    flat: bool,
    /// Print the batch as one JSON object when it has ended
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
    let output_dirs = (!args.no_download).then(|| OutputDirs::new(Path::new("outputs"), &names, args.flat));
    let mut interrupts = Interrupts::new(false)?;
    let followed = Box::pin(follow(&client, batch.id, batch.total, output_dirs, &mut interrupts)).await?;
    report::followed(&client, batch.id, followed, &names, args.json, &mut interrupts).await
}
