//! Those who ask, put and submit, against passes that remove everything as soon as they may.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bus::ids::{Digest, JobId};
use grid_tests::minio::Minio;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{naming, put, served};
use crate::api::served::Served;

/// How many submit at once, how often each, and over how many contents.
const CLIENTS: usize = 6;
const ROUNDS: usize = 60;
const CONTENTS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn in_nats_no_accepted_job_loses_a_file_to_a_pass() -> Result<()> {
    race(served(Some("nats://".to_owned())).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_minio_no_accepted_job_loses_a_file_to_a_pass() -> Result<()> {
    let minio = Minio::start().await?;
    race(served(Some(minio.bucket("grid").await?)).await?).await
}

async fn race(api: Served) -> Result<()> {
    let api = Arc::new(api);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(submit_again_and_again(Arc::clone(&api), client));
    }
    let mut removed = 0;
    let mut accepted = Vec::new();
    while accepted.len() < CLIENTS {
        // The grace is what a submission may take from its question to the log, on a busy machine.
        let report = api
            .post("/v1/storage/gc", &json!({ "grace_ms": 1_000, "keep_inputs_ms": 0 }))
            .await?;
        let report: Value = report.error_for_status()?.json().await?;
        ensure!(report["stopped"].is_null(), "{report}");
        removed += report["removed"]["files"].as_u64().context("a number")?;
        while let Some(done) = clients.try_join_next() {
            accepted.push(done??);
        }
    }
    ensure!(removed > 0, "no pass removed anything, so that this shows nothing");
    ensure!(accepted.iter().sum::<usize>() > 0, "no job was accepted");
    Ok(())
}

/// Stores a content if it is not there, submits a job of it, looks whether the job has its file, and cancels it.
async fn submit_again_and_again(api: Arc<Served>, client: usize) -> Result<usize> {
    let files = api.files().await?;
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let text = format!("content {}", (client * 7 + round * 3) % CONTENTS);
        let digest = Digest::of(text.as_bytes());
        let asked = api.post("/v1/files/missing", &json!({ "sha256": [digest] })).await?;
        let asked: Value = asked.error_for_status()?.json().await?;
        if asked["missing"] != json!([]) {
            put(&api, &text).await?;
        }
        let answer = api.post("/v1/jobs", &naming(&[digest])).await?;
        if answer.status() == StatusCode::UNPROCESSABLE_ENTITY {
            // It went between two questions; it is said, and the client would put it again.
            continue;
        }
        let job: Value = answer.error_for_status()?.json().await?;
        let job: JobId = job["id"].as_str().context("an id")?.parse()?;
        accepted += 1;
        let read = files.get_bytes(&digest, 100).await;
        ensure!(read.is_ok(), "job {job} lost {digest}: {read:?}");
        // Now and then for longer than the grace and the margin.
        if round % 20 == 10 {
            tokio::time::sleep(std::time::Duration::from_millis(4_500)).await;
            let read = files.get_bytes(&digest, 100).await;
            ensure!(read.is_ok(), "job {job} lost {digest} while it waited: {read:?}");
        }
        api.post(&format!("/v1/jobs/{job}/cancel"), &json!({})).await?.error_for_status()?;
        if round % 10 == 5 {
            // Let it become due.
            tokio::time::sleep(std::time::Duration::from_millis(4_500)).await;
        }
    }
    Ok(accepted)
}
