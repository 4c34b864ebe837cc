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
  rgrid image build python:3.11 --package python3-numpy   as rgrid/python:3.11 in this machine's Docker
  rgrid image push rgrid/python:3.11                      workers that lack it have it from the grid
  rgrid run --runtime python:3.11 --executor docker x.py
  rgrid image push lab/science:2; rgrid run --image lab/science:2 x.py
  rgrid image list; rgrid image load lab/science:2; rgrid image remove lab/science:2

A worker that lacks a job's image looks for it in the grid before it asks a registry. What is pushed under a name takes the place of what \
was there; workers that have the name already keep theirs.";

/// Make images of Debian's packages, and keep images in the grid for workers that reach no registry
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    verb: ImageVerb,
}

#[derive(Debug, Subcommand)]
enum ImageVerb {
    /// Make a runtime's image of Debian's packages (with mmdebstrap), in this machine's Docker
    Build(BuildArgs),
    /// Put an image of this machine's Docker into the grid
    Push(NamedArgs),
    /// List the images that the grid keeps
    List(ListArgs),
    /// Put an image that the grid keeps into this machine's Docker
    Load(NamedArgs),
    /// Have the grid keep an image no longer; workers that have it keep it
    Remove(NamedArgs),
}

#[derive(Debug, Args)]
struct NamedArgs {
    /// The image, such as rgrid/python:3.11
    #[arg(value_name = "IMAGE")]
    name: ImageName,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Answer in JSON
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
        None => format!("{} is in the grid already: {archive}", args.name),
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
        return print_line("the grid keeps no images; `rgrid image push IMAGE` adds one");
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
    let by = json!({ "by": crate::commands::secret::whoever() });
    let request = client.request(Method::DELETE, &transfer::path(&args.name)).json(&by);
    client.send(request).await?;
    if args.json {
        return print_json(&json!({ "removed": args.name }));
    }
    print_line(&format!("the grid keeps {} no longer", args.name))
}
