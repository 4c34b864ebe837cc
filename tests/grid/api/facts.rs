//! Following everything that happens.

use anyhow::Result;
use bus::ids::Attempt;
use reqwest::StatusCode;
use serde_json::json;

use super::served::{Events, Served, body};

#[tokio::test]
async fn facts_come_as_they_are_stored_from_now_on_or_from_a_sequence() -> Result<()> {
    let api = Served::start().await?;
    let before = api.submit_any().await?;
    let mut now = Events::new(api.get("/v1/facts").await?)?;
    let worker = api.worker("w").await?;
    worker.claim(before).await?;
    let (registered, claimed) = (now.must().await?, now.must().await?);
    assert_eq!(
        (&registered.data["type"], &registered.data["worker"]),
        (&json!("worker.registered.v1"), &json!("w"))
    );
    assert_eq!(
        (&claimed.data["type"], &claimed.data["job"]),
        (&json!("job.claimed.v1"), &json!(before))
    );
    assert_eq!((claimed.id.as_deref(), &claimed.data["sequence"]), (Some("3"), &json!(3)));
    assert_eq!(
        (&claimed.data["namespace"], &claimed.data["actor"]),
        (&json!("default"), &json!("w-w"))
    );
    assert_eq!(claimed.data["data"]["attempt"], 1);
    let mut all = Events::new(api.get("/v1/facts?after=0").await?)?;
    for sequence in 1..=3 {
        assert_eq!(all.must().await?.data["sequence"], sequence);
    }
    // As a browser does after a lost connection.
    let again = api
        .request(reqwest::Method::GET, "/v1/facts?after=0")
        .header("Last-Event-ID", "2")
        .send()
        .await?;
    assert_eq!(Events::new(again)?.must().await?.data, claimed.data);
    Ok(())
}

#[tokio::test]
async fn only_the_wanted_types_and_namespace_come() -> Result<()> {
    let api = Served::start().await?;
    let other = body(
        api.post("/v1/jobs?namespace=other", &json!({ "command": ["x"] })).await?,
        StatusCode::CREATED,
    )
    .await?;
    let worker = api.worker("w").await?;
    let job = api.submit_any().await?;
    worker.claim(job).await?;
    worker.finish(job, Attempt::FIRST).await?;
    for path in [
        "/v1/facts?after=0&types=job.finished,worker.lost",
        "/v1/facts?after=0&types=job.finished.v1",
    ] {
        let mut finished = Events::new(api.get(path).await?)?;
        assert_eq!(finished.must().await?.data["job"], json!(job), "{path}");
    }
    let mut of_other = Events::new(api.get("/v1/facts?after=0&namespace=other").await?)?;
    assert_eq!(of_other.must().await?.data["job"], other["id"]);
    // The next of that namespace comes next, whatever else happened between.
    api.submit_any().await?;
    let next = body(
        api.post("/v1/jobs?namespace=other", &json!({ "command": ["y"] })).await?,
        StatusCode::CREATED,
    )
    .await?;
    assert_eq!(of_other.must().await?.data["job"], next["id"]);
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_of_facts_misses_none() -> Result<()> {
    let api = Served::start().await?;
    let mut slow = Events::new(api.get("/v1/facts").await?)?;
    // More than is kept for a reader, in memory and on the way.
    let jobs = json!(vec![json!({ "command": ["true", "x".repeat(500)] }); 10_000]);
    for _ in 0..2 {
        body(api.post("/v1/jobs", &jobs).await?, StatusCode::OK).await?;
    }
    for sequence in 1..=20_000 {
        assert_eq!(slow.must().await?.data["sequence"], sequence);
    }
    Ok(())
}
