//! Jobs that wait for the end of others.

use anyhow::Result;
use bus::{
    envelope::Actor,
    ids::{Attempt, JobId},
    job::{Command, Job, State},
    spec::{
        JobSpec,
        policy::{Dependency, DependsOn, Start},
    },
};
use grid_tests::{
    nats::NatsServer,
    writer::{Worker, Writer, spec},
};

use super::{Watching, fail, is_queued, said_at, submit, until};

fn after(jobs: &[(JobId, DependsOn)]) -> JobSpec {
    let mut spec = spec();
    spec.start = Some(Start {
        after: jobs.iter().map(|(job, on)| Dependency { job: *job, on: *on }).collect(),
        ..Start::default()
    });
    spec
}

fn reason(job: &Job) -> Option<String> {
    job.cancel_requested.as_ref()?.1.clone()
}

async fn succeed(worker: &Worker, job: JobId) -> Result<()> {
    worker.claim(job).await?;
    worker.finish(job, Attempt::FIRST).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_follows_those_that_it_depends_on() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let worker = Worker::register(&writer, "w").await?;
    let (first, second, bad) = (writer.submit().await?, writer.submit().await?, writer.submit().await?);
    // One has ended before anybody waits for it.
    succeed(&worker, first).await?;
    let on = DependsOn::Succeeded;
    let one = submit(&writer, after(&[(first, on)])).await?;
    let both = submit(&writer, after(&[(first, on), (second, on)])).await?;
    let any = submit(&writer, after(&[(bad, DependsOn::Ended)])).await?;
    let chained = submit(&writer, after(&[(both, on)])).await?;
    until(&writer, one, "the first has ended already", is_queued(1)).await?;
    for job in [both, any, chained] {
        assert_eq!(writer.job(job).await?.expect("there").state(), State::Held);
    }
    worker.claim(bad).await?;
    fail(&writer, &worker, bad, 1, 1).await?;
    until(&writer, any, "it ended, as bad as it is", is_queued(1)).await?;
    succeed(&worker, second).await?;
    until(&writer, both, "both succeeded", is_queued(1)).await?;
    assert_eq!(writer.job(chained).await?.expect("there").state(), State::Held);
    succeed(&worker, both).await?;
    until(&writer, chained, "the chain goes on", is_queued(1)).await?;
    let late = said_at(&writer, chained, "job.released.v1").await? - said_at(&writer, both, "job.finished.v1").await?;
    assert!(late.num_milliseconds() < 500, "{late}");
    for job in [one, both, any, chained] {
        assert_eq!(writer.types(job).await?[..2], ["job.submitted.v1", "job.released.v1"]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_can_never_start_is_cancelled_with_the_reason() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let worker = Worker::register(&writer, "w").await?;
    let (bad, dropped, open) = (writer.submit().await?, writer.submit().await?, writer.submit().await?);
    let (absent, on) = (JobId::new(), DependsOn::Succeeded);
    let after_bad = submit(&writer, after(&[(open, on), (bad, on)])).await?;
    let after_that = submit(&writer, after(&[(after_bad, on)])).await?;
    let in_any_case = submit(&writer, after(&[(after_bad, DependsOn::Ended)])).await?;
    let after_dropped = submit(&writer, after(&[(dropped, on)])).await?;
    let after_absent = submit(&writer, after(&[(absent, DependsOn::Ended)])).await?;
    let cancelled = |id| until(&writer, id, "it is cancelled", |job| job.state() == State::Cancelled);
    let missing = format!("job {absent}, which this job waits for, does not exist");
    assert_eq!(reason(&cancelled(after_absent).await?), Some(missing));
    writer.say(dropped, &Actor::Api, Command::Cancel { reason: None }).await?;
    let ended = format!("job {dropped}, which this job waits for, ended as cancelled");
    assert_eq!(reason(&cancelled(after_dropped).await?), Some(ended));
    worker.claim(bad).await?;
    fail(&writer, &worker, bad, 1, 3).await?;
    let failed = format!("job {bad}, which this job waits for, ended as failed");
    assert_eq!(reason(&cancelled(after_bad).await?), Some(failed));
    let ended = format!("job {after_bad}, which this job waits for, ended as cancelled");
    assert_eq!(reason(&cancelled(after_that).await?), Some(ended));
    until(&writer, in_any_case, "it waited for any end", is_queued(1)).await?;
    Ok(())
}

/// The end comes while no watcher runs; and a job that waits for a time as well waits for both.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_no_watcher_saw_is_found() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let worker = Worker::register(&writer, "w").await?;
    let first = Watching::start(server.url());
    let (job, on) = (writer.submit().await?, DependsOn::Succeeded);
    let follower = submit(&writer, after(&[(job, on)])).await?;
    let mut later = after(&[(job, on)]);
    if let Some(start) = &mut later.start {
        start.delay_ms = Some(2_000);
    }
    let later = submit(&writer, later).await?;
    let probe = submit(&writer, after(&[(JobId::new(), on)])).await?;
    until(&writer, probe, "the watcher acts", |job| job.state().is_end()).await?;
    first.kill().await;
    succeed(&worker, job).await?;
    let _second = [Watching::start(server.url()), Watching::start(server.url())];
    until(&writer, follower, "it follows", is_queued(1)).await?;
    until(&writer, later, "it follows later", is_queued(1)).await?;
    let late = said_at(&writer, later, "job.released.v1").await? - said_at(&writer, later, "job.submitted.v1").await?;
    assert!((2_000..2_300).contains(&late.num_milliseconds()), "{late}");
    for job in [follower, later] {
        assert_eq!(writer.types(job).await?, ["job.submitted.v1", "job.released.v1"]);
    }
    Ok(())
}

/// A dependency that is lost, or fails and is tried again, has not ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_waited_for() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let _watching = Watching::start(server.url());
    let worker = Worker::register(&writer, "w").await?;
    let mut again = spec();
    again.retry = Some(bus::spec::policy::Retry {
        max: 1,
        backoff_ms: 100,
        ..bus::spec::policy::Retry::default()
    });
    let job = submit(&writer, again).await?;
    let follower = submit(&writer, after(&[(job, DependsOn::Succeeded)])).await?;
    worker.claim(job).await?;
    fail(&writer, &worker, job, 1, 1).await?;
    until(&writer, job, "it is tried again", is_queued(2)).await?;
    worker.claim(job).await?;
    let worker = Worker::register(&writer, "w").await?;
    until(&writer, job, "it is tried once more", is_queued(3)).await?;
    assert_eq!(writer.job(follower).await?.expect("there").state(), State::Held);
    worker.claim(job).await?;
    worker.finish(job, Attempt(3)).await?;
    until(&writer, follower, "it follows", is_queued(1)).await?;
    Ok(())
}
