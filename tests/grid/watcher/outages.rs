use std::time::{Duration, Instant};

use anyhow::Result;
use bus::job::Phase;
use grid_tests::{nats::NatsServer, writer::Writer};
use tokio::time::sleep;

use super::{Beating, LONG, Watching, is_queued, until, until_lost};
use crate::log::eventually;

/// Longer than the lapse, and than the time to live of a heartbeat.
const OUTAGE: Duration = Duration::from_secs(6);

struct Grid {
    server: NatsServer,
    writer: Writer,
    healthy: Vec<Beating>,
    jobs: Vec<bus::ids::JobId>,
    watching: Watching,
}

impl Grid {
    /// A watcher that hears, and five workers that beat, each with a job.
    async fn start() -> Result<Self> {
        let server = NatsServer::start().await?;
        let writer = Writer::connect(server.url()).await?;
        let watching = Watching::quick(&server);
        let (mut healthy, mut jobs) = (Vec::new(), Vec::new());
        for number in 0..5 {
            let worker = Beating::start(server.url(), &format!("healthy-{number}")).await?;
            let job = writer.submit().await?;
            worker.claim(job).await?;
            healthy.push(worker);
            jobs.push(job);
        }
        hears(&server, &writer).await?;
        Ok(Self {
            server,
            writer,
            healthy,
            jobs,
            watching,
        })
    }

    /// A worker that falls silent now is found out; so the watcher lives and hears, and what it did not say by then, it
    /// does not say.
    async fn only_the_silent_are_lost(self) -> Result<()> {
        let silent = Beating::start(self.server.url(), "silent").await?;
        let worker = silent.worker.clone();
        drop(silent);
        let since = Instant::now();
        let losses = until_lost(&self.writer, &worker).await?;
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
        assert!(!losses.keys().any(|id| id.as_str().starts_with("healthy")), "{losses:?}");
        for job in &self.jobs {
            let job = self.writer.job(*job).await?.expect("it is there");
            assert!(matches!(job.phase, Phase::Claimed { .. }), "{job:?}");
        }
        drop(self.healthy);
        self.watching.stop().await
    }
}

/// Waits until the watcher acts, as one that hears itself.
async fn hears(server: &NatsServer, writer: &Writer) -> Result<()> {
    let first = Beating::start(server.url(), "first").await?;
    let job = writer.submit().await?;
    first.worker.claim(job).await?;
    first.worker.leave().await?;
    until(writer, job, "the watcher acts", is_queued(2)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_not_the_death_of_its_workers() -> Result<()> {
    let grid = Grid::start().await?;
    grid.server.freeze()?;
    sleep(OUTAGE).await;
    grid.server.thaw()?;
    grid.only_the_silent_are_lost().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_is_not_the_death_of_its_workers() -> Result<()> {
    let mut grid = Grid::start().await?;
    grid.server.kill()?;
    sleep(OUTAGE).await;
    grid.server.restart().await?;
    grid.only_the_silent_are_lost().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_died_in_the_outage_is_lost_after_it() -> Result<()> {
    let mut grid = Grid::start().await?;
    grid.server.kill()?;
    let dead = grid.healthy.pop().expect("one of five");
    let (worker, job) = (dead.worker.clone(), grid.jobs.pop().expect("its job"));
    drop(dead);
    for healthy in &grid.healthy {
        eventually("the others notice the outage", LONG, async || {
            let connected = healthy.line.client.connection_state() == async_nats::connection::State::Connected;
            Ok((!connected).then_some(()))
        })
        .await?;
    }
    grid.server.restart().await?;
    until_lost(&grid.writer, &worker).await?;
    until(&grid.writer, job, "its job is queued again", is_queued(2)).await?;
    grid.only_others(&worker.id).await
}

impl Grid {
    async fn only_others(self, lost: &bus::ids::WorkerId) -> Result<()> {
        let losses = super::losses(&self.writer).await?;
        assert_eq!(losses.keys().collect::<Vec<_>>(), [lost]);
        self.watching.stop().await
    }
}

/// A watcher may be started before its broker.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_waits_for_a_broker_that_is_not_there_yet() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let url = server.url().to_owned();
    server.kill()?;
    let watching = Watching::start(&url);
    server.restart().await?;
    let writer = Writer::connect(&url).await?;
    hears(&server, &writer).await?;
    watching.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_waits_for_its_broker_can_be_stopped() -> Result<()> {
    let mut server = NatsServer::start().await?;
    server.kill()?;
    let watching = Watching::start(server.url());
    watching.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_watcher_is_followed_by_the_next() -> Result<()> {
    let grid = Grid::start().await?;
    let Grid {
        server,
        writer,
        mut healthy,
        jobs,
        watching,
    } = grid;
    watching.kill().await;
    let dead = healthy.pop().expect("one of five");
    let worker = dead.worker.clone();
    drop(dead);
    let watching = Watching::start(server.url());
    let losses = until_lost(&writer, &worker).await?;
    assert_eq!(losses.len(), 1, "{losses:?}");
    let job = jobs.last().copied().expect("its job");
    eventually("its job is queued again", LONG, async || {
        Ok(writer.job(job).await?.filter(is_queued(2)))
    })
    .await?;
    watching.stop().await
}
