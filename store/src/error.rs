//! Errors of file operations.

use std::path::PathBuf;

use bus::ids::Digest;

use super::{nats, url::InvalidUrl};

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is stored under this digest.
    #[error("content {digest} is not in the store")]
    Missing {
        /// The requested content.
        digest: Digest,
    },
    /// What is stored under this digest is something else.
    #[error("content {digest} is damaged in the store: {why}")]
    Corrupt {
        /// The requested content.
        digest: Digest,
        /// What was found instead.
        why: String,
    },
    /// The content is larger than the caller's limit.
    #[error("content {digest} has {size} bytes, and at most {max} are allowed")]
    TooLarge {
        /// The requested content.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The caller's limit in bytes.
        max: u64,
    },
    /// A range that the content does not have.
    #[error("content {digest} has no bytes {start} to {end}")]
    Range {
        /// The requested content.
        digest: Digest,
        /// The first requested byte.
        start: u64,
        /// The byte after the last requested one.
        end: u64,
    },
    /// What was sent is not what was announced. Nothing was stored.
    #[error("the bytes that were sent are not content {digest}: {why}")]
    Mismatch {
        /// The content announced.
        digest: Digest,
        /// How they differ.
        why: String,
    },
    /// The sender of a stream failed before its end. Nothing was stored.
    #[error("the content ended early")]
    Input(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A local file changed between the two times it was read. Nothing was stored.
    #[error("{} changed while it was being sent; send it again when no program writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A local file has more holes than may be stored as zeros. Nothing was stored.
    #[error("{} has more than {max} bytes of holes in its {size} bytes", path.display())]
    Holes {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The most bytes of holes that it, and what is stored with it, may have.
        max: u64,
    },
    /// A local file could not be read or written.
    #[error("failed to {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A request to the store failed.
    #[error("failed to {doing}")]
    Store {
        /// What was tried.
        doing: &'static str,
        /// Whether a retry may succeed: the store did not answer, rather than refused.
        transient: bool,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The content is being deleted, because it was unused. It can be stored again once that is done.
    #[error("content {digest} is being deleted, because it was unused; try again in a moment")]
    BeingDeleted {
        /// The content.
        digest: Digest,
    },
    /// The marks on unused contents cannot be read or written.
    #[error("failed to {doing} of unused contents")]
    Marks {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bucket in `JetStream` cannot be used.
    #[error(transparent)]
    Nats(#[from] nats::Error),
    /// The store's URL is invalid.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// A `nats://` store without a connection to keep it in.
    #[error("the file store is in NATS ({url}), but there is no connection to NATS")]
    NotConnected {
        /// The store's URL.
        url: String,
    },
}

impl Error {
    /// Whether a retry may succeed: the store did not answer, rather than the content is wrong.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Store { transient: true, .. } | Self::Nats(nats::Error::Request { .. }) | Self::BeingDeleted { .. } | Self::Marks { .. }
        )
    }

    /// The error of a store's operation.
    pub(super) fn store(doing: &'static str, source: object_store::Error) -> Self {
        match source {
            // Its own text would repeat the source's.
            object_store::Error::Generic { source, .. } => Self::Store {
                doing,
                transient: true,
                source,
            },
            source => Self::Store {
                doing,
                transient: false,
                source: source.into(),
            },
        }
    }

    /// The error of a read of `digest`: an absent object is missing content, a torn one damaged content.
    pub(super) fn reading(digest: Digest, source: object_store::Error) -> Self {
        match source {
            object_store::Error::NotFound { .. } => Self::Missing { digest },
            object_store::Error::Generic { source, .. } if is_torn(&*source) => Self::Corrupt {
                digest,
                why: source.to_string(),
            },
            source => Self::store("read from the store", source),
        }
    }

    pub(super) fn storing(source: object_store::Error) -> Self {
        Self::store("write to the store", source)
    }
}

fn is_torn(source: &(dyn std::error::Error + 'static)) -> bool {
    source.downcast_ref::<nats::Error>().is_some_and(nats::Error::is_torn)
}
