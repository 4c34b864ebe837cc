//! The options of `rgrid up` and `rgrid down`.

use std::path::PathBuf;

use bus::ids::Queue;
use clap::Args;
use store::{InvalidUrl, StoreUrl};

use crate::values::{ByteSize, Cpus, memory};

/// Start a grid on this machine: a NATS server, PostgreSQL, the services, and one worker
///
/// All data is kept in one data directory. All services listen on loopback only, on free ports unless given, with generated credentials that the other commands read from the data directory. A second `rgrid up` reports that the grid is already up.
///
/// Acknowledged data survives the death of any process, even by `kill -9`; a power failure can lose the last two seconds.
#[derive(Debug, Clone, Default, Args)]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
pub(crate) struct UpArgs {
    /// The grid's data directory [default: /var/lib/rgrid for root, otherwise rgrid in your data home, ~/.local/share]
    #[arg(long, value_name = "DIR", env = "RGRID_DATA_DIR", hide_env_values = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Run the grid in the background; return when it is up
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// The port of the NATS server
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) nats_port: Option<u16>,
    /// The port of the database
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) postgres_port: Option<u16>,
    /// The port of the HTTP API
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) api_port: Option<u16>,
    /// A queue that the worker serves; can be repeated [default: default]
    #[arg(long = "queue", value_name = "NAME")]
    pub(crate) queues: Vec<Queue>,
    /// The worker's executor [default: auto: Docker if the worker has the job's image, otherwise plain processes]
    #[arg(long, value_name = "KIND", value_parser = ["auto", "docker", "process"])]
    pub(crate) executor: Option<String>,
    /// The CPUs that the worker offers, such as 4 or 1.5 [default: all of the machine's]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) cpus: Option<Cpus>,
    /// The memory that the worker offers, such as 8GB [default: four fifths of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = memory, allow_hyphen_values = true)]
    pub(crate) memory: Option<ByteSize>,
    /// Where files are stored: nats:// (the grid's own NATS server), s3://BUCKET?endpoint=URL or file:///DIR [default: the previous setting, or nats://]
    #[arg(long, value_name = "URL", value_parser = store)]
    pub(crate) store: Option<String>,
    /// This process is the one in the background
    #[arg(long, hide = true)]
    pub(crate) supervisor: bool,
}

/// Stop the grid that `rgrid up` started
///
/// The worker stops first: jobs that still run after 10 seconds are killed, and run again when the grid is up again. Then the services, the database and the NATS server stop. No acknowledged data is lost.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DownArgs {
    /// The grid's data directory [default: as for `rgrid up`]
    #[arg(long, value_name = "DIR", env = "RGRID_DATA_DIR", hide_env_values = true)]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Checks a store's URL, and keeps it as it was written.
fn store(text: &str) -> Result<String, InvalidUrl> {
    text.parse::<StoreUrl>().map(|_| text.to_owned())
}
