use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bus::{
    ids::default_token,
    log::{
        EVENTS,
        puller::{Patience, Pulled, Puller},
        setup,
        work::Work,
    },
    spec::Class,
};
use grid_tests::{nats::NatsServer, writer::Writer};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::eventually;

/// The class of a job that asks for nothing special.
const NORMAL_S: Class = Class::ALL[4];
const LONG: Patience = Patience::Expires(Duration::from_secs(20));

struct Lane {
    _server: NatsServer,
    writer: Writer,
    puller: Puller,
    tracker: TaskTracker,
}

impl Lane {
    async fn open() -> Result<Self> {
        let server = NatsServer::start().await?;
        let writer = Writer::connect(server.url()).await?;
        setup::work_consumers(&writer.bus.js, &default_token()).await?;
        let name = setup::work_consumer_name(&default_token(), NORMAL_S);
        let puller = Puller::new(&writer.bus.js, EVENTS, vec![name]).await?;
        let tracker = TaskTracker::new();
        Ok(Self {
            _server: server,
            writer,
            puller,
            tracker,
        })
    }

    async fn pull(&mut self, patience: Patience) -> Result<Option<Work>> {
        self.puller.ask(0, 1, patience).await?;
        match timeout(Duration::from_secs(30), self.puller.next()).await?? {
            Pulled::Message(0, message) => Ok(Some(Work::new(*message, &self.tracker))),
            Pulled::Ended(0, 1) => Ok(None),
            other => anyhow::bail!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_dropped_is_handed_back_at_once() -> Result<()> {
    let mut lane = Lane::open().await?;
    let job = lane.writer.submit().await?;
    let work = lane.pull(LONG).await?.context("submitted work is there to pull")?;
    assert_eq!(work.recorded()?.map(|recorded| recorded.job), Some(job));
    assert_eq!(work.deliveries(), 1);
    let dropped = Instant::now();
    drop(work);
    let work = lane.pull(LONG).await?.context("it comes again")?;
    assert_eq!((work.recorded()?.map(|recorded| recorded.job), work.deliveries()), (Some(job), 2));
    assert!(
        dropped.elapsed() < Duration::from_secs(1),
        "not handed back, but timed out: {:?}",
        dropped.elapsed()
    );
    work.acknowledge().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_refused_comes_again_after_the_pause() -> Result<()> {
    let mut lane = Lane::open().await?;
    lane.writer.submit().await?;
    let pause = Duration::from_millis(300);
    let refused = Instant::now();
    lane.pull(LONG).await?.context("there")?.refuse(pause).await;
    let work = lane.pull(LONG).await?.context("it comes again")?;
    assert!(
        refused.elapsed() >= pause && refused.elapsed() < Duration::from_secs(2),
        "{:?}",
        refused.elapsed()
    );
    work.acknowledge().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_nobody_settles_is_redelivered_after_the_ack_wait() -> Result<()> {
    let mut lane = Lane::open().await?;
    lane.writer.submit().await?;
    let kept = lane.pull(LONG).await?.context("there")?;
    let since = Instant::now();
    let again = lane.pull(LONG).await?.context("it comes again")?;
    assert_eq!((kept.deliveries(), again.deliveries()), (1, 2));
    let waited = since.elapsed();
    assert!(
        waited > Duration::from_millis(1_500) && waited < Duration::from_secs(4),
        "{waited:?}"
    );
    again.acknowledge().await;
    drop(kept);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_taken_does_not_come_again_and_an_empty_lane_says_so_at_once() -> Result<()> {
    let mut lane = Lane::open().await?;
    let asked = Instant::now();
    assert!(lane.pull(Patience::NoWait).await?.is_none());
    assert!(
        asked.elapsed() < Duration::from_millis(900),
        "the server's word, not our own patience: {:?}",
        asked.elapsed()
    );
    lane.writer.submit().await?;
    // The consumer hears of a stored message a moment after its publisher does.
    let soon = Duration::from_secs(10);
    let work = eventually("work is there without waiting", soon, async || lane.pull(Patience::NoWait).await).await?;
    work.acknowledge().await;
    // Longer than the ack-wait: whatever was not acknowledged would come.
    assert!(lane.pull(Patience::Expires(Duration::from_millis(2_500))).await?.is_none());
    assert_eq!(lane.puller.outstanding(0), 0);
    Ok(())
}
