//! What should happen to a job.

use super::{
    AttemptRecord, CancelRequested, Cancelled, Claimed, Died, End, Finished, Job, JobEvent, LossCause, ManifestRef, Outcome, Phase,
    Rescheduled, Started, Submitted, Usage,
};
use crate::{
    ids::{Attempt, SessionId, WorkerId},
    spec::{ExecutorKind, JobSpec},
};

/// How many attempts a job gets when its workers are lost; then it is dead.
pub const MAX_ATTEMPTS: u32 = 3;

/// What somebody wants of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Accept it.
    Submit {
        /// What is to be run.
        spec: Box<JobSpec>,
    },
    /// Take it, for a worker.
    Claim {
        /// Whose attempt it will be.
        worker: WorkerId,
        /// The worker's session.
        session: SessionId,
    },
    /// Say that its command runs.
    Start {
        /// Which try.
        attempt: Attempt,
        /// Whose.
        session: SessionId,
        /// How it is executed.
        executor: ExecutorKind,
        /// What it runs in.
        environment: Option<String>,
    },
    /// Commit its attempt's end.
    Finish {
        /// Which try.
        attempt: Attempt,
        /// Whose.
        session: SessionId,
        /// How it ended.
        outcome: Outcome,
        /// What it left behind.
        manifest: Option<ManifestRef>,
        /// What it used.
        usage: Usage,
    },
    /// Give an attempt up.
    GiveUp {
        /// Which try.
        attempt: Attempt,
        /// Why.
        cause: LossCause,
    },
    /// End it, wherever it stands.
    Cancel {
        /// What the user said of it.
        reason: Option<String>,
    },
}

/// Why a command changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No such job.
    #[error("there is no such job")]
    Absent,
    /// It was submitted before, as the same.
    #[error("the job exists already")]
    Exists,
    /// It was submitted before, under the same key, as something else.
    #[error("the key was used before, for a job that is not the same; choose another key, or submit the same job")]
    KeyConflict,
    /// Another worker has it, or it ended.
    #[error("the job is not queued")]
    NotQueued,
    /// The attempt that speaks was given up, or was never claimed by this session.
    #[error("attempt {attempt} is not the live one")]
    Stale {
        /// The attempt that spoke.
        attempt: Attempt,
    },
    /// The attempt started already.
    #[error("the attempt started already")]
    AlreadyStarted,
    /// It ended already.
    #[error("the job ended already")]
    Ended,
    /// A user asked for its end already.
    #[error("the job is being cancelled already")]
    AlreadyCancelling,
}

/// Says what event a command comes to, for a job as it stands; nothing where it does not exist yet.
///
/// # Errors
/// A [`Rejection`] where the command changes nothing.
pub fn decide(job: Option<&Job>, command: Command) -> Result<JobEvent, Rejection> {
    let job = match (job, command) {
        (None, Command::Submit { spec }) => return Ok(JobEvent::Submitted(Box::new(Submitted { spec: *spec }))),
        (None, _) => return Err(Rejection::Absent),
        (Some(job), Command::Submit { spec }) if job.spec == *spec => return Err(Rejection::Exists),
        (Some(_), Command::Submit { .. }) => return Err(Rejection::KeyConflict),
        (Some(job), command) => (job, command),
    };
    match job {
        (job, Command::Claim { worker, session }) => claim(job, worker, session),
        (
            job,
            Command::Start {
                attempt,
                session,
                executor,
                environment,
            },
        ) => {
            live(job, attempt, Some(session))?;
            match job.phase {
                Phase::Claimed { .. } => Ok(JobEvent::Started(Started {
                    attempt,
                    session,
                    executor,
                    environment,
                })),
                _ => Err(Rejection::AlreadyStarted),
            }
        }
        (
            job,
            Command::Finish {
                attempt,
                session,
                outcome,
                manifest,
                usage,
            },
        ) => {
            live(job, attempt, Some(session))?;
            Ok(JobEvent::Finished(Box::new(Finished {
                attempt,
                session,
                outcome,
                manifest,
                usage,
            })))
        }
        (job, Command::GiveUp { attempt, cause }) => {
            live(job, attempt, None)?;
            Ok(give_up(job, attempt, cause))
        }
        (job, Command::Cancel { reason }) => cancel(job, reason),
        (_, Command::Submit { .. }) => Err(Rejection::Exists),
    }
}

fn claim(job: &Job, worker: WorkerId, session: SessionId) -> Result<JobEvent, Rejection> {
    match job.phase {
        Phase::Queued { next } => Ok(JobEvent::Claimed(Claimed {
            attempt: next,
            worker,
            session,
        })),
        Phase::Claimed { .. } | Phase::Running { .. } => Err(Rejection::NotQueued),
        Phase::Ended(_) => Err(Rejection::Ended),
    }
}

/// The fence: only the live attempt, of the session that claimed it, may speak.
fn live(job: &Job, attempt: Attempt, session: Option<SessionId>) -> Result<&AttemptRecord, Rejection> {
    job.live_attempt()
        .filter(|live| live.number == attempt && session.is_none_or(|session| live.session == session))
        .ok_or(Rejection::Stale { attempt })
}

fn give_up(job: &Job, attempt: Attempt, cause: LossCause) -> JobEvent {
    if let Some((_, reason)) = &job.cancel_requested {
        JobEvent::Cancelled(Cancelled { reason: reason.clone() })
    } else if attempt.0 >= MAX_ATTEMPTS {
        JobEvent::Died(Died { attempt, cause })
    } else {
        JobEvent::Rescheduled(Box::new(Rescheduled {
            attempt,
            cause,
            spec: job.spec.clone(),
        }))
    }
}

fn cancel(job: &Job, reason: Option<String>) -> Result<JobEvent, Rejection> {
    match job.phase {
        Phase::Queued { .. } => Ok(JobEvent::Cancelled(Cancelled { reason })),
        Phase::Claimed { .. } | Phase::Running { .. } if job.cancel_requested.is_none() => {
            Ok(JobEvent::CancelRequested(CancelRequested { reason }))
        }
        Phase::Claimed { .. } | Phase::Running { .. } => Err(Rejection::AlreadyCancelling),
        Phase::Ended(End::Cancelled | End::Finished(_) | End::Dead(_)) => Err(Rejection::Ended),
    }
}
