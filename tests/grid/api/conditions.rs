//! Jobs that start under a condition or are tried again: what the API takes, tells of them, and cancels.

use anyhow::Result;
use bus::{
    envelope::Actor,
    ids::{Attempt, JobId, default_token},
    job::{Command, Outcome, Usage},
};
use grid_tests::writer::Worker;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::served::{Events, Served, body, id, problem};

/// Ends an attempt of a claimed job with exit code 3.
async fn fail(api: &Served, worker: &Worker, job: JobId, attempt: u32) -> Result<()> {
    let command = Command::Finish {
        attempt: Attempt(attempt),
        session: worker.session,
        outcome: Outcome::Failed { exit_code: 3 },
        manifest: None,
        usage: Usage::default(),
    };
    api.writer.say(job, &worker.actor(), command).await.map(drop)
}

async fn release(api: &Served, job: JobId) -> Result<()> {
    api.writer.say(job, &Actor::Watcher, Command::Release).await.map(drop)
}

async fn cancel(api: &Served, job: JobId) -> Result<(StatusCode, Value)> {
    let response = api.post(&format!("/v1/jobs/{job}/cancel"), &json!({ "reason": "enough" })).await?;
    let status = response.status();
    Ok((status, body(response, status).await?))
}

#[tokio::test]
async fn a_job_is_held_until_what_it_waits_for_and_says_what_that_is() -> Result<()> {
    let api = Served::start().await?;
    let first = api.submit_any().await?;
    let start = json!({ "delay_ms": 3_600_000, "after": [{ "job": first, "on": "ended" }] });
    let held = api.submit(&json!({ "command": ["x"], "start": start })).await?;
    let view = api.read(&format!("/v1/jobs/{held}")).await?;
    assert_eq!(
        (&view["state"], &view["waits_for"]),
        (&json!("held"), &json!([{ "job": first, "on": "ended" }]))
    );
    let (submitted, due) = (
        view["submitted_at"].as_str().expect("a time"),
        view["due_at"].as_str().expect("a time"),
    );
    let delay = due.parse::<chrono::DateTime<chrono::Utc>>()? - submitted.parse::<chrono::DateTime<chrono::Utc>>()?;
    assert_eq!(delay, chrono::TimeDelta::hours(1));
    // No worker is offered it.
    let worker = api.worker("w").await?;
    assert!(worker.claim(held).await.is_err());
    release(&api, held).await?;
    worker.claim(held).await?;
    let view = api.read(&format!("/v1/jobs/{held}")).await?;
    assert_eq!(
        (&view["state"], view.get("waits_for"), view.get("due_at")),
        (&json!("claimed"), None, None)
    );
    Ok(())
}

#[tokio::test]
async fn a_job_to_follow_must_be_there() -> Result<()> {
    let api = Served::start().await?;
    let (there, absent) = (api.submit_any().await?, JobId::new());
    let after = |job: JobId| json!({ "command": ["x"], "start": { "after": [{ "job": job }] } });
    let detail = problem(api.post("/v1/jobs", &after(absent)).await?, StatusCode::UNPROCESSABLE_ENTITY).await?;
    assert!(
        detail.contains(&absent.to_string()) && detail.contains("does not exist"),
        "{detail}"
    );
    // Another namespace's jobs are not there either.
    let elsewhere = api.post("/v1/jobs?namespace=other", &after(there)).await?;
    assert!(
        problem(elsewhere, StatusCode::UNPROCESSABLE_ENTITY)
            .await?
            .contains("namespace other")
    );
    // In an array, those with a key can be named by the ones behind them, and by no others.
    let (one, two) = (JobId::of_key(&default_token(), "one"), JobId::of_key(&default_token(), "two"));
    let keyed = |key: &str, other: JobId| {
        let mut job = after(other);
        job["key"] = json!(key);
        job
    };
    let jobs = json!([keyed("early", two), { "command": ["x"], "key": "one" }, keyed("two", one), keyed("own", JobId::of_key(&default_token(), "own"))]);
    let answer = body(api.post("/v1/jobs", &jobs).await?, StatusCode::OK).await?;
    let problems = [0, 1, 2, 3].map(|place| answer["jobs"][place]["problem"]["status"].as_u64());
    assert_eq!(problems, [Some(422), None, None, Some(422)], "{answer}");
    assert_eq!((id(&answer["jobs"][1])?, id(&answer["jobs"][2])?), (one, two));
    assert_eq!(api.read(&format!("/v1/jobs/{two}")).await?["state"], "held");
    Ok(())
}

