//! A message of work: acknowledged when it is claimed, and handed back by its guard when it is dropped before that.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::{
    read::{self, Fact},
    relay,
};
use crate::job;

/// A ready event that was pulled, and is ours until the consumer's ack-wait is over.
///
/// Dropped without [`Work::taken`] or [`Work::refuse`], it is handed back at once, so that no path through the runner can
/// lose or delay it.
#[derive(Debug)]
pub struct Work {
    message: Option<Message>,
    tracker: TaskTracker,
}

impl Work {
    /// Guards a pulled message; the tracker owns the task that hands it back.
    #[must_use]
    pub fn new(message: Message, tracker: &TaskTracker) -> Self {
        Self {
            message: Some(message),
            tracker: tracker.clone(),
        }
    }

    /// The event that makes a job runnable; nothing where the message is of a kind that this program does not know, or could not be
    /// delivered.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn recorded(&self) -> Result<Option<job::Recorded>, read::Error> {
        let Some(message) = &self.message else { return Ok(None) };
        if relay::undeliverable(message.headers.as_ref()).is_some() {
            return Ok(None);
        }
        let sequence = message.info().map_or(0, |info| info.stream_sequence);
        Ok(match read::decode(&message.subject, sequence, &message.payload)? {
            Some(Fact::Job(recorded)) => Some(*recorded),
            Some(Fact::Batch(_) | Fact::Worker(_) | Fact::Runtimes(_) | Fact::Image(_)) | None => None,
        })
    }

    /// How many times this work was handed out, this time included.
    #[must_use]
    pub fn deliveries(&self) -> i64 {
        self.message
            .as_ref()
            .and_then(|message| message.info().ok().map(|info| info.delivered))
            .unwrap_or(1)
    }

    /// The work is claimed, or not there to be claimed any more: it is done with. An acknowledgement that is lost on the way
    /// only brings it once more, to be found claimed.
    pub async fn taken(mut self) {
        if let Some(message) = self.message.take() {
            settle(message, AckKind::Ack).await;
        }
    }

    /// Hands the work back, not to be delivered again before `pause` is over.
    pub async fn refuse(mut self, pause: Duration) {
        if let Some(message) = self.message.take() {
            settle(message, AckKind::Nak(Some(pause))).await;
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            self.tracker.spawn(settle(message, AckKind::Nak(None)));
        }
    }
}

async fn settle(message: Message, kind: AckKind) {
    if let Err(error) = message.ack_with(kind).await {
        debug!("could not settle {}: {error}; it will be delivered again", message.subject);
    }
}
