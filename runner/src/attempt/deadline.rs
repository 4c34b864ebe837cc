//! How long an attempt may run: until its own timeout or the job's total timeout, whichever is nearer.

use std::time::Duration;

use bus::{
    job::{Job, Outcome},
    spec::policy::Clock,
};
use chrono::{DateTime, Utc};

/// A time limit of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The time that is left.
    pub(crate) after: Duration,
    /// The clock.
    clock: Clock,
    /// The clock's limit, in milliseconds.
    limit_ms: u64,
}

impl Limit {
    /// The limit on a command that has run since `begun`, if there is one.
    #[must_use]
    pub(crate) fn of(job: &Job, begun: DateTime<Utc>, now: DateTime<Utc>) -> Option<Self> {
        let ran = (now - begun).to_std().unwrap_or_default();
        let attempt = job.spec.timeout_ms.map(|limit_ms| Self {
            after: Duration::from_millis(limit_ms).saturating_sub(ran),
            clock: Clock::Attempt,
            limit_ms,
        });
        attempt.into_iter().chain(Self::in_total(job, now)).min_by_key(|limit| limit.after)
    }

    /// The limit on the whole job, which also counts while no command runs.
    #[must_use]
    pub(crate) fn in_total(job: &Job, now: DateTime<Utc>) -> Option<Self> {
        job.deadline.map(|deadline| Self {
            after: (deadline - now).to_std().unwrap_or_default(),
            clock: Clock::Total,
            limit_ms: job.spec.total_timeout_ms.unwrap_or(0),
        })
    }

    /// The outcome of an attempt that passed the limit.
    #[must_use]
    pub(crate) const fn outcome(self) -> Outcome {
        Outcome::TimedOut {
            limit_ms: self.limit_ms,
            clock: self.clock,
        }
    }

    /// Waits until a limit is passed; pends permanently where there is none.
    pub(crate) async fn passed(limit: Option<Self>) -> Self {
        match limit {
            Some(limit) => {
                tokio::time::sleep(limit.after).await;
                limit
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use bus::{
        envelope::{Actor, Envelope},
        ids::{JobId, default_token},
        job::{JobEvent, Recorded, Submitted},
        spec::JobSpec,
    };

    use super::*;

    /// A job with these limits, submitted so long ago.
    fn job(timeout_ms: Option<u64>, total_timeout_ms: Option<u64>, ago_ms: i64) -> Job {
        let mut spec = JobSpec::new(vec!["true".to_owned()]);
        (spec.timeout_ms, spec.total_timeout_ms) = (timeout_ms, total_timeout_ms);
        let mut envelope = Envelope::new(Actor::Api, JobEvent::Submitted(Box::new(Submitted { spec })));
        envelope.time -= chrono::TimeDelta::milliseconds(ago_ms);
        let recorded = Recorded {
            namespace: default_token(),
            job: JobId::new(),
            publisher: None,
            sequence: 1,
            envelope,
        };
        Job::from_ready(&recorded).expect("a job")
    }

    #[test]
    fn the_nearer_of_two_time_limits_ends_an_attempt() {
        let now = Utc::now();
        let outcome = |job: &Job| Limit::of(job, now, now).map(Limit::outcome);
        let timed_out = |limit_ms, clock| Some(Outcome::TimedOut { limit_ms, clock });
        assert_eq!(outcome(&job(None, None, 0)), None);
        assert_eq!(outcome(&job(Some(500), Some(60_000), 0)), timed_out(500, Clock::Attempt));
        assert_eq!(outcome(&job(Some(5_000), Some(60_000), 58_000)), timed_out(60_000, Clock::Total));
    }

    #[test]
    fn the_attempt_clock_runs_from_the_start_and_a_passed_limit_ends_at_once() {
        let now = Utc::now();
        let begun = now - chrono::TimeDelta::milliseconds(400);
        let after = |job: &Job| Limit::of(job, begun, now).map(|limit| limit.after);
        assert_eq!(after(&job(Some(500), None, 0)), Some(Duration::from_millis(100)));
        assert_eq!(after(&job(Some(300), None, 0)), Some(Duration::ZERO));
        let over = Limit::in_total(&job(None, Some(100), 1_000), now);
        assert_eq!(over.map(|limit| limit.after), Some(Duration::ZERO));
    }
}
