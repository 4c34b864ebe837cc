//! The options of `rgrid up` and `rgrid down`.

use std::path::PathBuf;

use bus::ids::Queue;
use clap::Args;
use store::{InvalidUrl, StoreUrl};

use crate::values::{ByteSize, Cpus, memory};

/// Bring up a grid on this machine: its own NATS server and PostgreSQL, the services, and one worker
///
/// Everything is kept in one data directory, listens on loopback only, and has credentials of its own, which the other verbs
/// find there. Ports are free ones unless given. A second `rgrid up` says that the grid is already up.
///
/// What is acknowledged survives the end of any process, by `kill -9` too; a power cut can lose the last two seconds.
#[derive(Debug, Clone, Default, Args)]
#[allow(clippy::doc_markdown, reason = "it is the help text")]
pub(crate) struct UpArgs {
    /// Where the grid keeps everything [default: /var/lib/rgrid for root, else rgrid in your data home, ~/.local/share]
    #[arg(long, value_name = "DIR", env = "RGRID_DATA_DIR", hide_env_values = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Return when the grid is up, and leave it running in the background
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
    /// A queue that the worker serves; may be given several times [default: default]
    #[arg(long = "queue", value_name = "NAME")]
    pub(crate) queues: Vec<Queue>,
    /// What the worker runs jobs with [default: auto, Docker where it has the job's image]
    #[arg(long, value_name = "KIND", value_parser = ["auto", "docker", "process"])]
    pub(crate) executor: Option<String>,
    /// The CPUs that the worker offers, such as 4 or 1.5 [default: all of the machine's]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) cpus: Option<Cpus>,
    /// The memory that the worker offers, such as 8GB [default: four fifths of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = memory, allow_hyphen_values = true)]
    pub(crate) memory: Option<ByteSize>,
    /// Where files are kept: nats:// (the grid's own NATS server), s3://BUCKET?endpoint=URL or file:///DIR [default: as before, or nats://]
    #[arg(long, value_name = "URL", value_parser = store)]
    pub(crate) store: Option<String>,
    /// This process is the one in the background
    #[arg(long, hide = true)]
    pub(crate) supervisor: bool,
}

/// Take down the grid that `rgrid up` brought up
///
/// The worker stops first: what it still runs after 10 seconds is killed, and runs again when the grid is up again. Then the
/// services, the database and the NATS server end. Nothing that was acknowledged is lost.
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
