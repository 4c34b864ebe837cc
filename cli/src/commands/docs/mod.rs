//! `rgrid docs`: the contract of events and subjects, generated from the types.

mod events;
mod render;
mod samples;

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::output::print;

/// Print the contract for services that speak to a grid over NATS
#[derive(Debug, Args)]
pub(crate) struct DocsArgs {
    /// What to print: docs/events.md, or the JSON Schema of every type in it
    #[arg(value_name = "WHAT")]
    what: What,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Subjects, events, submissions, logs: Markdown
    Events,
    /// The types only: JSON Schema
    Schema,
}

pub(crate) fn docs(args: &DocsArgs) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Events => print(&events::markdown()?)?,
        What::Schema => print(&format!("{}\n", serde_json::to_string_pretty(&events::Contract::new().schema())?))?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_contract_matches_the_types() -> anyhow::Result<()> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md");
        let committed = std::fs::read_to_string(path)?;
        let generated = events::markdown()?;
        let differs = committed.lines().zip(generated.lines()).find(|(is, should)| is != should);
        assert!(
            committed == generated,
            "docs/events.md does not match the types (first difference: {differs:?}); run `make docs`"
        );
        Ok(())
    }
}
