//! A pass over each kind of store.

use anyhow::{Result, ensure};
use grid_tests::minio::Minio;
use object_store::ObjectStoreExt as _;
use reqwest::{Method, StatusCode};
use serde_json::json;
use store::{
    Files,
    marks::{Marks, Shard},
};

use super::{ended, exist, gc, gone, job_of, number, put, served};
use crate::api::served::{Served, eventually, problem};

#[tokio::test(flavor = "multi_thread")]
async fn in_a_directory_what_nothing_refers_to_goes_after_its_grace() -> Result<()> {
    goes_after_its_grace(&served(None).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_nats_what_nothing_refers_to_goes_after_its_grace() -> Result<()> {
    let api = served(Some("nats://".to_owned())).await?;
    goes_after_its_grace(&api).await?;
    // Not even the names are left, which would cost the server memory for ever: what is there is the checkpoint with its only chunk.
    let stream = api.nats.context().await?.get_stream("OBJ_rgrid-files").await?;
    ensure!(stream.cached_info().state.subjects_count == 2, "{:?}", stream.cached_info().state);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_minio_what_nothing_refers_to_goes_after_its_grace() -> Result<()> {
    let minio = Minio::start().await?;
    goes_after_its_grace(&served(Some(minio.bucket("grid").await?)).await?).await
}

async fn goes_after_its_grace(api: &Served) -> Result<()> {
    let ((used, _), (loose, first)) = (put(api, "used").await?, put(api, "loose").await?);
    ensure!(first == StatusCode::CREATED, "{first}");
    let job = job_of(api, &[used]).await?;
    let storage = api.read("/v1/storage").await?;
    assert_eq!(storage["uses"]["live_inputs"], json!({ "files": 1, "bytes": 4 }));
    assert_eq!(storage["uses"]["unused"], json!({ "files": 1, "bytes": 5 }));
    assert_eq!(storage["going"]["found_next"], json!({ "files": 1, "bytes": 5 }));

    let found = gc(api, &json!({})).await?;
    assert_eq!(
        (&found["found"], &found["removed"]["files"]),
        (&json!({ "files": 1, "bytes": 5 }), &json!(0))
    );
    let waits = api.read("/v1/storage").await?;
    assert_eq!(waits["going"]["waiting"]["files"], 1);
    let first: chrono::DateTime<chrono::Utc> = serde_json::from_value(waits["going"]["first"].clone())?;
    let days = first.signed_duration_since(chrono::Utc::now()).num_hours();
    ensure!((167..=168).contains(&days), "{days} hours");
    assert_eq!(waits["last_pass"]["pass"], found["pass"]);
    let again = gc(api, &json!({})).await?;
    assert_eq!((number(&again, "/found/files")?, number(&again, "/removed/files")?), (0, 0));

    gone(api, &[loose]).await?;
    let files = api.files().await?;
    ensure!(exist(&files, &[used]).await? == 1, "the job's input went");
    problem(api.get(&format!("/v1/files/{loose}")).await?, StatusCode::NOT_FOUND).await?;
    // What went can be stored again, and is there again.
    assert_eq!(put(api, "loose").await?.1, StatusCode::CREATED);
    assert_eq!(put(api, "loose").await?.1, StatusCode::OK);

    api.post(&format!("/v1/jobs/{job}/cancel"), &json!({})).await?;
    gone(api, &[used, loose]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_lost_stops_a_pass_unless_it_is_given_up() -> Result<()> {
    let api = served(None).await?;
    let worker = api.worker("w1").await?;
    let ((output, _), (loose, _)) = (put(&api, "output").await?, put(&api, "loose").await?);
    let (job, list) = ended(&api, &worker, &json!({ "command": ["true"] }), &[output], &[]).await?;
    let files = api.files().await?;
    files.object_store().delete(&Files::key(&list)).await?;
    let pass = json!({ "grace_ms": 0, "keep_inputs_ms": 0 });
    let report = gc(&api, &pass).await?;
    let why = report["stopped"].as_str().unwrap_or_default();
    ensure!(why.contains(&job.to_string()) && why.contains("--despite-lost"), "{report}");
    ensure!(exist(&files, &[output, loose]).await? == 2, "something went");
    // Nothing goes within the margin.
    eventually(async || {
        let report = gc(&api, &json!({ "grace_ms": 0, "keep_inputs_ms": 0, "despite_lost": true })).await?;
        ensure!(report["stopped"].is_null() && report["lost"] == json!([job]), "{report}");
        Ok(exist(&files, &[output, loose]).await? == 0)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing() -> Result<()> {
    let api = served(None).await?;
    let (loose, _) = put(&api, "loose").await?;
    for _ in 0..2 {
        let report = gc(&api, &json!({ "dry_run": true, "grace_ms": 0 })).await?;
        assert_eq!((number(&report, "/found/files")?, &report["dry_run"]), (1, &json!(true)));
        ensure!(report.get("pass").is_none(), "{report}");
    }
    let marks = Marks::open(&api.writer.bus.js).await?;
    ensure!(marks.read(Shard::of(&loose)).await?.0.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_takes_the_mark_off() -> Result<()> {
    let api = served(None).await?;
    let (loose, _) = put(&api, "loose").await?;
    let marks = Marks::open(&api.writer.bus.js).await?;
    for asking in ["ask", "put", "submit"] {
        gc(&api, &json!({})).await?;
        ensure!(
            marks.read(Shard::of(&loose)).await?.0.contains(&loose),
            "{asking}: it is not marked"
        );
        match asking {
            // As a client does before it sends files.
            "ask" => drop(
                api.post("/v1/files/missing", &json!({ "sha256": [loose] }))
                    .await?
                    .error_for_status()?,
            ),
            "put" => assert_eq!(put(&api, "loose").await?.1, StatusCode::OK),
            _ => drop(job_of(&api, &[loose]).await?),
        }
        ensure!(
            !marks.read(Shard::of(&loose)).await?.0.contains(&loose),
            "{asking}: it is marked still"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_out_is_absent_and_is_refused_to_a_submission() -> Result<()> {
    let api = served(None).await?;
    let (loose, _) = put(&api, "loose").await?;
    let marks = Marks::open(&api.writer.bus.js).await?;
    gc(&api, &json!({})).await?;
    // A pass that stopped between taking it out of use and removing it.
    let lease = marks.begin().await?.map_err(|at| anyhow::anyhow!("another pass at {at}"))?;
    let taken = marks
        .amend(Shard::of(&loose), |marks| {
            marks.take(
                lease.pass,
                chrono::Utc::now() + chrono::TimeDelta::days(1),
                chrono::DateTime::UNIX_EPOCH,
                9,
            )
        })
        .await?;
    assert_eq!(taken, [loose]);
    // The API may have looked at the marks just before, which is good for a second.
    eventually(async || {
        let asked = api.post("/v1/files/missing", &json!({ "sha256": [loose] })).await?;
        Ok(asked.json::<serde_json::Value>().await?["missing"] == json!([loose]))
    })
    .await?;
    let refused = api.post("/v1/jobs", &super::naming(&[loose])).await?;
    let detail = problem(refused, StatusCode::UNPROCESSABLE_ENTITY).await?;
    ensure!(detail.contains(&loose.to_string()), "{detail}");
    let busy = problem(api.post("/v1/storage/gc", &json!({})).await?, StatusCode::CONFLICT).await?;
    ensure!(busy.contains("another storage pass"), "{busy}");
    // Who puts it waits until it is gone.
    let putting = put(&api, "loose");
    let removing = async {
        api.files().await?.remove(&loose, None).await?;
        marks.amend(Shard::of(&loose), |marks| marks.deleted(lease.pass, &taken)).await?;
        Ok::<_, anyhow::Error>(())
    };
    let ((_, status), ()) = tokio::try_join!(putting, removing)?;
    assert_eq!(status, StatusCode::CREATED);
    ensure!(lease.end(&json!({})).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_is_refused_with_what_it_may_hold() -> Result<()> {
    let api = served(None).await?;
    let detail = problem(api.post("/v1/storage/gc", &json!({ "grace": 1 })).await?, StatusCode::BAD_REQUEST).await?;
    ensure!(detail.contains("grace"), "{detail}");
    let nobody = api.http.request(Method::GET, api.url("/v1/storage")).send().await?;
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    Ok(())
}
