//! What time makes true: delays, pauses before a retry, and the clocks that run while a job waits.

use anyhow::Result;
use bus::{
    ids::{Attempt, JobId},
    job::{Command, End, Phase, State},
    spec::{
        JobSpec,
        policy::{Clock, Retry, Start},
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use grid_tests::{
    nats::NatsServer,
    writer::{Worker, Writer, spec},
};

use super::{LONG, Watching, fail, is_queued, said_at, submit, until};
use crate::log::eventually;

fn with(change: impl FnOnce(&mut JobSpec)) -> JobSpec {
    let mut spec = spec();
    change(&mut spec);
    spec
}

fn start(start: Start) -> JobSpec {
    with(|spec| spec.start = Some(start))
}

fn delayed(delay_ms: u64) -> JobSpec {
    start(Start {
        delay_ms: Some(delay_ms),
        ..Start::default()
    })
}

fn ms(ms: i64) -> TimeDelta {
    TimeDelta::milliseconds(ms)
}

/// It came when it was due, and hardly later. (A busy machine may be slow; 50 ms is what an idle one keeps.)
fn in_time(said: DateTime<Utc>, due: DateTime<Utc>) {
    let late = said - due;
    assert!(late >= TimeDelta::zero() && late < ms(300), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_job_is_released_when_it_is_due() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let at = Utc::now() + ms(1_500);
    let by_time = submit(
        &writer,
        start(Start {
            at: Some(at),
            ..Start::default()
        }),
    )
    .await?;
    let mut jobs = Vec::new();
    for delay in [0, 700, 1_000, 1_300] {
        jobs.push((delay, submit(&writer, delayed(delay)).await?));
    }
    let long_ago = submit(
        &writer,
        start(Start {
            at: Some(at - ms(1_000_000)),
            ..Start::default()
        }),
    )
    .await?;
    until(&writer, long_ago, "it may start at once", is_queued(1)).await?;
    for (delay, job) in jobs {
        until(&writer, job, "it is released", is_queued(1)).await?;
        let submitted = said_at(&writer, job, "job.submitted.v1").await?;
        let released = said_at(&writer, job, "job.released.v1").await?;
        if delay > 0 {
            in_time(released, submitted + ms(i64::try_from(delay)?));
        }
        assert_eq!(writer.types(job).await?, ["job.submitted.v1", "job.released.v1"]);
    }
    until(&writer, by_time, "its time comes", is_queued(1)).await?;
    in_time(said_at(&writer, by_time, "job.released.v1").await?, at);
    Ok(())
}

/// One is due while no watcher runs, one after that; the next one releases both, and the three together each of them once.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_watcher_forgets_nobody_and_two_release_once() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let first = Watching::start(server.url());
    let probe = submit(&writer, delayed(0)).await?;
    until(&writer, probe, "the watcher acts", is_queued(1)).await?;
    let (missed, later) = (submit(&writer, delayed(300)).await?, submit(&writer, delayed(2_500)).await?);
    first.kill().await;
    let due = said_at(&writer, missed, "job.submitted.v1").await? + ms(300);
    eventually("its time comes while no watcher runs", LONG, async || {
        Ok((Utc::now() > due).then_some(()))
    })
    .await?;
    assert_eq!(writer.job(missed).await?.expect("there").state(), State::Held);
    let _others = [
        Watching::start(server.url()),
        Watching::start(server.url()),
        Watching::start(server.url()),
    ];
    let mut crowd = vec![missed, later];
    for _ in 0..50 {
        crowd.push(submit(&writer, delayed(500)).await?);
    }
    for job in crowd {
        until(&writer, job, "it is released", is_queued(1)).await?;
        assert_eq!(writer.types(job).await?, ["job.submitted.v1", "job.released.v1"]);
    }
    in_time(
        said_at(&writer, later, "job.released.v1").await?,
        said_at(&writer, later, "job.submitted.v1").await? + ms(2_500),
    );
    Ok(())
}

fn retrying(max: u32, on: &[i32]) -> JobSpec {
    with(|spec| {
        spec.retry = Some(Retry {
            max,
            on: on.to_vec(),
            backoff_ms: 200,
            max_backoff_ms: 1_000,
        });
    })
}

/// Claims the attempt that is ready, and fails it; returns when the next one was due.
async fn fails(writer: &Writer, worker: &Worker, job: JobId, attempt: u32, exit_code: i32) -> Result<Option<DateTime<Utc>>> {
    until(writer, job, "it is ready", is_queued(attempt)).await?;
    worker.claim(job).await?;
    fail(writer, worker, job, attempt, exit_code).await?;
    // The watcher may have released it already; but not before it was due, which is what is looked at.
    Ok(match writer.job(job).await?.expect("there").phase {
        Phase::Retrying { due, .. } => due,
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_tried_again_after_a_pause_until_it_succeeds() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let worker = Worker::register(&writer, "w").await?;
    let job = submit(&writer, retrying(3, &[])).await?;
    let mut pauses = Vec::new();
    for attempt in 1..=2 {
        let due = fails(&writer, &worker, job, attempt, 1).await?.expect("it pauses");
        let failed = said_at(&writer, job, "job.finished.v1").await?;
        until(&writer, job, "it is ready again", is_queued(attempt + 1)).await?;
        in_time(said_at(&writer, job, "job.released.v1").await?, due);
        pauses.push((due - failed).num_milliseconds());
    }
    assert!((100..=200).contains(&pauses[0]) && (200..=400).contains(&pauses[1]), "{pauses:?}");
    worker.claim(job).await?;
    worker.finish(job, Attempt(3)).await?;
    let job = writer.job(job).await?.expect("there");
    assert_eq!((job.state(), job.attempts.len()), (State::Succeeded, 3));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_too_often_or_with_another_code_has_failed() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let worker = Worker::register(&writer, "w").await?;
    let (often, choosy) = (submit(&writer, retrying(1, &[])).await?, submit(&writer, retrying(9, &[75])).await?);
    assert!(fails(&writer, &worker, often, 1, 1).await?.is_some());
    assert!(fails(&writer, &worker, often, 2, 1).await?.is_none());
    assert!(fails(&writer, &worker, choosy, 1, 75).await?.is_some());
    assert!(fails(&writer, &worker, choosy, 2, 1).await?.is_none());
    for job in [often, choosy] {
        let job = writer.job(job).await?.expect("there");
        assert_eq!((job.state(), job.attempts.len()), (State::Failed, 2));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_no_worker_takes_in_time_has_timed_out() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let worker = Worker::register(&writer, "w").await?;
    let limited = || with(|spec| spec.queue_timeout_ms = Some(800));
    let (waits, taken, again) = (
        submit(&writer, limited()).await?,
        submit(&writer, limited()).await?,
        submit(&writer, limited()).await?,
    );
    worker.claim(taken).await?;
    worker.claim(again).await?;
    until(&writer, waits, "it timed out", |job| job.state() == State::TimedOut).await?;
    in_time(
        said_at(&writer, waits, "job.expired.v1").await?,
        said_at(&writer, waits, "job.submitted.v1").await? + ms(800),
    );
    let ended = writer.job(waits).await?.expect("there");
    let expired = End::Expired {
        clock: Clock::Queue,
        limit_ms: 800,
    };
    assert_eq!(ended.phase, Phase::Ended(expired));
    // While a worker has it, nobody counts; once it waits again, its clock begins anew.
    assert!(matches!(writer.job(taken).await?.expect("there").phase, Phase::Claimed { .. }));
    worker.finish(taken, Attempt(1)).await?;
    Worker::register(&writer, "w").await?;
    until(&writer, again, "it timed out in the end", |job| job.state() == State::TimedOut).await?;
    in_time(
        said_at(&writer, again, "job.expired.v1").await?,
        said_at(&writer, again, "job.rescheduled.v1").await? + ms(800),
    );
    // Revived, it waits once more.
    writer
        .say(waits, &bus::envelope::Actor::Api, Command::Requeue { reason: None })
        .await?;
    until(&writer, waits, "it waits again", is_queued(1)).await?;
    until(&writer, waits, "and timed out again", |job| job.state() == State::TimedOut).await?;
    in_time(
        said_at(&writer, waits, "job.expired.v1").await?,
        said_at(&writer, waits, "job.requeued.v1").await? + ms(800),
    );
    assert_eq!(writer.job(taken).await?.expect("there").state(), State::Succeeded);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_job_may_take_only_so_long() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let worker = Worker::register(&writer, "w").await?;
    let limited = |mut spec: JobSpec| {
        spec.total_timeout_ms = Some(1_000);
        spec
    };
    let patient = Retry {
        max: 9,
        backoff_ms: 60_000,
        ..Retry::default()
    };
    let (held, queued, pausing) = (
        submit(&writer, limited(delayed(60_000))).await?,
        submit(&writer, limited(spec())).await?,
        submit(&writer, limited(with(|spec| spec.retry = Some(patient)))).await?,
    );
    fails(&writer, &worker, pausing, 1, 1).await?;
    for job in [held, queued, pausing] {
        let ended = until(&writer, job, "it timed out", |job| job.state() == State::TimedOut).await?;
        let expired = End::Expired {
            clock: Clock::Total,
            limit_ms: 1_000,
        };
        assert_eq!(ended.phase, Phase::Ended(expired));
        in_time(
            said_at(&writer, job, "job.expired.v1").await?,
            said_at(&writer, job, "job.submitted.v1").await? + ms(1_000),
        );
    }
    Ok(())
}

/// Cancelled while it is held, it is not released, nor does its watcher go on asking for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_ended_meanwhile_is_not_released() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let (cancelled, later) = (submit(&writer, delayed(500)).await?, submit(&writer, delayed(800)).await?);
    writer
        .say(cancelled, &bus::envelope::Actor::Api, Command::Cancel { reason: None })
        .await?;
    until(&writer, later, "the later one is released", is_queued(1)).await?;
    assert_eq!(writer.types(cancelled).await?, ["job.submitted.v1", "job.cancelled.v1"]);
    Ok(())
}
