//! What a watcher is told at its start.

use std::time::Duration;

/// How a watcher is run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The NATS servers: URLs, separated by commas.
    pub nats: String,
    /// The replicas that streams are made with, where they are not there yet.
    pub replicas: u8,
    /// For how long a worker may be silent before it is lost. Workers beat each second.
    pub lapse: Duration,
}

impl Config {
    /// A worker that was silent for so long is lost; with the watcher's own tick, within 5 s of its last heartbeat.
    pub const LAPSE: Duration = Duration::from_secs(4);
}
