//! A batch: jobs that were submitted together, with one limit on how many run at once.
//!
//! As for a job, the life of a batch is two pure functions: [`decide`] turns a command into an event, [`Batch::evolve`] turns events into
//! the batch's state. Which members wait, run or have failed is not part of that state: the members' own events record it.

mod decide;
mod event;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    decide::{Command, Rejection, decide},
    event::{BatchAdvanced, BatchCancelled, BatchEvent, BatchSealed, BatchStopped, BatchSubmitted},
};
use crate::{
    envelope::Envelope,
    ids::{BatchId, JobId, Namespace},
};

/// The largest number of members of a batch.
pub const MAX_MEMBERS: u32 = 100_000;
/// The largest total size of a batch's jobs as JSON, in bytes: each job is an event of its own, with everything that the jobs share. With
/// 100,000 members, each may have 5 kB.
pub const MAX_BATCH_BYTES: u64 = 512 << 20;

/// A job's membership in a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchMember {
    /// The batch.
    pub batch: BatchId,
    /// The member's index, from 0. The batch and the index determine the job's id ([`JobId::of_member`]).
    pub index: u32,
    /// The item that the member works on, as the user wrote it: an input's name, a line, a combination of parameters.
    pub item: String,
    /// The member of an earlier batch that this job retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<JobId>,
}

/// An event of a batch, as it was read from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The batch's namespace, from the subject.
    pub namespace: Namespace,
    /// The batch, from the subject.
    pub batch: BatchId,
    /// The event's sequence in the stream `RGRID_EVENTS`.
    pub sequence: u64,
    /// The event with its envelope.
    pub envelope: Envelope<BatchEvent>,
}

/// The phase that a batch is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The members are being submitted. If that was interrupted, the batch can be submitted again.
    Submitting,
    /// All of its members are in the log.
    Sealed,
    /// Too many members failed. No further member starts.
    Stopped,
    /// A user cancelled the batch. No further member starts, and running members are cancelled.
    Cancelled {
        /// The reason that the user gave.
        reason: Option<String>,
    },
}

/// The state of a batch: the fold of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The batch's id.
    pub id: BatchId,
    /// The batch's namespace.
    pub namespace: Namespace,
    /// The batch as it was submitted.
    pub submitted: BatchSubmitted,
    /// When the batch was submitted.
    pub submitted_at: DateTime<Utc>,
    /// The sequence of the batch's first event.
    pub first_sequence: u64,
    /// The phase that the batch is in.
    pub phase: Phase,
    /// The sequence of the batch's last event. The writer of the next event names it as the expected sequence.
    pub sequence: u64,
}

impl Batch {
    /// Folds one recorded event into a batch; `None` before the batch's first event. An event that does not follow from the batch's phase
    /// changes only the sequence.
    #[must_use]
    pub fn evolve(batch: Option<Self>, recorded: &Recorded) -> Option<Self> {
        let Some(mut batch) = batch else {
            let BatchEvent::Submitted(submitted) = &recorded.envelope.event else {
                return None;
            };
            return Some(Self {
                id: recorded.batch,
                namespace: recorded.namespace.clone(),
                submitted: submitted.clone(),
                submitted_at: recorded.envelope.time,
                first_sequence: recorded.sequence,
                phase: Phase::Submitting,
                sequence: recorded.sequence,
            });
        };
        batch.sequence = recorded.sequence;
        match (&recorded.envelope.event, &batch.phase) {
            (BatchEvent::Submitted(_), _) | (_, Phase::Cancelled { .. }) => {}
            // A window advances only after the batch is sealed, so a reader of the first and the last event alone can conclude that it is
            // sealed.
            (BatchEvent::Sealed(_) | BatchEvent::Advanced(_), Phase::Submitting) => batch.phase = Phase::Sealed,
            (BatchEvent::Sealed(_) | BatchEvent::Advanced(_), Phase::Sealed | Phase::Stopped) => {}
            (BatchEvent::Stopped(_), _) => batch.phase = Phase::Stopped,
            (BatchEvent::Cancelled(event), _) => {
                batch.phase = Phase::Cancelled {
                    reason: event.reason.clone(),
                };
            }
        }
        Some(batch)
    }

    /// Whether a watcher must watch this batch, because it limits how many members run or may fail.
    #[must_use]
    pub const fn has_limits(&self) -> bool {
        self.submitted.has_limits()
    }
}
