use std::time::{Duration, Instant};

use anyhow::Result;
use bus::log::{EVENTS, follow::Follower};
use grid_tests::{nats::NatsServer, writer::Writer};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::eventually;

const SUBJECT: &str = "rgrid.evt.sys.worker.w";

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_has_no_gap_and_no_double_over_a_kill_of_the_server() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let mut follower = Follower::new(&writer.bus.js, EVENTS, Vec::new(), 0);
    publish(&writer, 0..3_000).await?;
    let mut read = Vec::new();
    // Killed while messages are on their way, and asked for.
    while read.len() < 1_200 {
        read.extend(follower.chunk(100).await.iter().map(number));
    }
    server.kill()?;
    server.restart().await?;
    let restarted = Instant::now();
    publish(&writer, 3_000..4_000).await?;
    while read.len() < 4_000 {
        let chunk = timeout(Duration::from_secs(20), follower.chunk(1_000)).await?;
        read.extend(chunk.iter().map(number));
    }
    assert_eq!(read, (0..4_000).collect::<Vec<u64>>());
    assert!(
        restarted.elapsed() < Duration::from_secs(8),
        "it went on only after {:?}",
        restarted.elapsed()
    );
    Ok(())
}

/// A pull that waits on the server is forgotten by a restart, and nobody says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_waits_notices_a_restart() -> Result<()> {
    let mut server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    publish(&writer, 0..1).await?;
    let mut follower = Follower::new(&writer.bus.js, EVENTS, Vec::new(), 0);
    assert_eq!(number(&follower.next().await), 0);
    let waiting = TaskTracker::new().spawn(async move { number(&follower.next().await) });
    // It asks twice: for the first half of its window, and once that is begun, for the other.
    eventually("both asks wait on the server", Duration::from_secs(10), async || {
        let list: Value = writer.bus.js.request(format!("CONSUMER.LIST.{EVENTS}"), &json!({})).await?;
        Ok((list["consumers"][0]["num_waiting"] == 2).then_some(()))
    })
    .await?;
    server.kill()?;
    server.restart().await?;
    publish(&writer, 1..2).await?;
    let stored = Instant::now();
    assert_eq!(timeout(Duration::from_secs(60), waiting).await??, 1);
    assert!(
        stored.elapsed() < Duration::from_secs(3),
        "it came only after {:?}",
        stored.elapsed()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_begins_behind_a_sequence_and_keeps_to_its_filter() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    publish(&writer, 0..10).await?;
    let job = writer.submit().await?;
    publish(&writer, 10..20).await?;
    let mut follower = Follower::new(&writer.bus.js, EVENTS, vec![SUBJECT.to_owned()], 5);
    let mut read = Vec::new();
    while read.len() < 15 {
        let chunk = follower.chunk(4).await;
        assert!(chunk.len() <= 4);
        read.extend(chunk);
    }
    assert_eq!(read.iter().map(number).collect::<Vec<_>>(), (5..20).collect::<Vec<u64>>());
    assert_eq!(read.last().map(|message| message.pending), Some(0));
    assert!(read.iter().all(|message| !message.subject.contains(&job.to_string())));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_lingers_misses_nothing_and_takes_together_what_comes_meanwhile() -> Result<()> {
    // Long beside what nine publishes take on a busy machine: a pause of this length is a rest, after which it does not wait.
    const LINGER: Duration = Duration::from_millis(1_500);
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    // More than its window behind it, then nothing, then one by one.
    publish(&writer, 0..2_500).await?;
    let mut follower = Follower::new(&writer.bus.js, EVENTS, Vec::new(), 0).window(200).linger(LINGER);
    let mut read = Vec::new();
    let begun = Instant::now();
    while read.len() < 2_500 {
        read.extend(timeout(Duration::from_secs(20), follower.chunk(1_000)).await?.iter().map(number));
    }
    assert!(begun.elapsed() < 8 * LINGER, "what stands there already took {:?}", begun.elapsed());
    // It has caught up, looks once more, and then takes a few as they come.
    assert!(timeout(2 * LINGER, follower.chunk(1_000)).await.is_err());
    let stored = Instant::now();
    publish(&writer, 2_500..2_508).await?;
    while read.len() < 2_508 {
        read.extend(timeout(Duration::from_secs(20), follower.chunk(1_000)).await?.iter().map(number));
    }
    assert!(
        stored.elapsed() < LINGER,
        "the first ones after a rest came only after {:?}",
        stored.elapsed()
    );
    for number in 2_508..2_517 {
        publish(&writer, number..number + 1).await?;
    }
    // They wait until the linger is over. One ask takes them all, but a chunk is what has come of it already.
    while read.len() < 2_517 {
        read.extend(timeout(Duration::from_secs(20), follower.chunk(1_000)).await?.iter().map(number));
        assert!(
            stored.elapsed() >= LINGER,
            "one came after {:?}, and not with the others",
            stored.elapsed()
        );
    }
    assert_eq!(read, (0..2_517).collect::<Vec<u64>>());
    Ok(())
}

async fn publish(writer: &Writer, numbers: std::ops::Range<u64>) -> Result<()> {
    let mut acks = Vec::new();
    for number in numbers {
        acks.push(writer.bus.js.publish(SUBJECT, number.to_string().into()).await?);
    }
    for ack in acks {
        ack.await?;
    }
    Ok(())
}

fn number(message: &bus::log::follow::Followed) -> u64 {
    String::from_utf8_lossy(&message.payload).parse().expect("a number")
}
