//! What a job's policies say of another job, and of an attempt that failed.

use super::{Job, Outcome, Phase, State};
use crate::spec::policy::{Clock, Dependency, DependsOn, Retry};

/// How a dependency stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is as it must be.
    Met,
    /// It may still become so.
    Open,
    /// It never will, for this reason.
    Never(String),
}

impl Dependency {
    /// How the dependency stands, by the job as the log tells it now; nothing: there is no such job.
    #[must_use]
    pub fn standing(&self, job: Option<&Job>) -> Standing {
        let Some(job) = job else {
            return Standing::Never(format!("job {}, which it was to follow, does not exist", self.job));
        };
        match (&job.phase, self.on) {
            (Phase::Ended(_), DependsOn::Ended) => Standing::Met,
            (Phase::Ended(_), DependsOn::Succeeded) if job.state() == State::Succeeded => Standing::Met,
            (Phase::Ended(_), DependsOn::Succeeded) => {
                Standing::Never(format!("job {}, which it was to follow, ended as {}", self.job, job.state()))
            }
            (_, _) => Standing::Open,
        }
    }
}

impl Retry {
    /// Whether an attempt that ended so is to be made again, where `failures` of them ended so, this one among them.
    #[must_use]
    pub fn asks_again(&self, outcome: &Outcome, failures: u32) -> bool {
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
    fn only_what_failed_is_tried_again_and_only_as_often_as_asked() {
        let retry = Retry {
            max: 2,
            ..Retry::default()
        };
        let failed = Outcome::Failed { exit_code: 3 };
        assert!(retry.asks_again(&failed, 1) && retry.asks_again(&failed, 2) && !retry.asks_again(&failed, 3));
        assert!(!retry.asks_again(&Outcome::Succeeded, 1) && !retry.asks_again(&Outcome::Cancelled, 1));
        let total = Outcome::TimedOut {
            limit_ms: 1,
            clock: Clock::Total,
        };
        let attempt = Outcome::TimedOut {
            limit_ms: 1,
            clock: Clock::Attempt,
        };
        assert!(!retry.asks_again(&total, 1) && retry.asks_again(&attempt, 1));
        let only = Retry { on: vec![7, 137], ..retry };
        assert!(!only.asks_again(&failed, 1) && only.asks_again(&Outcome::Signalled { signal: 9 }, 1));
    }
}
