//! What can go wrong with files.

use std::path::PathBuf;

use bus::ids::Digest;

use super::{nats, url::InvalidUrl};

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is stored under this digest.
    #[error("content {digest} is not in the store")]
    Missing {
        /// The content asked for.
        digest: Digest,
    },
    /// What is stored under this digest is something else.
    #[error("content {digest} is damaged in the store: {why}")]
    Corrupt {
        /// The content asked for.
        digest: Digest,
        /// What was found instead.
        why: String,
    },
    /// The content is more than the caller is ready to hold in memory.
    #[error("content {digest} is {size} bytes, and at most {max} can be taken")]
    TooLarge {
        /// The content asked for.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The caller's limit in bytes.
        max: u64,
    },
    /// A range that the content does not have.
    #[error("content {digest} has no bytes {start} to {end}")]
    Range {
        /// The content asked for.
        digest: Digest,
        /// The first byte asked for.
        start: u64,
        /// The byte after the last one asked for.
        end: u64,
    },
    /// What was sent is not what was announced. Nothing was stored.
    #[error("what was sent as content {digest} is not it: {why}")]
    Mismatch {
        /// The content announced.
        digest: Digest,
        /// How they differ.
        why: String,
    },
    /// The sender of a stream failed before its end. Nothing was stored.
    #[error("the content stopped before its end")]
    Input(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A local file changed between the two times it was read. Nothing was stored.
    #[error("{} changed while it was being sent; send it again when nothing writes to it", path.display())]
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
    /// The store did not do what it was asked to.
    #[error("failed to {doing}")]
    Store {
        /// What was tried.
        doing: &'static str,
        /// Whether it may work later: the store was out of reach, rather than against it.
        transient: bool,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The content is on its way out: nothing referred to it. It can be put again when it is gone.
    #[error("content {digest} is being removed just now, as nothing referred to it; it can be stored again in a moment")]
    Going {
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
    /// The store's URL names no store.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// A `nats://` store without a connection to keep it in.
    #[error("the files are to be kept in NATS ({url}), and there is no connection to it")]
    NotConnected {
        /// The store's URL.
        url: String,
    },
}

impl Error {
    /// Whether asking again later may help: the store was out of reach, rather than the content wrong.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Store { transient: true, .. } | Self::Nats(nats::Error::Request { .. }) | Self::Going { .. } | Self::Marks { .. }
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
