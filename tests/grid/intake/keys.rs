//! One key is one job: whoever submits it, over whatever, however many at once.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use async_nats::HeaderMap;
use bus::{
    ids::{JobId, default_token},
    log::EVENTS,
};
use futures::{StreamExt as _, future::try_join_all};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{SUBJECT, inbox_empty};
use crate::api::served::{LONG, Served, body, id};

/// Submits over HTTP; the status, and the answer.
async fn over_http(api: &Served, job: &Value) -> Result<(StatusCode, Value)> {
    let response = api.post("/v1/jobs", job).await?;
    let status = response.status();
    Ok((status, body(response, status).await?))
}

/// Submits over NATS, and waits for the answer.
async fn over_nats(api: &Served, job: &Value, place: usize) -> Result<Value> {
    let answers = format!("answers.{place}");
    let mut answer = api.writer.bus.client.subscribe(answers.clone()).await?;
    let mut headers = HeaderMap::new();
    headers.insert("Rgrid-Reply-To", answers.as_str());
    let sent = api.writer.bus.js.publish_with_headers(SUBJECT, headers, job.to_string().into());
    sent.await?.await?;
    let answer = tokio::time::timeout(LONG, answer.next()).await?.context("no answer")?;
    Ok(serde_json::from_slice(&answer.payload)?)
}

async fn fifty_are_one(job: Value, state: &str) -> Result<()> {
    let api = Served::start().await?;
    let named = JobId::of_key(&default_token(), job["key"].as_str().context("a key")?);
    let http = try_join_all((0..25).map(|_| over_http(&api, &job)));
    let nats = try_join_all((0..25).map(|place| over_nats(&api, &job, place)));
    let (http, nats) = tokio::try_join!(http, nats)?;
    let answers: Vec<&Value> = http.iter().map(|(_, answer)| answer).chain(&nats).collect();
    assert!(answers.iter().all(|answer| id(answer).ok() == Some(named)), "{answers:?}");
    let sequences: BTreeSet<Option<u64>> = answers.iter().map(|answer| answer["sequence"].as_u64()).collect();
    assert_eq!(sequences, BTreeSet::from([Some(1)]));
    let new = answers.iter().filter(|answer| answer["existed"] == false).count();
    assert_eq!(new, 1, "{answers:?}");
    let created = http.iter().filter(|(status, _)| *status == StatusCode::CREATED).count();
    assert_eq!(created + nats.iter().filter(|answer| answer["existed"] == false).count(), 1);
    inbox_empty(&api).await?;
    let stored = api.writer.bus.js.get_stream(EVENTS).await?.cached_info().state.messages;
    assert_eq!(stored, 1, "nothing else was stored");
    assert_eq!(api.read(&format!("/v1/jobs/{named}")).await?["state"], state);
    // What is not the same is a conflict, over both.
    let mut other = job.clone();
    other["command"] = json!(["something else"]);
    assert_eq!(over_http(&api, &other).await?.0, StatusCode::CONFLICT);
    assert_eq!(over_nats(&api, &other, 99).await?["status"], 409);
    Ok(())
}

#[tokio::test]
async fn fifty_submissions_of_one_key_at_once_over_http_and_nats_are_one_job() -> Result<()> {
    fifty_are_one(json!({ "command": ["pay"], "key": "bill 7" }), "queued").await
}

#[tokio::test]
async fn so_are_those_of_a_held_job_and_another_condition_is_a_conflict() -> Result<()> {
    let held = json!({ "command": ["pay"], "key": "bill 8", "start": { "delay_ms": 3_600_000 }, "retry": { "max": 3 } });
    fifty_are_one(held.clone(), "held").await?;
    let api = Served::start().await?;
    let mut later = held.clone();
    later["start"] = json!({ "delay_ms": 7_200_000 });
    assert_eq!(over_http(&api, &held).await?.0, StatusCode::CREATED);
    assert_eq!(over_http(&api, &held).await?.0, StatusCode::OK);
    assert_eq!(over_http(&api, &later).await?.0, StatusCode::CONFLICT);
    Ok(())
}

#[tokio::test]
async fn a_job_that_follows_nobody_is_refused_over_nats_too() -> Result<()> {
    let api = Served::start().await?;
    let absent = JobId::new();
    let job = json!({ "command": ["x"], "start": { "after": [{ "job": absent }] } });
    let answer = over_nats(&api, &job, 0).await?;
    assert!(
        answer["status"] == 422 && answer["detail"].as_str().is_some_and(|detail| detail.contains("does not exist")),
        "{answer}"
    );
    let there = api.submit_any().await?;
    let job = json!({ "command": ["x"], "start": { "after": [{ "job": there, "on": "ended" }] } });
    let answer = over_nats(&api, &job, 1).await?;
    assert_eq!(api.read(&format!("/v1/jobs/{}", id(&answer)?)).await?["state"], "held");
    Ok(())
}
