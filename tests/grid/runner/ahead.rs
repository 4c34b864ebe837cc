//! What a worker claims ahead of having room for it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bus::{
    ids::JobId,
    job::{AttemptEnd, End, Job, Outcome, Phase},
    spec::{ExecutorKind, JobSpec},
};

use super::{LONG, Service, Yard, outcome};
use crate::log::eventually;

/// Attempts that end at once, one after the other, so that a worker takes the next ones to be so too.
const BRISK: usize = 40;
/// What waits behind the one that does not.
const WAIT: usize = 3;
/// How long it takes a worker at most to claim what it will claim ahead.
const MOMENT: Duration = Duration::from_secs(2);

/// The worker `w`, with its one CPU taken by a job that lasts until it is told to go, and the jobs behind that, of which one was claimed
/// ahead.
struct Jam {
    yard: Yard,
    _runner: Service,
    go: PathBuf,
    lasts: JobId,
    wait: Vec<JobId>,
    ahead: JobId,
}

impl Jam {
    async fn start() -> Result<Self> {
        let yard = Yard::start().await?;
        let runner = yard.runner(&[])?;
        for round in 0.. {
            let go = yard.path(&format!("go.{round}"));
            for _ in 0..BRISK {
                yard.submit(at_once()).await?;
            }
            let lasts = yard
                .script(&format!("while [ ! -e {} ]; do sleep 0.02; done", go.display()))
                .await?;
            let mut wait = Vec::new();
            for _ in 0..WAIT {
                wait.push(yard.submit(at_once()).await?);
            }
            yard.running(lasts).await?;
            let ahead = claimed_within(&yard, &wait, MOMENT).await?;
            if let Some(ahead) = ahead {
                return Ok(Self {
                    yard,
                    _runner: runner,
                    go,
                    lasts,
                    wait,
                    ahead,
                });
            }
            // This machine stood still just then, and the worker did not take its work for brisk.
            std::fs::write(go, "")?;
        }
        unreachable!("it goes on for as long as the test may take")
    }

    /// Lets the long one end, which did not mind the others.
    async fn goes(&self) -> Result<()> {
        let lasts = self.yard.until(self.lasts, "it is there", |_| true).await?;
        ensure!(matches!(lasts.phase, Phase::Running { .. }), "{:?}", lasts.phase);
        std::fs::write(&self.go, "")?;
        assert_eq!(outcome(&self.yard.ended(self.lasts).await?)?, &Outcome::Succeeded);
        Ok(())
    }
}

/// The one of these that is claimed first, if one is soon.
async fn claimed_within(yard: &Yard, jobs: &[JobId], limit: Duration) -> Result<Option<JobId>> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        for id in jobs {
            if yard.writer.job(*id).await?.is_some_and(|job| !job.attempts.is_empty()) {
                return Ok(Some(*id));
            }
        }
    }
    Ok(None)
}

fn at_once() -> JobSpec {
    JobSpec {
        executor: Some(ExecutorKind::Noop),
        ..JobSpec::new(vec!["noop".to_owned()])
    }
}

#[tokio::test]
async fn what_was_claimed_ahead_and_gets_no_room_is_given_back_and_runs_elsewhere() -> Result<()> {
    let jam = Jam::start().await?;
    let is_back = |job: &Job| !matches!(job.phase, Phase::Queued { .. } | Phase::Claimed { .. });
    let back = jam.yard.until(jam.ahead, "it is given back", is_back).await?;
    assert_eq!(back.attempts[0].end, Some(AttemptEnd::Returned));
    let _watcher = jam.yard.watcher()?;
    let _other = jam.yard.runner_as("other", &[])?;
    let mut given_back = 0;
    for job in &jam.wait {
        let job = jam.yard.ended(*job).await?;
        assert_eq!(outcome(&job)?, &Outcome::Succeeded);
        let (last, before) = job.attempts.split_last().context("it ran")?;
        assert_eq!(last.worker.as_str(), "other");
        for attempt in before {
            assert_eq!((attempt.worker.as_str(), &attempt.end), ("w", &Some(AttemptEnd::Returned)));
            ensure!(attempt.started_at.is_none());
            given_back += 1;
        }
        assert_eq!((job.failures, job.losses), (0, 0), "it counts against nothing");
    }
    assert_eq!(
        given_back, 1,
        "having learned that its work is not brisk, the worker claimed no other ahead"
    );
    jam.goes().await
}

#[tokio::test]
async fn what_was_claimed_ahead_can_be_cancelled() -> Result<()> {
    let jam = Jam::start().await?;
    let _watcher = jam.yard.watcher()?;
    // Its worker and the watcher may speak of it just then.
    eventually("it is cancelled", LONG, async || Ok(jam.yard.cancel(jam.ahead).await.ok())).await?;
    let ended = jam.yard.ended(jam.ahead).await?;
    ensure!(
        matches!(ended.phase, Phase::Ended(End::Cancelled | End::Finished(Outcome::Cancelled))),
        "{:?}",
        ended.phase
    );
    ensure!(ended.attempts.iter().all(|attempt| attempt.started_at.is_none()));
    jam.goes().await
}
