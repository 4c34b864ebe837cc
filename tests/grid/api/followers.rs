//! Thousands who follow: the server keeps nothing of any of them, and those who wait for nothing ask for nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use grid_tests::{grid::Grid, writer::Writer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// More than a stream of a `JetStream` account may have consumers by default.
const FOLLOWERS: usize = 1_050;

fn raise_descriptors() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// A follower with the key, which holds its connection until it is dropped.
struct Follower {
    stream: TcpStream,
    told: Vec<u8>,
}

impl Follower {
    async fn open(grid: &Grid, path: &str) -> Result<Self> {
        let [(_, url), (_, key)] = grid.access();
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
        let head = format!("GET /v1/{path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {key}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        Ok(Self { stream, told: Vec::new() })
    }

    /// Reads until this was said.
    async fn until(&mut self, words: &str) -> Result<()> {
        let reading = async {
            while !String::from_utf8_lossy(&self.told).contains(words) {
                let read = self.stream.read_buf(&mut self.told).await?;
                ensure!(read > 0, "the end, before `{words}`: {}", String::from_utf8_lossy(&self.told));
            }
            Ok(())
        };
        tokio::time::timeout(grid_tests::grid::SOON, reading)
            .await
            .with_context(|| format!("`{words}` was not said"))?
    }
}

async fn consumers(writer: &Writer, stream: &str) -> Result<usize> {
    let mut stream = writer.log.js().get_stream(stream).await?;
    Ok(stream.info().await?.state.consumer_count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_followers_take_no_consumer_and_are_told_everything() -> Result<()> {
    raise_descriptors()?;
    let grid = Grid::start().await?;
    let writer = Writer::connect(grid.nats.url()).await?;
    let before = grid.shell("echo before").await?;
    grid.ended(&before).await?;
    let flag = grid.dir().join("go");
    let loud = grid
        .shell(&format!(
            "echo first; until test -e {}; do sleep 0.05; done; echo last",
            flag.display()
        ))
        .await?;
    let had = (consumers(&writer, "RGRID_EVENTS").await?, consumers(&writer, "RGRID_LOGS").await?);
    let mut followers = Vec::new();
    for _ in 0..FOLLOWERS {
        followers.push(Follower::open(&grid, "facts?after=0&namespace=default").await?);
    }
    for follower in &mut followers {
        follower.until(&format!(r#""job":"{before}""#)).await?;
    }
    let mut of_log = Vec::new();
    for _ in 0..100 {
        of_log.push(Follower::open(&grid, &format!("jobs/{loud}/logs?follow=true")).await?);
    }
    for follower in &mut of_log {
        follower.until("first").await?;
    }
    let has = (consumers(&writer, "RGRID_EVENTS").await?, consumers(&writer, "RGRID_LOGS").await?);
    ensure!(
        has == had,
        "consumers of events and logs: {had:?} before, {has:?} with the followers"
    );
    std::fs::write(&flag, "")?;
    grid.ended(&loud).await?;
    for follower in &mut of_log {
        follower.until("last").await?;
        follower.until("event: end").await?;
    }
    // From the log they went over to what is told.
    let after = grid.shell("echo after").await?;
    grid.ended(&after).await?;
    for follower in &mut followers {
        follower.until(&format!(r#""job":"{after}""#)).await?;
        follower.until("job.finished").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_follow_an_idle_log_ask_for_nothing() -> Result<()> {
    /// Longer than the five seconds after which each of them asked.
    const A_WHILE: Duration = Duration::from_secs(7);
    let grid = Grid::start().await?;
    let writer = Writer::connect(grid.nats.url()).await?;
    let idle = grid.shell("echo first; exec sleep 600").await?;
    let mut followers = Vec::new();
    for _ in 0..50 {
        followers.push(Follower::open(&grid, &format!("jobs/{idle}/logs?follow=true")).await?);
    }
    for follower in &mut followers {
        follower.until("first").await?;
    }
    let mut asked = writer.log.js().client().subscribe("$JS.API.DIRECT.GET.>").await?;
    let of_this = |message: &async_nats::Message| {
        let text = format!("{} {}", message.subject, String::from_utf8_lossy(&message.payload));
        text.contains(&idle).then_some(text)
    };
    let mut requests = Vec::new();
    let counting = async {
        while let Some(message) = asked.next().await {
            requests.extend(of_this(&message));
        }
    };
    let _over = tokio::time::timeout(A_WHILE, counting).await;
    // That the job has started is looked up once, for all of them.
    ensure!(requests.len() < 5, "50 followers asked {} times: {requests:?}", requests.len());
    Ok(())
}
