//! Events that this program cannot read: of another version, of no shape, without a link. They are set aside, and seen.

use anyhow::Result;
use async_nats::HeaderMap;
use bus::{
    envelope::Actor,
    ids::{Attempt, JobId, default_token},
    job::{Command, LossCause},
    subjects,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::served::{Events, Served, body, problem};

/// An event of a version that is still to come, as the program that writes it would publish it.
async fn of_the_future(api: &Served, job: JobId, after: u64) -> Result<u64> {
    let event = json!({ "type": "job.blessed.v7", "id": uuid::Uuid::now_v7(), "time": "2031-01-01T00:00:00Z", "actor": "api", "data": { "by": "all" } });
    raw(api, job, Some(after), event.to_string()).await
}

/// A message on a job's own subject, with or without the link that every event has.
async fn raw(api: &Served, job: JobId, after: Option<u64>, payload: String) -> Result<u64> {
    let mut headers = HeaderMap::new();
    if let Some(after) = after {
        headers.insert("Nats-Expected-Last-Subject-Sequence", after.to_string().as_str());
        headers.insert(
            "Nats-Expected-Last-Subject-Sequence-Subject",
            subjects::job_filter(&default_token(), job).as_str(),
        );
    }
    let subject = subjects::job_by(&default_token(), job, &Actor::Api);
    let ack = api
        .writer
        .bus
        .js
        .publish_with_headers(subject, headers, payload.into())
        .await?
        .await?;
    Ok(ack.sequence)
}

#[tokio::test]
async fn a_job_with_an_event_of_the_future_is_read_followed_and_ended() -> Result<()> {
    let api = Served::start().await?;
    let job = api.submit_any().await?;
    let mut facts = Events::new(api.get("/v1/facts").await?)?;
    let wait = api.request(Method::GET, &format!("/v1/jobs/{job}?wait=60s")).send();
    let story = async {
        let sequence = of_the_future(&api, job, 1).await?;
        let view = api.read(&format!("/v1/jobs/{job}")).await?;
        assert_eq!((&view["state"], &view["sequence"]), (&json!("queued"), &json!(sequence)));
        // What is said next follows the event, also where it was not understood.
        let cancelled = body(api.post(&format!("/v1/jobs/{job}/cancel"), &json!({})).await?, StatusCode::ACCEPTED).await?;
        assert_eq!(
            (&cancelled["state"], &cancelled["sequence"]),
            (&json!("cancelled"), &json!(sequence + 1))
        );
        anyhow::Ok(())
    };
    let (view, told) = tokio::join!(wait, story);
    told?;
    assert_eq!(body(view?, StatusCode::OK).await?["state"], "cancelled");
    let history = api.read(&format!("/v1/jobs/{job}/history")).await?;
    let event = &history["events"][1];
    assert_eq!(
        (&event["type"], &event["data"]),
        (&json!("job.blessed.v7"), &json!({ "by": "all" }))
    );
    assert!(
        event["unreadable"].as_str().is_some_and(|why| why.contains("newer rgrid")),
        "{event}"
    );
    assert_eq!(history["events"][0].get("unreadable"), None);
    // Who follows everything is told of it as it stands.
    assert_eq!(facts.must().await?.data["type"], "job.blessed.v7");
    assert_eq!(facts.must().await?.data["type"], "job.cancelled.v1");
    Ok(())
}

#[tokio::test]
async fn workers_and_the_watcher_go_on_with_such_a_job() -> Result<()> {
    let api = Served::start().await?;
    let worker = api.worker("w").await?;
    // Of another version, or no event at all, and linked or not: what is decided next follows it, and is stored.
    for linked in [true, false] {
        let job = api.submit(&json!({ "command": ["x"], "max_losses": 5 })).await?;
        let spoil = async |attempt: u32| {
            let last = api.read(&format!("/v1/jobs/{job}")).await?["sequence"].as_u64();
            let payload = format!("spoiled {attempt}");
            if linked {
                of_the_future(&api, job, last.unwrap_or(0)).await
            } else {
                raw(&api, job, None, payload).await
            }
        };
        spoil(0).await?;
        worker.claim(job).await?;
        spoil(1).await?;
        let cause = LossCause::WorkerLost { worker: worker.id.clone() };
        let attempt = Attempt::FIRST;
        api.writer.say(job, &Actor::Watcher, Command::GiveUp { attempt, cause }).await?;
        spoil(2).await?;
        worker.claim(job).await?;
        worker.finish(job, Attempt(2)).await?;
        let view = api.read(&format!("/v1/jobs/{job}")).await?;
        assert_eq!(
            (&view["state"], &view["attempt"]),
            (&json!("succeeded"), &json!(2)),
            "linked: {linked}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn garbage_in_a_jobs_log_is_shown_and_changes_nothing() -> Result<()> {
    let api = Served::start().await?;
    let job = api.submit_any().await?;
    let mut facts = Events::new(api.get("/v1/facts").await?)?;
    raw(&api, job, Some(1), "\u{0}not an event".to_owned()).await?;
    // Without a link, it breaks the chain by which a job is read back.
    let last = raw(&api, job, None, "{\"type\": 7}".to_owned()).await?;
    let view = api.read(&format!("/v1/jobs/{job}")).await?;
    assert_eq!((&view["state"], &view["sequence"]), (&json!("queued"), &json!(last)));
    let history = api.read(&format!("/v1/jobs/{job}/history")).await?;
    let events = history["events"].as_array().expect("events");
    let types: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
    assert_eq!(types, ["job.submitted.v1", "unreadable", "unreadable"]);
    for event in &events[1..] {
        assert!(
            event["unreadable"].is_string() && event["actor"] == "api" && event.get("time").is_none(),
            "{event}"
        );
    }
    let other = api.submit_any().await?;
    let fact = facts.must().await?;
    assert_eq!((&fact.data["type"], &fact.data["job"]), (&json!("job.submitted.v1"), &json!(other)));
    let cancelled = body(api.post(&format!("/v1/jobs/{job}/cancel"), &json!({})).await?, StatusCode::ACCEPTED).await?;
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(api.read(&format!("/v1/jobs/{job}")).await?["state"], "cancelled");
    Ok(())
}

#[tokio::test]
async fn a_job_that_was_submitted_in_the_future_is_named_and_not_a_bug() -> Result<()> {
    let api = Served::start().await?;
    let job = JobId::new();
    of_the_future(&api, job, 0).await?;
    let detail = problem(api.get(&format!("/v1/jobs/{job}")).await?, StatusCode::NOT_IMPLEMENTED).await?;
    assert!(detail.contains("job.blessed.v7") && detail.contains("upgrade"), "{detail}");
    let history = api.read(&format!("/v1/jobs/{job}/history")).await?;
    assert_eq!(history["events"][0]["type"], "job.blessed.v7");
    Ok(())
}

#[tokio::test]
async fn the_projector_sets_aside_what_it_cannot_read_and_doctor_says_so() -> Result<()> {
    let (api, _projector) = Served::start_with_projector().await?;
    let job = api.submit_any().await?;
    let unknown = of_the_future(&api, job, 1).await?;
    raw(&api, job, None, "garbage".to_owned()).await?;
    let nowhere = api.writer.bus.js.publish("rgrid.evt.default.thing.x", "{}".into()).await?.await?;
    let worker = api.worker("w").await?;
    let other = api.submit_any().await?;
    worker.claim(other).await?;
    let last = worker.finish(other, Attempt::FIRST).await?;
    let list = api.read(&format!("/v1/jobs?min_sequence={last}&state=succeeded")).await?;
    assert_eq!(list["jobs"][0]["id"], json!(other), "what comes behind is folded");
    assert!(unknown < nowhere.sequence && nowhere.sequence < last);
    let diagnosis = api.read("/v1/doctor").await?;
    let found = diagnosis["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .find(|finding| finding["topic"] == "log");
    let what = found.and_then(|finding| finding["what"].as_str()).expect("a finding");
    assert!(
        what.starts_with("3 messages of the log cannot be decoded") && what.contains(&format!("sequence {}", nowhere.sequence)),
        "{what}"
    );
    assert!(found.is_some_and(|finding| finding["do"].as_str().is_some_and(|advice| advice.contains("projector rebuild"))));
    Ok(())
}
