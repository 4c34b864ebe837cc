//! `rgrid undo`: what a job's end replaced and removed here, as it was before.

use std::process::ExitCode;

use anyhow::bail;
use bus::ids::JobId;
use clap::Args;
use serde_json::json;

use crate::{
    connect::Connect,
    find::{batch_by_id, find_job, members},
    output::{print_json, print_line},
    saving::{
        names,
        undo::{Undone, undo as undo_one},
    },
};

const EXAMPLES: &str = "\
Examples:
  rgrid undo last           restore the files that the last job replaced or removed
  rgrid undo last           a second time: undo the undo

The command restores the directories that the outputs were saved in, from any current directory, on the same machine and for the same user.
New files of the job are kept. Changes to files that were sent to the job are not undone.";

/// Restore the files that a job replaced or removed here
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UndoArgs {
    /// The job: an id, a part of an id, or `last`; or a batch's id, or `last-batch`
    #[arg(value_name = "JOB")]
    job: String,
    /// Also restore files that were changed here since; the changed files are kept in .rgrid/replaced
    #[arg(long)]
    force: bool,
    /// Print JSON: for each job, the restored paths and the refused ones
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn undo(args: UndoArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    let jobs = match batch_by_id(&client, &args.job).await? {
        Some(batch) => members(&client, batch.id, "")
            .await?
            .into_iter()
            .map(|member| member.job.id)
            .collect(),
        None => vec![find_job(&client, &args.job).await?],
    };
    let mut all = Vec::new();
    for job in jobs {
        if let Some(undone) = undo_one(&client, job, args.force).await? {
            all.push((job, undone));
        }
    }
    if all.is_empty() {
        bail!(
            "{} replaced or removed no files here, or it did so on another machine or for another user (replaced files are kept in .rgrid/replaced/JOB/ of the directory that the outputs were saved in)",
            args.job
        );
    }
    if args.json {
        let view = |(job, undone): &(JobId, Undone)| json!({ "job": job, "redone": undone.again, "changed": undone.changed, "refused": undone.refused });
        print_json(&json!({ "jobs": all.iter().map(view).collect::<Vec<_>>() }))?;
    } else {
        for (_, undone) in &all {
            say(undone)?;
        }
    }
    let whole = all.iter().all(|(_, undone)| undone.refused.is_empty());
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(undone: &Undone) -> anyhow::Result<()> {
    for why in &undone.refused {
        crate::output::say!("{why}");
    }
    if !undone.changed.is_empty() {
        let what = if undone.again { "done again" } else { "as before" };
        print_line(&format!("{what}: {}", names(&undone.changed)))?;
    } else if undone.refused.is_empty() {
        print_line("everything is already restored")?;
    } else {
        crate::output::say!("nothing was undone");
    }
    Ok(())
}
