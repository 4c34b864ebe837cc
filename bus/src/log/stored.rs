//! A message as it is stored, and why reading one failed.

use async_nats::jetstream::{self, message::StreamMessage};
use bytes::Bytes;

use super::EXPECTED_SEQUENCE;
use crate::envelope::DecodeError;

/// Why something could not be read from the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server did not answer.
    #[error("cannot read {what} from the log")]
    Read {
        /// What was asked for.
        what: String,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The stream cannot be reached.
    #[error("cannot reach stream {stream}")]
    Stream {
        /// Which stream.
        stream: String,
        /// What happened.
        #[source]
        source: jetstream::context::GetStreamError,
    },
    /// The server stopped in the midst of it.
    #[error("the log did not go on telling {what}")]
    Silent {
        /// What was read.
        what: String,
    },
    /// What was read is not an event that this program knows.
    #[error("the message at sequence {sequence} cannot be read")]
    Decode {
        /// Where it stands.
        sequence: u64,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
}

/// A message as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its subject.
    pub subject: String,
    /// Where it stands.
    pub sequence: u64,
    /// What it carries.
    pub payload: Bytes,
    headers: async_nats::HeaderMap,
}

impl Stored {
    /// The `Nats-Msg-Id` that it was published with.
    #[must_use]
    pub fn message_id(&self) -> Option<&str> {
        self.headers
            .get(async_nats::header::NATS_MESSAGE_ID)
            .map(async_nats::HeaderValue::as_str)
    }

    /// A header that it was published with.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// The sequence of the message before it under the same filter, 0 for the first; its link.
    pub(super) fn previous(&self) -> u64 {
        self.headers
            .get(EXPECTED_SEQUENCE)
            .and_then(|value| value.as_str().parse().ok())
            .unwrap_or(0)
    }
}

impl From<StreamMessage> for Stored {
    fn from(message: StreamMessage) -> Self {
        Self {
            subject: message.subject.to_string(),
            sequence: message.sequence,
            payload: message.payload,
            headers: message.headers,
        }
    }
}
