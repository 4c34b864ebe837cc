//! A stored message, and why reading from the log failed.

use async_nats::jetstream::{self, message::StreamMessage};
use bytes::Bytes;

use super::EXPECTED_SEQUENCE;
use crate::envelope::DecodeError;

/// Why reading from the log failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server did not answer.
    #[error("cannot read {what} from the log")]
    Read {
        /// What was requested.
        what: String,
        /// The error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The stream cannot be reached.
    #[error("cannot reach stream {stream}")]
    Stream {
        /// The stream.
        stream: String,
        /// The error.
        #[source]
        source: jetstream::context::GetStreamError,
    },
    /// The server stopped sending.
    #[error("the server stopped sending {what}")]
    Silent {
        /// What was being read.
        what: String,
    },
    /// The message is not an event that this program can read.
    #[error("cannot read the message at sequence {sequence}")]
    Decode {
        /// The message's sequence.
        sequence: u64,
        /// What is wrong with the message.
        #[source]
        source: DecodeError,
    },
}

/// A stored message.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The message's subject.
    pub subject: String,
    /// The message's sequence.
    pub sequence: u64,
    /// The message's payload.
    pub payload: Bytes,
    headers: async_nats::HeaderMap,
}

impl Stored {
    /// The `Nats-Msg-Id` with which the message was published.
    #[must_use]
    pub fn message_id(&self) -> Option<&str> {
        self.headers
            .get(async_nats::header::NATS_MESSAGE_ID)
            .map(async_nats::HeaderValue::as_str)
    }

    /// A header with which the message was published.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// The link: the sequence of the previous message under the same filter, 0 for the first message.
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
