//! A worker that is to take no new work, or to end: in good order, and without losing any.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bus::{
    job::{AttemptEnd, LossCause, Outcome, Phase},
    worker::{Cordoned, Uncordoned, WorkerEvent},
};
use chrono::{TimeDelta, Utc};
use rustix::process::Signal;

use super::{Yard, gone, lives, outcome};

#[tokio::test]
async fn a_cordoned_worker_ends_what_it_has_and_takes_nothing_until_it_is_uncordoned() -> Result<()> {
    let yard = Yard::start().await?;
    let mut runner = yard.runner(&[])?;
    let go = yard.path("go");
    let has = yard
        .marked(&format!("while [ ! -e {} ]; do sleep 0.02; done", go.display()))
        .await?;
    yard.running(has).await?;
    yard.operator(WorkerEvent::Cordoned(Cordoned {
        reason: Some("new disk".to_owned()),
        ..Cordoned::default()
    }))
    .await?;
    runner.says("cordoned (new disk)").await?;
    let waits = yard.script("true").await?;
    std::fs::write(&go, "")?;
    assert_eq!(outcome(&yard.ended(has).await?)?, &Outcome::Succeeded);
    // It takes nothing, although it is idle now; nor does the next session of that worker.
    yard.idles("w").await?;
    assert!(matches!(
        yard.until(waits, "it is there", |_| true).await?.phase,
        Phase::Queued { .. }
    ));
    runner.signal(Signal::TERM)?;
    ensure!(runner.end().await?.success());
    let again = yard.runner(&[])?;
    again.says("worker w serves").await?;
    yard.idles("w").await?;
    assert!(matches!(
        yard.until(waits, "it is there", |_| true).await?.phase,
        Phase::Queued { .. }
    ));
    yard.operator(WorkerEvent::Uncordoned(Uncordoned {})).await?;
    let begun = Instant::now();
    assert_eq!(outcome(&yard.ended(waits).await?)?, &Outcome::Succeeded);
    ensure!(
        begun.elapsed() < Duration::from_secs(5),
        "it took {:?} to take work again",
        begun.elapsed()
    );
    Ok(())
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline_and_what_ran_is_no_loss() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let runner = yard.runner(&["--grace", "10s"])?;
    let asked = yard.path("asked");
    let job = yard
        .marked(&format!(
            "[ $RGRID_ATTEMPT -gt 1 ] && exit 0; trap 'touch {}; exit 1' TERM; while :; do sleep 0.02; done",
            asked.display()
        ))
        .await?;
    let pid = yard.pid(1).await?;
    yard.running(job).await?;
    yard.operator(WorkerEvent::Cordoned(Cordoned {
        drain: true,
        deadline: Some(Utc::now() + TimeDelta::milliseconds(1_500)),
        reason: None,
    }))
    .await?;
    runner.says("cordoned").await?;
    let took = gone(pid).await?;
    ensure!((Duration::from_millis(700)..Duration::from_secs(4)).contains(&took), "{took:?}");
    ensure!(asked.exists(), "it was not asked to end");
    let job_now = yard
        .until(job, "it is rescheduled", |job| matches!(job.phase, Phase::Queued { .. }))
        .await?;
    let orderly = AttemptEnd::Lost(LossCause::SessionEnded {
        worker: "w".parse()?,
        orderly: true,
    });
    assert_eq!(job_now.attempts[0].end, Some(orderly));
    assert_eq!(job_now.losses, 0, "a drain is no loss");
    // The drained worker lives, and leaves it to others.
    runner.says("stays cordoned").await?;
    let _other = yard.runner_as("other", &[])?;
    let job = yard.ended(job).await?;
    assert_eq!(job.attempts[1].worker.as_str(), "other");
    Ok(())
}

#[tokio::test]
async fn a_runner_that_is_told_to_stop_lets_jobs_end_and_still_hears_of_them() -> Result<()> {
    let yard = Yard::start().await?;
    let mut runner = yard.runner(&["--cpus", "3", "--drain", "40s"])?;
    let go = yard.path("go");
    let wait = format!("while [ ! -e {} ]; do sleep 0.02; done; echo done > out", go.display());
    let (ends, cancelled) = (yard.script(&wait).await?, yard.script("sleep 300").await?);
    yard.running(ends).await?;
    yard.running(cancelled).await?;
    runner.signal(Signal::TERM)?;
    runner.says("taking no new work").await?;
    let waits = yard.script("true").await?;
    yard.cancel(cancelled).await?;
    assert_eq!(outcome(&yard.ended(cancelled).await?)?, &Outcome::Cancelled);
    std::fs::write(&go, "")?;
    ensure!(runner.end().await?.success());
    let ends = yard.ended(ends).await?;
    assert_eq!((outcome(&ends)?, ends.attempts.len()), (&Outcome::Succeeded, 1));
    assert!(matches!(
        yard.until(waits, "it is there", |_| true).await?.phase,
        Phase::Queued { .. }
    ));
    Ok(())
}

#[tokio::test]
async fn what_has_not_ended_when_the_drain_is_over_is_asked_and_then_runs_elsewhere() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let mut runner = yard.runner(&["--drain", "500ms", "--grace", "300ms"])?;
    let job = yard
        .marked("[ $RGRID_ATTEMPT -gt 1 ] && exit 0; trap '' TERM; while :; do sleep 0.02; done")
        .await?;
    let pid = yard.pid(1).await?;
    yard.running(job).await?;
    let begun = Instant::now();
    runner.signal(Signal::TERM)?;
    ensure!(runner.end().await?.success());
    ensure!(!lives(pid));
    ensure!(begun.elapsed() > Duration::from_millis(800), "it had no grace");
    let _other = yard.runner_as("other", &[])?;
    let job = yard.ended(job).await?;
    assert_eq!((job.attempts.len(), job.losses), (2, 0));
    Ok(())
}

#[tokio::test]
async fn an_idle_runner_ends_at_once_and_a_second_signal_ends_any() -> Result<()> {
    let yard = Yard::start().await?;
    let mut runner = yard.runner(&[])?;
    runner.says("worker w serves").await?;
    let begun = Instant::now();
    runner.signal(Signal::TERM)?;
    ensure!(runner.end().await?.success());
    ensure!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let mut runner = yard.runner(&[])?;
    let job = yard.marked("sleep 300").await?;
    let pid = yard.pid(1).await?;
    yard.running(job).await?;
    runner.signal(Signal::TERM)?;
    runner.says("taking no new work").await?;
    runner.signal(Signal::TERM)?;
    ensure!(!runner.end().await?.success());
    gone(pid).await?;
    Ok(())
}
