//! What is kept, what goes, and that nothing goes which somebody needs.

mod checkpoint;
mod collect;
mod direct;
mod inprocess;
mod keep;
mod race;
mod verb;
mod whole;

use anyhow::{Context as _, Result};
use bus::{
    ids::{Attempt, Digest, JobId},
    job::{Command, ManifestRef, Outcome, Usage},
    output::manifest::{Manifest, OutputFile},
};
use grid_tests::{nats::NatsServer, writer::Worker};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::Files;

use crate::api::served::{Served, body};

/// An API over a store of this URL; `None`: a directory.
async fn served(store: Option<String>) -> Result<Served> {
    Served::start_on(NatsServer::start().await?, |config| {
        config.store = store.unwrap_or_else(|| config.store.clone());
    })
    .await
}

/// Stores a content through the API, and says whether it was new.
async fn put(api: &Served, content: &str) -> Result<(Digest, StatusCode)> {
    let digest = Digest::of(content.as_bytes());
    let request = api.request(Method::PUT, &format!("/v1/files/{digest}"));
    let answer = request.body(content.to_owned()).send().await?;
    Ok((digest, answer.status()))
}

/// A job that waits for a worker, and names these contents.
async fn job_of(api: &Served, contents: &[Digest]) -> Result<JobId> {
    api.submit(&naming(contents)).await
}

fn naming(contents: &[Digest]) -> Value {
    let inputs = contents.iter().enumerate();
    let inputs: Vec<Value> = inputs
        .map(|(n, sha256)| json!({ "path": format!("f{n}"), "sha256": sha256, "size": 1 }))
        .collect();
    json!({ "command": ["true"], "inputs": inputs })
}

/// A pass.
async fn gc(api: &Served, asked: &Value) -> Result<Value> {
    body(api.post("/v1/storage/gc", asked).await?, StatusCode::OK).await
}

/// Makes passes without any grace until these are gone. Nothing goes within the margin, so the first ones remove nothing.
async fn gone(api: &Served, digests: &[Digest]) -> Result<()> {
    let files = api.files().await?;
    for _ in 0..600 {
        let report = gc(api, &json!({ "grace_ms": 0, "keep_inputs_ms": 0 })).await?;
        anyhow::ensure!(report["stopped"].is_null(), "{report}");
        if exist(&files, digests).await? == 0 {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    anyhow::bail!("they did not go: {}", api.read("/v1/storage").await?)
}

/// How many of these are in the store. Looking at them this way renews nothing.
async fn exist(files: &Files, digests: &[Digest]) -> Result<usize> {
    Ok(digests.len() - files.missing(digests).await?.len())
}

/// A job that has ended, with these outputs and this log.
async fn ended(api: &Served, worker: &Worker, spec: &Value, outputs: &[Digest], log: &[Digest]) -> Result<(JobId, Digest)> {
    let job = api.submit(spec).await?;
    worker.claim(job).await?;
    let mut manifest = Manifest::default();
    for (n, sha256) in outputs.iter().enumerate() {
        manifest.outputs.push(OutputFile {
            path: format!("o{n}").parse()?,
            sha256: *sha256,
            size: 1,
            executable: false,
            mode: None,
        });
    }
    let segment = |sha256: &Digest| bus::output::manifest::LogSegment { sha256: *sha256, size: 1 };
    manifest.log = log.iter().map(segment).collect();
    let digest = api.files().await?.put_bytes(manifest.to_json().into()).await?;
    finish(api, worker, job, manifest.reference(digest)).await?;
    Ok((job, digest))
}

async fn finish(api: &Served, worker: &Worker, job: JobId, manifest: ManifestRef) -> Result<()> {
    let command = Command::Finish {
        attempt: Attempt::FIRST,
        session: worker.session,
        outcome: Outcome::Succeeded,
        manifest: Some(manifest),
        usage: Usage::default(),
    };
    api.writer.say(job, &worker.actor(), command).await?;
    Ok(())
}

/// A number of an answer.
fn number(value: &Value, path: &str) -> Result<u64> {
    value
        .pointer(path)
        .and_then(Value::as_u64)
        .with_context(|| format!("no {path} in {value}"))
}
