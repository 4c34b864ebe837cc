//! Looking at a job, waiting for it, cancelling it.

use std::time::{Duration, Instant};

use anyhow::Result;
use bus::{
    envelope::Actor,
    ids::{Attempt, JobId},
    job::{Command, LossCause, Outcome, Usage},
    spec::ExecutorKind,
};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::served::{LONG, Served, body, problem};

#[tokio::test]
async fn a_wait_ends_with_the_job_and_not_later() -> Result<()> {
    let api = Served::start().await?;
    let (id, worker) = (api.submit_any().await?, api.worker("w").await?);
    let began = Instant::now();
    let until_end = format!("/v1/jobs/{id}?wait=30s");
    let until_started = format!("/v1/jobs/{id}?wait=30s&until=started");
    let (ended, started, ()) = tokio::try_join!(api.read(&until_end), api.read(&until_started), async {
        worker.claim(id).await?;
        let command = Command::Start {
            attempt: Attempt::FIRST,
            session: worker.session,
            executor: ExecutorKind::Process,
            environment: Some("/usr/bin/python3".to_owned()),
        };
        api.writer.say(id, &worker.actor(), command).await?;
        let command = Command::Finish {
            attempt: Attempt::FIRST,
            session: worker.session,
            outcome: Outcome::Failed { exit_code: 3 },
            manifest: None,
            usage: Usage::default(),
        };
        api.writer.say(id, &worker.actor(), command).await?;
        Ok(())
    })?;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(started["started_at"].is_string(), "{started}");
    assert_eq!((&ended["state"], &ended["exit_code"]), (&json!("failed"), &json!(3)));
    let attempt = &ended["attempts"][0];
    assert_eq!((&attempt["worker"], &attempt["executor"]), (&json!("w"), &json!("process")));
    assert_eq!(attempt["outcome"], json!({ "kind": "failed", "exit_code": 3 }));
    // Nothing more is to be waited for.
    assert_eq!(api.read(&until_end).await?, ended);
    Ok(())
}

#[tokio::test]
async fn a_wait_that_is_over_shows_the_job_as_it_is() -> Result<()> {
    let api = Served::start().await?;
    let id = api.submit_any().await?;
    let began = Instant::now();
    let view = api.read(&format!("/v1/jobs/{id}?wait=200ms")).await?;
    assert_eq!(view["state"], "queued");
    assert!(began.elapsed() >= Duration::from_millis(200) && began.elapsed() < LONG);
    Ok(())
}

#[tokio::test]
async fn a_queued_job_is_cancelled_and_stays_so() -> Result<()> {
    let api = Served::start().await?;
    let id = api.submit_any().await?;
    let cancel = format!("/v1/jobs/{id}/cancel");
    let view = body(api.post(&cancel, &json!({ "reason": "a mistake" })).await?, StatusCode::ACCEPTED).await?;
    assert_eq!((&view["state"], &view["exit_code"]), (&json!("cancelled"), &json!(130)));
    assert_eq!(view["message"], "cancelled: a mistake");
    assert_eq!(api.read(&format!("/v1/jobs/{id}")).await?, view);
    // Asked again, also without a body, it is the same.
    let again = api.request(Method::POST, &cancel).send().await?;
    assert_eq!(body(again, StatusCode::OK).await?, view);
    Ok(())
}

#[tokio::test]
async fn a_job_that_a_worker_has_is_asked_to_end_and_an_ended_one_is_not() -> Result<()> {
    let api = Served::start().await?;
    let (id, worker) = (api.submit_any().await?, api.worker("w").await?);
    worker.claim(id).await?;
    let cancel = format!("/v1/jobs/{id}/cancel");
    let view = body(api.post(&cancel, &json!({})).await?, StatusCode::ACCEPTED).await?;
    assert_eq!((&view["state"], &view["cancel_requested"]), (&json!("claimed"), &json!(true)));
    assert_eq!(body(api.post(&cancel, &json!({})).await?, StatusCode::OK).await?, view);
    worker.finish(id, Attempt::FIRST).await?;
    let detail = problem(api.post(&cancel, &json!({})).await?, StatusCode::CONFLICT).await?;
    assert!(detail.contains("succeeded"), "{detail}");
    let absent = format!("/v1/jobs/{}/cancel", JobId::new());
    problem(api.post(&absent, &json!({})).await?, StatusCode::NOT_FOUND).await?;
    Ok(())
}

#[tokio::test]
async fn cancelling_and_claiming_at_once_leaves_a_job_that_is_one_of_both() -> Result<()> {
    let api = Served::start().await?;
    let worker = api.worker("w").await?;
    for _ in 0..20 {
        let id = api.submit_any().await?;
        let path = format!("/v1/jobs/{id}/cancel");
        let nothing = json!({});
        let (cancelled, claimed) = tokio::join!(api.post(&path, &nothing), worker.claim(id));
        let view = body(cancelled?, StatusCode::ACCEPTED).await?;
        let last = api.read(&format!("/v1/jobs/{id}")).await?;
        match claimed {
            Ok(_) => assert_eq!((&last["state"], &last["cancel_requested"]), (&json!("claimed"), &json!(true))),
            Err(_) => assert_eq!(view["state"], "cancelled"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn history_tells_who_did_what_and_when() -> Result<()> {
    let api = Served::start().await?;
    let (id, worker) = (api.submit_any().await?, api.worker("w").await?);
    worker.claim(id).await?;
    let cause = LossCause::WorkerLost { worker: worker.id.clone() };
    let give_up = Command::GiveUp {
        attempt: Attempt::FIRST,
        cause,
    };
    api.writer.say(id, &Actor::Watcher, give_up).await?;
    body(
        api.post(&format!("/v1/jobs/{id}/cancel"), &json!({ "reason": "enough" })).await?,
        StatusCode::ACCEPTED,
    )
    .await?;
    let history = api.read(&format!("/v1/jobs/{id}/history")).await?;
    let events = history["events"].as_array().expect("a list");
    let told: Vec<_> = events
        .iter()
        .map(|event| [event["type"].as_str(), event["actor"].as_str()])
        .collect();
    let wanted = [
        ["job.submitted.v1", "api"],
        ["job.claimed.v1", "w-w"],
        ["job.rescheduled.v1", "watcher"],
        ["job.cancelled.v1", "api"],
    ];
    assert_eq!(told, wanted.map(|pair| pair.map(Some)));
    assert!(events.is_sorted_by_key(|event| event["sequence"].as_u64()));
    assert_eq!(events[0]["data"]["spec"]["command"], json!(["true"]));
    assert_eq!(events[3]["correlation_id"], events[0]["id"]);
    assert_eq!(events[3]["data"]["reason"], "enough");
    let view = api.read(&format!("/v1/jobs/{id}")).await?;
    assert_eq!(
        view["attempts"][0]["outcome"],
        json!({ "kind": "lost", "cause": { "kind": "worker_lost", "worker": "w" } })
    );
    Ok(())
}
