//! Messages that no client library can take: they are set aside and named, and stop nothing.

use anyhow::{Context as _, Result, ensure};
use grid_tests::{
    grid::{Grid, Part},
    nats::NatsServer,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

const PARTS: [Part; 4] = [Part::Api, Part::Projector, Part::Watcher, Part::Runner(1)];

/// Headers that async-nats closes its connection at, or dies of.
const HEADERS: [&[u8]; 4] = [
    b"NATS/1.0\r\nX: \xff\r\n\r\n",
    b"NATS/1.0\r\nX: a\rb\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"nonsense",
];

/// Publishes messages as they are, and waits until the server has them.
async fn publish(nats: &NatsServer, messages: impl Iterator<Item = (Vec<u8>, &[u8])>) -> Result<()> {
    let address = nats.url().rsplit('/').next().context("an address")?.to_owned();
    let (from, mut to) = TcpStream::connect(address).await?.into_split();
    let mut bytes = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n".to_vec();
    let payload = b"{\"command\": [\"true\"]}";
    for (subject, header) in messages {
        bytes.extend(b"HPUB ");
        bytes.extend(subject);
        bytes.extend(format!(" {} {}\r\n", header.len(), header.len() + payload.len()).into_bytes());
        bytes.extend([header, payload, b"\r\n"].concat());
    }
    bytes.extend(b"PING\r\n");
    to.write_all(&bytes).await?;
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await? {
        ensure!(!line.starts_with("-ERR"), "{line}");
        if line == "PONG" {
            return Ok(());
        }
    }
    anyhow::bail!("the server closed the connection")
}

/// A job runs, and another one that was submitted through the inbox.
async fn jobs_run(grid: &Grid, key: &str) -> Result<String> {
    let js = grid.nats.context().await?;
    let submission = json!({ "command": ["echo", "hello"], "key": key }).to_string();
    js.publish("rgrid.submit.default.default", submission.into()).await?.await?;
    let direct = grid.shell("echo hello").await?;
    let job = grid.ended(&direct).await?;
    ensure!(job["state"] == "succeeded" && job["attempt"] == 1, "{job}");
    let by_key = bus::ids::JobId::of_key(&bus::ids::default_token(), key).to_string();
    grid.eventually("the inbox's job ends", async || {
        let job = grid.get(&format!("jobs/{by_key}")).await.ok()?;
        (job["state"] == "succeeded").then_some(())
    })
    .await?;
    ensure!(grid.printed(&direct, "stdout").await? == b"hello\n");
    Ok(direct)
}

async fn messages(grid: &Grid, stream: &str) -> Result<u64> {
    let mut stream = grid.nats.context().await?.get_stream(stream).await?;
    Ok(stream.info().await?.state.messages)
}

/// What `doctor` says of what was set aside, once it is so many messages.
async fn named(grid: &Grid, least: u64) -> Result<Value> {
    grid.eventually("doctor names what was set aside", async || {
        let diagnosis = grid.get("doctor").await.ok()?;
        let finding = diagnosis["findings"]
            .as_array()?
            .iter()
            .find(|finding| finding["topic"] == "undeliverable")?;
        let number: u64 = finding["what"].as_str()?.split(' ').next()?.parse().ok()?;
        (number >= least).then(|| finding.clone())
    })
    .await
}

fn unharmed(grid: &Grid, parts: &[(Part, u32)]) -> Result<()> {
    for (part, pid) in parts {
        ensure!(grid.pid(*part)? == *pid, "{part:?} is another process");
        let log = grid.log(*part);
        ensure!(
            !log.contains("the connection to NATS is gone") && !log.contains("panicked"),
            "{part:?}: {log}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_in_a_row_are_stepped_over() -> Result<()> {
    let grid = Grid::start().await?;
    let parts: Vec<(Part, u32)> = PARTS.into_iter().map(|part| Ok((part, grid.pid(part)?))).collect::<Result<_>>()?;
    let subjects = (0..1_000).flat_map(|number| {
        let job = uuid::Uuid::now_v7();
        let header = HEADERS[number % HEADERS.len()];
        [
            (format!("rgrid.evt.default.job.{job}.ready.default.normal-s").into_bytes(), header),
            (b"rgrid.submit.default.default".to_vec(), header),
        ]
    });
    publish(&grid.nats, subjects).await?;
    jobs_run(&grid, "behind them all").await?;
    grid.eventually("the inbox is empty", async || {
        (messages(&grid, "RGRID_INBOX").await.ok()? == 0).then_some(())
    })
    .await?;
    named(&grid, 2_000).await?;
    ensure!(messages(&grid, "RGRID_REFUSED").await? == 1_000);
    unharmed(&grid, &parts)
}
