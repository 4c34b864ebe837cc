//! `rgrid watcher`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{
    settings::{self, Common, redacted},
    stop::serve,
};
use crate::values::Span;

/// Run the watcher: it notices lost workers and gives their jobs to others
///
/// It keeps nothing of its own, and two may run. It asks for no database.
#[derive(Debug, Args)]
pub(crate) struct WatcherArgs {
    /// For how long a worker may be silent before it is lost
    #[arg(long, value_name = "TIME", env = "RGRID_LAPSE", default_value = "4s")]
    lapse: Span,
    #[command(flatten)]
    common: Common,
}

pub(crate) async fn watcher(args: WatcherArgs) -> anyhow::Result<ExitCode> {
    let config = watcher::Config {
        nats: args.common.nats,
        replicas: args.common.replicas,
        lapse: args.lapse.0,
    };
    if args.common.print_config {
        settings::print(&json!({
            "nats": redacted(&config.nats),
            "replicas": config.replicas,
            "lapse_ms": args.lapse.millis(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    serve("watcher", |stop| watcher::run(config, stop)).await
}
