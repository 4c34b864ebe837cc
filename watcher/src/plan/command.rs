//! The commands that a plan consists of.

use std::time::Duration;

use bus::{
    ids::{Attempt, BatchId, EventId, JobId, SessionId, WorkerId},
    job::LossCause,
};
use chrono::{DateTime, Utc};

use crate::observation::SessionKey;

/// How the watcher knows that a runner is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Its heartbeats stopped.
    Silence,
    /// The broker reported that its connection ended, and it did not reconnect.
    Disconnect,
}

/// What is due, to be decided once more on the log before an event is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Declare a session lost: its runner is dead, or cut off.
    DeclareLost {
        /// Which worker.
        worker: WorkerId,
        /// Which session of it.
        session: SessionId,
        /// The worker's last known event; if another one was appended since, the command is dropped.
        after: u64,
        /// How the watcher knows.
        sign: Sign,
        /// How long the session was silent, by the watcher's clock.
        silent: Duration,
        /// When its last heartbeat was sent, by the worker's clock.
        last_beat: Option<DateTime<Utc>>,
    },
    /// Check a waiting job: its release or its expiry may be due.
    CheckJob {
        /// Which job.
        job: JobId,
        /// Its last known event.
        known: u64,
        /// Whether all the jobs that it depends on ended as it requires.
        met: bool,
    },
    /// Read the jobs that this one depends on.
    CheckDependencies {
        /// Which job.
        job: JobId,
        /// Its last known event.
        known: u64,
        /// The jobs that may have ended, and the last known event of each.
        of: Vec<(JobId, u64)>,
    },
    /// Give free slots of a batch's window to members.
    AdvanceWindow {
        /// Which batch.
        batch: BatchId,
        /// The batch's last known event; if another one was appended since, the command is dropped.
        after: u64,
        /// The members' numbers in the batch.
        members: Vec<u32>,
    },
    /// Stop a batch: too many of its members failed.
    StopBatch {
        /// Which batch.
        batch: BatchId,
        /// The batch's last known event.
        after: u64,
        /// How many members failed.
        failures: u32,
    },
    /// Cancel a member of a batch that is stopped or cancelled.
    EndMember {
        /// Which job.
        job: JobId,
        /// Why.
        reason: String,
        /// Whether to cancel the member also while it runs.
        running: bool,
    },
    /// Give up an attempt: the job is rescheduled, or it ends if this was its last attempt or it is to be cancelled.
    GiveUp {
        /// Which job.
        job: JobId,
        /// Which attempt.
        attempt: Attempt,
        /// The worker that claimed it.
        worker: WorkerId,
        /// That worker's session.
        session: SessionId,
        /// The sequence of the claim.
        claimed: u64,
        /// Why.
        cause: LossCause,
        /// The event that ended its session, if one did.
        session_end: Option<EventId>,
    },
}

impl Command {
    /// What it is about.
    pub(crate) fn topic(&self) -> Topic {
        match self {
            Self::DeclareLost { worker, session, .. } => Topic::Session((worker.clone(), *session)),
            Self::GiveUp {
                job,
                attempt,
                worker,
                session,
                ..
            } => Topic::Attempt(*job, *attempt, (worker.clone(), *session)),
            Self::AdvanceWindow { batch, .. } | Self::StopBatch { batch, .. } => Topic::Batch(*batch),
            Self::EndMember { job, .. } => Topic::Member(*job),
            Self::CheckJob { job, .. } | Self::CheckDependencies { job, .. } => Topic::Waiting(*job),
        }
    }
}

/// What a command is about. One command at a time is carried out about each topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    Session(SessionKey),
    Attempt(JobId, Attempt, SessionKey),
    /// What a job waits for.
    Waiting(JobId),
    /// The window of a batch.
    Batch(BatchId),
    /// The end of a batch's member.
    Member(JobId),
}
