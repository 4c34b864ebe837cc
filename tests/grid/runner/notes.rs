//! A restart's note is kept until every attempt in it is taken up or ended. These tests need a Docker daemon and the image
//! `rgrid/python:3`, and fail without.

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{consumer, stream::Stream};
use bus::{
    ids::default_token,
    job::{Job, Phase},
    log::{EVENTS, setup::work_consumer_name},
    spec::Class,
    subjects,
    worker::{Cordoned, Uncordoned, WorkerEvent},
};
use rustix::process::Signal;

use super::{
    LONG, Yard,
    restart::{containers_of, counts},
};
use crate::log::eventually;

impl Yard {
    /// Puts a consumer in the place of one that runners pull from, which they cannot use: no session can begin.
    async fn obstruct(&self) -> Result<(Stream, String)> {
        let stream = self.writer.bus.js.get_stream(EVENTS).await?;
        let class = Class::ALL[0];
        let name = work_consumer_name(&default_token(), class);
        stream.delete_consumer(&name).await?;
        let push = consumer::push::Config {
            durable_name: Some(name.clone()),
            deliver_subject: "nobody.listens".to_owned(),
            filter_subject: subjects::work(&default_token(), class),
            ..consumer::push::Config::default()
        };
        stream.create_consumer(push).await?;
        Ok((stream, name))
    }
}

#[tokio::test]
async fn a_container_is_taken_up_by_the_first_session_that_can_begin() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let mut runner = yard.docker_runner("w", &[])?;
    let job = yard.submit(counts(200)).await?;
    let container = yard.container(job).await?;
    runner.signal(Signal::HUP)?;
    ensure!(runner.end().await?.success(), "{}", runner.log());
    let (stream, consumer) = yard.obstruct().await?;
    let runner = yard.docker_runner("w", &[])?;
    runner.says("the session broke").await?;
    assert_eq!(containers_of(job)?, std::slice::from_ref(&container), "{}", runner.log());
    stream.delete_consumer(&consumer).await?;
    runner.says("continuing attempt 1").await?;
    yard.counts_well(job, 200, 1).await?;
    ensure!(!yard.path("w").join("restart.json").exists(), "the note is still there");
    Ok(())
}

#[tokio::test]
async fn a_container_whose_session_can_begin_only_after_its_deadline_is_ended() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let mut runner = yard.docker_runner("w", &["--restart-deadline", "1s"])?;
    let job = yard.submit(counts(60)).await?;
    let container = yard.container(job).await?;
    runner.signal(Signal::HUP)?;
    ensure!(runner.end().await?.success(), "{}", runner.log());
    let (stream, consumer) = yard.obstruct().await?;
    let runner = yard.docker_runner("w", &[])?;
    runner.says("the session broke").await?;
    let rescheduled = |job: &Job| matches!(job.phase, Phase::Queued { .. });
    yard.until(job, "it is given up", rescheduled).await?;
    stream.delete_consumer(&consumer).await?;
    runner.says("was given up before this runner could resume it").await?;
    eventually("the container is gone", LONG, async || {
        Ok((!containers_of(job)?.contains(&container)).then_some(()))
    })
    .await?;
    yard.counts_well(job, 60, 2).await
}

#[tokio::test]
async fn what_a_runner_without_docker_cannot_take_up_is_ended_by_the_next_with_it() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let mut runner = yard.docker_runner("w", &[])?;
    let job = yard.submit(counts(60)).await?;
    let container = yard.container(job).await?;
    runner.signal(Signal::HUP)?;
    ensure!(runner.end().await?.success(), "{}", runner.log());
    // Else it could claim the job again, and end it: it offers no Docker.
    yard.operator(WorkerEvent::Cordoned(Cordoned::default())).await?;
    let mut without = yard.runner(&[])?;
    without.says("cannot continue 1 containers").await?;
    let rescheduled = |job: &Job| !job.attempts.is_empty() && matches!(job.phase, Phase::Queued { .. });
    yard.until(job, "it is given up", rescheduled)
        .await
        .with_context(|| without.log())?;
    without.signal(Signal::TERM)?;
    ensure!(without.end().await?.success(), "{}", without.log());
    yard.operator(WorkerEvent::Uncordoned(Uncordoned {})).await?;
    let _with = yard.docker_runner("w", &[])?;
    eventually("the container is gone", LONG, async || {
        Ok((!containers_of(job)?.contains(&container)).then_some(()))
    })
    .await?;
    yard.counts_well(job, 60, 2).await
}
