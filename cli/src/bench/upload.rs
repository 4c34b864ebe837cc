//! Files to the store and back: `upload`.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bus::ids::Digest;
use client::{Client, Progress, hash, upload};
use futures::StreamExt as _;
use rand::{RngCore as _, SeedableRng as _, rngs::SmallRng};
use reqwest::Method;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{grid::Grid, rounded::millis};

/// The sizes, in bytes.
const SIZES: [u64; 6] = [10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// `upload`.
#[derive(Debug, Serialize)]
pub(super) struct Upload {
    pub(super) sizes: Vec<Size>,
}

/// Of one size.
#[derive(Debug, Serialize)]
pub(super) struct Size {
    pub(super) bytes: u64,
    /// From the file on disk until it is stored, hashed by us, and again by the API.
    pub(super) put_ms: f64,
    /// From the store until all of it is here and hashed.
    pub(super) get_ms: f64,
}

/// Sends and fetches files of random bytes, up to a size.
///
/// # Errors
/// If one cannot be stored, or comes back otherwise.
pub(super) async fn measure(grid: &Grid, most: u64) -> anyhow::Result<Upload> {
    let mut sizes = Vec::new();
    for bytes in SIZES.into_iter().filter(|size| *size <= most) {
        // Small ones several times: a single one says little.
        let times = if bytes <= 10_000_000 { 5 } else { 1 };
        let (mut puts, mut gets) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let file = tokio::task::spawn_blocking(move || random_file(bytes))
                .await?
                .context("cannot write a file to send")?;
            puts.push(put(&grid.client, &file).await?);
            gets.push(get(&grid.client, &file).await?);
        }
        sizes.push(Size {
            bytes,
            put_ms: millis(middle(puts)),
            get_ms: millis(middle(gets)),
        });
    }
    Ok(Upload { sizes })
}

/// A file that no store has.
fn random_file(bytes: u64) -> std::io::Result<NamedTempFile> {
    let mut file = NamedTempFile::with_prefix("rgrid-bench-")?;
    let (mut random, mut left) = (SmallRng::from_os_rng(), bytes);
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        random.fill_bytes(&mut buffer[..count]);
        file.write_all(&buffer[..count])?;
        left -= count as u64;
    }
    file.flush()?;
    Ok(file)
}

/// As `rgrid run` sends an input.
async fn put(client: &Client, file: &NamedTempFile) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let hashed = hash(vec![file.path().to_owned()], &Progress::hidden()).await?;
    upload(client, hashed).await?;
    Ok(begun.elapsed())
}

/// As an output is fetched, but that it is thrown away.
async fn get(client: &Client, file: &NamedTempFile) -> anyhow::Result<Duration> {
    let hashed = hash(vec![file.path().to_owned()], &Progress::hidden()).await?;
    let wanted = hashed.first().context("no file")?.sha256;
    let begun = Instant::now();
    let response = client.send(client.request(Method::GET, &format!("/v1/files/{wanted}"))).await?;
    let (mut chunks, mut hasher) = (response.bytes_stream(), Sha256::new());
    while let Some(chunk) = chunks.next().await {
        hasher.update(&chunk?);
    }
    ensure!(Digest::finish(hasher) == wanted, "what came back is not what was sent");
    Ok(begun.elapsed())
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
