//! `rgrid version`: which program this is.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::output::{print_json, print_line};

/// Print the version
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// This program's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn version(args: &VersionArgs) -> anyhow::Result<ExitCode> {
    if args.json {
        print_json(&json!({ "version": VERSION }))?;
    } else {
        print_line(&format!("rgrid {VERSION}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
