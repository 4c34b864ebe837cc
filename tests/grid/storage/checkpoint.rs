//! A pass goes on from where the one before it ended, and nothing that stands there costs anybody a file.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bus::ids::Digest;
use grid_tests::writer::Worker;
use object_store::{ObjectStoreExt as _, PutPayload};
use reqwest::StatusCode;
use serde_json::{Value, json};
use store::Files;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ended, exist, gc, gone, job_of, naming, number, put, served};
use crate::api::served::{Served, eventually};

const NAME: &str = "collector/checkpoint";

async fn checkpoint(api: &Served) -> Result<Vec<u8>> {
    let files = api.files().await?;
    Ok(files.object(NAME).await?.context("no checkpoint is kept")?.to_vec())
}

async fn overwrite(api: &Served, bytes: Vec<u8>) -> Result<()> {
    let files = api.files().await?;
    files.object_store().put(&NAME.into(), PutPayload::from(bytes)).await?;
    Ok(())
}

/// A pass that would remove whatever is unused, if it were marked for long enough.
async fn pass(api: &Served) -> Result<Value> {
    let report = gc(api, &json!({ "grace_ms": 0, "keep_inputs_ms": 0 })).await?;
    ensure!(report["stopped"].is_null(), "{report}");
    Ok(report)
}

