//! `rgrid download`: a job's output files.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;
use api::view::{ArtifactView, Artifacts, BatchView};
use bus::spec::RelPath;
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    client::{Client, Connect, There, batch_by_id, find_job, members, save_links, save_outputs, there},
    commands::run::batch::{Homes, fetch},
    output::{Align, clock, one_line, print, print_json, print_line, size, table},
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
    /// Which job: an id, a part of one, or `last`; or a batch's id, or `last-batch`: into ./outputs/NAME/ for each of its jobs
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
    /// Replace files that are here and differ; without it, nothing is saved then
    #[arg(long)]
    overwrite: bool,
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
            print(&render(&found))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(until) = found.expires_at.filter(|_| found.expired && !found.artifacts.is_empty()) {
        bail!(
            "the outputs of job {job} expired at {}, and are no longer kept; `rgrid rerun {job}` makes them again",
            clock(until)
        );
    }
    let into = args.output.clone().unwrap_or_default();
    let wanted = lacking(&found.artifacts, &into, args.overwrite)?;
    let mut saved = save_outputs(&client, job, wanted, (&into, &BTreeSet::new())).await?.paths;
    if !args.file.is_empty() {
        found.links.clear();
    }
    saved.extend(save_links(&found.links, &into, args.overwrite)?);
    if args.json {
        print_json(&found)?;
    } else if saved.is_empty() {
        print_line(&match found.artifacts.len() + found.links.len() {
            0 => "the job has no outputs".to_owned(),
            1 => "its output is here already".to_owned(),
            there => format!("all {there} outputs are here already"),
        })?;
    } else {
        for path in &saved {
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
    let fetches = left.map(|member| fetch(client, member.job.id, member.index, &homes, args.overwrite));
    let fetches = fetches.collect::<Vec<_>>();
    let fetched = fetches.len();
    stream::iter(fetches).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    print_line(&format!("the outputs of {fetched} jobs are in {}", root.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The outputs that are not here. What is here and differs is somebody's, and is replaced only if that is meant.
///
/// # Errors
/// If something is in the way.
pub(super) fn lacking(files: &[ArtifactView], into: &Path, overwrite: bool) -> anyhow::Result<Vec<ArtifactView>> {
    let mut lacking = Vec::with_capacity(files.len());
    for file in files {
        let shown = into.join(file.path.as_str());
        match there(file, into)? {
            There::Same => {}
            There::Nothing => lacking.push(file.clone()),
            There::Other if overwrite => lacking.push(file.clone()),
            There::Other => bail!(
                "{} is here and differs, and nothing was saved; replace it with --overwrite, or save elsewhere with -o DIR",
                shown.display()
            ),
            There::Outside => bail!(
                "{} lies behind a link that leads out of the directory, and nothing was saved; save elsewhere with -o DIR",
                shown.display()
            ),
        }
    }
    Ok(lacking)
}

fn render(found: &Artifacts) -> String {
    let columns = [("SIZE", Align::Right), ("SHA-256", Align::Left), ("PATH", Align::Left)];
    let shown = |path: &RelPath| one_line(path.as_str(), usize::MAX);
    let files = found
        .artifacts
        .iter()
        .map(|file| vec![size(file.size), file.sha256.to_string(), shown(&file.path)]);
    let links = found.links.iter().map(|link| {
        let to = one_line(&link.target, usize::MAX);
        vec![String::new(), "link".to_owned(), format!("{} -> {to}", shown(&link.path))]
    });
    table(&columns, files.chain(links).collect())
}
