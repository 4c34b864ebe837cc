//! `rgrid watcher`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{
    settings::{self, Common, Storage, redacted},
    stop::serve,
};
use crate::values::Span;

/// Run the watcher: it detects lost workers and reschedules their jobs
///
/// The watcher keeps only a snapshot, to start faster. Two watchers may run at the same time. It needs no database.
#[derive(Debug, Args)]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
pub(crate) struct WatcherArgs {
    /// The NATS servers, with credentials of their system account, which reports a dead runner immediately. Without it, jobs of a dead runner are rescheduled within 5 s, not within 1 s
    #[arg(long, value_name = "URLS", env = "RGRID_NATS_SYSTEM", hide_env_values = true)]
    nats_system: Option<String>,
    /// How long a worker may be silent before it is lost
    #[arg(long, value_name = "TIME", env = "RGRID_LAPSE", default_value = "4s")]
    lapse: Span,
    /// Store a snapshot of the watcher's state after this many events, to start faster
    #[arg(long, value_name = "EVENTS", env = "RGRID_SNAPSHOT_EVERY", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    snapshot_every: u64,
    #[command(flatten)]
    storage: Storage,
    #[command(flatten)]
    common: Common,
}

pub(crate) async fn watcher(args: WatcherArgs) -> anyhow::Result<ExitCode> {
    let config = watcher::Config {
        nats: args.common.nats,
        nats_system: args.nats_system.filter(|urls| !urls.is_empty()),
        replicas: args.common.replicas,
        lapse: args.lapse.0,
        snapshots: Some(watcher::SnapshotConfig {
            every: args.snapshot_every,
            ..watcher::SnapshotConfig::new(args.storage.parsed()?)
        }),
    };
    if args.common.print_config {
        settings::print(&json!({
            "nats": redacted(&config.nats),
            "nats_system": config.nats_system.as_deref().map(redacted),
            "replicas": config.replicas,
            "store": args.storage.shown()?,
            "snapshot_every": args.snapshot_every,
            "lapse_ms": args.lapse.millis(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    serve("watcher", |stop| watcher::run(config, stop)).await
}
