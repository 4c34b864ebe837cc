//! What all attempts of a session share.

use std::{sync::Arc, time::Duration};

use bus::{
    grid::secrets::Key,
    ids::{SessionId, WorkerId},
    log::{room::Gauge, writer::Writer},
};
use store::Files;

use crate::{
    attempt::{left::LeftBehind, leftovers::Leftovers, registry::Attempts, shutdown::Shutdown, workspace::Places},
    executor::Executors,
    input_cache::InputCache,
    packages::Packages,
};

/// What every attempt of a session needs.
pub(crate) struct Context {
    /// Appends the worker's events. It waits minutes for a log that does not answer, so that an outage costs no finished work.
    pub(crate) writer: Writer,
    /// `JetStream`.
    pub(crate) js: async_nats::jetstream::Context,
    /// How full the log is.
    pub(crate) gauge: Arc<Gauge>,
    /// The store.
    pub(crate) files: Files,
    /// What commands are executed by.
    pub(crate) executors: Arc<Executors>,
    /// The worker.
    pub(crate) worker: WorkerId,
    /// Its session.
    pub(crate) session: SessionId,
    /// The session's attempts.
    pub(crate) attempts: Attempts,
    /// Where attempts have their directories.
    pub(crate) places: Places,
    /// What stays of earlier ones.
    pub(crate) leftovers: Leftovers,
    /// The contents of inputs that are kept.
    pub(crate) input_cache: InputCache,
    /// The packages that jobs need.
    pub(crate) packages: Packages,
    /// What goes on without this runner, when it restarts.
    pub(crate) left: LeftBehind,
    /// What opens secrets, if the worker may.
    pub(crate) secrets: Option<Key>,
    /// How much of one attempt's log may wait on disk, in bytes.
    pub(crate) spool_bytes: u64,
    /// Whether the runner is ending.
    pub(crate) shutdown: Shutdown,
    /// How long a command that is asked to end may take, where its job does not say.
    pub(crate) grace: Duration,
}
