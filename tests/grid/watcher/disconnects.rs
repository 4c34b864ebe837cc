//! The quick sign: the broker says that a runner's connection went.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bus::{
    envelope::{Actor, Envelope},
    ids::{Attempt, JobId, WorkerId},
    job::{Command, JobEvent, Phase},
    log::{connect::Bus, read},
    spec::{ExecutorKind, JobSpec},
    worker::WorkerEvent,
};
use grid_tests::{
    grid::{Grid, Part},
    nats::NatsServer,
    writer::Writer,
};

use super::{Beating, LONG, Watching, is_queued, losses, lost, until, until_lost, worker_events};
use crate::log::eventually;

/// Waits until the watcher takes the broker's word: it has to find the broker well for two seconds before.
async fn quick(server: &NatsServer, writer: &Writer) -> Result<()> {
    let mut tries = 0;
    eventually("a dead worker is found out at once", LONG, async || {
        tries += 1;
        let dead = Beating::start(server.url(), &format!("first-{tries}")).await?;
        let worker = dead.worker.clone();
        drop(dead);
        let since = Instant::now();
        until_lost(writer, &worker).await?;
        Ok((since.elapsed() < Duration::from_secs(2)).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_workers_jobs_are_rescheduled_within_a_second() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let watching = Watching::quick(&server);
    let healthy = Beating::start(server.url(), "healthy").await?;
    let kept = writer.submit().await?;
    healthy.claim(kept).await?;
    quick(&server, &writer).await?;
    for round in 0..5 {
        let doomed = Beating::start(server.url(), &format!("doomed-{round}")).await?;
        let jobs = [writer.submit().await?, writer.submit().await?];
        for job in jobs {
            doomed.claim(job).await?;
        }
        let since = Instant::now();
        drop(doomed);
        for job in jobs {
            let job = until(&writer, job, "the job is queued again", is_queued(2)).await?;
            assert!(lost(&job).is_some());
        }
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(1), "{took:?}");
    }
    assert!(matches!(writer.job(kept).await?.expect("there").phase, Phase::Claimed { .. }));
    assert!(!losses(&writer).await?.contains_key(&healthy.worker.id));
    watching.stop().await
}

/// Its connection for files goes, and its own goes and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_connects_again_is_not_lost() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let watching = Watching::quick(&server);
    let beating = Beating::start(server.url(), "w").await?;
    quick(&server, &writer).await?;
    let worker = beating.worker.clone();
    for round in 0..3 {
        beating.line.client.force_reconnect().await?;
        let name = format!("worker/{}/{}/files", worker.id, worker.session);
        drop(Bus::connect(server.url(), &name).await?);
        // Another one dies after it, and is found out: so this one would have been.
        let other = Beating::start(server.url(), &format!("other-{round}")).await?;
        let dead = other.worker.clone();
        drop(other);
        until_lost(&writer, &dead).await?;
    }
    assert!(!losses(&writer).await?.contains_key(&worker.id));
    drop(beating);
    let since = Instant::now();
    until_lost(&writer, &worker).await?;
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    watching.stop().await
}

/// What its heartbeats told before, they tell without these credentials too.
#[tokio::test(flavor = "multi_thread")]
async fn without_valid_credentials_silence_alone_tells() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let watching = Watching::start_as(::watcher::Config {
        nats_system: Some(server.system_url().replace("system@", "guess@")),
        ..::watcher::Config::new(server.url())
    });
    let dead = Beating::start(server.url(), "dead").await?;
    let worker = dead.worker.clone();
    drop(dead);
    let since = Instant::now();
    until_lost(&writer, &worker).await?;
    let took = since.elapsed();
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(7), "{took:?}");
    watching.stop().await
}

/// SIGKILL of real runners, with another that is free: each job is claimed by that one within a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runners_job_is_claimed_elsewhere_within_a_second() -> Result<()> {
    let mut grid = Grid::start_only(&[]).await?;
    grid.run_with(Part::Watcher, &["--nats-system", &grid.nats.system_url()])?;
    let writer = Writer::connect(grid.nats.url()).await?;
    let hasty = ["--grace", "100ms"];
    grid.run_with(Part::Runner(1), &hasty)?;
    grid.run_with(Part::Runner(2), &hasty)?;
    quick(&grid.nats, &writer).await?;
    let mut spec = JobSpec::new(["/bin/sleep", "60"].map(ToOwned::to_owned).to_vec());
    spec.executor = Some(ExecutorKind::Process);
    let mut took = BTreeMap::new();
    for round in 0..4 {
        let job = JobId::new();
        let spec = Box::new(spec.clone());
        writer.say(job, &Actor::Api, Command::Submit { spec }).await?;
        let running = until(&writer, job, "it runs", |job| matches!(job.phase, Phase::Running { .. })).await?;
        let first = running.live_attempt().context("it runs")?.worker.clone();
        let part = if first.as_str() == "worker-1" {
            Part::Runner(1)
        } else {
            Part::Runner(2)
        };
        let since = chrono::Utc::now();
        grid.kill(part)?;
        until(
            &writer,
            job,
            "it runs elsewhere",
            |job| matches!(job.phase, Phase::Running { attempt } if attempt == Attempt(2)),
        )
        .await?;
        let history = read::history(&writer.bus.js, job).await?;
        let claims = history.iter().filter_map(|recorded| match &recorded.envelope.event {
            JobEvent::Claimed(claimed) => Some((claimed.worker.clone(), recorded.envelope.time)),
            _ => None,
        });
        let claims = claims.collect::<Vec<_>>();
        ensure!(claims.len() == 2 && claims[1].0 != first, "{claims:?}");
        took.insert(round, claims[1].1 - since);
        let reason = Some("enough".to_owned());
        writer.say(job, &Actor::Api, Command::Cancel { reason }).await?;
        until(&writer, job, "it ended", |job| job.state().is_end()).await?;
        // It serves again: only then is there one to kill and one that is free.
        let before = registrations(&writer, &first).await?;
        grid.run_with(part, &hasty)?;
        eventually("the runner is back", LONG, async || {
            Ok((registrations(&writer, &first).await? > before).then_some(()))
        })
        .await?;
    }
    println!("claimed elsewhere after {took:?}");
    for time in took.values() {
        ensure!(time.num_milliseconds() < 1_000, "{took:?}");
    }
    Ok(())
}

async fn registrations(writer: &Writer, worker: &WorkerId) -> Result<usize> {
    let events = worker_events(writer).await?;
    let of = |(id, envelope): &&(WorkerId, Envelope<WorkerEvent>)| id == worker && matches!(envelope.event, WorkerEvent::Registered(_));
    Ok(events.iter().filter(of).count())
}
