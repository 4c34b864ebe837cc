//! NATS away, the log full, the API stopped.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bus::{ids::Attempt, log::EVENTS};
use grid_tests::{nats::NatsServer, writer::Writer};
use reqwest::StatusCode;
use serde_json::json;

use super::served::{Events, LONG, Served, body, problem};

#[tokio::test]
async fn a_wait_and_a_follower_live_through_a_crash_of_nats() -> Result<()> {
    let mut api = Served::start().await?;
    let (job, worker) = (api.submit_any().await?, api.worker("w").await?);
    let mut facts = Events::new(api.get("/v1/facts").await?)?;
    let wait = api.request(reqwest::Method::GET, &format!("/v1/jobs/{job}?wait=60s")).send();
    let story = async {
        api.nats.restart().await?;
        worker.claim(job).await?;
        worker.finish(job, Attempt::FIRST).await?;
        anyhow::Ok(())
    };
    let (view, told) = tokio::join!(wait, story);
    told?;
    assert_eq!(body(view?, StatusCode::OK).await?["state"], "succeeded");
    assert_eq!(facts.must().await?.data["type"], "job.claimed.v1");
    assert_eq!(facts.must().await?.data["type"], "job.finished.v1");
    Ok(())
}

#[tokio::test]
async fn while_nats_is_away_health_says_so_and_nothing_is_promised() -> Result<()> {
    let mut api = Served::start().await?;
    api.submit_any().await?;
    api.nats.kill()?;
    tokio::time::timeout(LONG, async {
        while api.get("/v1/health").await?.status() != StatusCode::SERVICE_UNAVAILABLE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    })
    .await??;
    let detail = problem(
        api.post("/v1/jobs", &json!({ "command": ["x"] })).await?,
        StatusCode::SERVICE_UNAVAILABLE,
    )
    .await?;
    assert!(detail.contains("NATS"), "{detail}");
    api.nats.restart().await?;
    tokio::time::timeout(LONG, async { while api.submit_any().await.is_err() {} }).await?;
    Ok(())
}

#[tokio::test]
async fn a_log_that_is_nine_tenths_full_takes_no_new_jobs_and_lets_those_end_that_run() -> Result<()> {
    let nats = NatsServer::start().await?;
    let writer = Writer::connect(nats.url()).await?;
    let job = writer.submit().await?;
    let worker = grid_tests::writer::Worker::register(&writer, "w").await?;
    let mut config = writer.bus.js.get_stream(EVENTS).await?.cached_info().config.clone();
    let filler = json!({ "command": ["x", "y".repeat(500_000)] });
    let mut api = Served::start_on(nats, |_| {}).await?;
    for _ in 0..8 {
        api.submit(&filler).await?;
    }
    api.stop().await?;
    let held = writer.bus.js.get_stream(EVENTS).await?.cached_info().state.bytes;
    config.max_bytes = i64::try_from(held * 100 / 92)?;
    writer.bus.js.update_stream(config).await?;
    api.start_again().await?;
    let detail = problem(refused(&api).await?, StatusCode::INSUFFICIENT_STORAGE).await?;
    assert!(detail.contains(EVENTS) && detail.contains("rgrid log --bound"), "{detail}");
    // What would make a job ready again is refused alike, whatever became of the job.
    let requeue = api.post(&format!("/v1/jobs/{job}/requeue"), &json!({})).await?;
    problem(requeue, StatusCode::INSUFFICIENT_STORAGE).await?;
    worker.claim(job).await?;
    worker.finish(job, Attempt::FIRST).await?;
    assert_eq!(api.read(&format!("/v1/jobs/{job}")).await?["state"], "succeeded");
    Ok(())
}

#[tokio::test]
async fn a_burst_of_submissions_leaves_the_last_part_of_the_log_alone() -> Result<()> {
    let mut api = Served::start().await?;
    let job = json!({ "command": ["x", "y".repeat(100_000)] });
    for _ in 0..40 {
        api.submit(&job).await?;
    }
    api.stop().await?;
    let js = api.writer.bus.js.clone();
    let mut info = js.get_stream(EVENTS).await?.cached_info().clone();
    info.config.max_bytes = i64::try_from(info.state.bytes * 100 / 80)?;
    js.update_stream(info.config.clone()).await?;
    api.start_again().await?;
    let answers = futures::future::join_all((0..60).map(|_| api.post("/v1/jobs", &job))).await;
    let mut taken = 0;
    for answer in answers {
        match answer?.status() {
            StatusCode::CREATED => taken += 1,
            status => assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE),
        }
    }
    assert!(taken > 0, "what has room is taken");
    let now = js.get_stream(EVENTS).await?.cached_info().state.bytes;
    let limit = u64::try_from(info.config.max_bytes)? / 100 * 90;
    assert!(now <= limit, "{taken} were taken: {now} of {limit}");
    Ok(())
}

/// Submits until it is refused: the API learns of the bound a moment after its start.
async fn refused(api: &Served) -> Result<reqwest::Response> {
    for _ in 0..100 {
        let response = api.post("/v1/jobs", &json!({ "command": ["x"] })).await?;
        if response.status() != StatusCode::CREATED {
            return Ok(response);
        }
    }
    anyhow::bail!("100 jobs found room")
}

#[tokio::test]
async fn stopping_ends_what_waits_and_soon() -> Result<()> {
    let mut api = Served::start().await?;
    let job = api.submit_any().await?;
    let mut log = Events::new(
        api.request(reqwest::Method::GET, &format!("/v1/jobs/{job}/logs?follow=true"))
            .header("accept", "text/event-stream")
            .send()
            .await?,
    )?;
    let facts = Events::new(api.get("/v1/facts").await?)?;
    let wait = api.request(reqwest::Method::GET, &format!("/v1/jobs/{job}?wait=60s"));
    let wait = tokio_util::task::TaskTracker::new().spawn(wait.send());
    // The wait has begun once its request is answered by nothing for a while; its end does not depend on that.
    tokio::time::timeout(Duration::from_secs(8), api.stop())
        .await
        .context("it does not stop")??;
    assert_eq!(log.next().await?, None);
    assert_eq!(facts.rest().await?, []);
    if let Ok(view) = wait.await? {
        assert_eq!(body(view, StatusCode::OK).await?["state"], "queued");
    }
    api.start_again().await?;
    assert_eq!(api.read(&format!("/v1/jobs/{job}")).await?["state"], "queued");
    Ok(())
}

#[tokio::test]
async fn files_in_nats_serve_as_well() -> Result<()> {
    let api = Served::start_on(NatsServer::start().await?, |config| config.store = "nats://".to_owned()).await?;
    let job = json!({ "command": ["a.py"], "runtime": "python", "files": [{ "path": "a.py", "content": "print(1)" }] });
    api.submit(&job).await?;
    let digest = bus::ids::Digest::of(b"print(1)");
    assert_eq!(api.get(&format!("/v1/files/{digest}")).await?.text().await?, "print(1)");
    Ok(())
}
