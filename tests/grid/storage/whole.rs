//! A log of which something is missing tells nobody what is used: nothing goes.

use anyhow::{Context as _, Result, ensure};
use bus::{ids::Digest, log::EVENTS};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{exist, gc, gone, job_of, put, served};
use crate::api::served::{Served, problem};

/// A job that waits for a worker and needs a content, and a content that nobody needs. A pass knows both.
async fn waiting() -> Result<(Served, Digest, Digest)> {
    let api = served(None).await?;
    job_of(&api, &[put(&api, "other").await?.0]).await?;
    let needed = put(&api, "needed").await?.0;
    job_of(&api, &[needed]).await?;
    let loose = put(&api, "loose").await?.0;
    gone(&api, &[loose]).await?;
    let loose = put(&api, "loose").await?.0;
    Ok((api, needed, loose))
}

/// Calls the server's own API of the log, as an operator does.
async fn log(api: &Served, verb: &str, asked: &Value) -> Result<Value> {
    let js = api.nats.context().await?;
    let answer: Value = js.request(format!("STREAM.{verb}.{EVENTS}"), asked).await?;
    ensure!(answer["error"].is_null(), "{answer}");
    Ok(answer)
}

/// Puts an empty log in the place of this one.
async fn begin_anew(api: &Served) -> Result<()> {
    let js = api.nats.context().await?;
    let config = js.get_stream(EVENTS).await?.cached_info().config.clone();
    js.delete_stream(EVENTS).await?;
    js.create_stream(config).await?;
    Ok(())
}

/// Passes without any grace remove nothing, and say why; so does the doctor.
async fn nothing_goes(api: &Served, contents: &[Digest], why: &str) -> Result<()> {
    for _ in 0..3 {
        let report = gc(api, &json!({ "grace_ms": 0, "keep_inputs_ms": 0 })).await?;
        let stopped = report["stopped"].as_str().context("the pass did not stop")?;
        ensure!(stopped.contains(why) && report["removed"]["files"] == 0, "{report}");
    }
    ensure!(exist(&api.files().await?, contents).await? == contents.len(), "something went");
    for asked in [
        api.get("/v1/storage").await?,
        api.post("/v1/storage/gc", &json!({ "dry_run": true })).await?,
    ] {
        let problem = problem(asked, StatusCode::CONFLICT).await?;
        ensure!(problem.to_string().contains(why), "{problem}");
    }
    let diagnosis = api.read("/v1/doctor").await?;
    let findings = diagnosis["findings"].as_array().context("findings")?;
    let said = |finding: &&Value| finding["what"].as_str().is_some_and(|what| what.contains(why));
    let finding = findings.iter().find(said).with_context(|| format!("{diagnosis:#}"))?;
    assert_eq!(finding["severity"], "error", "{finding}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_purge_nothing_goes() -> Result<()> {
    let (api, needed, loose) = waiting().await?;
    log(&api, "PURGE", &json!({ "seq": 2 })).await?;
    nothing_goes(&api, &[needed, loose], "the log begins at sequence 2").await?;
    log(&api, "PURGE", &json!({})).await?;
    nothing_goes(&api, &[needed, loose], "the log begins at sequence 3").await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_events_are_missing_in_the_middle_nothing_goes() -> Result<()> {
    let (api, needed, loose) = waiting().await?;
    let third = job_of(&api, &[]).await?;
    let subject = bus::subjects::job_filter(&bus::ids::default_token(), third);
    ensure!(log(&api, "PURGE", &json!({ "filter": subject })).await?["purged"] == 1);
    job_of(&api, &[]).await?;
    nothing_goes(&api, &[needed, loose], "1 events are missing in the middle").await
}

/// The log that the passes knew is gone, and another one stands there.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_end_of_the_log_is_lost_nothing_goes() -> Result<()> {
    let (api, needed, loose) = waiting().await?;
    begin_anew(&api).await?;
    job_of(&api, &[]).await?;
    nothing_goes(&api, &[needed, loose], "the log ends at sequence 1, but sequence 2 was seen before").await
}
