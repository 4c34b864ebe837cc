//! `rgrid api`.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::{
    settings::{self, Common, Storage, redacted},
    stop::serve,
};
use crate::values::{ByteSize, Patience, Span};

/// Run the API service: HTTP for users and programs, and the intake of jobs submitted over NATS
///
/// All requests except those to /v1/health must carry the key. Without a database, lists are not available, and everything else works.
#[derive(Debug, Args)]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
pub(crate) struct ApiArgs {
    /// The database that the projector fills: postgres://user:password@host:5432/name
    #[arg(
        long,
        value_name = "URL",
        env = "RGRID_DATABASE_URL",
        hide_env_values = true,
        help_heading = "Grid"
    )]
    database_url: Option<String>,
    /// The address to listen on; port 0 chooses a free port
    #[arg(long, value_name = "ADDRESS", env = "RGRID_API_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The key that clients must send
    #[arg(long, value_name = "KEY", env = "RGRID_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// A file that holds the key
    #[arg(long, value_name = "FILE", env = "RGRID_KEY_FILE", conflicts_with = "key")]
    key_file: Option<PathBuf>,
    /// A file with the key for secrets, or its public half [default: none; secrets are disabled]
    #[arg(long, value_name = "FILE", env = "RGRID_SECRETS_KEY_FILE")]
    secrets_key_file: Option<PathBuf>,
    /// The largest file that may be uploaded
    #[arg(long, value_name = "SIZE", env = "RGRID_MAX_UPLOAD", default_value = "1TiB")]
    max_upload: ByteSize,
    /// The deployment's runtimes.toml: runtimes and aliases for all workers and clients; changes to the file take effect immediately [default: the last published content]
    #[arg(long, value_name = "FILE", env = "RGRID_RUNTIMES_FILE")]
    runtimes: Option<PathBuf>,
    /// The maximum number of authenticated connections at the same time; lower if the process may not open as many files
    #[arg(long, value_name = "NUMBER", env = "RGRID_MAX_CONNECTIONS", default_value_t = api::Limits::CONNECTIONS, help_heading = "Clients")]
    max_connections: usize,
    /// How long a client may be idle before it sends the key, within a request, or while it does not read the response
    #[arg(
        long,
        value_name = "TIME",
        env = "RGRID_CLIENT_PATIENCE",
        default_value = "30s",
        help_heading = "Clients"
    )]
    client_patience: Span,
    #[command(flatten)]
    keeping: Keeping,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    storage: Storage,
}

/// What goes when.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage")]
struct Keeping {
    /// The interval between storage passes, which remove unreferenced files; 0 disables them
    #[arg(long, value_name = "TIME", env = "RGRID_GC_EVERY", default_value = "6h")]
    gc_every: Patience,
    /// How long an unreferenced file is kept after it was found to be unreferenced
    #[arg(long, value_name = "TIME", env = "RGRID_GC_GRACE", default_value = "7d")]
    gc_grace: Patience,
    /// How long the inputs of an ended job are kept, so that it can be run again
    #[arg(long, value_name = "TIME", env = "RGRID_KEEP_INPUTS", default_value = "30d")]
    keep_inputs: Patience,
    /// How long outputs are kept, for jobs without --keep-outputs [default: permanently]
    #[arg(long, value_name = "TIME", env = "RGRID_KEEP_OUTPUTS")]
    keep_outputs: Option<Span>,
    /// How long installed packages that no worker fetches are kept in the store
    #[arg(long, value_name = "TIME", env = "RGRID_KEEP_PACKAGES", default_value = "90d")]
    keep_packages: Patience,
}

impl Keeping {
    fn storage_config(&self) -> api::StorageConfig {
        api::StorageConfig {
            every: Some(self.gc_every.0).filter(|every| !every.is_zero()),
            grace: self.gc_grace.0,
            retention: api::Retention {
                inputs: self.keep_inputs.0,
                outputs: self.keep_outputs.map(|span| span.0),
                packages: self.keep_packages.0,
                despite_lost: false,
            },
        }
    }
}

pub(crate) async fn api(args: ApiArgs) -> anyhow::Result<ExitCode> {
    let key = match (args.key, &args.key_file) {
        (Some(key), _) => key,
        (None, Some(file)) => std::fs::read_to_string(file).with_context(|| format!("cannot read the key from {}", file.display()))?,
        (None, None) => String::new(),
    };
    let config = api::Config {
        nats: args.common.nats,
        replicas: args.common.replicas,
        database_url: args.database_url.filter(|url| !url.is_empty()),
        store: args.storage.url(),
        listen: args.listen,
        key: key.trim().to_owned(),
        secrets_key: settings::secrets_key(args.secrets_key_file.as_deref())?,
        max_upload_bytes: args.max_upload.0,
        runtimes: args.runtimes,
        storage_config: args.keeping.storage_config(),
        limits: api::Limits {
            connections: args.max_connections,
            patience: args.client_patience.0,
        },
    };
    if args.common.print_config {
        settings::print(&json!({
            "nats": redacted(&config.nats),
            "replicas": config.replicas,
            "database_url": config.database_url.as_deref().map(redacted),
            "store": args.storage.shown()?,
            "listen": config.listen,
            "key": if config.key.is_empty() { "" } else { "***" },
            "secrets_key_file": args.secrets_key_file,
            "max_upload_bytes": config.max_upload_bytes,
            "runtimes": config.runtimes,
            "max_connections": config.limits.connections,
            "client_patience_ms": config.limits.patience.as_millis(),
            "gc_every_ms": config.storage_config.every.map(|every| every.as_millis()),
            "gc_grace_ms": config.storage_config.grace.as_millis(),
            "keep_inputs_ms": config.storage_config.retention.inputs.as_millis(),
            "keep_outputs_ms": config.storage_config.retention.outputs.map(|span| span.as_millis()),
            "keep_packages_ms": config.storage_config.retention.packages.as_millis(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    serve("api", |stop| api::run(config, stop)).await
}