/// Of how many events a pass knew, how many it read, and how many contents it found unused.
fn came_to(report: &Value) -> Result<(u64, u64, u64)> {
    let number = |path| number(report, path);
    Ok((number("/events")?, number("/read")?, number("/unused/files")?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_reads_what_came_after_the_one_before_it() -> Result<()> {
    let api = served(None).await?;
    let worker = api.worker("w").await?;
    let (needed, _) = put(&api, "needed").await?;
    let job = job_of(&api, &[needed]).await?;
    assert_eq!(came_to(&pass(&api).await?)?, (2, 2, 0));
    assert_eq!(came_to(&pass(&api).await?)?, (2, 0, 0));
    // A job that begins before one checkpoint, goes on before another, and ends after both.
    worker.claim(job).await?;
    let (loose, _) = put(&api, "loose").await?;
    let report = pass(&api).await?;
    assert_eq!(came_to(&report)?, (3, 1, 1));
    assert_eq!(report["held_by"]["job"], json!(job));
    let report = pass(&api).await?;
    assert_eq!((came_to(&report)?, &report["held_by"]["job"]), ((3, 0, 1), &json!(job)));
    end(&api, &worker, job).await?;
    let kept = gc(&api, &json!({ "grace_ms": 0 })).await?;
    assert_eq!(came_to(&kept)?, (4, 1, 1), "inputs of jobs that ended are kept");
    gone(&api, &[loose, needed]).await?;
    assert_eq!(came_to(&pass(&api).await?)?, (4, 0, 0));
    Ok(())
}

async fn end(api: &Served, worker: &Worker, job: bus::ids::JobId) -> Result<()> {
    let list = api
        .files()
        .await?
        .put_bytes(bus::output::manifest::Manifest::default().to_json().into())
        .await?;
    super::finish(api, worker, job, bus::output::manifest::Manifest::default().reference(list)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_nats_a_pass_goes_on_from_a_checkpoint_too() -> Result<()> {
    let api = served(Some("nats://".to_owned())).await?;
    job_of(&api, &[put(&api, "needed").await?.0]).await?;
    assert_eq!(came_to(&pass(&api).await?)?, (1, 1, 0));
    assert_eq!(came_to(&pass(&api).await?)?, (1, 0, 0));
    Ok(())
}

/// What somebody else wrote, in whole or in part, and what is of another grid, is as good as none.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_this_grid_did_not_sign_is_not_used() -> Result<()> {
    let (api, other) = (served(None).await?, served(None).await?);
    job_of(&api, &[put(&api, "needed").await?.0]).await?;
    job_of(&api, &[]).await?;
    // They have the same key, so that the signature is right; the log is another one, in which nobody needs anything.
    job_of(&other, &[]).await?;
    pass(&other).await?;
    let theirs = checkpoint(&other).await?;
    let whole = (2, 2, 0);
    assert_eq!(came_to(&pass(&api).await?)?, whole);
    let mine = checkpoint(&api).await?;
    let lines = |bytes: &[u8]| bytes.splitn(3, |byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (head, fold) = (lines(&mine), lines(&theirs)[2].clone());
    let forged = [&head[0][..], b"\n", &head[1], b"\n", &fold].concat();
    for (what, bytes) in [
        ("another grid's", theirs),
        ("another fold", forged),
        ("garbage", b"garbage".to_vec()),
        ("half of it", mine[..mine.len() / 2].to_vec()),
        ("nothing", Vec::new()),
    ] {
        overwrite(&api, bytes).await?;
        assert_eq!(came_to(&pass(&api).await?)?, whole, "{what}");
        // It is replaced by one that holds.
        assert_eq!(came_to(&pass(&api).await?)?, (2, 0, 0), "{what}");
    }
    overwrite(&api, mine).await?;
    assert_eq!(came_to(&pass(&api).await?)?, (2, 0, 0), "an older one of its own");
    Ok(())
}

/// The log is put back as it was before the checkpoint, and goes on otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_newer_than_a_restored_log_is_not_used() -> Result<()> {
    let mut api = served(None).await?;
    let (needed, _) = put(&api, "needed").await?;
    let job = job_of(&api, &[needed]).await?;
    assert_eq!(came_to(&pass(&api).await?)?, (1, 1, 0));
    let (store, backup) = (api.nats.dir().join("store"), api.nats.dir().join("backup"));
    api.nats.kill()?;
    copy(&store, &backup)?;
    api.nats.restart().await?;
    answers(&api).await?;
    // What the backup does not know: nobody needs the content any more.
    api.post(&format!("/v1/jobs/{job}/cancel"), &json!({})).await?.error_for_status()?;
    assert_eq!(came_to(&pass(&api).await?)?, (2, 1, 1));
    let newer = checkpoint(&api).await?;
    api.nats.kill()?;
    std::fs::remove_dir_all(&store)?;
    std::fs::rename(&backup, &store)?;
    api.nats.restart().await?;
    answers(&api).await?;
    // The log is shorter than what the checkpoint is of, just as long, and longer.
    for events in 1..=3 {
        overwrite(&api, newer.clone()).await?;
        assert_eq!(came_to(&pass(&api).await?)?, (events, events, 0), "the job waits again");
        job_of(&api, &[]).await?;
    }
    ensure!(exist(&api.files().await?, &[needed]).await? == 1);
    Ok(())
}

async fn answers(api: &Served) -> Result<()> {
    eventually(async || Ok(api.get("/v1/storage").await?.status() == StatusCode::OK)).await
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// As a crash between the two: the pass stops once it has read the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_ends_between_its_checkpoint_and_its_removals_costs_nothing() -> Result<()> {
    let api = served(None).await?;
    let worker = api.worker("w").await?;
    let (needed, output, loose) = (
        put(&api, "needed").await?.0,
        put(&api, "output").await?.0,
        put(&api, "loose").await?.0,
    );
    job_of(&api, &[needed]).await?;
    let (_, list) = ended(&api, &worker, &naming(&[]), &[output], &[]).await?;
    let files = api.files().await?;
    let text = files.get_bytes(&list, 1 << 20).await?;
    files.object_store().delete(&Files::key(&list)).await?;
    let report = gc(&api, &json!({ "grace_ms": 0, "keep_inputs_ms": 0 })).await?;
    ensure!(report["stopped"].is_string() && checkpoint(&api).await?.len() > 100, "{report}");
    let again = gc(&api, &json!({ "grace_ms": 0, "keep_inputs_ms": 0 })).await?;
    ensure!(again["stopped"].is_string(), "{again}");
    files.put_bytes(text).await?;
    assert_eq!(came_to(&pass(&api).await?)?, (5, 0, 1));
    gone(&api, &[loose]).await?;
    ensure!(exist(&files, &[needed, output, list]).await? == 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_checkpoint_has_forgotten_is_looked_for_in_the_log() -> Result<()> {
    let api = served(None).await?;
    job_of(&api, &[]).await?;
    let days = |days: u64| json!({ "keep_inputs_ms": days * 24 * 3_600_000 });
    for (asked, read) in [(30, 1), (0, 0), (30, 0), (60, 1), (30, 0)] {
        let report = gc(&api, &days(asked)).await?;
        assert_eq!(came_to(&report)?, (1, read, 0), "{asked} days");
    }
    Ok(())
}

/// Two APIs collect at once and in turn, each from what the other left.
#[tokio::test(flavor = "multi_thread")]
async fn two_collectors_go_on_from_each_other() -> Result<()> {
    let api = served(None).await?;
    let second = api::bind(api.config.clone()).await?;
    let url = format!("http://{}/v1/storage/gc", second.address());
    let stop = CancellationToken::new();
    let _stops = stop.clone().drop_guard();
    TaskTracker::new().spawn(second.serve(stop));
    let asked = json!({ "grace_ms": 0, "keep_inputs_ms": 0 });
    let other = async || {
        let request = api.request(reqwest::Method::POST, "/v1/storage/gc").build()?;
        let authorization = request.headers()["authorization"].clone();
        let sent = api.http.post(&url).header("authorization", authorization).json(&asked).send();
        Ok::<_, anyhow::Error>(sent.await?)
    };
    let (mut needed, mut loose) = (Vec::<Digest>::new(), Vec::<Digest>::new());
    for round in 0..8 {
        needed.push(put(&api, &format!("needed {round}")).await?.0);
        loose.push(put(&api, &format!("loose {round}")).await?.0);
        job_of(&api, &needed[round..]).await?;
        let (first, second) = tokio::try_join!(api.post("/v1/storage/gc", &asked), other())?;
        let made = [first.status(), second.status()];
        ensure!(made.contains(&StatusCode::OK), "{made:?}");
    }
    let report: Value = other().await?.error_for_status()?.json().await?;
    assert_eq!((number(&report, "/events")?, number(&report, "/read")?), (8, 0), "{report}");
    gone(&api, &loose).await?;
    ensure!(exist(&api.files().await?, &needed).await? == needed.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_answered_from_what_was_found_last() -> Result<()> {
    let api = served(None).await?;
    job_of(&api, &[put(&api, "one").await?.0]).await?;
    let first = api.read("/v1/storage").await?;
    assert_eq!((&first["all"]["files"], &first["events_since"]), (&json!(1), &json!(0)));
    job_of(&api, &[put(&api, "two").await?.0]).await?;
    // Nothing of the store is looked at: it is away.
    let (store, away) = (api.dir().join("store"), api.dir().join("away"));
    std::fs::rename(&store, &away)?;
    let known = api.read("/v1/storage").await?;
    std::fs::rename(&away, &store)?;
    assert_eq!(
        (&known["looked_at"], &known["all"], &known["events_since"]),
        (&first["looked_at"], &first["all"], &json!(1))
    );
    let now = api.read("/v1/storage?now=true").await?;
    assert_eq!((&now["all"]["files"], &now["events_since"]), (&json!(2), &json!(0)));
    ensure!(now["looked_at"] != first["looked_at"]);
    // A pass looks too; what it says is of after what it removed.
    let (loose, _) = put(&api, "loose").await?;
    let waits = |known: &Value| known["going"]["waiting"]["files"].clone();
    assert_eq!(waits(&now), 0);
    gc(&api, &json!({})).await?;
    let known = api.read("/v1/storage").await?;
    assert_eq!(
        (&known["all"]["files"], waits(&known), &known["going"]["found_next"]["files"]),
        (&json!(3), json!(1), &json!(0))
    );
    eventually(async || {
        gc(&api, &json!({ "grace_ms": 0 })).await?;
        Ok(exist(&api.files().await?, &[loose]).await? == 0)
    })
    .await?;
    let known = api.read("/v1/storage").await?;
    assert_eq!(
        (&known["all"]["files"], &known["uses"]["unused"]["files"], waits(&known)),
        (&json!(2), &json!(0), json!(0))
    );
    // What a pass found that went by other times than the usual ones is not what is kept.
    gc(&api, &json!({ "keep_inputs_ms": 0 })).await?;
    assert_eq!(api.read("/v1/storage").await?["looked_at"], known["looked_at"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_outputs_is_read_once() -> Result<()> {
    const LISTS: &str = "collector/lists";
    let api = served(None).await?;
    let worker = api.worker("w").await?;
    let mut contents = Vec::new();
    for text in ["output", "log", "expired", "its log", "later"] {
        contents.push(put(&api, text).await?.0);
    }
    let (job, list) = ended(&api, &worker, &naming(&[]), &contents[..1], &contents[1..2]).await?;
    let mut short = naming(&[]);
    short["keep_outputs_ms"] = json!(1);
    ended(&api, &worker, &short, &contents[2..3], &contents[3..4]).await?;
    let unused = async |asked: Value| {
        let report = gc(&api, &asked).await?;
        ensure!(report["stopped"].is_null(), "{report}");
        number(&report, "/unused/files")
    };
    let usual = json!({ "keep_inputs_ms": 0 });
    assert_eq!(unused(usual.clone()).await?, 2, "what has expired, and what no list names yet");
    let files = api.files().await?;
    // What it names is known without it.
    let text = files.get_bytes(&list, 1 << 20).await?;
    files.object_store().delete(&Files::key(&list)).await?;
    assert_eq!(unused(usual.clone()).await?, 2);
    ended(&api, &worker, &naming(&[]), &contents[4..], &[]).await?;
    assert_eq!(unused(usual.clone()).await?, 1, "a new list beside those that are known");
    assert_eq!(unused(usual.clone()).await?, 1);
    gone(&api, &contents[2..3]).await?;
    let stay = [contents[0], contents[1], contents[3], contents[4]];
    ensure!(exist(&files, &stay).await? == stay.len());
    // Who gives up what lost lists named is told which are lost, and it is given up.
    let report = gc(&api, &json!({ "dry_run": true, "despite_lost": true })).await?;
    assert_eq!(
        (&report["lost"], &report["unused"]["files"]),
        (&json!([job]), &json!(2)),
        "{report}"
    );
    // What was not signed is as good as none: the list itself is looked for.
    let known = files.object(LISTS).await?.context("nothing is known of lists")?;
    let theirs = [&known[..known.len() - 1], b"x"].concat();
    files.object_store().put(&LISTS.into(), PutPayload::from(theirs)).await?;
    let report = gc(&api, &usual).await?;
    ensure!(
        report["stopped"].as_str().is_some_and(|why| why.contains(&list.to_string())),
        "{report}"
    );
    files.put_bytes(text).await?;
    assert_eq!(unused(usual).await?, 0);
    ensure!(exist(&files, &stay).await? == stay.len());
    Ok(())
}
