//! What is in the store, what uses it, and the removal of what nothing does.

mod checkpoint;
mod fold;
mod http;
mod keeping;
mod known;
mod lists;
mod manifests;
mod pass;
mod reading;
mod signed;
mod survey;
mod task;
mod top;
mod used;

use std::time::Duration;

use bus::log::completeness::Incomplete;

pub use self::keeping::Keeping;
pub(crate) use self::{
    http::{gc, storage},
    task::keep_clean,
};

/// How the store is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storing {
    /// How often a pass removes what nothing refers to; nothing: only when it is asked for.
    pub every: Option<Duration>,
    /// How long a content stays that nothing refers to, from when that is found.
    pub grace: Duration,
    /// How long what jobs name is kept after they have ended.
    pub keeping: Keeping,
}

impl Default for Storing {
    /// Every six hours, with a grace of seven days.
    fn default() -> Self {
        Self {
            every: Some(Self::EVERY),
            grace: Self::GRACE,
            keeping: Keeping {
                inputs: Keeping::INPUTS,
                outputs: None,
                packages: Keeping::PACKAGES,
                despite_lost: false,
            },
        }
    }
}

impl Storing {
    /// How often a pass is made unless it is said otherwise.
    pub const EVERY: Duration = Duration::from_secs(6 * 3600);
    /// The grace unless another is given: longer than any transfer, and than a long weekend.
    pub const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
}

/// Why it is not known what is used, and nothing is removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The log cannot be read to its end.
    #[error("the log cannot be read to its end")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What was read is not all that was ever said.
    #[error(
        "the log is not whole, and without what is missing nobody knows what is used: nothing is removed (restore the log from a backup: `nats stream restore RGRID_EVENTS`)"
    )]
    Incomplete(#[from] Incomplete),
    /// A list of contents cannot be read.
    #[error(
        "{what} cannot be read, and without it nobody knows what is used: nothing is removed before it is there again (one that is lost for good: `rgrid storage gc --despite-lost`)"
    )]
    List {
        /// Which list, and what it says.
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store or the marks do not answer.
    #[error(transparent)]
    Files(#[from] store::Error),
    /// Another pass is under way.
    #[error("another pass is under way, and gave its last sign of life at {0}; wait for its end")]
    Busy(chrono::DateTime<chrono::Utc>),
    /// What was worked out did not come to its end.
    #[error("what is used could not be worked out to its end")]
    Cut(#[source] tokio::task::JoinError),
    /// It was taken for dead.
    #[error("the pass stood still for so long that another may have begun; it stopped where it was")]
    Overtaken,
}

/// Works something out where that delays no request: at a million jobs it takes a second.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(Error::Cut)
}
