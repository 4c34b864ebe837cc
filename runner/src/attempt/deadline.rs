//! How long an attempt may go on: the nearer of its own limit and of what is left of the job's whole time.

use std::time::Duration;

use bus::{
    job::{Job, Outcome},
    spec::policy::Clock,
};
use chrono::{DateTime, Utc};

/// What ends an attempt that goes on for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    /// When, from now on.
    pub(crate) after: Duration,
    /// Which clock it is.
    clock: Clock,
    /// What that clock allows, in milliseconds.
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

    /// The limit on all of the job, which goes on while nothing runs yet.
    #[must_use]
    pub(crate) fn in_total(job: &Job, now: DateTime<Utc>) -> Option<Self> {
        job.deadline.map(|deadline| Self {
            after: (deadline - now).to_std().unwrap_or_default(),
            clock: Clock::Total,
            limit_ms: job.spec.total_timeout_ms.unwrap_or(0),
        })
    }

    /// How an attempt ends that passed it.
    #[must_use]
    pub(crate) const fn outcome(self) -> Outcome {
        Outcome::TimedOut {
            limit_ms: self.limit_ms,
            clock: self.clock,
        }
    }

    /// Waits until a limit is passed; for ever where there is none.
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
    fn the_nearer_of_the_two_clocks_ends_an_attempt() {
        let now = Utc::now();
        let outcome = |job: &Job| Limit::of(job, now, now).map(Limit::outcome);
        let timed_out = |limit_ms, clock| Some(Outcome::TimedOut { limit_ms, clock });
        assert_eq!(outcome(&job(None, None, 0)), None);
        assert_eq!(outcome(&job(Some(500), Some(60_000), 0)), timed_out(500, Clock::Attempt));
        assert_eq!(outcome(&job(Some(5_000), Some(60_000), 58_000)), timed_out(60_000, Clock::Total));
    }

    #[test]
    fn a_command_s_own_clock_runs_since_its_start_and_a_passed_one_is_over_at_once() {
        let now = Utc::now();
        let begun = now - chrono::TimeDelta::milliseconds(400);
        let after = |job: &Job| Limit::of(job, begun, now).map(|limit| limit.after);
        assert_eq!(after(&job(Some(500), None, 0)), Some(Duration::from_millis(100)));
        assert_eq!(after(&job(Some(300), None, 0)), Some(Duration::ZERO));
        let over = Limit::in_total(&job(None, Some(100), 1_000), now);
        assert_eq!(over.map(|limit| limit.after), Some(Duration::ZERO));
    }
}
