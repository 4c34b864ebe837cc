//! Handing jobs in.

use std::collections::HashSet;

use anyhow::Result;
use bus::ids::{Digest, JobId, default_token};
use futures::future::try_join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::served::{Served, body, id, problem};

#[tokio::test]
async fn who_submits_can_read_the_job_at_once() -> Result<()> {
    let api = Served::start().await?;
    let job = json!({ "command": ["report.py", "--all", "ü x"], "runtime": "python", "labels": { "a": "b" }, "name": "weekly",
        "resources": { "cpu_milli": 2000, "memory_bytes": 1 << 30 }, "timeout_ms": 5000, "queue": "night", "priority": "low" });
    let response = api.post("/v1/jobs", &job).await?;
    let location = response.headers()["location"].to_str()?.to_owned();
    let submitted = body(response, StatusCode::CREATED).await?;
    assert_eq!(location, format!("/v1/jobs/{}", id(&submitted)?));
    assert_eq!((&submitted["existed"], &submitted["namespace"]), (&json!(false), &json!("default")));
    let view = api.read(&location).await?;
    assert_eq!(view["sequence"], submitted["sequence"]);
    for (field, value) in [("state", json!("queued")), ("exit_code", Value::Null), ("attempt", Value::Null)] {
        assert_eq!(view[field], value, "{field}");
    }
    for field in [
        "command",
        "runtime",
        "labels",
        "name",
        "resources",
        "timeout_ms",
        "queue",
        "priority",
    ] {
        assert_eq!(view[field], job[field], "{field}");
    }
    // Where no worker serves, nothing is known without Postgres, and nothing is claimed.
    assert_eq!(submitted.get("warning"), None);
    Ok(())
}

#[tokio::test]
async fn a_bad_one_in_an_array_does_not_stop_the_others() -> Result<()> {
    let api = Served::start().await?;
    let absent = Digest::of(b"nobody stored this");
    let jobs = json!([
        { "command": ["first"] },
        { "command": [] },
        { "command": ["x"], "typo": 1 },
        { "command": ["x"], "inputs": [{ "path": "a", "sha256": absent.to_string(), "size": 3 }] },
        7,
        { "command": ["last"], "files": [{ "path": "a.txt", "content": "hello" }] },
    ]);
    let answer = body(api.post("/v1/jobs?namespace=team", &jobs).await?, StatusCode::OK).await?;
    let answers = answer["jobs"].as_array().expect("a list");
    assert_eq!(answers.len(), 6);
    let status = |place: usize| answers[place]["problem"]["status"].as_u64();
    assert_eq!([1, 2, 3, 4].map(status), [Some(422), Some(400), Some(422), Some(400)]);
    assert!(
        answers[2]["problem"]["detail"].as_str().is_some_and(|text| text.contains("typo")),
        "{answer}"
    );
    assert_eq!(answers[3]["problem"]["missing"], json!([absent.to_string()]));
    for (place, command) in [(0, "first"), (5, "last")] {
        let view = api.read(&format!("/v1/jobs/{}", id(&answers[place])?)).await?;
        assert_eq!((&view["command"], &view["namespace"]), (&json!([command]), &json!("team")));
    }
    // What came with the submission is in the store.
    let stored = api.get(&format!("/v1/files/{}", Digest::of(b"hello"))).await?;
    assert_eq!(stored.bytes().await?, "hello");
    Ok(())
}

#[tokio::test]
async fn a_thousand_jobs_in_one_request_are_a_thousand_jobs_in_their_order() -> Result<()> {
    let api = Served::start().await?;
    let jobs: Vec<Value> = (0..1000).map(|number| json!({ "command": ["true", number.to_string()] })).collect();
    let answer = body(api.post("/v1/jobs", &json!(jobs)).await?, StatusCode::OK).await?;
    let answers = answer["jobs"].as_array().expect("a list");
    let sequences: Vec<u64> = answers.iter().filter_map(|one| one["sequence"].as_u64()).collect();
    assert_eq!(sequences, (1..=1000).collect::<Vec<u64>>());
    let ids: HashSet<JobId> = answers.iter().map(id).collect::<Result<_>>()?;
    assert_eq!(ids.len(), 1000);
    let view = api.read(&format!("/v1/jobs/{}", id(&answers[777])?)).await?;
    assert_eq!(view["command"], json!(["true", "777"]));
    Ok(())
}

