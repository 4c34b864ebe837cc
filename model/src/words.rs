//! Sentences about how jobs and attempts ended.

use bus::{
    job::{End, Job, LossCause, Outcome, Phase},
    spec::policy::Clock,
};

use super::attempt::{AttemptOutcome, LostAttempt};

/// The outcome of an attempt that its worker returned.
pub const RETURNED: &str = "returned without running: its worker had no room for it";
/// The outcome of an attempt that the shutdown of its worker ended.
pub const INTERRUPTED: &str = "interrupted: its worker was shut down; this attempt does not count";

/// A sentence about a job's end, if its state alone does not say enough.
pub(super) fn message(job: &Job) -> Option<String> {
    let Phase::Ended(end) = &job.phase else { return None };
    let outcome = match end {
        End::Finished(outcome) => AttemptOutcome::Finished(outcome.clone()),
        End::Cancelled => AttemptOutcome::Finished(Outcome::Cancelled),
        End::Dead(cause) => AttemptOutcome::Lost(LostAttempt::Lost { cause: cause.clone() }),
        End::Expired { clock, limit_ms } => AttemptOutcome::Lost(LostAttempt::Expired {
            clock: *clock,
            limit_ms: *limit_ms,
        }),
    };
    let reason = job.cancel_requested.as_ref().and_then(|(_, reason)| reason.as_deref());
    message_of(&outcome, reason)
}

/// The same, from the columns of a table.
#[must_use]
pub fn message_of(outcome: &AttemptOutcome, reason: Option<&str>) -> Option<String> {
    match outcome {
        AttemptOutcome::Finished(Outcome::Cancelled) => {
            Some(reason.map_or_else(|| "cancelled on request".to_owned(), |reason| format!("cancelled: {reason}")))
        }
        AttemptOutcome::Finished(other) => describe(other),
        AttemptOutcome::Lost(LostAttempt::Returned) => Some(RETURNED.to_owned()),
        AttemptOutcome::Lost(LostAttempt::Interrupted) => Some(INTERRUPTED.to_owned()),
        AttemptOutcome::Lost(LostAttempt::Expired { clock, limit_ms }) => Some(describe_expiry(*clock, *limit_ms)),
        AttemptOutcome::Lost(LostAttempt::Lost { cause }) => {
            Some(format!("all its attempts were lost; the last one: {}", describe_loss(cause)))
        }
    }
}

/// A sentence about an outcome, if there is more to say than success or an exit code.
#[must_use]
pub fn describe(outcome: &Outcome) -> Option<String> {
    Some(match outcome {
        Outcome::Succeeded | Outcome::Failed { .. } => return None,
        Outcome::Signalled { signal } => format!("killed by signal {signal}"),
        Outcome::TimedOut {
            limit_ms,
            clock: Clock::Total,
        } => {
            format!("killed because it exceeded its total timeout of {} s", seconds(*limit_ms))
        }
        Outcome::TimedOut { limit_ms, .. } => format!("killed because it exceeded its timeout of {} s", seconds(*limit_ms)),
        Outcome::OutOfMemory { limit_bytes: Some(limit) } => format!("killed because it used more than its memory limit of {limit} bytes"),
        Outcome::OutOfMemory { limit_bytes: None } => "killed because the machine ran out of memory".to_owned(),
        Outcome::Cancelled => "cancelled on request".to_owned(),
        Outcome::Error { message, .. } => message.clone(),
    })
}

/// A sentence about a timeout that passed while no worker had the job.
#[must_use]
pub fn describe_expiry(clock: Clock, limit_ms: u64) -> String {
    match clock {
        Clock::Queue => format!("no worker claimed it within its queue timeout of {} s", seconds(limit_ms)),
        Clock::Attempt | Clock::Total => format!("it did not end within its total timeout of {} s", seconds(limit_ms)),
    }
}

#[allow(clippy::cast_precision_loss, reason = "a limit of 2^53 ms is 285,000 years")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// A sentence about the loss of an attempt.
#[must_use]
pub fn describe_loss(cause: &LossCause) -> String {
    match cause {
        LossCause::WorkerLost { worker } => format!("worker {worker} was lost"),
        LossCause::SessionEnded { worker, orderly: true } => format!("worker {worker} was drained or stopped"),
        LossCause::SessionEnded { worker, orderly: false } => format!("worker {worker} was restarted"),
        LossCause::Orphaned { worker } => format!("worker {worker} no longer had it"),
    }
}
