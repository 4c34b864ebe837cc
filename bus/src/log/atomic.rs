//! Atomic batches: either all of several events are stored, one after the other, or none is.
//!
//! async-nats 0.51 does not support them. The messages of an atomic batch carry its id and their index. The last message commits the
//! batch, and only that message is answered. Every expected sequence is checked at the commit.

#![allow(clippy::disallowed_methods, reason = "this is how the writer appends")]

use std::time::Instant;

use async_nats::jetstream::response::Response;
use rand::Rng as _;
use tracing::warn;

use super::append::{Append, Error, Log, PAUSE, sequence_in};
use crate::ids::EventId;

/// The largest number of events in one batch that the server accepts.
pub const MOST: usize = 1_000;

const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// The server's error if a sequence is not the last one (`JSStreamWrongLastSequence…Err`).
const WRONG_LAST: [u64; 2] = [10071, 10164];
/// The server's error if an earlier try has stored one of the events (`JSAtomicPublishContainsDuplicateMessageErr`).
const DUPLICATE: u64 = 10201;

/// The answer to a commit.
#[derive(serde::Deserialize)]
struct Committed {
    /// The sequence of the last event.
    seq: u64,
}

/// The result of one try.
enum Try {
    Stored(u64),
    /// Another writer, or an earlier try of ours, was first. With the last sequence, as the server reports it.
    Passed(u64),
    /// The result is unknown.
    Unknown(String),
}

impl Log {
    /// Appends all of these events or none, and returns the sequence of the last one. The first event must have an expected sequence:
    /// with its filter, this finds out whether an unanswered try was stored.
    ///
    /// # Errors
    /// See [`Error`]. A conflict may be about any of the events; it names the filter of the first one.
    pub async fn append_all(&self, appends: &[Append]) -> Result<u64, Error> {
        let (Some(first), Some(last)) = (appends.first(), appends.last()) else {
            return Ok(0);
        };
        let (filter, expected) = first.expected.clone().unwrap_or_default();
        let since = Instant::now();
        let mut pause = PAUSE.0;
        loop {
            let words = match self.try_all(appends).await {
                Try::Stored(sequence) => return Ok(sequence),
                Try::Passed(known) => match self.find_own(first, known).await {
                    // The events are stored one after the other.
                    Ok(Some(own)) => return Ok(own + appends.len() as u64 - 1),
                    Ok(None) => return Err(Error::Conflict { filter, expected }),
                    Err(error) => error.to_string(),
                },
                Try::Unknown(words) => words,
            };
            if words.contains("maximum bytes exceeded") || words.contains("insufficient") || words.contains("resource limits exceeded") {
                return Err(Error::Full { reason: words });
            }
            let tried = since.elapsed();
            if tried >= self.patience {
                return Err(Error::Uncommitted {
                    subject: last.subject.clone(),
                    tried,
                    reason: words,
                });
            }
            warn!(
                "{} events on {} are not stored yet ({words}); trying again",
                appends.len(),
                first.subject
            );
            let jitter = rand::rng().random_range(0.5..1.0);
            tokio::time::sleep(pause.mul_f32(jitter)).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn try_all(&self, appends: &[Append]) -> Try {
        let client = self.js.client();
        // Each try is a new batch for the server, with the same events.
        let id = EventId::new().to_string();
        for (place, append) in appends.iter().enumerate() {
            let mut headers = append.headers();
            headers.insert(BATCH_ID, id.as_str());
            headers.insert(BATCH_SEQUENCE, (place + 1).to_string());
            let (subject, payload) = (append.subject.clone(), append.payload.clone());
            if place + 1 < appends.len() {
                if let Err(error) = client.publish_with_headers(subject, headers, payload).await {
                    return Try::Unknown(error.to_string());
                }
                continue;
            }
            headers.insert(BATCH_COMMIT, "1");
            let answer = match client.request_with_headers(subject, headers, payload).await {
                Ok(answer) => answer,
                Err(error) => return Try::Unknown(error.to_string()),
            };
            return read(&answer.payload);
        }
        Try::Unknown("there is nothing to store".to_owned())
    }
}

fn read(answer: &[u8]) -> Try {
    match serde_json::from_slice::<Response<Committed>>(answer) {
        Ok(Response::Ok(committed)) => Try::Stored(committed.seq),
        Ok(Response::Err { error }) => {
            let (words, code) = (error.to_string(), error.error_code().0);
            if WRONG_LAST.contains(&code) || code == DUPLICATE {
                Try::Passed(sequence_in(&words).unwrap_or(0))
            } else {
                Try::Unknown(words)
            }
        }
        Err(error) => Try::Unknown(format!("the answer cannot be read: {error}")),
    }
}
