//! Why a watcher cannot run, and how errors are logged.

use async_nats::jetstream;
use bus::log::{connect, setup};

/// What an operator must change before the watcher can run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot be used, or its URL is invalid.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The streams do not have the required configuration.
    #[error(transparent)]
    Streams(#[from] setup::Error),
}

impl Error {
    /// Whether it may pass on its own: no server answers yet.
    pub(crate) fn passes(&self) -> bool {
        use jetstream::context::RequestErrorKind::{NoResponders, TimedOut};
        match self {
            Self::Connect(error) => matches!(error, connect::Error::Connect { .. }),
            Self::Streams(setup::Error::Request { source, .. }) => matches!(source.kind(), NoResponders | TimedOut),
            Self::Streams(_) => false,
        }
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
