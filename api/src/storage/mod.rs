//! Storage: what is in the store, what uses it, and the passes that remove unused contents.

mod checkpoint;
mod fold;
mod http;
mod known;
mod lists;
mod manifests;
mod pass;
mod reading;
mod retention;
mod signed;
mod survey;
mod task;
mod top;
mod used;

use std::time::Duration;

use bus::log::whole::Gap;

pub use self::retention::Retention;
pub(crate) use self::{
    http::{gc, storage},
    task::run_passes,
};

/// When contents are removed from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageConfig {
    /// How often a storage pass runs; `None`: only on request.
    pub every: Option<Duration>,
    /// The grace period: how long a content is kept after it was found unused.
    pub grace: Duration,
    /// How long contents are kept after the jobs that name them have ended.
    pub retention: Retention,
}

impl Default for StorageConfig {
    /// Every six hours, with a grace period of seven days.
    fn default() -> Self {
        Self {
            every: Some(Self::EVERY),
            grace: Self::GRACE,
            retention: Retention {
                inputs: Retention::INPUTS,
                outputs: None,
                packages: Retention::PACKAGES,
                despite_lost: false,
            },
        }
    }
}

impl StorageConfig {
    /// The default of `every`.
    pub const EVERY: Duration = Duration::from_secs(6 * 3600);
    /// The default grace period: longer than any transfer, and than a long weekend.
    pub const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
}

/// Why a survey or a pass failed. Nothing is removed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The log cannot be read to its end.
    #[error("cannot read the whole log")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Events are missing from the log.
    #[error(
        "events are missing from the log, and they may name contents that are used, so nothing is removed; restore the log from a backup: `nats stream restore RGRID_EVENTS`"
    )]
    Gap(#[from] Gap),
    /// A list of contents cannot be read.
    #[error(
        "cannot read {what}, which may name contents that are used, so nothing is removed until it can be read; if it is lost permanently, run `rgrid storage gc --despite-lost`"
    )]
    List {
        /// Which list.
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store or the marks do not answer.
    #[error(transparent)]
    Files(#[from] store::Error),
    /// Another pass is running.
    #[error("another storage pass is running, and was last active at {0}; wait until it ends")]
    Busy(chrono::DateTime<chrono::Utc>),
    /// A task of the survey failed.
    #[error("a task of the survey failed")]
    Cut(#[source] tokio::task::JoinError),
    /// The pass lost its lease.
    #[error("the storage pass made no progress for so long that another may have begun, and stopped")]
    Overtaken,
}

/// Runs a computation on a blocking thread, so that it delays no request: with a million jobs it takes a second.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(Error::Cut)
}
