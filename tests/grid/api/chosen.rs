//! Ids that whoever submits chose.

use anyhow::Result;
use bus::ids::{BatchId, JobId, default_token};
use reqwest::StatusCode;
use serde_json::json;

use super::served::{Served, body, id, problem};

#[tokio::test]
async fn the_same_submission_under_the_same_id_is_the_same_job() -> Result<()> {
    let api = Served::start().await?;
    let chosen = JobId::new();
    let job = json!({ "id": chosen, "command": ["x"], "labels": { "a": "b" } });
    let first = body(api.post("/v1/jobs", &job).await?, StatusCode::CREATED).await?;
    assert_eq!(id(&first)?, chosen);
    let again = body(api.post("/v1/jobs", &job).await?, StatusCode::OK).await?;
    assert_eq!(
        (id(&again)?, &again["existed"], &again["sequence"]),
        (chosen, &json!(true), &first["sequence"])
    );
    // Also where a job made of the same may be taken for it.
    let again = body(api.post("/v1/jobs?reuse=true", &job).await?, StatusCode::OK).await?;
    assert_eq!((id(&again)?, again.get("reused")), (chosen, None));
    let history = api.read(&format!("/v1/jobs/{chosen}/history")).await?;
    assert_eq!(history["events"].as_array().map(Vec::len), Some(1), "{history}");
    Ok(())
}

#[tokio::test]
async fn an_id_that_another_job_has_is_a_conflict_in_every_namespace_and_tells_nothing() -> Result<()> {
    let api = Served::start().await?;
    let chosen = JobId::new();
    let job = json!({ "id": chosen, "command": ["x"] });
    body(api.post("/v1/jobs", &job).await?, StatusCode::CREATED).await?;
    let other = json!({ "id": chosen, "command": ["y"] });
    let own = problem(api.post("/v1/jobs", &other).await?, StatusCode::CONFLICT).await?;
    let foreign = problem(api.post("/v1/jobs?namespace=team", &job).await?, StatusCode::CONFLICT).await?;
    assert_eq!(own, foreign);
    assert!(own.contains("choose a new UUIDv7"), "{own}");
    let many = json!([{ "command": ["z"] }, job]);
    let answer = body(api.post("/v1/jobs?namespace=team", &many).await?, StatusCode::OK).await?;
    assert_eq!(answer["jobs"][1]["problem"]["status"], 409, "{answer}");
    let history = api.read(&format!("/v1/jobs/{chosen}/history")).await?;
    assert_eq!(history["events"].as_array().map(Vec::len), Some(1), "{history}");
    Ok(())
}

#[tokio::test]
async fn an_id_that_may_be_guessed_cannot_be_taken() -> Result<()> {
    let api = Served::start().await?;
    let of_key = JobId::of_key(&default_token(), "nightly");
    let of_member = JobId::of_member(BatchId::new(), 0);
    let random = "3f2c7a1e-94c1-4b1b-8f6e-0a1b2c3d4e5f".parse::<JobId>()?;
    for id in [of_key, of_member, random] {
        let refused = problem(
            api.post("/v1/jobs", &json!({ "id": id, "command": ["x"] })).await?,
            StatusCode::UNPROCESSABLE_ENTITY,
        );
        assert!(refused.await?.contains("UUIDv7"), "{id}");
    }
    let both = json!({ "id": JobId::new(), "key": "nightly", "command": ["x"] });
    let refused = problem(api.post("/v1/jobs", &both).await?, StatusCode::UNPROCESSABLE_ENTITY).await?;
    assert!(refused.contains("leave one of them out"), "{refused}");
    let batch = json!({ "id": BatchId::new(), "name": "b", "job": { "id": JobId::new(), "command": ["x"] }, "members": [{ "item": "1" }] });
    let refused = problem(api.post("/v1/batches", &batch).await?, StatusCode::UNPROCESSABLE_ENTITY).await?;
    assert!(refused.contains("job.id"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn ids_of_an_array_can_be_sent_again_and_named_by_those_that_follow() -> Result<()> {
    let api = Served::start().await?;
    let [first, second] = [JobId::new(), JobId::new()];
    let jobs = json!([
        { "id": first, "command": ["a"] },
        { "id": second, "command": ["b"], "start": { "after": [{ "job": first }] } },
    ]);
    for existed in [false, true] {
        let answer = body(api.post("/v1/jobs", &jobs).await?, StatusCode::OK).await?;
        for (place, id) in [first, second].iter().enumerate() {
            assert_eq!(
                (&answer["jobs"][place]["id"], &answer["jobs"][place]["existed"]),
                (&json!(id), &json!(existed)),
                "{answer}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_rerun_under_the_same_id_is_one_job() -> Result<()> {
    let api = Served::start().await?;
    let submitted = body(api.post("/v1/jobs", &json!({ "command": ["x"] })).await?, StatusCode::CREATED).await?;
    let path = format!("/v1/jobs/{}/rerun", id(&submitted)?);
    let chosen = JobId::new();
    for status in [StatusCode::CREATED, StatusCode::OK] {
        let answer = body(api.post(&path, &json!({ "id": chosen })).await?, status).await?;
        assert_eq!(id(&answer)?, chosen);
    }
    Ok(())
}

#[tokio::test]
async fn the_id_of_a_batch_cannot_be_taken_from_another_namespace() -> Result<()> {
    let api = Served::start().await?;
    let batch = json!({ "id": BatchId::new(), "name": "b", "job": { "command": ["x"] }, "members": [{ "item": "1" }] });
    body(api.post("/v1/batches", &batch).await?, StatusCode::CREATED).await?;
    body(api.post("/v1/batches", &batch).await?, StatusCode::OK).await?;
    let refused = problem(api.post("/v1/batches?namespace=team", &batch).await?, StatusCode::CONFLICT).await?;
    assert!(refused.contains("choose a new UUIDv7"), "{refused}");
    Ok(())
}
