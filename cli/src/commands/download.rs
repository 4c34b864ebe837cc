//! `rgrid download`: a job's output files.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use api::view::{ArtifactView, Artifacts};
use clap::Args;

use crate::{
    client::{Connect, find_job, save_outputs},
    output::{Align, one_line, print, print_json, print_line, size, table},
};

const EXAMPLES: &str = "\
Examples:
  rgrid download last                        all outputs, into the current directory
  rgrid download last --list                 what there is
  rgrid download 0190f3c2 --file out/a.csv -o results";

/// Fetch a job's output files
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DownloadArgs {
    /// Which job: an id, a part of one, or `last`
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

fn render(files: &[ArtifactView]) -> String {
    let columns = [("SIZE", Align::Right), ("SHA-256", Align::Left), ("PATH", Align::Left)];
    let rows = files
        .iter()
        .map(|file| vec![size(file.size), file.sha256.to_string(), one_line(file.path.as_str(), usize::MAX)]);
    table(&columns, rows.collect())
}
