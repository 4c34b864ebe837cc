//! Errors of a bucket.

type Source = Box<dyn std::error::Error + Send + Sync>;

/// An operation on a bucket that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An existing stream has another configuration than the bucket needs.
    #[error("the stream {stream} cannot store files: its `{field}` is {found}, and must be {needed}; change it, or use another bucket")]
    Unfit {
        /// The stream.
        stream: String,
        /// The configuration's field.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        needed: String,
    },
    /// The object does not exist.
    #[error("the object {name} does not exist")]
    NotFound {
        /// The object's name.
        name: String,
    },
    /// The object exists already.
    #[error("the object {name} exists")]
    Exists {
        /// The object's name.
        name: String,
    },
    /// The object does not have the version that was to be replaced.
    #[error("the object {name} has another version")]
    Stale {
        /// The object's name.
        name: String,
    },
    /// The stored chunks are not the object that the metadata describes.
    #[error("the object {name} is damaged: {why}")]
    Torn {
        /// The object's name.
        name: String,
        /// What was found.
        why: String,
    },
    /// A request to the server failed.
    #[error("failed to {doing}")]
    Request {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: Source,
    },
}

impl Error {
    pub(crate) const fn is_torn(&self) -> bool {
        matches!(self, Self::Torn { .. })
    }

    pub(super) fn request(doing: &'static str) -> impl Fn(Source) -> Self {
        move |source| Self::Request { doing, source }
    }
}

impl From<Error> for object_store::Error {
    fn from(error: Error) -> Self {
        let source = |error: Error| Box::new(error);
        match &error {
            Error::NotFound { name } => Self::NotFound {
                path: name.clone(),
                source: source(error),
            },
            Error::Exists { name } => Self::AlreadyExists {
                path: name.clone(),
                source: source(error),
            },
            Error::Stale { name } => Self::Precondition {
                path: name.clone(),
                source: source(error),
            },
            Error::Unfit { .. } | Error::Torn { .. } | Error::Request { .. } => Self::Generic {
                store: "nats",
                source: source(error),
            },
        }
    }
}
