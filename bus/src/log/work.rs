//! A message of a work queue: acknowledged when its job is claimed, and returned by its guard if it is dropped before.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::{
    read::{self, Fact},
    relay,
};
use crate::job;

/// A ready event that was pulled. It is reserved for this process until the consumer's ack-wait has passed.
///
/// If it is dropped without [`Work::acknowledge`] or [`Work::refuse`], it is returned to the queue at once, so that no path through the runner
/// can lose or delay it.
#[derive(Debug)]
pub struct Work {
    message: Option<Message>,
    tracker: TaskTracker,
}

impl Work {
    /// Guards a pulled message. The tracker owns the task that returns it.
    #[must_use]
    pub fn new(message: Message, tracker: &TaskTracker) -> Self {
        Self {
            message: Some(message),
            tracker: tracker.clone(),
        }
    }

    /// The event that makes a job ready; `None` if this program does not know its kind, or if the message could not be delivered.
    ///
    /// # Errors
    /// If the event cannot be read.
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

    /// How many times this message was delivered, including this time.
    #[must_use]
    pub fn deliveries(&self) -> i64 {
        self.message
            .as_ref()
            .and_then(|message| message.info().ok().map(|info| info.delivered))
            .unwrap_or(1)
    }

    /// Acknowledges the message: the job is claimed, or can no longer be claimed. If the acknowledgement is lost, the message is
    /// delivered once more, and the job is found claimed.
    pub async fn acknowledge(mut self) {
        if let Some(message) = self.message.take() {
            settle(message, AckKind::Ack).await;
        }
    }

    /// Returns the message to the queue. It is not delivered again before `pause` has passed.
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
