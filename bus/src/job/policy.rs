//! How a job's policies apply to another job, and to a failed attempt.

use super::{Job, Outcome, Phase, State};
use crate::spec::policy::{Clock, Dependency, DependsOn, Retry};

/// Whether a dependency is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DependencyState {
    /// The job that is waited for ended as required.
    Met,
    /// The job that is waited for may still end as required.
    Pending,
    /// The dependency can never be met, for this reason.
    Never(String),
}

impl Dependency {
    /// Whether the dependency is met, given the current state of the job that it names (`None` if there is no such job).
    #[must_use]
    pub fn state(&self, job: Option<&Job>) -> DependencyState {
        let Some(job) = job else {
            return DependencyState::Never(format!("job {}, which this job waits for, does not exist", self.job));
        };
        match (&job.phase, self.on) {
            (Phase::Ended(_), DependsOn::Ended) => DependencyState::Met,
            (Phase::Ended(_), DependsOn::Succeeded) if job.state() == State::Succeeded => DependencyState::Met,
            (Phase::Ended(_), DependsOn::Succeeded) => {
                DependencyState::Never(format!("job {}, which this job waits for, ended as {}", self.job, job.state()))
            }
            (_, _) => DependencyState::Pending,
        }
    }
}

impl Retry {
    /// Whether an attempt with this outcome is retried. `failures` is the number of failed attempts, including this one.
    #[must_use]
    pub fn allows_retry(&self, outcome: &Outcome, failures: u32) -> bool {
        let failed = match outcome {
            Outcome::Succeeded
            | Outcome::Cancelled
            | Outcome::TimedOut {
                clock: Clock::Queue | Clock::Total,
                ..
            } => false,
            Outcome::Failed { .. }
            | Outcome::Signalled { .. }
            | Outcome::TimedOut { .. }
            | Outcome::OutOfMemory { .. }
            | Outcome::Error { .. } => true,
        };
        failed && failures <= self.max && (self.on.is_empty() || self.on.contains(&outcome.exit_code()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failed_attempts_are_retried_and_at_most_max_times() {
        let retry = Retry {
            max: 2,
            ..Retry::default()
        };
        let failed = Outcome::Failed { exit_code: 3 };
        assert!(retry.allows_retry(&failed, 1) && retry.allows_retry(&failed, 2) && !retry.allows_retry(&failed, 3));
        assert!(!retry.allows_retry(&Outcome::Succeeded, 1) && !retry.allows_retry(&Outcome::Cancelled, 1));
        let total = Outcome::TimedOut {
            limit_ms: 1,
            clock: Clock::Total,
        };
        let attempt = Outcome::TimedOut {
            limit_ms: 1,
            clock: Clock::Attempt,
        };
        assert!(!retry.allows_retry(&total, 1) && retry.allows_retry(&attempt, 1));
        let only = Retry { on: vec![7, 137], ..retry };
        assert!(!only.allows_retry(&failed, 1) && only.allows_retry(&Outcome::Signalled { signal: 9 }, 1));
    }
}
