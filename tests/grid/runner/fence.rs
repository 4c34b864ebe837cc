//! An attempt that is not its worker's any more is killed as soon as the worker can know, and nothing of it counts.

use std::time::Duration;

use anyhow::{Result, ensure};
use async_nats::connection::State;
use bus::{
    envelope::Actor,
    ids::Attempt,
    job::{AttemptEnd, Command, LossCause},
};
use rustix::process::Signal;

use super::{LONG, Yard, gone, is_clean, lives};
use crate::log::eventually;

/// How soon after it can know a runner has killed what is not its own.
const SOON: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_runner_that_slept_through_its_loss_kills_what_it_had_and_goes_on() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let first = yard.runner(&[])?;
    let script = "echo of $RGRID_ATTEMPT > out; echo said by $RGRID_ATTEMPT; [ $RGRID_ATTEMPT -gt 1 ] || sleep 300";
    let job = yard.marked(script).await?;
    let pid = yard.pid(1).await?;
    first.signal(Signal::STOP)?;
    let second = yard.runner_as("other", &[])?;
    let ended = yard.ended(job).await?;
    ensure!(lives(pid), "its runner slept, so that it went on");
    first.signal(Signal::CONT)?;
    let took = gone(pid).await?;
    ensure!(took < SOON, "it was killed after {took:?}");
    // Nothing was said by the old attempt, and nothing of it is left.
    first.says("a new session begins").await?;
    eventually("its directory is gone", super::LONG, async || {
        Ok(is_clean(&yard.path("w"))?.then_some(()))
    })
    .await?;
    let after = yard.writer.job(job).await?.ok_or_else(|| anyhow::anyhow!("no job"))?;
    assert_eq!((after.sequence, after.attempts.len()), (ended.sequence, 2));
    assert!(matches!(after.attempts[0].end, Some(AttemptEnd::Lost(_))), "{after:?}");
    // It takes work again.
    drop(second);
    let next = yard.script("true").await?;
    let next = yard.ended(next).await?;
    assert_eq!(next.attempts[0].worker.as_str(), "w");
    Ok(())
}

#[tokio::test]
async fn a_result_that_a_sleeping_runner_had_ready_is_refused() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let first = yard.runner(&[])?;
    let go = yard.path("go");
    let job = yard
        .marked(&format!(
            "echo of $RGRID_ATTEMPT > out; [ $RGRID_ATTEMPT -gt 1 ] || while [ ! -e {} ]; do sleep 0.02; done",
            go.display()
        ))
        .await?;
    let pid = yard.pid(1).await?;
    first.signal(Signal::STOP)?;
    let _second = yard.runner_as("other", &[])?;
    let ended = yard.ended(job).await?;
    // The command of the old attempt ends well while its runner sleeps.
    std::fs::write(&go, "")?;
    gone(pid).await?;
    first.signal(Signal::CONT)?;
    first.says("a new session begins").await?;
    let next = yard.script("true").await?;
    yard.ended(next).await?;
    let after = yard.writer.job(job).await?.ok_or_else(|| anyhow::anyhow!("no job"))?;
    assert_eq!(after, ended, "the late result changed something");
    assert_eq!(after.attempts[1].worker.as_str(), "other");
    Ok(())
}

#[tokio::test]
async fn an_attempt_that_is_given_up_alone_is_killed_and_made_again_here() -> Result<()> {
    let yard = Yard::start().await?;
    // No room for another, so that only the job's own events can tell.
    let runner = yard.runner(&[])?;
    let job = yard.marked("[ $RGRID_ATTEMPT -gt 1 ] || exec sleep 300").await?;
    let pid = yard.pid(1).await?;
    yard.running(job).await?;
    let cause = LossCause::Orphaned { worker: "w".parse()? };
    let attempt = Attempt::FIRST;
    yard.writer.say(job, &Actor::Watcher, Command::GiveUp { attempt, cause }).await?;
    let took = gone(pid).await?;
    ensure!(took < SOON, "it was killed after {took:?}");
    let job = yard.ended(job).await?;
    assert_eq!(job.attempts.len(), 2);
    assert_eq!(job.attempts[1].worker.as_str(), "w");
    ensure!(runner.log().contains("stopped attempt 1"), "{}", runner.log());
    Ok(())
}

