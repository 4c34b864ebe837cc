//! What a watcher is told at its start.

use std::time::Duration;

/// How a watcher is run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The NATS servers: URLs, separated by commas.
    pub nats: String,
    /// The same servers, with credentials of their system account, which hears of disconnected clients at once. Without them a
    /// dead runner is noticed when its heartbeats lapse.
    pub nats_system: Option<String>,
    /// The replicas that streams are made with, where they are not there yet.
    pub replicas: u8,
    /// For how long a worker may be silent before it is lost. Workers beat each second.
    pub lapse: Duration,
}

impl Config {
    /// A worker that was silent for so long is lost; with the watcher's own tick, within 5 s of its last heartbeat.
    pub const LAPSE: Duration = Duration::from_secs(4);

    /// A watcher over these servers, as most are run.
    #[must_use]
    pub fn new(nats: impl Into<String>) -> Self {
        Self {
            nats: nats.into(),
            nats_system: None,
            replicas: 1,
            lapse: Self::LAPSE,
        }
    }
}
