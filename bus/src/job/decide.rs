//! What should happen to a job.

use super::{
    AttemptRecord, CancelRequested, Cancelled, Claimed, Died, End, Expired, Finished, Job, JobEvent, LossCause, ManifestRef, Outcome,
    Phase, Released, Requeued, Rescheduled, Returned, Started, Submitted, Usage,
};
use crate::{
    ids::{Attempt, SessionId, WorkerId},
    spec::{
        ExecutorKind, JobSpec,
        policy::{Clock, MAX_LOSSES},
    },
};

/// What somebody wants of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Accept it.
    Submit {
        /// What is to be run.
        spec: Box<JobSpec>,
    },
    /// A worker takes the job.
    Claim {
        /// The attempt that the worker was offered. If another one is ready meanwhile, that one's own ready event announces it.
        attempt: Attempt,
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
    /// Give it back, unrun or interrupted.
    Return {
        /// Which try.
        attempt: Attempt,
        /// Whose.
        session: SessionId,
        /// Whether its command may have run, and was ended by its worker's shutdown.
        interrupted: bool,
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
    /// Make it ready: what it waited for is true, or its pause is over.
    Release,
    /// End it, because it waited longer than it may.
    Expire {
        /// Which of its clocks passed its limit.
        clock: Clock,
    },
    /// Revive it.
    Requeue {
        /// What the operator said of it.
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
    /// It waits for nothing.
    #[error("the job does not wait")]
    NotWaiting,
    /// It is not one that can be revived.
    #[error("only a job that is dead, or that waited longer than it may, can be requeued")]
    NotDead,
    /// It is one of a batch that limits how many run at once.
    #[error("the job belongs to a batch with a limit on how many run at once; revive it with `rgrid retry BATCH --failed-only`")]
    Windowed,
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
        (job, Command::Claim { attempt, worker, session }) => claim(job, attempt, worker, session),
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
                retry_after_ms: retry_after_ms(job, &outcome),
                outcome,
                manifest,
                usage,
            })))
        }
        (
            job,
            Command::Return {
                attempt,
                session,
                interrupted,
            },
        ) => give_back(job, attempt, session, interrupted),
        (job, Command::GiveUp { attempt, cause }) => {
            live(job, attempt, None)?;
            Ok(give_up(job, attempt, cause))
        }
        (job, Command::Cancel { reason }) => cancel(job, reason),
        (job, Command::Release) => release(job),
        (job, Command::Expire { clock }) => expire(job, clock),
        (job, Command::Requeue { reason }) => requeue(job, reason),
        (_, Command::Submit { .. }) => Err(Rejection::Exists),
    }
}

fn claim(job: &Job, attempt: Attempt, worker: WorkerId, session: SessionId) -> Result<JobEvent, Rejection> {
    match job.phase {
        Phase::Queued { next } if next == attempt => Ok(JobEvent::Claimed(Claimed { attempt, worker, session })),
        Phase::Queued { .. } | Phase::Held { .. } | Phase::Retrying { .. } | Phase::Claimed { .. } | Phase::Running { .. } => {
            Err(Rejection::NotQueued)
        }
        Phase::Ended(_) => Err(Rejection::Ended),
    }
}

/// The fence: only the live attempt, of the session that claimed it, may speak.
fn live(job: &Job, attempt: Attempt, session: Option<SessionId>) -> Result<&AttemptRecord, Rejection> {
    job.live_attempt()
        .filter(|live| live.number == attempt && session.is_none_or(|session| live.session == session))
        .ok_or(Rejection::Stale { attempt })
}

/// A job that a user wants ended ends here: nobody else would come to know of that.
fn give_back(job: &Job, attempt: Attempt, session: SessionId, interrupted: bool) -> Result<JobEvent, Rejection> {
    live(job, attempt, Some(session))?;
    let may_be = interrupted || matches!(job.phase, Phase::Claimed { .. });
    match &job.cancel_requested {
        None if may_be => Ok(JobEvent::Returned(Returned {
            attempt,
            session,
            interrupted,
        })),
        Some(_) if may_be => Ok(JobEvent::Finished(Box::new(Finished {
            attempt,
            session,
            outcome: Outcome::Cancelled,
            manifest: None,
            usage: Usage::default(),
            retry_after_ms: None,
        }))),
        _ => Err(Rejection::AlreadyStarted),
    }
}

