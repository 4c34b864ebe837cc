//! Clients that stand still, and strangers without the key: none of them takes the API from its users.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::{Grid, Part};
use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

/// For how long a client may stand still in these tests.
const PATIENCE: Duration = Duration::from_secs(2);
/// More connections than the API takes of strangers at once.
const CROWD: usize = 2_000;
/// A quick answer, on a busy machine.
const QUICK: Duration = Duration::from_secs(5);

async fn grid() -> Result<Grid> {
    // This process holds the other ends.
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    let env = vec![("RGRID_CLIENT_PATIENCE", format!("{}s", PATIENCE.as_secs()))];
    Grid::start_with(&[Part::Api], env).await
}

fn address(grid: &Grid) -> String {
    let [(_, url), _] = grid.access();
    url.trim_start_matches("http://").to_owned()
}

fn key(grid: &Grid) -> String {
    let [_, (_, key)] = grid.access();
    key
}

/// How many descriptors the API holds.
fn descriptors(grid: &Grid) -> Option<usize> {
    let pid = grid.pid(Part::Api).ok()?;
    Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// Waits until the other end has closed a connection; whatever it says before.
async fn closed(stream: &mut TcpStream) -> Result<Duration> {
    let begun = Instant::now();
    let mut read = Vec::new();
    let ended = tokio::time::timeout(grid_tests::grid::SOON, stream.read_to_end(&mut read)).await;
    // Closed or reset: it is gone.
    let _whichever = ended.context("the connection is kept")?;
    Ok(begun.elapsed())
}

/// The head of a request with the key, and some bytes behind it.
fn head(grid: &Grid, line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n{headers}", key(grid))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_silent_strangers_are_closed_and_lock_nobody_out() -> Result<()> {
    let grid = grid().await?;
    // A user who is there before they come, and follows everything.
    let mut follower = TcpStream::connect(address(&grid)).await?;
    follower.write_all(head(&grid, "GET /v1/facts", "\r\n").as_bytes()).await?;
    let mut answer = [0; 12];
    follower.read_exact(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    let before = descriptors(&grid).context("the API runs")?;
    let mut silent = Vec::new();
    for _ in 0..CROWD {
        silent.push(TcpStream::connect(address(&grid)).await?);
    }
    let begun = Instant::now();
    grid.submit(&json!({ "command": ["true"], "executor": "noop" })).await?;
    ensure!(begun.elapsed() < QUICK, "a user waited {:?}", begun.elapsed());
    grid.eventually("the silent strangers are closed", async || {
        (descriptors(&grid)? < before + 100).then_some(())
    })
    .await?;
    // The follower was no stranger.
    let mut told = Vec::new();
    while !String::from_utf8_lossy(&told).contains("job.submitted") {
        ensure!(
            follower.read_buf(&mut told).await? > 0,
            "the follower was closed: {}",
            String::from_utf8_lossy(&told)
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_bodies_that_drip_are_not_waited_for() -> Result<()> {
    let grid = grid().await?;
    let head_without_key = "GET /v1/health HTTP/1.1\r\nX: ".to_owned();
    let head_with_key = head(&grid, "GET /v1/jobs", "X: ");
    let body = head(&grid, "POST /v1/jobs", "Content-Length: 100000\r\n\r\n[");
    let file = head(
        &grid,
        &format!("PUT /v1/files/{}", "0".repeat(64)),
        "Content-Length: 100000\r\n\r\n",
    );
    for (what, start) in [
        ("a head without the key", head_without_key),
        ("a head with the key", head_with_key),
        ("a body", body),
        ("a file", file),
    ] {
        let stream = TcpStream::connect(address(&grid)).await?;
        let (mut read, mut write) = stream.into_split();
        #[allow(clippy::disallowed_methods, reason = "it is ended below")]
        let dripping = tokio::spawn(async move {
            write.write_all(start.as_bytes()).await?;
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                write.write_all(b" ").await?;
            }
            #[allow(unreachable_code, reason = "the type of the block")]
            Ok::<_, std::io::Error>(())
        });
        let begun = Instant::now();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(grid_tests::grid::SOON, read.read_to_end(&mut answer)).await;
        dripping.abort();
        ensure!(ended.is_ok(), "{what} is waited for");
        println!("{what}: closed after {:?}", begun.elapsed());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upload_that_progresses_takes_as_long_as_it_takes() -> Result<()> {
    let grid = grid().await?;
    let content = vec![b'x'; 64 << 10];
    let sha256 = hex::encode(Sha256::digest(&content));
    let mut stream = TcpStream::connect(address(&grid)).await?;
    let length = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", content.len());
    stream
        .write_all(head(&grid, &format!("PUT /v1/files/{sha256}"), &length).as_bytes())
        .await?;
    let begun = Instant::now();
    for piece in content.chunks(4 << 10) {
        tokio::time::sleep(PATIENCE / 4).await;
        stream.write_all(piece).await?;
    }
    ensure!(begun.elapsed() > 3 * PATIENCE, "{:?}", begun.elapsed());
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_does_not_read_is_dropped() -> Result<()> {
    let grid = grid().await?;
    // More than the kernel keeps for a reader.
    let large = json!({ "command": ["true"], "executor": "noop", "env": { "LARGE": "x".repeat(50_000) } });
    for _ in 0..4 {
        let jobs: Vec<Value> = vec![large.clone(); 200];
        grid.submit(&Value::from(jobs)).await?;
    }
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4 << 10)?;
    let mut follower = socket.connect(address(&grid).parse()?).await?;
    let before = descriptors(&grid).context("the API runs")?;
    follower.write_all(head(&grid, "GET /v1/facts?after=0", "\r\n").as_bytes()).await?;
    let dropped = || descriptors(&grid).filter(|now| *now < before);
    grid.eventually("the follower is dropped", async || dropped()).await?;
    closed(&mut follower).await?;
    let answer = grid.request(Method::GET, "health").send().await?;
    ensure!(answer.status().is_success());
    Ok(())
}
