//! What a watcher is told at its start.

use std::time::Duration;

use store::StoreUrl;

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
    /// For how long a worker that beats each second may be silent before it is lost. One that waits for work beats less often, and
    /// has as much longer.
    pub lapse: Duration,
    /// Where it keeps snapshots of what it knows, to start from sooner; nowhere: it reads the whole log at each start.
    pub snapshots: Option<SnapshotConfig>,
}

/// Where snapshots are kept, and how often one is taken.
#[derive(Debug, Clone)]
pub struct SnapshotConfig {
    /// The store.
    pub store: StoreUrl,
    /// Events from one snapshot to the next.
    pub every: u64,
    /// The least time from one to the next.
    pub pause: Duration,
}

impl SnapshotConfig {
    /// As often as is useful: 10,000 events are read in a moment.
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
            snapshots: None,
        }
    }
}
