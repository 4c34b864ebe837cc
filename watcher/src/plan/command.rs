//! What the plan consists of.

use std::time::Duration;

use bus::{
    ids::{Attempt, BatchId, EventId, JobId, SessionId, WorkerId},
    job::LossCause,
};
use chrono::{DateTime, Utc};

use crate::seen::SessionKey;

/// What tells that a runner is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Its heartbeats lapsed.
    Silence,
    /// The broker says that its connection went, and it made no other.
    Disconnect,
}

/// Something to be said in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A session's runner is dead, or cut off.
    Lose {
        /// Which worker.
        worker: WorkerId,
        /// Which session of it.
        session: SessionId,
        /// The worker's last event that is known; if another came since, this is not to be done.
        after: u64,
        /// How it is known.
        sign: Sign,
        /// For how long it was silent, by the watcher's clock.
        silent: Duration,
        /// When it last beat, by its own clock.
        last_beat: Option<DateTime<Utc>>,
    },
    /// A job is to be looked at: something may be due by now.
    Look {
        /// Which job.
        job: JobId,
        /// Its last event that is known.
        known: u64,
        /// Whether all the jobs that it waited for ended as they must.
        met: bool,
    },
    /// The log is to be asked about the jobs that this one waits for.
    Ask {
        /// Which job.
        job: JobId,
        /// Its last event that is known.
        known: u64,
        /// The jobs of which there is news, and the last event of each that is known.
        of: Vec<(JobId, u64)>,
    },
    /// Slots of a batch's window are to be given to members.
    Advance {
        /// Which batch.
        batch: BatchId,
        /// The batch's last event that is known; if another came since, this is not to be done.
        after: u64,
        /// The places of the members.
        members: Vec<u32>,
    },
    /// A batch is to be stopped: too many of its members failed.
    Stop {
        /// Which batch.
        batch: BatchId,
        /// The batch's last event that is known.
        after: u64,
        /// How many failed.
        failures: u32,
    },
    /// A member of a batch that is over is to be ended.
    End {
        /// Which job.
        job: JobId,
        /// Why.
        reason: String,
        /// Also if it runs.
        running: bool,
    },
    /// An attempt is to be given up: made again, or ended if it was the last or is to be cancelled.
    GiveUp {
        /// Which job.
        job: JobId,
        /// Which try at it.
        attempt: Attempt,
        /// The worker that claimed it.
        worker: WorkerId,
        /// That worker's session.
        session: SessionId,
        /// Where the claim stands in the log.
        claimed: u64,
        /// Why.
        cause: LossCause,
        /// The event that ended its session, if one did.
        because: Option<EventId>,
    },
}

impl Command {
    pub(crate) fn topic(&self) -> Topic {
        match self {
            Self::Lose { worker, session, .. } => Topic::Session((worker.clone(), *session)),
            Self::GiveUp {
                job,
                attempt,
                worker,
                session,
                ..
            } => Topic::Attempt(*job, *attempt, (worker.clone(), *session)),
            Self::Advance { batch, .. } | Self::Stop { batch, .. } => Topic::Batch(*batch),
            Self::End { job, .. } => Topic::Member(*job),
            Self::Look { job, .. } | Self::Ask { job, .. } => Topic::Waiting(*job),
        }
    }
}

/// What a command is about; one is done at a time about each.
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
