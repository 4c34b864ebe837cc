//! Those who ask, put and submit, against passes that remove everything as soon as they may.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bus::ids::JobId;
use grid_tests::minio::Minio;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};

use super::{naming, put, served};
use crate::api::served::{LONG, Served};

/// How many submit at once, how often each (and at most, where no pass removed anything by then), and how many jobs each time.
const CLIENTS: usize = 6;
const ROUNDS: (usize, usize) = (5, 25);
const JOBS: usize = 8;
/// When a content that was just put becomes due, within this span and what a pass takes: its grace of a second, and the margin.
const DUE_MS: std::ops::Range<u64> = 3_950..4_500;

#[tokio::test(flavor = "multi_thread")]
async fn in_nats_no_accepted_job_loses_a_file_to_a_pass() -> Result<()> {
    race(served(Some("nats://".to_owned())).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_minio_no_accepted_job_loses_a_file_to_a_pass() -> Result<()> {
    let minio = Minio::start().await?;
    race(served(Some(minio.bucket("grid").await?)).await?).await
}

/// What the clients know of the passes.
struct Passes {
    /// How many contents they removed.
    removed: AtomicU64,
    /// How long the longest one took.
    longest_ms: AtomicU64,
    /// When the last one began that has ended.
    began: watch::Sender<Instant>,
}

impl Passes {
    /// Waits until one has ended that began after this.
    async fn ended_after(&self, moment: Instant) -> Result<()> {
        let mut began = self.began.subscribe();
        tokio::time::timeout(LONG, began.wait_for(|began| *began > moment)).await??;
        Ok(())
    }
}

async fn race(api: Served) -> Result<()> {
    let api = Arc::new(api);
    let passes = Arc::new(Passes {
        removed: AtomicU64::new(0),
        longest_ms: AtomicU64::new(0),
        began: watch::channel(Instant::now()).0,
    });
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(submit_again_and_again(Arc::clone(&api), client, Arc::clone(&passes)));
    }
    let mut accepted = Vec::new();
    while accepted.len() < CLIENTS {
        let began = Instant::now();
        // The grace is what a submission may take from its question to the log, on a busy machine.
        let report = api
            .post("/v1/storage/gc", &json!({ "grace_ms": 1_000, "keep_inputs_ms": 0 }))
            .await?;
        let report: Value = report.error_for_status()?.json().await?;
        passes
            .longest_ms
            .fetch_max(u64::try_from(began.elapsed().as_millis())?, Ordering::Relaxed);
        ensure!(report["stopped"].is_null(), "{report}");
        passes.began.send_replace(began);
        passes
            .removed
            .fetch_add(report["removed"]["files"].as_u64().context("a number")?, Ordering::Relaxed);
        while let Some(done) = clients.try_join_next() {
            accepted.push(done??);
        }
    }
    ensure!(
        passes.removed.load(Ordering::Relaxed) > 0,
        "no pass removed anything, so that this shows nothing"
    );
    ensure!(accepted.iter().sum::<usize>() > 0, "no job was accepted");
    Ok(())
}

/// Stores contents, lets them be found unused, and submits jobs of them just when they may go: each is refused, or has its file.
async fn submit_again_and_again(api: Arc<Served>, client: usize, passes: Arc<Passes>) -> Result<usize> {
    let mut accepted = 0;
    for round in 0..ROUNDS.1 {
        if round >= ROUNDS.0 && passes.removed.load(Ordering::Relaxed) > 0 {
            break;
        }
        let jobs = (0..JOBS).map(|job| submit_when_due(&api, format!("content {client} {round} {job}"), &passes));
        let jobs = futures::future::try_join_all(jobs).await?;
        accepted += jobs.into_iter().filter(|accepted| *accepted).count();
    }
    Ok(accepted)
}

async fn submit_when_due(api: &Served, text: String, passes: &Passes) -> Result<bool> {
    let (digest, _) = put(api, &text).await?;
    let latest = DUE_MS.end + 2 * passes.longest_ms.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(rand::random_range(DUE_MS.start..latest))).await;
    let answer = api.post("/v1/jobs", &naming(&[digest])).await?;
    if answer.status() == StatusCode::UNPROCESSABLE_ENTITY {
        // It went before; that is said, and a client would put it again.
        return Ok(false);
    }
    let job: Value = answer.error_for_status()?.json().await?;
    let job: JobId = job["id"].as_str().context("an id")?.parse()?;
    let files = api.files().await?;
    let accepted = Instant::now();
    // After the passes that were under way, and after one that began when the grace and the margin were over.
    for after in [Duration::ZERO, Duration::from_millis(DUE_MS.end)] {
        passes.ended_after(accepted + after).await?;
        let read = files.get_bytes(&digest, 100).await;
        ensure!(read.is_ok(), "job {job} lost {digest}: {read:?}");
    }
    Ok(true)
}
