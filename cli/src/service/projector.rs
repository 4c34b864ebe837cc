//! `rgrid projector`, and `rgrid projector rebuild`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use projector::{Report, Table};
use serde_json::json;

use super::{
    settings::{self, Common, Storage, redacted},
    stop::serve,
};
use crate::{
    failure::usage,
    output::{Align, print, print_json, print_line, table},
};

/// Run the projector: it folds the event log into the database tables that lists are read from
///
/// If the projector is stopped, it later continues exactly where it was. The tables can be rebuilt from the log at any time: see `rgrid projector rebuild`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ProjectorArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Rebuild all tables from the log next to the live ones, compare them, and swap them
    Rebuild {
        #[command(flatten)]
        settings: Settings,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What it works with, in either case.
#[derive(Debug, Args)]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
struct Settings {
    /// The database: postgres://user:password@host:5432/name; its tables are created at start-up
    #[arg(long, value_name = "URL", env = "RGRID_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    storage: Storage,
}

impl Settings {
    /// The configuration; nothing where it was only to be shown.
    fn config(self) -> anyhow::Result<Option<projector::Config>> {
        let database_url = self.database_url.filter(|url| !url.is_empty());
        let config = projector::Config {
            nats: self.common.nats,
            replicas: self.common.replicas,
            database_url: database_url.ok_or_else(|| usage("which database? give it with --database-url or RGRID_DATABASE_URL"))?,
            store: self.storage.url(),
        };
        if !self.common.print_config {
            return Ok(Some(config));
        }
        settings::print(&json!({
            "nats": redacted(&config.nats),
            "replicas": config.replicas,
            "database_url": redacted(&config.database_url),
            "store": self.storage.shown()?,
        }))?;
        Ok(None)
    }
}

pub(crate) async fn projector(args: ProjectorArgs) -> anyhow::Result<ExitCode> {
    let (settings, rebuild) = match args.action {
        Some(Action::Rebuild { settings, json }) => (settings, Some(json)),
        None => (args.settings, None),
    };
    let Some(config) = settings.config()? else {
        return Ok(ExitCode::SUCCESS);
    };
    match rebuild {
        None => serve("projector", |stop| projector::run(config, stop)).await,
        Some(json) => show(&Box::pin(projector::rebuild(config)).await?, json),
    }
}

/// Says what a rebuild came to. Tables that differed from the log are an error: something else wrote to them.
fn show(report: &Report, as_json: bool) -> anyhow::Result<ExitCode> {
    let identical = report.identical();
    if as_json {
        let tables: Vec<_> = report
            .tables
            .iter()
            .map(|table| json!({ "name": table.name, "rows": table.rows, "differing": table.differing }))
            .collect();
        print_json(&json!({
            "sequence": report.sequence,
            "events": report.events,
            "seconds": report.seconds,
            "held_seconds": report.held_seconds,
            "identical": identical,
            "tables": tables,
        }))?;
    } else {
        let columns = [("TABLE", Align::Left), ("ROWS", Align::Right), ("DIFFERED", Align::Right)];
        let differing = |table: &Table| table.differing.map_or_else(|| "-".to_owned(), |rows| rows.to_string());
        let rows = report
            .tables
            .iter()
            .map(|table| vec![table.name.clone(), table.rows.to_string(), differing(table)]);
        print(&table(&columns, rows.collect()))?;
        print_line(&format!(
            "{} events up to sequence {}, in {:.1} s; the tables were not updated for {:.2} s",
            report.events, report.sequence, report.seconds, report.held_seconds
        ))?;
        print_line(match identical {
            Some(true) => "the tables matched the log exactly",
            Some(false) => "the tables did not match the log; they do now",
            None => "there were no tables to compare with",
        })?;
    }
    Ok(if identical == Some(false) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
