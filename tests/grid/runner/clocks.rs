//! Limits, and how a command is asked and made to end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bus::{
    ids::Digest,
    job::Outcome,
    spec::{InputFile, JobSpec, policy::Clock},
};
use chrono::Utc;

use super::{LONG, Yard, gone, lives, outcome, shell};
use crate::log::eventually;

#[tokio::test]
async fn a_job_s_whole_time_ends_its_attempt() -> Result<()> {
    let yard = Yard::start().await?;
    let _runner = yard.runner(&[])?;
    let job = yard
        .submit(JobSpec {
            total_timeout_ms: Some(2_500),
            timeout_ms: Some(60_000),
            ..shell("sleep 60")
        })
        .await?;
    let job = yard.ended(job).await?;
    let total = Outcome::TimedOut {
        limit_ms: 2_500,
        clock: Clock::Total,
    };
    assert_eq!(outcome(&job)?, &total);
    Ok(())
}

#[tokio::test]
async fn a_job_whose_time_is_over_is_not_started() -> Result<()> {
    let yard = Yard::start().await?;
    let trace = yard.path("ran");
    let job = yard
        .submit(JobSpec {
            total_timeout_ms: Some(50),
            ..shell(&format!("touch {}", trace.display()))
        })
        .await?;
    let deadline = yard.writer.job(job).await?.and_then(|job| job.deadline).context("no deadline")?;
    eventually("its time is over", LONG, async || Ok((Utc::now() > deadline).then_some(()))).await?;
    let _runner = yard.runner(&[])?;
    let ended = yard.ended(job).await?;
    assert!(matches!(outcome(&ended)?, Outcome::TimedOut { clock: Clock::Total, .. }));
    assert_eq!(
        yard.writer.types(job).await?,
        ["job.submitted.v1", "job.claimed.v1", "job.finished.v1"],
        "nothing was started"
    );
    assert!(!trace.exists());
    Ok(())
}

#[tokio::test]
async fn a_job_says_how_much_grace_it_needs() -> Result<()> {
    let yard = Yard::start().await?;
    let _runner = yard.runner(&["--grace", "30s"])?;
    let stubborn = JobSpec {
        timeout_ms: Some(200),
        grace_ms: Some(300),
        ..shell("trap '' TERM; while :; do sleep 0.05; done")
    };
    let begun = Instant::now();
    let job = yard.submit(stubborn).await?;
    let job = yard.ended(job).await?;
    assert!(matches!(outcome(&job)?, Outcome::TimedOut { limit_ms: 200, .. }));
    ensure!(begun.elapsed() < Duration::from_secs(20), "it had the runner's grace, not its own");
    let done = yard.path("saved");
    let ready = yard.path("ready");
    let careful = format!(
        "trap 'sleep 1; touch {}; exit 0' TERM; touch {}; while :; do sleep 0.05; done",
        done.display(),
        ready.display()
    );
    let job = yard
        .submit(JobSpec {
            grace_ms: Some(20_000),
            ..shell(&careful)
        })
        .await?;
    eventually("the trap is set", LONG, async || Ok(ready.exists().then_some(()))).await?;
    yard.cancel(job).await?;
    assert_eq!(outcome(&yard.ended(job).await?)?, &Outcome::Cancelled);
    assert!(done.exists(), "it had time to save");
    Ok(())
}

#[tokio::test]
async fn a_cancel_reaches_all_that_the_job_started() -> Result<()> {
    let yard = Yard::start().await?;
    let _runner = yard.runner(&["--grace", "200ms"])?;
    let away = yard.path("away");
    // In a session of its own, deaf to SIGTERM, its parent gone.
    let script = format!(
        "(setsid sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 0.05; done' &); sleep 300",
        away.display()
    );
    let job = yard.marked(&script).await?;
    let pid = yard.pid(1).await?;
    let away = crate::log::eventually("the daemon runs", super::LONG, async || {
        Ok(std::fs::read_to_string(&away).ok().and_then(|text| text.trim().parse().ok()))
    })
    .await?;
    ensure!(lives(away));
    yard.cancel(job).await?;
    ensure!(yard.cancel(job).await.is_err(), "a second cancel changes nothing");
    assert_eq!(outcome(&yard.ended(job).await?)?, &Outcome::Cancelled);
    ensure!(!lives(pid) && !lives(away), "something outlived the job");
    Ok(())
}

#[tokio::test]
async fn a_cancel_reaches_a_job_that_is_still_being_prepared() -> Result<()> {
    let yard = Yard::start().await?;
    let store = yard.path("store");
    // A store that never answers for this content: to open it is to wait for whoever would write it.
    let digest = Digest::of(b"never");
    let content = store.join(store::Files::key(&digest).as_ref());
    std::fs::create_dir_all(content.parent().unwrap_or(&store))?;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &content,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )?;
    let _runner = yard.runner(&["--store", &format!("file://{}", store.display())])?;
    let job = yard
        .submit(JobSpec {
            inputs: vec![InputFile {
                path: "input".parse()?,
                sha256: digest,
                size: 5,
                executable: false,
                mode: None,
                modified_ms: None,
            }],
            ..shell("cat input")
        })
        .await?;
    yard.until(job, "it is claimed", |job| job.live_attempt().is_some()).await?;
    yard.cancel(job).await?;
    assert_eq!(outcome(&yard.ended(job).await?)?, &Outcome::Cancelled);
    // And the runner goes on.
    let next = yard.marked("true").await?;
    assert_eq!(outcome(&yard.ended(next).await?)?, &Outcome::Succeeded);
    gone(yard.pid(1).await?).await?;
    Ok(())
}
