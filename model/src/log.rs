//! The events of a job's log.

use bus::{ids::Attempt, output::frame::Stream};
use serde::{Deserialize, Serialize};

/// `event: log` of a job's log: a piece of one stream, as text or, where its bytes are not UTF-8, in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPiece {
    /// Which stream.
    pub stream: Stream,
    /// When the runner read it, in microseconds since 1970.
    pub time_us: u64,
    /// The bytes, where they are UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The bytes in base64, where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// `event: attempt` of a job's log: the next events belong to this attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAttempt {
    /// The attempt.
    pub attempt: Attempt,
}

/// `event: gap` of a job's log: bytes of the framed log, headers included, that are no longer available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGap {
    /// How many bytes.
    pub bytes: u64,
}
