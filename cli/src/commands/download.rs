//! `rgrid download`: a job's output files.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use api::view::{ArtifactView, Artifacts, BatchView};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    client::{Client, Connect, batch_by_id, find_job, members, save_outputs},
    commands::run::batch::{Homes, fetch},
    output::{Align, one_line, print, print_json, print_line, size, table},
};

/// Jobs of a batch whose outputs are fetched at once.
const AT_ONCE: usize = 4;

const EXAMPLES: &str = "\
Examples:
  rgrid download last                        all outputs, into the current directory
  rgrid download last --list                 what there is
  rgrid download 0190f3c2 --file out/a.csv -o results";

/// Fetch a job's output files
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DownloadArgs {
    /// Which job: an id, a part of one, or `last`; or a batch's id: into ./outputs/NAME/ for each of its jobs
    #[arg(value_name = "JOB")]
    job: String,
    /// Only show what there is
    #[arg(long, short, conflicts_with = "output")]
    list: bool,
    /// Only this file; may be given several times
    #[arg(long, value_name = "PATH")]
    file: Vec<String>,
    /// The directory to save into, each file under its own path [default: the current one]
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Answer in JSON: the files
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn download(args: DownloadArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    if let Some(batch) = batch_by_id(&client, &args.job).await? {
        return of_batch(&client, &args, &batch).await;
    }
    let job = find_job(&client, &args.job).await?;
    let mut found: Artifacts = client.get(&format!("/v1/jobs/{job}/artifacts"), &()).await?;
    if let Some(absent) = args
        .file
        .iter()
        .find(|name| !found.artifacts.iter().any(|file| file.path.as_str() == name.as_str()))
    {
        bail!(
            "the job has no output `{}`; see `rgrid download {job} --list`",
            absent.escape_debug()
        );
    }
    if !args.file.is_empty() {
        found
            .artifacts
            .retain(|file| args.file.iter().any(|name| name == file.path.as_str()));
    }
    if args.list {
        if args.json {
            print_json(&found)?;
        } else {
            print(&render(&found.artifacts))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let into = args.output.clone().unwrap_or_default();
    let saved = save_outputs(&client, job, found.artifacts.clone(), &into).await?;
    if args.json {
        print_json(&found)?;
    } else if saved.paths.is_empty() {
        print_line("the job has no outputs")?;
    } else {
        for path in &saved.paths {
            print_line(&path.display().to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn of_batch(client: &Client, args: &DownloadArgs, batch: &BatchView) -> anyhow::Result<ExitCode> {
    if args.list || !args.file.is_empty() || args.json {
        bail!("--list, --file and --json are for a single job; leave them out for a batch");
    }
    let all = members(client, batch.id, "").await?;
    let names: Vec<String> = all.iter().map(|member| member.item.clone()).collect();
    let root = args.output.clone().unwrap_or_else(|| PathBuf::from("outputs"));
    let homes = Homes::new(&root, &names, false);
    let left = all.iter().filter(|member| member.outputs > 0 && member.job.state.is_end());
    let fetches = left.map(|member| fetch(client, member.job.id, member.index, &homes));
    let fetches = fetches.collect::<Vec<_>>();
    let fetched = fetches.len();
    stream::iter(fetches).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    print_line(&format!("the outputs of {fetched} jobs are in {}", root.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn render(files: &[ArtifactView]) -> String {
    let columns = [("SIZE", Align::Right), ("SHA-256", Align::Left), ("PATH", Align::Left)];
    let rows = files
        .iter()
        .map(|file| vec![size(file.size), file.sha256.to_string(), one_line(file.path.as_str(), usize::MAX)]);
    table(&columns, rows.collect())
}
