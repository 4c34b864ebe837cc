//! Three nats-servers: a client that moves from one to another is no dead runner, whatever became of its server.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bus::{
    ids::JobId,
    log::{EVENTS, PRESENCE},
};
use grid_tests::{cluster::Cluster, writer::Writer};
use rustix::process::Signal;
use tokio::time::sleep;

use super::{Beating, LONG, Watching, is_queued, losses, until, until_lost};
use crate::log::eventually;

struct Nodes {
    cluster: Cluster,
    writer: Writer,
    healthy: Vec<Beating>,
    watching: Watching,
}

impl Nodes {
    /// A watcher that takes the brokers' word, and workers whose connections are spread over them.
    async fn start() -> Result<Self> {
        let cluster = Cluster::start().await?;
        let writer = Writer::connect(&cluster.urls()).await?;
        let watching = Watching::start_as(::watcher::Config {
            nats_system: Some(cluster.system_urls()),
            replicas: 3,
            ..::watcher::Config::new(cluster.urls())
        });
        let mut healthy = Vec::new();
        for number in 0..9 {
            let worker = Beating::start(&cluster.urls(), &format!("healthy-{number}")).await?;
            worker.claim(writer.submit().await?).await?;
            healthy.push(worker);
        }
        Ok(Self {
            cluster,
            writer,
            healthy,
            watching,
        })
    }

    /// One that dies now is found out, and how soon; nobody else was given up.
    async fn one_dies(&self, name: &str) -> Result<Duration> {
        let doomed = Beating::start(&self.cluster.urls(), name).await?;
        let job: JobId = self.writer.submit().await?;
        doomed.claim(job).await?;
        let worker = doomed.worker.clone();
        drop(doomed);
        let since = Instant::now();
        until_lost(&self.writer, &worker).await?;
        until(&self.writer, job, "its job is queued again", is_queued(2)).await?;
        let took = since.elapsed();
        let losses = losses(&self.writer).await?;
        ensure!(!losses.keys().any(|id| id.as_str().starts_with("healthy")), "{losses:?}");
        Ok(took)
    }

    /// Waits until both streams have a leader again, and a connection.
    async fn led(&self) -> Result<()> {
        for stream in [EVENTS, PRESENCE] {
            self.cluster.leader(&self.writer.bus, stream).await?;
        }
        Ok(())
    }

    /// The brokers are found well, and taken at their word.
    async fn quick(&self, name: &str) -> Result<()> {
        let mut tries = 0;
        eventually("a dead worker is found out at once", LONG * 2, async || {
            tries += 1;
            let took = self.one_dies(&format!("{name}-{tries}")).await?;
            Ok((took < Duration::from_secs(1)).then_some(()))
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_to_another_server_is_not_lost() -> Result<()> {
    let mut nodes = Nodes::start().await?;
    nodes.quick("first").await?;
    for (node, how) in [(0, Signal::TERM), (1, Signal::TERM), (2, Signal::KILL)] {
        nodes.cluster.signal(node, how)?;
        nodes.led().await?;
        nodes.one_dies(&format!("without-{node}")).await?;
        nodes.cluster.kill(node)?;
        nodes.cluster.launch(node)?;
        nodes.cluster.ready().await?;
    }
    nodes.quick("last").await?;
    drop(nodes.healthy);
    nodes.watching.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_of_three_is_not_the_death_of_its_clients() -> Result<()> {
    let nodes = Nodes::start().await?;
    nodes.quick("first").await?;
    for node in 0..2 {
        nodes.cluster.signal(node, Signal::STOP)?;
        // Longer than a silence by which a worker is lost, and well below the 12 s for which a silent server excuses its clients.
        sleep(Duration::from_secs(7)).await;
        nodes.cluster.signal(node, Signal::CONT)?;
        nodes.cluster.ready().await?;
        nodes.led().await?;
        nodes.one_dies(&format!("frozen-{node}")).await?;
    }
    nodes.quick("last").await?;
    drop(nodes.healthy);
    nodes.watching.stop().await
}