#[tokio::test]
async fn a_rescheduled_job_that_comes_back_to_its_runner_is_not_lost_there() -> Result<()> {
    let yard = Yard::start().await?;
    // Room for both attempts, so that the second comes while the first runs.
    let _runner = yard.runner(&["--cpus", "4"])?;
    for _ in 0..3 {
        let job = yard.marked("[ $RGRID_ATTEMPT -gt 1 ] || exec sleep 300").await?;
        let pid = yard.pid(1).await?;
        let cause = LossCause::Orphaned { worker: "w".parse()? };
        let attempt = Attempt::FIRST;
        yard.writer.say(job, &Actor::Watcher, Command::GiveUp { attempt, cause }).await?;
        let took = gone(pid).await?;
        ensure!(took < SOON, "it was killed after {took:?}");
        assert_eq!(yard.ended(job).await?.attempts.len(), 2);
        std::fs::remove_file(yard.path("pid.1"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_runner_that_fences_itself_ends_its_attempts_before_others_may_begin_them() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let runner = yard.runner(&["--self-fence", "1500ms"])?;
    let job = yard.marked("[ $RGRID_ATTEMPT -gt 1 ] || exec sleep 300").await?;
    let pid = yard.pid(1).await?;
    yard.running(job).await?;
    yard.nats.freeze()?;
    let took = gone(pid).await;
    yard.nats.thaw()?;
    let took = took?;
    ensure!(took < Duration::from_millis(2_000), "it went on for {took:?}");
    ensure!(took > Duration::from_millis(500), "it was ended after {took:?} for nothing");
    runner.says("ending every attempt").await?;
    let job = yard.ended(job).await?;
    assert_eq!(job.attempts.len(), 2, "{job:?}");
    Ok(())
}

#[tokio::test]
async fn a_self_fence_that_would_come_too_late_is_refused() -> Result<()> {
    let yard = Yard::start().await?;
    for span in ["200ms", "4s"] {
        let mut runner = yard.runner(&["--self-fence", span])?;
        assert_eq!(runner.end().await?.code(), Some(2));
        ensure!(runner.log().contains("must be from 1s to 3s"), "{}", runner.log());
    }
    Ok(())
}

#[tokio::test]
async fn a_runner_that_does_not_fence_itself_goes_on_through_a_silence_of_the_broker() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let _runner = yard.runner(&[])?;
    let go = yard.path("go");
    let job = yard
        .marked(&format!("while [ ! -e {} ]; do sleep 0.05; done", go.display()))
        .await?;
    let pid = yard.pid(1).await?;
    yard.running(job).await?;
    yard.nats.freeze()?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let lived = lives(pid);
    yard.nats.thaw()?;
    ensure!(lived, "it was ended");
    std::fs::write(&go, "")?;
    let job = yard.ended(job).await?;
    assert_eq!(job.attempts.len(), 1, "{job:?}");
    Ok(())
}

#[tokio::test]
async fn a_running_job_outlives_restarts_of_the_broker_and_the_loss_of_its_queue_s_consumers() -> Result<()> {
    let mut yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let runner = yard.runner(&["--cpus", "2"])?;
    let go = yard.path("go");
    let job = yard
        .marked(&format!("while [ ! -e {} ]; do sleep 0.05; done", go.display()))
        .await?;
    yard.pid(1).await?;
    yard.running(job).await?;
    for _ in 0..2 {
        yard.nats.kill()?;
        eventually("the outage is noticed", LONG, async || {
            Ok((yard.writer.bus.client.connection_state() != State::Connected).then_some(()))
        })
        .await?;
        yard.nats.restart().await?;
        let next = yard.script("true").await?;
        yard.ended(next).await?;
    }
    // An operator's mistake.
    let stream = yard.writer.bus.js.get_stream(bus::log::EVENTS).await?;
    let mut names = stream.consumer_names();
    while let Some(name) = futures::TryStreamExt::try_next(&mut names).await? {
        if name.contains("default") {
            stream.delete_consumer(&name).await?;
        }
    }
    let next = yard.script("true").await?;
    yard.ended(next).await?;
    std::fs::write(&go, "")?;
    let job = yard.ended(job).await?;
    assert_eq!(job.attempts.len(), 1, "{}", runner.log());
    Ok(())
}
