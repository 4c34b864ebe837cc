//! `rgrid projector`, and `rgrid projector rebuild`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use projector::{Report, Table};
use serde_json::json;

use super::{
    settings::{self, Common, Storage, redacted},
    stop::serve,
};
use crate::output::{Align, print, print_json, print_line, table};

/// Run the projector: it folds the log into the tables that are listed from
///
/// Stopped anywhere, it goes on exactly where it was. The tables hold nothing that the log does not tell again:
/// `rgrid projector rebuild` makes them anew from it.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = false)]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
pub(crate) struct ProjectorArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// The database: postgres://user:password@host:5432/name; its tables are made at the start
    #[arg(
        long,
        value_name = "URL",
        env = "RGRID_DATABASE_URL",
        hide_env_values = true,
        help_heading = "Grid"
    )]
    database_url: String,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    storage: Storage,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make all tables anew from the log, beside the live ones, compare them, and swap
    Rebuild {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn projector(args: ProjectorArgs) -> anyhow::Result<ExitCode> {
    let config = projector::Config {
        nats: args.common.nats,
        replicas: args.common.replicas,
        database_url: args.database_url,
        store: args.storage.url(),
    };
    if args.common.print_config {
        settings::print(&json!({
            "nats": redacted(&config.nats),
            "replicas": config.replicas,
            "database_url": redacted(&config.database_url),
            "store": args.storage.shown()?,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    match args.action {
        None => serve("projector", |stop| projector::run(config, stop)).await,
        Some(Action::Rebuild { json }) => show(&Box::pin(projector::rebuild(config)).await?, json),
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
            "{} events up to sequence {}, in {:.1} s",
            report.events, report.sequence, report.seconds
        ))?;
        print_line(match identical {
            Some(true) => "the tables were exactly what the log says",
            Some(false) => "the tables were not what the log says; they are now",
            None => "there was nothing to compare with",
        })?;
    }
    Ok(if identical == Some(false) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