#[tokio::test]
async fn who_follows_a_log_is_told_why_nothing_comes_and_gets_every_attempt() -> Result<()> {
    let api = Served::start().await?;
    let worker = api.worker("w").await?;
    let retry = json!({ "max": 3, "backoff_ms": 60_000, "max_backoff_ms": 60_000 });
    let start = json!({ "delay_ms": 60_000 });
    let job = api.submit(&json!({ "command": ["x"], "retry": retry, "start": start })).await?;
    let follow = |query: &str| {
        api.request(Method::GET, &format!("/v1/jobs/{job}/logs?follow=true{query}"))
            .header("accept", "text/event-stream")
            .send()
    };
    let mut log = Events::new(follow("").await?)?;
    let waiting = log.must().await?;
    assert_eq!((waiting.event.as_str(), &waiting.data["state"]), ("waiting", &json!("held")));
    release(&api, job).await?;
    worker.claim(job).await?;
    fail(&api, &worker, job, 1).await?;
    assert_eq!(log.must().await?.data["attempt"], 1);
    let waiting = log.must().await?.data;
    assert_eq!(
        (&waiting["state"], &waiting["failures"], &waiting["retry"]["max"]),
        (&json!("retrying"), &json!(1), &json!(3))
    );
    assert_eq!(waiting["attempts"][0]["outcome"], json!({ "kind": "failed", "exit_code": 3 }));
    assert!(
        waiting["due_at"].is_string() && waiting["exit_code"].is_null() && waiting["message"].is_null(),
        "{waiting}"
    );
    release(&api, job).await?;
    worker.claim(job).await?;
    worker.finish(job, Attempt(2)).await?;
    assert_eq!(log.must().await?.data["attempt"], 2);
    let end = log.must().await?;
    assert_eq!((end.event.as_str(), &end.data["state"]), ("end", &json!("succeeded")));
    // Afterwards: the last attempt, unless it is asked for from an earlier one on.
    let attempts = async |query: &str| {
        let events = Events::new(follow(query).await?)?.rest().await?;
        let attempts = events.iter().filter(|event| event.event == "attempt");
        anyhow::Ok(attempts.map(|event| event.data["attempt"].as_u64()).collect::<Vec<_>>())
    };
    assert_eq!(attempts("").await?, [Some(2)]);
    assert_eq!(attempts("&from=1").await?, [Some(1), Some(2)]);
    let wrong = api.get(&format!("/v1/jobs/{job}/logs?from=0")).await?;
    assert!(problem(wrong, StatusCode::BAD_REQUEST).await?.contains("from 1"));
    Ok(())
}

#[tokio::test]
async fn a_job_is_cancelled_wherever_it_stands_and_again_changes_nothing() -> Result<()> {
    let api = Served::start().await?;
    let worker = api.worker("w").await?;
    let held = api.submit(&json!({ "command": ["x"], "start": { "delay_ms": 60_000 } })).await?;
    let queued = api.submit_any().await?;
    let retrying = api.submit(&json!({ "command": ["x"], "retry": { "max": 1 } })).await?;
    worker.claim(retrying).await?;
    fail(&api, &worker, retrying, 1).await?;
    for job in [held, queued, retrying] {
        let (status, view) = cancel(&api, job).await?;
        assert_eq!(
            (status, &view["state"], &view["message"]),
            (StatusCode::ACCEPTED, &json!("cancelled"), &json!("cancelled: enough"))
        );
        let (status, again) = cancel(&api, job).await?;
        assert_eq!((status, &again["sequence"]), (StatusCode::OK, &view["sequence"]));
    }
    // What a worker has, the worker ends.
    let running = api.submit_any().await?;
    worker.claim(running).await?;
    let (status, view) = cancel(&api, running).await?;
    assert_eq!(
        (status, &view["state"], &view["cancel_requested"]),
        (StatusCode::ACCEPTED, &json!("claimed"), &json!(true))
    );
    let (status, again) = cancel(&api, running).await?;
    assert_eq!((status, &again["sequence"]), (StatusCode::OK, &view["sequence"]));
    // However many ask at once, it is asked for once.
    let crowd = api.submit_any().await?;
    let came = futures::future::try_join_all((0..20).map(|_| cancel(&api, crowd))).await?;
    assert_eq!(
        came.iter().filter(|(status, _)| *status == StatusCode::ACCEPTED).count(),
        1,
        "{came:?}"
    );
    assert_eq!(api.writer.types(crowd).await?, ["job.submitted.v1", "job.cancelled.v1"]);
    let done = api.submit_any().await?;
    worker.claim(done).await?;
    worker.finish(done, Attempt::FIRST).await?;
    let (status, document) = cancel(&api, done).await?;
    assert_eq!(status, StatusCode::CONFLICT, "{document}");
    Ok(())
}
