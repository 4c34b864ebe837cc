//! The configuration of a watcher.

use std::time::Duration;

use store::StoreUrl;

/// The configuration of a watcher.
#[derive(Debug, Clone)]
pub struct Config {
    /// The NATS servers: URLs, separated by commas.
    pub nats: String,
    /// The same servers, with credentials of their system account, which is notified of disconnected clients at once. Without them, a
    /// dead runner is noticed when its heartbeats stop.
    pub nats_system: Option<String>,
    /// The replicas that missing streams are created with.
    pub replicas: u8,
    /// How long a worker that sends a heartbeat each second may be silent before it is lost. A worker that waits for work sends fewer,
    /// and may be silent for that much longer.
    pub lapse: Duration,
    /// Where it keeps snapshots of its state, to start faster. Without them, it reads the whole log at each start.
    pub snapshots: Option<SnapshotConfig>,
}

/// Where snapshots are kept, and how often one is taken.
#[derive(Debug, Clone)]
pub struct SnapshotConfig {
    /// The store.
    pub store: StoreUrl,
    /// How many events are between two snapshots, at the least.
    pub every: u64,
    /// How long the pause between two snapshots is, at the least.
    pub pause: Duration,
}

impl SnapshotConfig {
    /// The default intervals: 10,000 events are read in a moment.
    #[must_use]
    pub const fn new(store: StoreUrl) -> Self {
        Self {
            store,
            every: 10_000,
            pause: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// The default of [`Self::lapse`]: with the watcher's own tick, a worker is lost within 5 s of its last heartbeat.
    pub const LAPSE: Duration = Duration::from_secs(4);

    /// The default configuration for these servers.
    #[must_use]
    pub fn new(nats: impl Into<String>) -> Self {
        Self {
            nats: nats.into(),
            nats_system: None,
            replicas: 1,
            lapse: Self::LAPSE,
            snapshots: None,
        }
    }
}
