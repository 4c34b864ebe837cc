//! A log that is nearly full: what runs ends, and nothing new begins.

use anyhow::{Context as _, Result, ensure};
use bus::{
    ids::JobId,
    job::{Phase, State},
    log::{EVENTS, PRESENCE},
    spec::{JobSpec, policy::Start},
};
use grid_tests::writer::spec;

use super::{LONG, Yard, shell};
use crate::log::eventually;

/// A log that holds something, so that a bound in hundredths of it is a bound in bytes.
async fn filled() -> Result<Yard> {
    let yard = Yard::start().await?;
    let mut filler = JobSpec::new(vec!["true".to_owned(), "x".repeat(500_000)]);
    filler.queue = "nobody".parse()?;
    for _ in 0..8 {
        yard.submit(filler.clone()).await?;
    }
    Ok(yard)
}

/// What the log holds, and what it may hold, in bytes.
async fn fill(yard: &Yard) -> Result<(u64, u64)> {
    let info = yard.writer.bus.js.get_stream(EVENTS).await?.cached_info().clone();
    Ok((info.state.bytes, u64::try_from(info.config.max_bytes)?))
}

/// Bounds the log so that it is full to so many hundredths.
async fn bound(yard: &Yard, hundredths: u64) -> Result<()> {
    let js = &yard.writer.bus.js;
    let info = js.get_stream(EVENTS).await?.cached_info().clone();
    let mut config = info.config;
    config.max_bytes = i64::try_from(info.state.bytes * 100 / hundredths)?;
    js.update_stream(config).await?;
    Ok(())
}

/// How many heartbeats were stored.
async fn beats(yard: &Yard) -> Result<u64> {
    Ok(yard.writer.bus.js.get_stream(PRESENCE).await?.cached_info().state.last_sequence)
}

/// A job of which each event that makes it ready is large.
fn heavy() -> JobSpec {
    let mut spec = shell("true");
    spec.command.push("x".repeat(50_000));
    spec
}

async fn history(yard: &Yard, job: JobId) -> Result<Vec<&'static str>> {
    yard.writer.types(job).await
}

#[tokio::test]
async fn a_job_that_runs_ends_in_the_last_part_of_the_log_and_none_begins_there() -> Result<()> {
    let yard = filled().await?;
    bound(&yard, 80).await?;
    let runner = yard.runner(&["--cpus", "2"])?;
    let end = yard.path("end");
    let running = yard
        .script(&format!("while [ ! -e {} ]; do sleep 0.05; done", end.display()))
        .await?;
    yard.running(running).await?;
    bound(&yard, 96).await?;
    runner.says("no attempt begins until its bound is raised").await?;
    let next = yard.script("true").await?;
    std::fs::write(&end, "")?;
    ensure!(yard.ended(running).await?.state() == State::Succeeded);
    assert_eq!(
        history(&yard, next).await?,
        ["job.submitted.v1"],
        "there is a free CPU, and it is not claimed"
    );
    bound(&yard, 80).await?;
    ensure!(yard.ended(next).await?.state() == State::Succeeded);
    assert_eq!(
        history(&yard, running).await?,
        ["job.submitted.v1", "job.claimed.v1", "job.started.v1", "job.finished.v1"]
    );
    Ok(())
}

#[tokio::test]
async fn a_watcher_ends_what_is_too_late_in_the_last_part_of_the_log_and_releases_nothing() -> Result<()> {
    let yard = filled().await?;
    bound(&yard, 96).await?;
    let start = Some(Start {
        delay_ms: Some(1),
        ..Start::default()
    });
    let delayed = yard.submit(JobSpec { start, ..spec() }).await?;
    let queue_timeout_ms = Some(1);
    let late = yard
        .submit(JobSpec {
            queue_timeout_ms,
            ..spec()
        })
        .await?;
    let _watcher = yard.watcher()?;
    ensure!(yard.ended(late).await?.state() == State::TimedOut);
    let job = yard.writer.job(delayed).await?.context("there")?;
    ensure!(matches!(job.phase, Phase::Held { .. }), "{:?}", job.phase);
    bound(&yard, 80).await?;
    yard.until(delayed, "it is released", |job| matches!(job.phase, Phase::Queued { .. }))
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_job_whose_end_finds_no_room_at_all_ends_once_there_is_some_and_runs_once() -> Result<()> {
    let yard = filled().await?;
    let _watcher = yard.watcher()?;
    let runner = yard.runner(&[])?;
    let end = yard.path("end");
    let job = yard
        .script(&format!("while [ ! -e {} ]; do sleep 0.05; done", end.display()))
        .await?;
    yard.running(job).await?;
    bound(&yard, 100).await?;
    std::fs::write(&end, "")?;
    runner.says("waits for room").await?;
    // For longer than a heartbeat may leave an attempt out before it is made again.
    let before = beats(&yard).await?;
    eventually("heartbeats", LONG, async || Ok((beats(&yard).await? > before + 12).then_some(()))).await?;
    bound(&yard, 80).await?;
    ensure!(yard.ended(job).await?.state() == State::Succeeded);
    assert_eq!(
        history(&yard, job).await?,
        ["job.submitted.v1", "job.claimed.v1", "job.started.v1", "job.finished.v1"]
    );
    Ok(())
}

#[tokio::test]
async fn a_burst_of_releases_leaves_the_last_part_alone() -> Result<()> {
    let yard = filled().await?;
    let start = Some(Start {
        delay_ms: Some(1),
        ..Start::default()
    });
    let mut delayed = Vec::new();
    for _ in 0..30 {
        let start = start.clone();
        delayed.push(yard.submit(JobSpec { start, ..heavy() }).await?);
    }
    bound(&yard, 93).await?;
    let watcher = yard.watcher()?;
    watcher.says("what is left is for what ends jobs").await?;
    let (used, max) = eventually("what has room is released", LONG, async || {
        Ok(Some(fill(&yard).await?).filter(|(used, max)| *used > max / 100 * 94))
    })
    .await?;
    ensure!(used <= max / 100 * 95, "and nothing else: {used} of {max}");
    bound(&yard, 50).await?;
    for job in delayed {
        yard.until(job, "it is released", |job| matches!(job.phase, Phase::Queued { .. }))
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_lost_attempt_is_made_again_once_there_is_room() -> Result<()> {
    let yard = filled().await?;
    let mut runner = yard.runner(&[])?;
    let job = yard.marked("sleep 1000").await?;
    yard.running(job).await?;
    bound(&yard, 96).await?;
    let watcher = yard.watcher()?;
    runner.child.kill()?;
    runner.child.wait()?;
    watcher.says("what is left is for what ends jobs").await?;
    assert_eq!(history(&yard, job).await?, ["job.submitted.v1", "job.claimed.v1", "job.started.v1"]);
    bound(&yard, 80).await?;
    yard.until(job, "it is made again", |job| matches!(job.phase, Phase::Queued { .. }))
        .await?;
    Ok(())
}