fn give_up(job: &Job, attempt: Attempt, cause: LossCause) -> JobEvent {
    if let Some((_, reason)) = &job.cancel_requested {
        JobEvent::Cancelled(Cancelled { reason: reason.clone() })
    } else if cause.counts() && job.losses + 1 >= job.spec.max_losses.unwrap_or(MAX_LOSSES) {
        JobEvent::Died(Died { attempt, cause })
    } else {
        JobEvent::Rescheduled(Box::new(Rescheduled {
            attempt,
            cause,
            spec: job.spec.clone(),
            failures: job.failures,
            deadline: job.deadline,
        }))
    }
}

/// The pause before a failed job is tried again; nothing where it is not.
fn retry_after_ms(job: &Job, outcome: &Outcome) -> Option<u64> {
    let failures = job.failures.saturating_add(1);
    let retry = job.spec.retry.as_ref().filter(|retry| retry.asks_again(outcome, failures))?;
    let pause = || u64::try_from(retry.pause(job.id, failures).as_millis()).unwrap_or(u64::MAX);
    job.cancel_requested.is_none().then(pause)
}

fn release(job: &Job) -> Result<JobEvent, Rejection> {
    let attempt = match job.phase {
        Phase::Held { .. } => Attempt::FIRST,
        Phase::Retrying { next, .. } => next,
        Phase::Queued { .. } | Phase::Claimed { .. } | Phase::Running { .. } => return Err(Rejection::NotWaiting),
        Phase::Ended(_) => return Err(Rejection::Ended),
    };
    Ok(JobEvent::Released(Box::new(Released {
        attempt,
        spec: job.spec.clone(),
        failures: job.failures,
        deadline: job.deadline,
    })))
}

fn expire(job: &Job, clock: Clock) -> Result<JobEvent, Rejection> {
    let limit = match (clock, &job.phase) {
        (_, Phase::Ended(_)) => return Err(Rejection::Ended),
        (Clock::Queue, Phase::Queued { .. }) => job.spec.queue_timeout_ms,
        (Clock::Total, Phase::Held { .. } | Phase::Queued { .. } | Phase::Retrying { .. }) => job.spec.total_timeout_ms,
        (_, _) => None,
    };
    let limit_ms = limit.ok_or(Rejection::NotWaiting)?;
    Ok(JobEvent::Expired(Expired { clock, limit_ms }))
}

fn requeue(job: &Job, reason: Option<String>) -> Result<JobEvent, Rejection> {
    match job.phase {
        // It would run beside the window.
        Phase::Ended(End::Dead(_) | End::Expired { .. }) if job.is_windowed() => Err(Rejection::Windowed),
        Phase::Ended(End::Dead(_) | End::Expired { .. }) => Ok(JobEvent::Requeued(Box::new(Requeued {
            attempt: job.attempts.last().map_or(Attempt::FIRST, |last| last.number.next()),
            spec: job.spec.clone(),
            reason,
        }))),
        _ => Err(Rejection::NotDead),
    }
}

fn cancel(job: &Job, reason: Option<String>) -> Result<JobEvent, Rejection> {
    match job.phase {
        Phase::Held { .. } | Phase::Queued { .. } | Phase::Retrying { .. } => Ok(JobEvent::Cancelled(Cancelled { reason })),
        Phase::Claimed { .. } | Phase::Running { .. } if job.cancel_requested.is_none() => {
            Ok(JobEvent::CancelRequested(CancelRequested { reason }))
        }
        Phase::Claimed { .. } | Phase::Running { .. } => Err(Rejection::AlreadyCancelling),
        Phase::Ended(End::Cancelled | End::Finished(_) | End::Dead(_) | End::Expired { .. }) => Err(Rejection::Ended),
    }
}
