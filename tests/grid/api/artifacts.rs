//! The outputs of a job.

use anyhow::Result;
use bus::{
    ids::{Attempt, JobId},
    job::{Command, Outcome, Usage},
    output::manifest::{Manifest, OutputFile},
};
use grid_tests::writer::Worker;
use reqwest::{StatusCode, header};
use serde_json::json;

use super::served::{Served, problem};

/// Ends an attempt well, with a manifest.
pub(super) async fn finish(api: &Served, worker: &Worker, job: JobId, attempt: Attempt, manifest: &Manifest) -> Result<()> {
    let digest = api.files().await?.put_bytes(manifest.to_json().into()).await?;
    let command = Command::Finish {
        attempt,
        session: worker.session,
        outcome: Outcome::Succeeded,
        manifest: Some(manifest.reference(digest)),
        usage: Usage::default(),
    };
    api.writer.say(job, &worker.actor(), command).await?;
    Ok(())
}

#[tokio::test]
async fn outputs_are_listed_and_read_once_they_are_committed() -> Result<()> {
    let api = Served::start().await?;
    let (job, worker) = (api.submit_any().await?, api.worker("w").await?);
    worker.claim(job).await?;
    let list = format!("/v1/jobs/{job}/artifacts");
    assert_eq!(
        api.read(&list).await?,
        json!({ "attempt": null, "artifacts": [], "state": "claimed" })
    );
    let detail = problem(api.get(&format!("{list}/a.csv")).await?, StatusCode::NOT_FOUND).await?;
    assert!(detail.contains("has not ended"), "{detail}");
    let names = ["a.csv", "out/ü \"x\"\n%41.txt", "out/b..c"];
    let mut manifest = Manifest::default();
    for name in names {
        let sha256 = api.files().await?.put_bytes(name.to_owned().into()).await?;
        let (path, size) = (name.parse()?, name.len() as u64);
        manifest.outputs.push(OutputFile {
            mode: None,
            path,
            sha256,
            size,
            executable: name == "a.csv",
        });
    }
    finish(&api, &worker, job, Attempt::FIRST, &manifest).await?;
    let listed = api.read(&list).await?;
    assert_eq!(
        (&listed["attempt"], listed["artifacts"].as_array().map(Vec::len)),
        (&json!(1), Some(3))
    );
    assert_eq!(listed["artifacts"][0]["executable"], true);
    for (name, encoded) in names.iter().zip(["a.csv", "out/%C3%BC%20%22x%22%0A%2541.txt", "out/b..c"]) {
        let response = api.get(&format!("{list}/{encoded}")).await?;
        assert_eq!(response.status(), StatusCode::OK, "{name}");
        let headers = response.headers();
        assert_eq!(
            (&headers[header::X_CONTENT_TYPE_OPTIONS], &headers[header::CONTENT_TYPE]),
            (&"nosniff".parse()?, &"application/octet-stream".parse()?)
        );
        let disposition = headers[header::CONTENT_DISPOSITION].to_str()?.to_owned();
        assert!(disposition.starts_with("attachment; filename=\""), "{disposition}");
        assert_eq!(response.text().await?, *name, "{disposition}");
    }
    let part = api
        .request(reqwest::Method::GET, &format!("{list}/a.csv"))
        .header(header::RANGE, "bytes=2-4")
        .send()
        .await?;
    assert_eq!((part.status(), part.text().await?), (StatusCode::PARTIAL_CONTENT, "csv".to_owned()));
    problem(api.get(&format!("{list}/out")).await?, StatusCode::NOT_FOUND).await?;
    Ok(())
}

#[tokio::test]
async fn a_job_that_left_nothing_has_no_outputs() -> Result<()> {
    let api = Served::start().await?;
    let (job, worker) = (api.submit_any().await?, api.worker("w").await?);
    worker.claim(job).await?;
    worker.finish(job, Attempt::FIRST).await?;
    let listed = api.read(&format!("/v1/jobs/{job}/artifacts")).await?;
    assert_eq!(listed, json!({ "attempt": 1, "artifacts": [], "state": "succeeded" }));
    Ok(())
}
