//! A batch: jobs that were submitted together, with one limit on how many run at once.
//!
//! As of a job, its life is two pure functions: [`Batch::evolve`] says what did happen, [`decide`] what should. Which of its
//! members wait, run or have failed is no part of it: that is told by their own events.

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

/// The most members of one batch.
pub const MAX_MEMBERS: u32 = 100_000;
/// The most that the jobs of one batch may have together, as JSON, in bytes: each is an event of its own, with all that they share.
/// Of 100,000 members, each may have 5 kB.
pub const MAX_BATCH_BYTES: u64 = 512 << 20;

/// A job's place in its batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchMember {
    /// Which batch.
    pub batch: BatchId,
    /// Its place there, from 0. It and the batch make the job's identity ([`JobId::of_member`]).
    pub index: u32,
    /// What it is for, in the user's words: an input's name, a line, a combination of parameters.
    pub item: String,
    /// The member of an earlier batch that it tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<JobId>,
}

/// An event of a batch as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The batch's namespace, from the subject.
    pub namespace: Namespace,
    /// The batch, from the subject.
    pub batch: BatchId,
    /// Where it stands in `RGRID_EVENTS`.
    pub sequence: u64,
    /// What happened.
    pub envelope: Envelope<BatchEvent>,
}

/// Where a batch stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Its members are being submitted; if whoever does that died, it can be submitted again.
    Submitting,
    /// All of its members are in the log.
    Sealed,
    /// Too many of its members failed: no further one starts.
    Stopped,
    /// A user ended it: no further one starts, and those that run are ended.
    Cancelled {
        /// What they said of it.
        reason: Option<String>,
    },
}

/// A batch as its events tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its identity.
    pub id: BatchId,
    /// Whose it is.
    pub namespace: Namespace,
    /// What it was submitted as.
    pub submitted: BatchSubmitted,
    /// When.
    pub submitted_at: DateTime<Utc>,
    /// Where that stands in the log.
    pub begins: u64,
    /// Where it stands.
    pub phase: Phase,
    /// The sequence of its last event, which the next one must name.
    pub sequence: u64,
}

impl Batch {
    /// Folds one recorded event into a batch; nothing before its first event. What does not follow from where it stands changes
    /// nothing but the sequence.
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
                begins: recorded.sequence,
                phase: Phase::Submitting,
                sequence: recorded.sequence,
            });
        };
        batch.sequence = recorded.sequence;
        match (&recorded.envelope.event, &batch.phase) {
            (BatchEvent::Submitted(_), _) | (_, Phase::Cancelled { .. }) => {}
            // A window moves only where all is submitted: who reads the first and the last event alone knows it from that.
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

    /// Whether a watcher has to mind it: it limits how many run, or how many may fail.
    #[must_use]
    pub const fn is_minded(&self) -> bool {
        self.submitted.is_minded()
    }
}
