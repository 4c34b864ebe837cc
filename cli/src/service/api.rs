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

/// Run the API: HTTP for users and programs, and the intake of submissions over NATS
///
/// Every request but those to /v1/health must carry the key. Without a database, nothing can be listed, and all else works.
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
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", env = "RGRID_API_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The key that callers must send
    #[arg(long, value_name = "KEY", env = "RGRID_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// A file that holds the key
    #[arg(long, value_name = "FILE", env = "RGRID_KEY_FILE", conflicts_with = "key")]
    key_file: Option<PathBuf>,
    /// A file with the key for secrets, or with its public half [default: none, and no secrets]
    #[arg(long, value_name = "FILE", env = "RGRID_SECRETS_KEY_FILE")]
    secrets_key_file: Option<PathBuf>,
    /// The largest file that may be uploaded
    #[arg(long, value_name = "SIZE", env = "RGRID_MAX_UPLOAD", default_value = "1TiB")]
    max_upload: ByteSize,
    /// The deployment's runtimes.toml: runtimes and aliases, for every worker and client; an edit counts at once [default: what was said last]
    #[arg(long, value_name = "FILE", env = "RGRID_RUNTIMES_FILE")]
    runtimes: Option<PathBuf>,
    /// How many connections with the key there may be at once; fewer where the process may not open as many files
    #[arg(long, value_name = "NUMBER", env = "RGRID_MAX_CONNECTIONS", default_value_t = api::Limits::CONNECTIONS, help_heading = "Clients")]
    max_connections: usize,
    /// For how long a client may stand still where it is its turn: before it sends the key, within a request, and while it does not
    /// read the answer
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
    /// How often what nothing refers to is removed from the store; 0: never by itself
    #[arg(long, value_name = "TIME", env = "RGRID_GC_EVERY", default_value = "6h")]
    gc_every: Patience,
    /// How long a file stays that nothing refers to, from when that is found
    #[arg(long, value_name = "TIME", env = "RGRID_GC_GRACE", default_value = "7d")]
    gc_grace: Patience,
    /// How long the inputs of a job that has ended are kept, so that it can be run again
    #[arg(long, value_name = "TIME", env = "RGRID_KEEP_INPUTS", default_value = "30d")]
    keep_inputs: Patience,
    /// How long the outputs of a job are kept that does not say it itself [default: for ever]
    #[arg(long, value_name = "TIME", env = "RGRID_KEEP_OUTPUTS")]
    keep_outputs: Option<Span>,
    /// How long installed packages stay in the store that no worker fetches
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
