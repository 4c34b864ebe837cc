//! Submissions by any service: a stock NATS client of another language, and whatever else may be published there.

mod keys;
mod leftovers;
mod python;
mod refused;

use std::time::Duration;

use anyhow::{Context as _, Result};
use bus::{
    ids::{Attempt, JobId, default_token},
    log::INBOX,
    output::frame::{Frame, Stream},
    subjects,
};
use bytes::{Bytes, BytesMut};
use grid_tests::nats::NatsServer;
use reqwest::StatusCode;
use serde_json::{Value, json};

use self::python::Service;
use crate::api::served::{LONG, Served, id};

const SUBJECT: &str = "rgrid.submit.default.default";

/// A job, once intake has taken it.
async fn taken(api: &Served, job: JobId) -> Result<Value> {
    let path = format!("/v1/jobs/{job}");
    let look = async {
        loop {
            let response = api.get(&path).await?;
            if response.status() == StatusCode::OK {
                return anyhow::Ok(response.json().await?);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, look)
        .await
        .with_context(|| format!("job {job} is not taken"))?
}

/// Waits until nothing is left in the inbox.
async fn inbox_empty(api: &Served) -> Result<()> {
    let look = async {
        while api.writer.bus.js.get_stream(INBOX).await?.cached_info().state.messages > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LONG, look).await.context("something stays in the inbox")?
}

#[tokio::test]
async fn a_stock_client_submits_and_follows_its_job_to_the_end() -> Result<()> {
    let api = Served::start().await?;
    let mut service = Service::start(api.nats.url())?;
    service
        .call(&json!({ "do": "listen", "subject": "rgrid.fact.default.job.>" }))
        .await?;
    let body = json!({ "command": ["a.py"], "runtime": "python", "files": [{ "path": "a.py", "content": "print('hi')" }] });
    let sent = service.submit("rgrid.submit.default.night", &body.to_string(), json!({})).await?;
    assert_eq!(sent["stream"], INBOX);
    let answer = &sent["answer"];
    assert_eq!((&answer["existed"], &answer["sequence"]), (&json!(false), &json!(1)), "{sent}");
    let job = id(answer)?;
    let view = api.read(&format!("/v1/jobs/{job}")).await?;
    assert_eq!((&view["queue"], &view["command"]), (&json!("night"), &json!(["a.py"])));

    let worker = api.worker("w").await?;
    worker.claim(job).await?;
    let mut frames = BytesMut::new();
    Frame {
        stream: Stream::Stdout,
        time_us: 1,
        bytes: Bytes::from_static(b"hi\n"),
    }
    .write(&mut frames);
    let log = subjects::log(&default_token(), job, Attempt::FIRST);
    api.writer.bus.js.publish(log.clone(), frames.freeze()).await?.await?;
    worker.finish(job, Attempt::FIRST).await?;

    let told = service
        .call(&json!({ "do": "hear", "subject": "rgrid.fact.default.job.>", "count": 3 }))
        .await?;
    let types: Vec<_> = told
        .as_array()
        .into_iter()
        .flatten()
        .map(|fact| fact["event"]["type"].clone())
        .collect();
    assert_eq!(types, ["job.submitted.v1", "job.claimed.v1", "job.finished.v1"]);
    assert_eq!(told[2]["subject"], format!("rgrid.fact.default.job.{job}.by.w-w"));
    let log = service.call(&json!({ "do": "follow", "subject": log, "count": 1 })).await?;
    assert!(log[0]["text"].as_str().is_some_and(|text| text.ends_with("hi\n")), "{log}");
    Ok(())
}

#[tokio::test]
async fn one_message_id_is_one_job_for_ever_and_so_is_one_key() -> Result<()> {
    let api = Served::start().await?;
    let mut service = Service::start(api.nats.url())?;
    let body = json!({ "command": ["x"] }).to_string();
    let first = service.submit(SUBJECT, &body, json!({ "Nats-Msg-Id": "order-7" })).await?;
    let job = id(&first["answer"])?;
    // Within the window, the server itself drops the second.
    assert_eq!(
        service.submit(SUBJECT, &body, json!({ "Nats-Msg-Id": "order-7" })).await?["duplicate"],
        true
    );
    // After it, the inbox takes another message with that id. Here the window is made short, not to wait for two minutes.
    let mut config = api.writer.bus.js.get_stream(INBOX).await?.cached_info().config.clone();
    config.duplicate_window = Duration::from_millis(100);
    api.writer.bus.js.update_stream(config).await?;
    let later = loop {
        let later = service.submit(SUBJECT, &body, json!({ "Nats-Msg-Id": "order-7" })).await?;
        if later["duplicate"] == false {
            break later;
        }
    };
    assert_eq!(later["answer"]["existed"], true, "{later}");
    assert_eq!(
        (id(&later["answer"])?, &later["answer"]["sequence"]),
        (job, &first["answer"]["sequence"])
    );
    // A key says the same, whoever submits it where.
    let keyed = json!({ "command": ["x"], "key": "k" });
    let one = service.submit(SUBJECT, &keyed.to_string(), json!({})).await?;
    let two = service
        .submit(SUBJECT, &keyed.to_string(), json!({ "Nats-Msg-Id": "another" }))
        .await?;
    let three = api.post("/v1/jobs", &keyed).await?.json::<Value>().await?;
    let named = JobId::of_key(&default_token(), "k");
    assert_eq!([id(&one["answer"])?, id(&two["answer"])?, id(&three)?], [named; 3]);
    assert_eq!((&two["answer"]["existed"], &three["existed"]), (&json!(true), &json!(true)));
    // Without both, each message is a job of its own.
    let [a, b] = [
        service.submit(SUBJECT, &body, json!({})).await?,
        service.submit(SUBJECT, &body, json!({})).await?,
    ];
    assert_ne!(id(&a["answer"])?, id(&b["answer"])?);
    let conflict = service
        .submit(SUBJECT, &json!({ "command": ["other"], "key": "k" }).to_string(), json!({}))
        .await?;
    assert_eq!(conflict["answer"]["status"], 409, "{conflict}");
    Ok(())
}

#[tokio::test]
async fn what_is_submitted_while_every_process_is_down_is_taken_later_and_once() -> Result<()> {
    let nats = NatsServer::start().await?;
    // The streams are there, and nobody of rgrid is.
    let writer = grid_tests::writer::Writer::connect(nats.url()).await?;
    let mut service = Service::start(nats.url())?;
    for number in 0..20 {
        let body = json!({ "command": ["x", number.to_string()], "key": format!("k{number}") }).to_string();
        let call = json!({ "do": "submit", "subject": SUBJECT, "body": body, "wait": false });
        assert_eq!(service.call(&call).await?["stream"], INBOX);
    }
    drop((service, writer));
    let mut api = Served::start_on(nats, |_| {}).await?;
    for number in 0..20 {
        let view = taken(&api, JobId::of_key(&default_token(), &format!("k{number}"))).await?;
        assert_eq!(
            (&view["command"][1], &view["state"]),
            (&json!(number.to_string()), &json!("queued"))
        );
    }
    inbox_empty(&api).await?;
    // The next start finds nothing to do again.
    api.stop().await?;
    api.start_again().await?;
    let last = api.submit_any().await?;
    assert_eq!(api.read(&format!("/v1/jobs/{last}")).await?["sequence"], 21);
    Ok(())
}

#[tokio::test]
async fn a_crash_of_nats_between_submission_and_intake_loses_nothing() -> Result<()> {
    let mut api = Served::start().await?;
    let body = |number: u32| json!({ "command": ["x"], "key": format!("k{number}") }).to_string();
    for number in 0..50 {
        api.writer.bus.js.publish(SUBJECT, body(number).into()).await?.await?;
        if number == 25 {
            api.nats.restart().await?;
        }
    }
    for number in 0..50 {
        taken(&api, JobId::of_key(&default_token(), &format!("k{number}"))).await?;
    }
    inbox_empty(&api).await
}