#[tokio::test]
async fn many_large_requests_at_once_do_not_wait_for_one_another_for_ever() -> Result<()> {
    let api = Served::start().await?;
    let jobs: Vec<Value> = (0..2000).map(|_| json!({ "command": ["true"] })).collect();
    let jobs = json!(jobs);
    // Together they are more than may be unacknowledged at once.
    let requests = (0..8).map(|_| async { body(api.post("/v1/jobs", &jobs).await?, StatusCode::OK).await });
    let answers = try_join_all(requests).await?;
    let stored = answers.iter().flat_map(|answer| answer["jobs"].as_array()).flatten();
    assert_eq!(stored.filter(|one| one["sequence"].is_u64()).count(), 16_000);
    Ok(())
}

#[tokio::test]
async fn one_key_is_one_job_however_many_submit_it_at_once() -> Result<()> {
    let api = Served::start().await?;
    let job = json!({ "command": ["pay", "the", "bill"] });
    let tries = (0..32).map(|_| async {
        let request = api.request(Method::POST, "/v1/jobs").header("Idempotency-Key", "bill 7").json(&job);
        let response = request.send().await?;
        let status = response.status();
        anyhow::Ok((status, body(response, status).await?))
    });
    let answers = try_join_all(tries).await?;
    let created = answers.iter().filter(|(status, _)| *status == StatusCode::CREATED).count();
    let existed = answers
        .iter()
        .filter(|(status, answer)| *status == StatusCode::OK && answer["existed"] == true)
        .count();
    assert_eq!((created, existed), (1, 31), "{answers:?}");
    let named = JobId::of_key(&default_token(), "bill 7");
    assert!(
        answers
            .iter()
            .all(|(_, answer)| id(answer).ok() == Some(named) && answer["sequence"] == 1)
    );
    // The body's `key` is the same thing, and another namespace is another one.
    let inside = json!({ "command": ["pay", "the", "bill"], "key": "bill 7" });
    assert_eq!(body(api.post("/v1/jobs", &inside).await?, StatusCode::OK).await?["existed"], true);
    assert_eq!(
        body(api.post("/v1/jobs?namespace=other", &inside).await?, StatusCode::CREATED).await?["existed"],
        false
    );
    Ok(())
}

#[tokio::test]
async fn a_key_that_names_another_job_is_a_conflict() -> Result<()> {
    let api = Served::start().await?;
    let first = api.submit(&json!({ "command": ["a"], "key": "k" })).await?;
    let detail = problem(
        api.post("/v1/jobs", &json!({ "command": ["b"], "key": "k" })).await?,
        StatusCode::CONFLICT,
    )
    .await?;
    assert!(detail.contains(&first.to_string()) && detail.contains("another key"), "{detail}");
    // Also when the job has gone on, and also within one array.
    let worker = api.worker("w").await?;
    worker.claim(first).await?;
    let jobs = json!([{ "command": ["a"], "key": "k" }, { "command": ["b"], "key": "k" }, { "command": ["c"], "key": "new" }, { "command": ["c"], "key": "new" }]);
    let answer = body(api.post("/v1/jobs", &jobs).await?, StatusCode::OK).await?;
    assert_eq!(
        (&answer["jobs"][0]["existed"], &answer["jobs"][0]["sequence"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(answer["jobs"][1]["problem"]["status"], 409);
    let mut existed = [2, 3].map(|place| answer["jobs"][place]["existed"].as_bool());
    existed.sort_unstable();
    assert_eq!(existed, [Some(false), Some(true)], "{answer}");
    let both = api
        .request(Method::POST, "/v1/jobs")
        .header("Idempotency-Key", "x")
        .json(&json!({ "command": ["a"], "key": "y" }));
    assert!(problem(both.send().await?, StatusCode::BAD_REQUEST).await?.contains("differ"));
    Ok(())
}

#[tokio::test]
async fn inputs_that_are_not_in_the_store_are_named() -> Result<()> {
    let api = Served::start().await?;
    let stored = api.files().await?.put_bytes("here".into()).await?;
    let [one, two] = [Digest::of(b"1"), Digest::of(b"2")];
    let input = |path: &str, sha256: &Digest| json!({ "path": path, "sha256": sha256.to_string(), "size": 1 });
    let job = json!({ "command": ["x"], "inputs": [input("a", &stored), input("b", &one), input("c", &two), input("d", &one)] });
    let document = body(api.post("/v1/jobs", &job).await?, StatusCode::UNPROCESSABLE_ENTITY).await?;
    let mut wanted = [one, two];
    wanted.sort_unstable();
    assert_eq!(document["missing"], json!(wanted));
    let files = api.files().await?;
    files.put_bytes("1".into()).await?;
    files.put_bytes("2".into()).await?;
    api.submit(&job).await?;
    Ok(())
}
