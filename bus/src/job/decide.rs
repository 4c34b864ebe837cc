//! From a command to an event: what may happen to a job.

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

/// A command for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Accept the job.
    Submit {
        /// The job to run.
        spec: Box<JobSpec>,
    },
    /// Claim the job for a worker.
    Claim {
        /// The attempt that the worker was offered. A later attempt is announced by a ready event of its own.
        attempt: Attempt,
        /// The worker that claims the job.
        worker: WorkerId,
        /// The worker's session.
        session: SessionId,
    },
    /// Record that the command runs.
    Start {
        /// The attempt's number.
        attempt: Attempt,
        /// The session that runs the attempt.
        session: SessionId,
        /// The executor that runs the command.
        executor: ExecutorKind,
        /// The environment of the command.
        environment: Option<String>,
    },
    /// Commit the end of the attempt.
    Finish {
        /// The attempt's number.
        attempt: Attempt,
        /// The session that ran the attempt.
        session: SessionId,
        /// How the attempt ended.
        outcome: Outcome,
        /// The manifest of its outputs and logs.
        manifest: Option<ManifestRef>,
        /// The resources that the attempt used.
        usage: Usage,
    },
    /// Return the job to the queue, before its command ran or after it was interrupted.
    Return {
        /// The attempt's number.
        attempt: Attempt,
        /// The session that claimed the job.
        session: SessionId,
        /// Whether the command may have run, and was ended by its worker's shutdown.
        interrupted: bool,
    },
    /// Record that the attempt is lost.
    GiveUp {
        /// The attempt's number.
        attempt: Attempt,
        /// Why the attempt is lost.
        cause: LossCause,
    },
    /// Cancel the job, in any phase.
    Cancel {
        /// The reason that the user gave.
        reason: Option<String>,
    },
    /// Make the job ready: its start conditions are met, or its pause is over.
    Release,
    /// End the job, because it waited longer than its limit.
    Expire {
        /// The limit that was exceeded.
        clock: Clock,
    },
    /// Revive a dead or expired job.
    Requeue {
        /// The reason that the operator gave.
        reason: Option<String>,
    },
}

/// Why `decide` rejected a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The job does not exist.
    #[error("there is no such job")]
    Absent,
    /// The same job was submitted before.
    #[error("the job already exists")]
    Exists,
    /// Another job was submitted before under the same key.
    #[error("this key was already used for a different job; choose another key, or submit the same job")]
    KeyConflict,
    /// Another worker has the job, or the job waits or has ended.
    #[error("the job is not queued")]
    NotQueued,
    /// The attempt was lost, or this session never claimed it.
    #[error("attempt {attempt} is not the current attempt")]
    Stale {
        /// The attempt that the command names.
        attempt: Attempt,
    },
    /// The attempt has started.
    #[error("the attempt has already started")]
    AlreadyStarted,
    /// The job has ended.
    #[error("the job has already ended")]
    Ended,
    /// The job is not in a phase that this command could end.
    #[error("the job is not waiting")]
    NotWaiting,
    /// The job is not dead or expired, so it cannot be revived.
    #[error("only a dead or expired job can be requeued")]
    NotDead,
    /// The job is a member of a batch with a limit on how many members run at once.
    #[error("the job belongs to a batch that limits how many members run at once; retry it with `rgrid retry BATCH --failed-only`")]
    Windowed,
    /// The job is being cancelled.
    #[error("the job is already being cancelled")]
    AlreadyCancelling,
}

/// Decides which event a command leads to, given the job's state (`None` if the job does not exist yet).
///
/// # Errors
/// A [`Rejection`] if the command is not allowed or would change nothing.
pub fn decide(job: Option<&Job>, command: Command) -> Result<JobEvent, Rejection> {
    let Some(job) = job else {
        return match command {
            Command::Submit { spec } => Ok(JobEvent::Submitted(Box::new(Submitted { spec: *spec }))),
            _ => Err(Rejection::Absent),
        };
    };
    match command {
        Command::Submit { spec } if job.spec == *spec => Err(Rejection::Exists),
        Command::Submit { .. } => Err(Rejection::KeyConflict),
        Command::Claim { attempt, worker, session } => claim(job, attempt, worker, session),
        Command::Start {
            attempt,
            session,
            executor,
            environment,
        } => {
            let started = Started {
                attempt,
                session,
                executor,
                environment,
            };
            start(job, started)
        }
        Command::Finish {
            attempt,
            session,
            outcome,
            manifest,
            usage,
        } => {
            let finished = Finished {
                attempt,
                session,
                retry_after_ms: retry_after_ms(job, &outcome),
                outcome,
                manifest,
                usage,
            };
            live(job, attempt, Some(session)).map(|_| JobEvent::Finished(Box::new(finished)))
        }
        Command::Return {
            attempt,
            session,
            interrupted,
        } => return_job(job, attempt, session, interrupted),
        Command::GiveUp { attempt, cause } => live(job, attempt, None).map(|_| give_up(job, attempt, cause)),
        Command::Cancel { reason } => cancel(job, reason),
        Command::Release => release(job),
        Command::Expire { clock } => expire(job, clock),
        Command::Requeue { reason } => requeue(job, reason),
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

fn start(job: &Job, started: Started) -> Result<JobEvent, Rejection> {
    live(job, started.attempt, Some(started.session))?;
    match job.phase {
        Phase::Claimed { .. } => Ok(JobEvent::Started(started)),
        _ => Err(Rejection::AlreadyStarted),
    }
}

/// The fence: only the current attempt, from the session that claimed it, may report.
fn live(job: &Job, attempt: Attempt, session: Option<SessionId>) -> Result<&AttemptRecord, Rejection> {
    job.live_attempt()
        .filter(|live| live.number == attempt && session.is_none_or(|session| live.session == session))
        .ok_or(Rejection::Stale { attempt })
}

/// A returned job that a user asked to cancel ends here, because the cancellation was sent only to the worker that returns it.
fn return_job(job: &Job, attempt: Attempt, session: SessionId, interrupted: bool) -> Result<JobEvent, Rejection> {
    live(job, attempt, Some(session))?;
    let is_allowed = interrupted || matches!(job.phase, Phase::Claimed { .. });
    match &job.cancel_requested {
        None if is_allowed => Ok(JobEvent::Returned(Returned {
            attempt,
            session,
            interrupted,
        })),
        Some(_) if is_allowed => Ok(JobEvent::Finished(Box::new(Finished {
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

/// The pause before a failed job is retried, in milliseconds; `None` if it is not retried.
fn retry_after_ms(job: &Job, outcome: &Outcome) -> Option<u64> {
    let failures = job.failures.saturating_add(1);
    let retry = job.spec.retry.as_ref().filter(|retry| retry.allows_retry(outcome, failures))?;
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
        // It would run outside the batch's window.
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
