//! How jobs and attempts ended, in sentences.

use bus::{
    job::{End, Job, LossCause, Outcome, Phase},
    spec::policy::Clock,
};

use super::attempt::{AttemptOutcome, LostAttempt};

/// What came of an attempt that its worker gave back.
pub const RETURNED: &str = "given back, unrun: its worker had no room for it";
/// What became of an attempt that its worker's shutdown ended.
pub const INTERRUPTED: &str = "interrupted: its worker was being shut down; it does not count";

/// What is to be said of a job's end, where its state alone does not say it.
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

/// The same, from what a table holds of it.
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
        AttemptOutcome::Lost(LostAttempt::Lost { cause }) => Some(format!("its attempts are used up: {}", describe_loss(cause))),
    }
}

/// An outcome as a sentence, where there is more to say than success or an exit code.
#[must_use]
pub fn describe(outcome: &Outcome) -> Option<String> {
    Some(match outcome {
        Outcome::Succeeded | Outcome::Failed { .. } => return None,
        Outcome::Signalled { signal } => format!("signal {signal} ended it"),
        Outcome::TimedOut {
            limit_ms,
            clock: Clock::Total,
        } => {
            format!("it took longer than its total timeout of {} s, and was killed", seconds(*limit_ms))
        }
        Outcome::TimedOut { limit_ms, .. } => format!("it ran longer than its timeout of {} s, and was killed", seconds(*limit_ms)),
        Outcome::OutOfMemory { limit_bytes: Some(limit) } => format!("it used more than its {limit} bytes of memory, and was killed"),
        Outcome::OutOfMemory { limit_bytes: None } => "the machine ran out of memory, and it was killed".to_owned(),
        Outcome::Cancelled => "cancelled on request".to_owned(),
        Outcome::Error { message, .. } => message.clone(),
    })
}

/// The expiry of a job's clock, while no worker had it, as a sentence.
#[must_use]
pub fn describe_expiry(clock: Clock, limit_ms: u64) -> String {
    match clock {
        Clock::Queue => format!("no worker took it within its queue timeout of {} s", seconds(limit_ms)),
        Clock::Attempt | Clock::Total => format!("it was not done within its total timeout of {} s", seconds(limit_ms)),
    }
}

#[allow(clippy::cast_precision_loss, reason = "a limit of 2^53 ms is 285,000 years")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// The loss of an attempt as a sentence.
#[must_use]
pub fn describe_loss(cause: &LossCause) -> String {
    match cause {
        LossCause::WorkerLost { worker } => format!("worker {worker} was lost"),
        LossCause::SessionEnded { worker, orderly: true } => format!("worker {worker} was drained or stopped"),
        LossCause::SessionEnded { worker, orderly: false } => format!("worker {worker} was started anew"),
        LossCause::Orphaned { worker } => format!("worker {worker} no longer knew of it"),
    }
}
