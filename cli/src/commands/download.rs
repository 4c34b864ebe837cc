//! `rgrid download`: a job's output files.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use bus::spec::RelPath;
use clap::Args;
use client::Client;
use futures::{StreamExt as _, stream};
use model::{Artifacts, BatchView};

use crate::{
    connect::Connect,
    find::{batch_by_id, find_job, members},
    output::{Align, clock, one_line, print, print_json, print_line, size, table},
    run::batch::{OutputDirs, fetch},
    saving::{JobOutputs, NamedOutputs, Report, SaveMode, SaveTarget, SentInputs, save_all},
};

/// Jobs of a batch whose outputs are fetched at once.
const AT_ONCE: usize = 4;

const EXAMPLES: &str = "\
Examples:
  rgrid download last                        all outputs, to the current directory
  rgrid download last --list                 list the outputs
  rgrid download 0190f3c2 --file out/a.csv -o results";

/// Fetch a job's output files
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DownloadArgs {
    /// The job: an id, a part of an id, or `last`; or a batch's id, or `last-batch`: saved in ./outputs/NAME/ for each of its jobs
    #[arg(value_name = "JOB")]
    job: String,
    /// List the files without downloading
    #[arg(long, short, conflicts_with = "output")]
    list: bool,
    /// Download only this file; can be repeated
    #[arg(long, value_name = "PATH")]
    file: Vec<String>,
    /// The directory to save the files in, each at its own path [default: the current directory]
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace local files that differ; without this option, they are kept and reported
    #[arg(long)]
    overwrite: bool,
    /// Print JSON: the files
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

impl DownloadArgs {
    const fn mode(&self) -> SaveMode {
        if self.overwrite { SaveMode::Overwrite } else { SaveMode::Careful }
    }
}

pub(crate) async fn download(args: DownloadArgs) -> anyhow::Result<ExitCode> {
    let client = args.connect.client()?;
    if let Some(batch) = batch_by_id(&client, &args.job).await? {
        return of_batch(&client, &args, &batch).await;
    }
    let job = find_job(&client, &args.job).await?;
    let mut found: Artifacts = client.get(&format!("/v1/jobs/{job}/artifacts"), &()).await?;
    if let Some(absent) = args.file.iter().find(|name| {
        !found.artifacts.iter().any(|file| file.path.as_str() == name.as_str())
            && !found.links.iter().any(|link| link.path.as_str() == name.as_str())
    }) {
        bail!(
            "the job has no output `{}`; see `rgrid download {job} --list`",
            absent.escape_debug()
        );
    }
    if !args.file.is_empty() {
        found
            .artifacts
            .retain(|file| args.file.iter().any(|name| name == file.path.as_str()));
        found.links.retain(|link| args.file.iter().any(|name| name == link.path.as_str()));
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
    // An output that the user names by its path is fetched, even if a program would run it.
    let asked = if args.file.is_empty() {
        NamedOutputs::Nothing
    } else {
        NamedOutputs::All
    };
    let target = SaveTarget {
        job,
        into: &into,
        base: &into,
        mode: args.mode(),
        sent: &SentInputs::default(),
        removes: false,
        asked: &asked,
    };
    let back = JobOutputs::here(found.artifacts.clone(), found.links.clone());
    let report = Box::pin(save_all(&client, target, back)).await;
    if args.json {
        print_json(&found)?;
    } else if report.saved.is_empty() && report.is_whole() {
        print_line(&match report.same {
            0 => "the job has no outputs".to_owned(),
            1 => "its output is already here".to_owned(),
            there => format!("all {there} outputs are already here"),
        })?;
    } else {
        for path in &report.saved {
            print_line(&path.display().to_string())?;
        }
    }
    Ok(ended(&report, &job))
}

/// Says what could not be saved; that is a failure.
fn ended(report: &Report, job: &dyn std::fmt::Display) -> ExitCode {
    for line in report.lines(job) {
        crate::output::say!("{line}");
    }
    if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn of_batch(client: &Client, args: &DownloadArgs, batch: &BatchView) -> anyhow::Result<ExitCode> {
    if args.list || !args.file.is_empty() || args.json {
        bail!("--list, --file and --json are for a single job; leave them out for a batch");
    }
    let all = members(client, batch.id, "").await?;
    let names: Vec<String> = all.iter().map(|member| member.item.clone()).collect();
    let root = args.output.clone().unwrap_or_else(|| PathBuf::from("outputs"));
    let output_dirs = OutputDirs::new(&root, &names, false);
    let left = all.iter().filter(|member| member.outputs > 0 && member.job.state.is_end());
    let fetches = left.map(|member| fetch(client, member.job.id, member.index, &output_dirs, args.mode()));
    let fetches = fetches.collect::<Vec<_>>();
    let fetched = fetches.len();
    let mut fetches = stream::iter(fetches).buffer_unordered(AT_ONCE);
    let mut report = Report::default();
    while let Some(fetched) = fetches.next().await {
        report.add(fetched?);
    }
    if report.is_whole() {
        print_line(&format!("the outputs of {fetched} jobs are in {}", root.display()))?;
    }
    Ok(ended(&report, &batch.id))
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
