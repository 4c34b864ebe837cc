//! `rgrid trust`: which projects' `rgrid.toml` may say how things are run here.

use std::{
    env, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    failure::usage,
    output::{Align, ago, harmless, print, print_json, print_line, table},
    project::{self, NAME},
    trust::{Standing, Trust},
};

const EXAMPLES: &str = "\
Examples:
  rgrid trust                    trust the rgrid.toml of this directory, or the nearest one above
  rgrid trust add ~/src/app      trust the rgrid.toml of another directory
  rgrid trust list               list the trusted files, and whether they have changed
  rgrid trust rm ~/src/app       stop trusting it

A project's rgrid.toml can choose the grid and its key, and which files, secrets and variables are sent. The file of a cloned project may be hostile: rgrid uses it only after you trust it, and until its content changes. The list of trusted files is in $XDG_STATE_HOME/rgrid/trusted \
(~/.local/state/rgrid/trusted).";

/// Trust the current content of a project's rgrid.toml
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct TrustArgs {
    #[command(subcommand)]
    verb: Option<TrustVerb>,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Subcommand)]
enum TrustVerb {
    /// Trust the current content of an rgrid.toml
    Add(Which),
    /// List the trusted files
    List(ListArgs),
    /// Stop trusting an rgrid.toml
    Rm(Which),
}

#[derive(Debug, Args)]
struct Which {
    /// The file, or its directory [default: the nearest rgrid.toml, in the current directory or above]
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn trust(args: &TrustArgs) -> anyhow::Result<ExitCode> {
    let trust = Trust::of_user()?;
    match &args.verb {
        None => add(&trust, &args.which),
        Some(TrustVerb::Add(which)) => add(&trust, which),
        Some(TrustVerb::Rm(which)) => remove(&trust, which),
        Some(TrustVerb::List(args)) => list(&trust, args.json),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn add(trust: &Trust, which: &Which) -> anyhow::Result<()> {
    let path = which.path()?;
    let entry = trust.add(&path, project::content(&path)?.as_bytes())?;
    print_line(&format!(
        "{} is trusted with its current content (SHA-256 {})",
        harmless(&entry.path),
        &entry.sha256.to_string()[..12]
    ))
}

fn remove(trust: &Trust, which: &Which) -> anyhow::Result<()> {
    let path = which.path()?;
    let shown = harmless(&path.display().to_string());
    if !trust.remove(&path)? {
        return Err(usage(format!(
            "{shown} was not trusted; `rgrid trust list` shows the trusted files"
        )));
    }
    print_line(&format!("{shown} is no longer trusted"))
}

fn list(trust: &Trust, as_json: bool) -> anyhow::Result<()> {
    let entries: Vec<_> = trust
        .list()
        .into_iter()
        .map(|entry| (state(trust, Path::new(&entry.path)), entry))
        .collect();
    if as_json {
        let shown = |(state, entry): &(&str, crate::trust::Entry)| json!({ "path": entry.path, "sha256": entry.sha256, "since": entry.since, "state": state });
        return print_json(&json!({ "trusted": entries.iter().map(shown).collect::<Vec<_>>() }));
    }
    let now = chrono::Utc::now();
    let rows = entries
        .into_iter()
        .map(|(state, entry)| vec![harmless(&entry.path), state.to_owned(), ago(entry.since, now)]);
    print(&table(
        &[("FILE", Align::Left), ("STATE", Align::Left), ("SINCE", Align::Left)],
        rows.collect(),
    ))
}

/// What a trusted file is now.
fn state(trust: &Trust, path: &Path) -> &'static str {
    match project::content(path).map(|content| trust.standing(path, content.as_bytes())) {
        Ok(Standing::Trusted) => "trusted",
        Ok(Standing::Changed | Standing::Unknown) => "changed",
        Err(_) => "gone",
    }
}

impl Which {
    /// The file that is meant, by the path that `rgrid run` finds it at.
    fn path(&self) -> anyhow::Result<PathBuf> {
        let Some(path) = &self.path else {
            let none = || usage(format!("there is no {NAME} in this directory or above; name one: rgrid trust PATH"));
            return project::path_of_here()?.ok_or_else(none);
        };
        let file = if path.is_dir() { path.join(NAME) } else { path.clone() };
        if file.file_name() != Some(NAME.as_ref()) {
            return Err(usage(format!("{} is not a {NAME}; name one, or its directory", file.display())));
        }
        let dir = env::current_dir()?.join(&file);
        // One that is gone, with its directory, may be forgotten by the path that it had.
        match dir.parent().map(Path::canonicalize) {
            Some(Ok(dir)) => Ok(dir.join(NAME)),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(dir),
            Some(Err(error)) => Err(error).with_context(|| format!("cannot find {}", file.display())),
            None => Ok(dir),
        }
    }
}
