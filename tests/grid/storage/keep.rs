//! What never goes: outputs that have not expired, logs, lists, what an index or a strange event names; and nothing at all where
//! it cannot be known.

use anyhow::{Result, ensure};
use bus::ids::Digest;
use chrono::{TimeDelta, Utc};
use object_store::ObjectStoreExt as _;
use reqwest::StatusCode;
use serde_json::json;
use store::PackagesEntry;

use super::{ended, exist, finish, gc, gone, naming, number, put, served};
use crate::api::served::{body, eventually, problem};

#[tokio::test(flavor = "multi_thread")]
async fn outputs_and_logs_stay_and_expired_outputs_go_with_a_word_that_says_so() -> Result<()> {
    let api = served(None).await?;
    let worker = api.worker("w").await?;
    let mut contents = Vec::new();
    for text in ["kept output", "kept log", "short output", "short log", "loose"] {
        contents.push(put(&api, text).await?.0);
    }
    let (kept, first) = ended(&api, &worker, &naming(&[]), &contents[0..1], &contents[1..2]).await?;
    let mut spec = naming(&[]);
    spec["keep_outputs_ms"] = json!(1);
    let (short, second) = ended(&api, &worker, &spec, &contents[2..3], &contents[3..4]).await?;
    gone(&api, &[contents[2], contents[4]]).await?;
    let stay = [contents[0], contents[1], contents[3], first, second];
    ensure!(exist(&api.files().await?, &stay).await? == stay.len());

    let storage = api.read("/v1/storage").await?;
    assert_eq!(storage["uses"]["outputs"]["files"], 1);
    assert_eq!(storage["uses"]["logs"]["files"], 4, "{storage}");
    assert_eq!(storage["jobs"][0]["job"], json!(kept), "{storage}");
    assert_eq!(api.get(&format!("/v1/jobs/{kept}/artifacts/o0")).await?.status(), StatusCode::OK);
    let detail = problem(api.get(&format!("/v1/jobs/{short}/artifacts/o0")).await?, StatusCode::GONE).await?;
    ensure!(detail.contains("expired at 2") && detail.contains("rgrid rerun"), "{detail}");
    let listed = api.read(&format!("/v1/jobs/{short}/artifacts")).await?;
    assert_eq!(
        (&listed["expired"], listed["artifacts"].as_array().map(Vec::len)),
        (&json!(true), Some(1))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_list_nothing_goes_and_the_pass_says_which() -> Result<()> {
    let api = served(None).await?;
    let worker = api.worker("w").await?;
    let (loose, _) = put(&api, "loose").await?;
    gc(&api, &json!({ "grace_ms": 0 })).await?;
    let (job, manifest) = ended(&api, &worker, &naming(&[]), &[], &[]).await?;
    api.files().await?.remove(&manifest, None).await?;
    // Long enough for the mark to be due, if anything could be removed.
    eventually(async || {
        let dry = api.post("/v1/storage/gc", &json!({ "dry_run": true, "grace_ms": 0 })).await?;
        let detail = problem(dry, StatusCode::INTERNAL_SERVER_ERROR).await?;
        ensure!(
            detail.contains(&job.to_string()) && detail.contains(&manifest.to_string()),
            "{detail}"
        );
        let report = gc(&api, &json!({ "grace_ms": 0 })).await?;
        let stopped = report["stopped"].as_str().unwrap_or_default();
        ensure!(
            stopped.contains(&job.to_string()) && number(&report, "/removed/files")? == 0,
            "{report}"
        );
        let marked = store::marks::Marks::open(&api.writer.bus.js).await?;
        let (marks, _) = marked.read(store::marks::Shard::of(&loose)).await?;
        let due = chrono::Utc::now() - chrono::TimeDelta::seconds(4);
        Ok(marks.unused().all(|(_, since)| since < due))
    })
    .await?;
    let storage = problem(api.get("/v1/storage?now=true").await?, StatusCode::INTERNAL_SERVER_ERROR).await?;
    ensure!(storage.contains(&manifest.to_string()), "{storage}");
    ensure!(api.files().await?.has(&loose).await?);
    // Put back, it lets the pass go on.
    api.files()
        .await?
        .put_bytes(bus::output::manifest::Manifest::default().to_json().into())
        .await?;
    gone(&api, &[loose]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_attempt_runs_what_it_may_have_stored_stays() -> Result<()> {
    let api = served(None).await?;
    let worker = api.worker("w").await?;
    let (early, _) = put(&api, "unused before").await?;
    gc(&api, &json!({ "grace_ms": 0 })).await?;
    // The margin, so that what is marked by now is due by the time of the claim.
    tokio::time::sleep(store::marks::MARGIN).await;
    let job = api.submit_any().await?;
    worker.claim(job).await?;
    // As a runner stores a piece of the log, long before anything names it.
    let (segment, _) = put(&api, "a piece of the log").await?;
    gone(&api, &[early]).await?;
    let marked = chrono::Utc::now();
    loop {
        let report = gc(&api, &json!({ "grace_ms": 0 })).await?;
        assert_eq!(report["held_by"]["job"], json!(job));
        ensure!(number(&report, "/removed/files")? == 0, "{report}");
        if chrono::Utc::now() - marked > chrono::TimeDelta::seconds(5) {
            break;
        }
    }
    let mut manifest = bus::output::manifest::Manifest::default();
    manifest.log.push(bus::output::manifest::LogSegment { sha256: segment, size: 1 });
    let files = api.files().await?;
    let digest = files.put_bytes(manifest.to_json().into()).await?;
    finish(&api, &worker, job, manifest.reference(digest)).await?;
    let (loose, _) = put(&api, "loose").await?;
    gone(&api, &[loose]).await?;
    ensure!(exist(&files, &[segment, digest]).await? == 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_index_or_a_strange_event_names_stays() -> Result<()> {
    let api = served(None).await?;
    let (cached, _) = put(&api, "an environment").await?;
    let (image, _) = put(&api, "an image").await?;
    let (listed, _) = put(&api, "named by a list of a later version").await?;
    let (later, _) = put(&api, &format!("{{\"files\":[{{\"sha256\":\"{listed}\"}}]}}")).await?;
    let (loose, _) = put(&api, "loose").await?;
    let files = api.files().await?;
    let index = object_store::path::Path::from("envs/key");
    files
        .object_store()
        .put(&index, format!("{{\"archive\":\"{cached}\"}}").into())
        .await?;
    let js = &api.writer.bus.js;
    let named = |digest: Digest| format!("{{\"type\":\"x.v9\",\"sha256\":\"{digest}\"}}");
    js.publish("rgrid.evt.sys.thing.science", named(image).into()).await?.await?;
    let job = bus::ids::JobId::new();
    js.publish(format!("rgrid.evt.default.job.{job}.by.api"), named(later).into())
        .await?
        .await?;
    gone(&api, &[loose]).await?;
    ensure!(exist(&files, &[cached, image, later, listed]).await? == 4);
    assert_eq!(api.read("/v1/storage").await?["uses"]["caches"]["files"], 4);

    files.object_store().delete(&index).await?;
    js.publish("rgrid.evt.sys.thing.science", "{}".into()).await?.await?;
    gone(&api, &[cached, image]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_inputs_went_is_not_revived_without_them() -> Result<()> {
    let api = served(None).await?;
    let (input, _) = put(&api, "input").await?;
    let mut spec = naming(&[input]);
    spec["queue_timeout_ms"] = json!(1);
    let job = api.submit(&spec).await?;
    let expired = bus::job::Command::Expire {
        clock: bus::spec::policy::Clock::Queue,
    };
    api.writer.say(job, &bus::envelope::Actor::Watcher, expired).await?;
    gone(&api, &[input]).await?;
    for again in ["requeue", "rerun"] {
        let answer = api.post(&format!("/v1/jobs/{job}/{again}"), &json!({})).await?;
        let document = body(answer, StatusCode::UNPROCESSABLE_ENTITY).await?;
        assert_eq!(document["missing"], json!([input]), "{again}");
    }
    put(&api, "input").await?;
    let answer = api.post(&format!("/v1/jobs/{job}/requeue"), &json!({})).await?;
    body(answer, StatusCode::ACCEPTED).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_that_nobody_uses_are_forgotten_and_then_their_archives_go() -> Result<()> {
    let api = served(None).await?;
    let files = api.files().await?;
    let now = Utc::now();
    let mut archives = Vec::new();
    for (name, days) in [("old", 100), ("new", 80)] {
        let (archive, _) = put(&api, name).await?;
        let used_at = now - TimeDelta::days(days);
        let entry = PackagesEntry {
            archive,
            size: 3,
            unpacked: 3,
            made_at: used_at,
            used_at,
        };
        files.put_packages(&Digest::of(name.as_bytes()), &entry).await?;
        archives.push(archive);
    }
    let there = async |name: &str| anyhow::Ok(files.packages(&Digest::of(name.as_bytes())).await?.is_some());
    let looked = gc(&api, &json!({ "dry_run": true })).await?;
    ensure!(looked["packages"] == 1 && there("old").await?, "{looked}");
    let passed = gc(&api, &json!({})).await?;
    ensure!(passed["packages"] == 1 && passed["found"]["files"] == 1, "{passed}");
    ensure!(
        !there("old").await? && there("new").await?,
        "the one is forgotten, and the other is not"
    );
    gone(&api, &archives[..1]).await?;
    ensure!(files.has(&archives[1]).await?, "its entry names it");
    let passed = gc(&api, &json!({ "keep_packages_ms": 1000 })).await?;
    ensure!(passed["packages"] == 1 && !there("new").await?, "{passed}");
    Ok(())
}
