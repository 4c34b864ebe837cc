//! What a worker claims ahead of having room for it.

use anyhow::{Context as _, Result, ensure};
use bus::{
    ids::JobId,
    job::{AttemptEnd, End, Job, Outcome, Phase},
    spec::{ExecutorKind, JobSpec},
};

use super::{Service, Yard, outcome};

/// Attempts that end at once, one after the other, so that a worker takes the next ones to be so too.
const BRISK: usize = 40;
/// What waits behind the one that does not.
const WAIT: usize = 3;

/// The worker `w`, with its one CPU taken by a job that lasts until it is told to go, and the jobs behind that.
struct Jam {
    yard: Yard,
    _runner: Service,
    lasts: JobId,
    wait: Vec<JobId>,
}

impl Jam {
    async fn start() -> Result<Self> {
        let yard = Yard::start().await?;
        for _ in 0..BRISK {
            yard.submit(at_once()).await?;
        }
        let lasts = yard
            .script(&format!("while [ ! -e {} ]; do sleep 0.02; done", yard.path("go").display()))
            .await?;
        let mut wait = Vec::new();
        for _ in 0..WAIT {
            wait.push(yard.submit(at_once()).await?);
        }
        let runner = yard.runner(&[])?;
        yard.running(lasts).await?;
        Ok(Self {
            yard,
            _runner: runner,
            lasts,
            wait,
        })
    }

    /// The one that was claimed ahead, as it stands when `so` is true of it.
    async fn ahead(&self, so: impl Fn(&Job) -> bool) -> Result<Job> {
        self.yard.until(self.wait[0], "it is claimed ahead", so).await
    }

    /// Lets the long one end, which did not mind the others.
    async fn goes(&self) -> Result<()> {
        let lasts = self.yard.until(self.lasts, "it is there", |_| true).await?;
        ensure!(matches!(lasts.phase, Phase::Running { .. }), "{:?}", lasts.phase);
        std::fs::write(self.yard.path("go"), "")?;
        assert_eq!(outcome(&self.yard.ended(self.lasts).await?)?, &Outcome::Succeeded);
        Ok(())
    }
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
    let back = jam
        .ahead(|job| !matches!(job.phase, Phase::Queued { .. } | Phase::Claimed { .. }))
        .await?;
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
    let ahead = jam.ahead(|job| !job.attempts.is_empty()).await?;
    jam.yard.cancel(ahead.id).await?;
    let ended = jam.yard.ended(ahead.id).await?;
    ensure!(
        matches!(ended.phase, Phase::Ended(End::Cancelled | End::Finished(Outcome::Cancelled))),
        "{:?}",
        ended.phase
    );
    ensure!(ended.attempts.iter().all(|attempt| attempt.started_at.is_none()));
    jam.goes().await
}
