//! Dead and expired jobs, revived.

use std::collections::BTreeSet;

use anyhow::Result;
use bus::{
    envelope::Actor,
    ids::{Attempt, JobId},
    job::{Command, LossCause},
    spec::policy::Clock,
};
use grid_tests::writer::Worker;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::served::{Served, body, eventually, problem};

/// A job whose one attempt is lost.
async fn dead(api: &Served, worker: &Worker, job: &Value) -> Result<JobId> {
    let mut job = job.clone();
    job["max_losses"] = json!(1);
    let id = api.submit(&job).await?;
    worker.claim(id).await?;
    let cause = LossCause::WorkerLost { worker: worker.id.clone() };
    let attempt = Attempt::FIRST;
    api.writer.say(id, &Actor::Watcher, Command::GiveUp { attempt, cause }).await?;
    Ok(id)
}

#[tokio::test]
async fn a_dead_job_is_revived_once_and_others_are_not() -> Result<()> {
    let api = Served::start().await?;
    let worker = api.worker("w").await?;
    let id = dead(&api, &worker, &json!({ "command": ["x"] })).await?;
    let view = api.read(&format!("/v1/jobs/{id}")).await?;
    assert_eq!(
        (&view["state"], &view["message"]),
        (
            &json!("dead"),
            &json!("all its attempts were lost; the last one: worker w was lost")
        )
    );
    let requeue = async |id: JobId| {
        api.post(&format!("/v1/jobs/{id}/requeue"), &json!({ "reason": "a new disk" }))
            .await
    };
    let came = futures::future::try_join_all((0..10).map(|_| requeue(id))).await?;
    let accepted = came.iter().filter(|response| response.status() == StatusCode::ACCEPTED).count();
    assert_eq!(accepted, 1);
    let view = api.read(&format!("/v1/jobs/{id}")).await?;
    assert_eq!(
        (&view["state"], &view["ended_at"], &view["message"]),
        (&json!("queued"), &Value::Null, &Value::Null)
    );
    worker.claim(id).await?;
    worker.finish(id, Attempt(2)).await?;
    assert_eq!(api.read(&format!("/v1/jobs/{id}")).await?["state"], "succeeded");
    let history = api.read(&format!("/v1/jobs/{id}/history")).await?;
    assert_eq!(history["events"][3]["type"], "job.requeued.v1");
    assert_eq!(history["events"][3]["data"]["reason"], "a new disk");
    assert_eq!(history["events"][3]["correlation_id"], history["events"][0]["id"]);
    for (job, words) in [(id, "submit it again"), (api.submit_any().await?, "has not ended")] {
        let detail = problem(requeue(job).await?, StatusCode::CONFLICT).await?;
        assert!(detail.contains(words), "{detail}");
    }
    problem(requeue(JobId::new()).await?, StatusCode::NOT_FOUND).await?;
    Ok(())
}

#[tokio::test]
async fn a_filter_revives_page_by_page_and_counts_before() -> Result<()> {
    let (api, _projector) = Served::start_with_projector().await?;
    let worker = api.worker("w").await?;
    let mut night = BTreeSet::new();
    for number in 0..5 {
        let labels = json!({ "parity": (number % 2).to_string() });
        night.insert(dead(&api, &worker, &json!({ "command": ["x"], "queue": "night", "labels": labels })).await?);
    }
    let day = dead(&api, &worker, &json!({ "command": ["x"], "name": "daily" })).await?;
    let expired = api.submit(&json!({ "command": ["x"], "queue_timeout_ms": 1 })).await?;
    let last = api
        .writer
        .say(expired, &Actor::Watcher, Command::Expire { clock: Clock::Queue })
        .await?;
    let ask = async |filter: Value| {
        let mut filter = filter;
        filter["min_sequence"] = json!(last);
        body(api.post("/v1/requeue", &filter).await?, StatusCode::OK).await
    };
    for (filter, matching) in [
        (json!({}), 7),
        (json!({ "queue": "night" }), 5),
        (json!({ "labels": { "parity": "0" } }), 3),
        (json!({ "states": ["timed_out"] }), 1),
        (json!({ "states": ["dead"], "name": "daily" }), 1),
        (json!({ "namespace": "other" }), 0),
    ] {
        let mut counting = filter.clone();
        counting["dry_run"] = json!(true);
        assert_eq!(ask(counting).await?["matching"], matching, "{filter}");
    }
    let (mut revived, mut before, mut pages) = (BTreeSet::new(), Value::Null, 0);
    loop {
        let page = ask(json!({ "queue": "night", "limit": 2, "before": before })).await?;
        let ids = page["requeued"].as_array().expect("a list");
        revived.extend(ids.iter().filter_map(|id| id.as_str()?.parse::<JobId>().ok()));
        (before, pages) = (page["next"].clone(), pages + 1);
        if before.is_null() {
            break;
        }
    }
    assert_eq!((revived, pages), (night, 3));
    // What the tables still take for dead, and the log does not, is left, and said.
    let again = ask(json!({ "name": "daily" })).await?;
    assert_eq!(again["requeued"], json!([day]));
    eventually(async || Ok(ask(json!({ "states": ["dead"], "dry_run": true })).await?["matching"] == 0)).await?;
    assert_eq!(ask(json!({ "states": ["timed_out"] })).await?["requeued"], json!([expired]));
    for (wrong, words) in [
        (json!({ "states": ["failed"] }), "only dead and timed_out"),
        (json!({ "limit": 0 }), "1 to 1000"),
        (json!({ "que": "x" }), "que"),
    ] {
        let detail = problem(api.post("/v1/requeue", &wrong).await?, StatusCode::BAD_REQUEST).await?;
        assert!(detail.contains(words), "{detail}");
    }
    Ok(())
}
