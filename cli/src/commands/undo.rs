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
  rgrid undo last           the files that the last job replaced, though they had not been sent, and those that it removed, as they were
  rgrid undo last           once more: what the job did, again

It works in the directories in which the outputs were saved, wherever it is called, on the machine and by the user that saved them. What
the job made besides stays. What it changed of files that were sent to it is not put back.";

/// Put back what a job replaced or removed here
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UndoArgs {
    /// Which job: an id, a part of one, or `last`; or a batch's id, or `last-batch`
    #[arg(value_name = "JOB")]
    job: String,
    /// Also where a file was changed here since; nothing is lost by it: what is here is kept in .rgrid/replaced
    #[arg(long)]
    force: bool,
    /// Answer in JSON: for each job, which paths changed here, and what was refused
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
            "nothing is known here that {} replaced or removed; it was done on another machine or by another user, or there is nothing \
             (what is replaced is kept in .rgrid/replaced/JOB/ of the directory that outputs are saved in)",
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
        print_line("everything is as it was before already")?;
    } else {
        crate::output::say!("nothing was undone");
    }
    Ok(())
}
