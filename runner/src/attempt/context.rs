//! What all attempts of a session share.

use std::{sync::Arc, time::Duration};

use bus::{
    grid::secrets::Key,
    ids::{SessionId, WorkerId},
    log::{room::Gauge, writer::Writer},
};
use store::Files;

use crate::{
    attempt::{left::LeftBehind, leftovers::Leftovers, registry::Attempts, shutdown::Shutdown, workspace::Workspaces},
    executor::Executors,
    input_cache::InputCache,
    packages::Packages,
};

/// What the attempts of a session share.
pub(crate) struct Context {
    /// Appends the worker's events. It waits minutes for a log that does not answer, so that an outage costs no finished work.
    pub(crate) writer: Writer,
    /// `JetStream`.
    pub(crate) js: async_nats::jetstream::Context,
    /// How full the log is.
    pub(crate) gauge: Arc<Gauge>,
    /// The store.
    pub(crate) files: Files,
    /// The executors.
    pub(crate) executors: Arc<Executors>,
    /// The worker.
    pub(crate) worker: WorkerId,
    /// Its session.
    pub(crate) session: SessionId,
    /// The session's attempts.
    pub(crate) attempts: Attempts,
    /// The attempts' directories.
    pub(crate) workspaces: Workspaces,
    /// Directories of earlier attempts that could not be removed.
    pub(crate) leftovers: Leftovers,
    /// The cached contents of inputs.
    pub(crate) input_cache: InputCache,
    /// The packages that jobs need.
    pub(crate) packages: Packages,
    /// The attempts that are left to the next runner when this one restarts.
    pub(crate) left: LeftBehind,
    /// The key that decrypts secrets, if the worker has one.
    pub(crate) secrets: Option<Key>,
    /// How much of one attempt's log may be spooled on disk, in bytes.
    pub(crate) spool_bytes: u64,
    /// Whether the runner is ending.
    pub(crate) shutdown: Shutdown,
    /// How long a command that is asked to end may take, where its job does not set it.
    pub(crate) grace: Duration,
}
