//! `rgrid image`: images for workers that reach no registry, made of Debian's packages and kept in the grid's own store.

mod build;
mod debian;
mod docker;
mod transfer;

use std::process::ExitCode;

use bus::grid::image::ImageName;
use chrono::Utc;
use clap::{Args, Subcommand};
use model::{ImageView, Images};
use reqwest::Method;
use serde_json::json;

use self::build::BuildArgs;
use crate::{
    connect::Connect,
    output::{Align, ago, print, print_json, print_line, size, table},
};

const EXAMPLES: &str = "\
Examples:
  rgrid image build python:3.11 --package python3-numpy   builds rgrid/python:3.11 in this machine's Docker
  rgrid image push rgrid/python:3.11                      workers without the image fetch it from the grid
  rgrid run --runtime python:3.11 --executor docker x.py
  rgrid image push lab/science:2; rgrid run --image lab/science:2 x.py
  rgrid image list; rgrid image load lab/science:2; rgrid image remove lab/science:2

A worker that lacks a job's image looks for it in the grid before it asks a registry. A pushed image replaces the stored image of the same name; workers that already have an image of that name keep theirs.";

/// Build container images from Debian packages, and store images in the grid for workers without access to a registry
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    verb: ImageVerb,
}

#[derive(Debug, Subcommand)]
enum ImageVerb {
    /// Build a runtime's image from Debian packages (with mmdebstrap), in this machine's Docker
    Build(BuildArgs),
    /// Upload an image from this machine's Docker to the grid
    Push(NamedArgs),
    /// List the images that are stored in the grid
    List(ListArgs),
    /// Download an image from the grid into this machine's Docker
    Load(NamedArgs),
    /// Remove an image from the grid; workers that already have it keep it
    Remove(NamedArgs),
}

#[derive(Debug, Args)]
struct NamedArgs {
    /// The image, such as rgrid/python:3.11
    #[arg(value_name = "IMAGE")]
    name: ImageName,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn image(args: ImageArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        ImageVerb::Build(args) => build::build(args).await?,
        ImageVerb::Push(args) => push(&args).await?,
        ImageVerb::List(args) => list(&args).await?,
        ImageVerb::Load(args) => load(&args).await?,
        ImageVerb::Remove(args) => remove(&args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn push(args: &NamedArgs) -> anyhow::Result<()> {
    let client = args.connect.client()?;
    let pushed = Box::pin(transfer::push(&client, &args.name)).await?;
    if args.json {
        return print_json(&json!({ "image": pushed.image, "sent_bytes": pushed.sent_bytes }));
    }
    let archive = size(pushed.image.pushed.archive_bytes);
    print_line(&match pushed.sent_bytes {
        Some(sent) => format!("pushed {}: {archive}, {} sent", args.name, size(sent)),
        None => format!("{} is already in the grid: {archive}", args.name),
    })
}

async fn load(args: &NamedArgs) -> anyhow::Result<()> {
    let client = args.connect.client()?;
    let loaded = Box::pin(transfer::load(&client, &args.name)).await?;
    if args.json {
        return print_json(&loaded);
    }
    print_line(&format!("loaded {} ({})", loaded.name, loaded.pushed.id))
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let found: Images = args.connect.client()?.get("/v1/images", &()).await?;
    if args.json {
        return print_json(&found);
    }
    if found.images.is_empty() {
        return print_line("the grid stores no images; add one with `rgrid image push IMAGE`");
    }
    let now = Utc::now();
    let row = |ImageView { name, pushed, at }: ImageView| {
        vec![
            name.to_string(),
            pushed.platform,
            size(pushed.size),
            size(pushed.archive_bytes),
            ago(at, now),
            pushed.by.unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let columns = [
        ("IMAGE", Align::Left),
        ("PLATFORM", Align::Left),
        ("SIZE", Align::Right),
        ("KEPT", Align::Right),
        ("PUSHED", Align::Left),
        ("BY", Align::Left),
    ];
    print(&table(&columns, found.images.into_iter().map(row).collect()))
}

async fn remove(args: &NamedArgs) -> anyhow::Result<()> {
    let client = args.connect.client()?;
    let by = json!({ "by": crate::commands::secret::user_and_host() });
    let request = client.request(Method::DELETE, &transfer::path(&args.name)).json(&by);
    client.send(request).await?;
    if args.json {
        return print_json(&json!({ "removed": args.name }));
    }
    print_line(&format!("removed {} from the grid", args.name))
}
