//! Files that go directly to the store: by signed URLs, over a real `MinIO`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bus::ids::Digest;
use grid_tests::{
    grid::{Grid, Part},
    minio::Minio,
};
use reqwest::{Client, Method, StatusCode, redirect::Policy};
use serde_json::{Value, json};
use store::presign::{Binding, Presigner};

use super::{job_of, served};
use crate::{
    api::served::{Served, eventually, problem},
    cli::here::Here,
};

/// What the API says of a content that is missing, once it knows how the store is told what to check.
pub(super) async fn plan(api: &Served, content: &[u8]) -> Result<Value> {
    let digest = Digest::of(content);
    let asked = json!({ "sha256": [digest], "sizes": [content.len()] });
    let mut planned = Value::Null;
    eventually(async || {
        let answer: Value = api.post("/v1/files/missing", &asked).await?.error_for_status()?.json().await?;
        planned = answer["uploads"][digest.to_string()].clone();
        Ok(planned.is_object())
    })
    .await?;
    Ok(planned)
}

/// Does as planned, with these bytes.
pub(super) async fn follow(planned: &Value, bytes: &'static [u8]) -> Result<StatusCode> {
    let mut request = Client::new().put(planned["url"].as_str().context("a URL")?);
    for (name, value) in planned["headers"].as_object().context("headers")? {
        if name != "content-length" {
            request = request.header(name, value.as_str().context("text")?);
        }
    }
    Ok(request.body(bytes).send().await?.status())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_url_takes_what_was_announced_and_nothing_else() -> Result<()> {
    let minio = Minio::start().await?;
    let api = served(Some(minio.bucket("grid").await?)).await?;
    let content: &[u8] = b"the content";
    let planned = plan(&api, content).await?;
    ensure!(
        planned["headers"]["content-length"] == "11" && planned["expires_at"].is_string(),
        "{planned}"
    );
    for wrong in [&b"the CONTENT"[..], b"the content!", b"the"] {
        let status = follow(&planned, wrong).await?;
        ensure!(status.is_client_error(), "{status}: {}", wrong.escape_ascii());
    }
    let digest = Digest::of(content);
    problem(api.get(&format!("/v1/files/{digest}")).await?, StatusCode::NOT_FOUND).await?;
    assert_eq!(follow(&planned, content).await?, StatusCode::OK);
    job_of(&api, &[digest]).await?;

    // Back the same way, whole and in part.
    let client = Client::builder().redirect(Policy::none()).build()?;
    let asked = client.get(api.url(&format!("/v1/files/{digest}?direct=true")));
    let led = asked.header(
        "authorization",
        api.request(Method::GET, "/").build()?.headers()["authorization"].clone(),
    );
    let led = led.send().await?;
    assert_eq!(led.status(), StatusCode::TEMPORARY_REDIRECT);
    let there = led.headers()["location"].to_str()?.to_owned();
    assert_eq!(client.get(&there).send().await?.bytes().await?, content);
    let part = client.get(&there).header("range", "bytes=4-").send().await?;
    assert_eq!(
        (part.status(), part.bytes().await?),
        (StatusCode::PARTIAL_CONTENT, "content".into())
    );
    // Nothing leads to what is not there.
    let absent = Digest::of(b"absent");
    problem(api.get(&format!("/v1/files/{absent}?direct=true")).await?, StatusCode::NOT_FOUND).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_url_expires() -> Result<()> {
    let minio = Minio::start().await?;
    let files = store::Files::open(&minio.bucket("grid").await?.parse()?, None).await?;
    let presigner: &Presigner = files.presigner().context("it is in S3")?;
    let digest = files.put_bytes("content".into()).await?;
    let read = presigner.get(&digest, Duration::from_secs(1)).await?;
    let put = presigner
        .put(Binding::Payload, &Digest::of(b"other"), 5, Duration::from_secs(1))
        .await?;
    eventually(async || Ok(chrono::Utc::now() > read.expires_at.max(put.expires_at) + chrono::TimeDelta::seconds(1))).await?;
    assert_eq!(Client::new().get(read.url).send().await?.status(), StatusCode::FORBIDDEN);
    let mut request = Client::new().put(put.url);
    for (name, value) in put.headers.iter().filter(|(name, _)| **name != "content-length") {
        request = request.header(*name, value);
    }
    assert_eq!(request.body("other").send().await?.status(), StatusCode::FORBIDDEN);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_such_store_there_are_no_urls() -> Result<()> {
    let minio = Minio::start().await?;
    let none = format!("{}&public=none", minio.bucket("grid").await?);
    for store in [None, Some("nats://".to_owned()), Some(none)] {
        let api = served(store).await?;
        let digest = Digest::of(b"x");
        let answer = api.post("/v1/files/missing", &json!({ "sha256": [digest], "sizes": [1] })).await?;
        assert_eq!(answer.json::<Value>().await?, json!({ "missing": [digest] }));
        let unequal = api
            .post("/v1/files/missing", &json!({ "sha256": [digest], "sizes": [1, 2] }))
            .await?;
        let detail = problem(unequal, StatusCode::BAD_REQUEST).await?;
        ensure!(detail.contains("one size for each"), "{detail}");
        super::put(&api, "x").await?;
        assert_eq!(api.get(&format!("/v1/files/{digest}?direct=true")).await?.status(), StatusCode::OK);
    }
    Ok(())
}

const SCRIPT: &str = "import sys\ndata = open(sys.argv[1], 'rb').read()\nopen('back.bin', 'wb').write(data[::-1])\n";

async fn grid(store: String) -> Result<(Grid, Here)> {
    let mut grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], vec![("RGRID_STORE", store)]).await?;
    grid.run(Part::Runner(1))?;
    grid.worker_is("worker-1", "live").await?;
    grid.eventually("the API has tried the store", async || {
        grid.log(Part::Api).contains("upload to and download from").then_some(())
    })
    .await?;
    let here = Here::of(&grid)?;
    here.write("s.py", SCRIPT)?;
    here.write("in.bin", (0..3_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>())?;
    Ok((grid, here))
}

fn check(here: &Here) -> Result<()> {
    let (mut sent, back) = (here.read("in.bin")?, here.read("back.bin")?);
    sent.reverse();
    ensure!(sent == back, "other bytes came back");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_sends_and_fetches_at_the_store_itself() -> Result<()> {
    let minio = Minio::start().await?;
    let (_grid, here) = grid(minio.bucket("grid").await?).await?;
    let ran = here.rgrid(&["run", "--verbose", "s.py", "in.bin"])?;
    ensure!(ran.code == 0 && ran.err().contains("directly to the store"), "{}", ran.err());
    ensure!(!ran.err().contains("through the API"), "{}", ran.err());
    check(&here)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_store_cannot_be_reached_files_go_through_the_api_and_that_is_said_once() -> Result<()> {
    let minio = Minio::start().await?;
    // Port 1 of this machine: nobody listens there.
    let store = format!("{}&public=http://127.0.0.1:1", minio.bucket("grid").await?);
    let (_grid, here) = grid(store).await?;
    let ran = here.rgrid(&["run", "s.py", "in.bin"])?;
    let said = ran.err().matches("files are transferred through the API").count();
    ensure!(
        ran.code == 0 && said == 1 && ran.err().contains("http://127.0.0.1:1"),
        "{}",
        ran.err()
    );
    check(&here)?;
    // Fetching alone says it too.
    std::fs::remove_file(here.path().join("back.bin"))?;
    let fetched = here.rgrid(&["download", "last"])?;
    ensure!(
        fetched.code == 0 && fetched.err().matches("files are transferred through the API").count() == 1,
        "{}",
        fetched.err()
    );
    check(&here)
}
