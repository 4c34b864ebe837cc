//! `rgrid runtimes`: what scripts can be run by, and which worker has it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bus::{grid::runtimes::RuntimesSet, ids::Token, worker::Equipment};
use clap::Args;
use model::{Images, Runtimes, RuntimesOfWorker, RuntimesOfWorkers};
use serde_json::json;

use crate::{
    connect::Connect,
    failure::usage,
    find::now as log_end,
    output::{Align, counted, print, print_json, print_line, table},
    text,
};

/// The longest `runtimes.toml`, in bytes.
const MAX_BYTES: u64 = 1 << 20;

const EXAMPLES: &str = "\
Examples:
  rgrid runtimes                        all runtimes, and each live worker's versions
  rgrid runtimes --json | jq .aliases
  rgrid runtimes --check runtimes.toml  check a file before it is installed

For containers, the first image in the list that a worker has is used; if it has none, the last image is pulled. `here`: the worker has the image; `grid`: the image comes from the grid's store (`rgrid image list`); `pull`: the image is pulled from a registry.";

/// List the runtimes: each worker's versions, the container images, and the grid's aliases
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RuntimesArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Check a runtimes.toml for errors, and exit
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    check: Option<PathBuf>,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn runtimes(args: RuntimesArgs) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.check {
        check(file)?;
        return Ok(ExitCode::SUCCESS);
    }
    let client = args.connect.client()?;
    let deployed: Runtimes = client.get("/v1/runtimes", &()).await?;
    let kept: Images = client.get("/v1/images", &()).await?;
    let query = [("min_sequence", log_end(&client).await?)];
    let RuntimesOfWorkers { workers } = client.get("/v1/runtimes/workers", &query).await?;
    if args.json {
        print_json(&json!({
            "runtimes": deployed.runtimes, "aliases": deployed.aliases, "images": kept.images, "workers": workers,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    show(&deployed, &workers, &kept)?;
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path) -> anyhow::Result<()> {
    let text = text::read(file, MAX_BYTES).map_err(|error| usage(error.to_string()))?;
    let RuntimesSet { runtimes, aliases } = api::runtimes::read(file, &text).map_err(|wrong| usage(wrong.to_string()))?;
    print_line(&format!(
        "{} is valid: {}, {} {}",
        file.display(),
        counted(runtimes.len(), "runtime"),
        aliases.len(),
        if aliases.len() == 1 { "alias" } else { "aliases" }
    ))
}

fn show(deployed: &Runtimes, workers: &[RuntimesOfWorker], kept: &Images) -> anyhow::Result<()> {
    if workers.is_empty() {
        print_line("no worker is live; start one with `rgrid runner`")?;
    } else {
        print(&overview(workers, kept))?;
    }
    if !deployed.aliases.is_empty() {
        let rows = deployed
            .aliases
            .iter()
            .map(|(name, alias)| vec![name.to_string(), alias.to_string()]);
        let columns = [("ALIAS", Align::Left), ("MEANS", Align::Left)];
        print_line("")?;
        print(&table(&columns, rows.collect()))?;
    }
    Ok(())
}

/// A line for each runtime and worker that has it in some way.
fn overview(workers: &[RuntimesOfWorker], kept: &Images) -> String {
    let names: BTreeSet<&Token> = workers.iter().flat_map(|worker| worker.runtimes.keys()).collect();
    let mut rows = Vec::new();
    for name in names {
        for worker in workers {
            if let Some(equipment) = worker.runtimes.get(name) {
                rows.push(row(name, worker, equipment, kept));
            }
        }
    }
    let silent = workers.iter().filter(|worker| worker.runtimes.is_empty());
    rows.extend(silent.map(|worker| vec!["?".to_owned(), worker.worker.to_string(), "not said yet".to_owned(), "-".to_owned()]));
    let columns = [
        ("RUNTIME", Align::Left),
        ("WORKER", Align::Left),
        ("AS A PROCESS", Align::Left),
        ("AS A CONTAINER", Align::Left),
    ];
    table(&columns, rows)
}

fn row(name: &Token, worker: &RuntimesOfWorker, equipment: &Equipment, kept: &Images) -> Vec<String> {
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    // Those of versions are as good, where a job names the version.
    let own = format!("rgrid/{}:", name.as_str().to_ascii_lowercase());
    let known = |image: &str| equipment.images.iter().any(|name| name == image) || image.starts_with(&own);
    let mut images: Vec<String> = Vec::new();
    if let Some(platform) = &worker.platform {
        let here = worker.images.keys().filter(|image| known(image));
        images.extend(here.map(|image| format!("{image} (here)")));
        let grid = kept
            .images
            .iter()
            .filter(|image| image.pushed.platform == *platform)
            .map(|image| image.name.as_str());
        let grid = grid.filter(|image| known(image) && !worker.images.contains_key(*image));
        images.extend(grid.map(|image| format!("{image} (grid)")));
    }
    if images.is_empty()
        && let Some(last) = equipment.images.last()
    {
        images.push(format!("{last} (pull)"));
    }
    vec![
        name.to_string(),
        worker.worker.to_string(),
        dash(equipment.versions.join(", ")),
        dash(images.join(", ")),
    ]
}
