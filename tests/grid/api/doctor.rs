//! What is wrong, in plain words: each finding from the real condition.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bus::{
    envelope::{Actor, Envelope},
    ids::{Attempt, default_token},
    job::{Command, LossCause},
    log::{EVENTS, INBOX, REFUSED, append::Append, setup},
    subjects,
    worker::{Beat, Lost, WorkerEvent},
};
use chrono::{TimeDelta, Utc};
use grid_tests::{
    nats::NatsServer,
    postgres::Cluster,
    writer::{Worker, Writer},
};
use serde_json::{Value, json};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::served::{LONG, Served};

/// What is found about a topic, whose words hold these; waits for it.
async fn found(api: &Served, topic: &str, severity: &str, words: &str) -> Result<Value> {
    let mut last = Value::Null;
    let look = async {
        loop {
            let diagnosis = api.read("/v1/doctor").await?;
            let findings = diagnosis["findings"].as_array().context("no findings")?;
            let is = |finding: &&Value| finding["topic"] == topic && finding["what"].as_str().is_some_and(|what| what.contains(words));
            if let Some(finding) = findings.iter().find(is) {
                assert_eq!(finding["severity"], severity, "{finding}");
                assert!(finding["do"].as_str().is_some_and(|advice| !advice.is_empty()), "{finding}");
                return anyhow::Ok(finding.clone());
            }
            last = diagnosis;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let found = tokio::time::timeout(LONG, look).await;
    found.with_context(|| format!("nothing about {topic} with `{words}`: {last:#}"))?
}

/// Waits until there is no finding but notices.
async fn well(api: &Served) -> Result<Value> {
    let mut last = Value::Null;
    let look = async {
        loop {
            let diagnosis = api.read("/v1/doctor").await?;
            let findings = diagnosis["findings"].as_array().context("no findings")?;
            if findings.iter().all(|finding| finding["severity"] == "notice") {
                return anyhow::Ok(diagnosis);
            }
            last = diagnosis;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let well = tokio::time::timeout(LONG, look).await;
    well.with_context(|| format!("it is not well: {last:#}"))?
}

fn watcher(api: &Served) -> DropGuard {
    let stop = CancellationToken::new();
    let config = watcher::Config {
        lapse: Duration::from_secs(3_600),
        ..watcher::Config::new(api.config.nats.clone())
    };
    TaskTracker::new().spawn(watcher::run(config, stop.clone()));
    stop.drop_guard()
}

/// A worker that beats each second, until its guard is dropped.
async fn beating(api: &Served, name: &str) -> Result<(Worker, DropGuard)> {
    let worker = api.worker(name).await?;
    let stop = CancellationToken::new();
    let (beats, stopped) = (worker.clone(), stop.clone());
    TaskTracker::new().spawn(async move {
        while !stopped.is_cancelled() {
            let _away_for_a_moment = beats.beat(0, &[]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    Ok((worker, stop.drop_guard()))
}

#[tokio::test]
async fn a_grid_that_is_well_is_said_to_be_and_who_is_missing_is_missed() -> Result<()> {
    let (api, _projector) = Served::start_with_projector().await?;
    found(&api, "watcher", "error", "no watcher runs").await?;
    found(&api, "workers", "error", "no worker is live").await?;
    let watching = watcher(&api);
    let (worker, _beats) = beating(&api, "w").await?;
    let diagnosis = well(&api).await?;
    let summary = &diagnosis["summary"];
    assert_eq!(
        (&summary["workers"], &summary["running"], &summary["waiting"]),
        (&json!(1), &json!(0), &json!(0))
    );
    assert!(
        summary["nats"].as_str().is_some_and(|version| version.starts_with("2.")),
        "{summary}"
    );
    assert!(
        summary["durability"].as_str().is_some_and(|words| words.contains("power cut")),
        "{summary}"
    );
    found(&api, "watcher", "notice", "within 1 s").await?;
    api.post("/v1/workers/w/cordon", &json!({ "reason": "a new disk" })).await?;
    let cordoned = found(&api, "workers", "notice", "w is cordoned and takes no new work: a new disk").await?;
    assert!(
        cordoned["since"].is_string() && cordoned["do"] == "`rgrid uncordon w` lets it take work again",
        "{cordoned}"
    );
    drop(watching);
    assert!(found(&api, "watcher", "error", "no watcher runs").await?["since"].is_string());
    let lost = WorkerEvent::Lost(Lost {
        session: worker.session,
        last_beat: None,
    });
    let envelope = Envelope::new(Actor::Watcher, lost);
    api.writer.log.append(Append::worker(&worker.id, None, &envelope)).await?;
    let lost = found(&api, "workers", "warning", "worker w (test) was lost").await?;
    assert!(lost["since"].is_string());
    Ok(())
}

#[tokio::test]
async fn work_that_nobody_takes_and_clocks_that_go_wrong_are_seen() -> Result<()> {
    let (api, _projector) = Served::start_with_projector().await?;
    let _watching = watcher(&api);
    let (_worker, _beats) = beating(&api, "w").await?;
    well(&api).await?;
    api.submit(&json!({ "command": ["x"], "queue": "gpu" })).await?;
    let unserved = found(&api, "queues", "warning", "1 job waits in queue gpu").await?;
    assert!(
        unserved["since"].is_string()
            && unserved["do"]
                .as_str()
                .is_some_and(|advice| advice.contains("rgrid runner --queue gpu"))
    );
    // This worker is no runner: it has room, and asks for nothing.
    setup::work_consumers(&api.writer.bus.js, &default_token()).await?;
    api.submit_any().await?;
    found(
        &api,
        "queues",
        "error",
        "1 job waits in queue default, although the queue is served by workers that are idle and do not pull: w",
    )
    .await?;
    let late = api.worker("late").await?;
    let beat = Beat {
        session: late.session,
        time: Utc::now() - TimeDelta::seconds(70),
        last_claim: 0,
        cpu_milli_free: 0,
        memory_bytes_free: 0,
        load: 0.0,
        attempts: Vec::new(),
        next_ms: None,
        leftovers: Vec::new(),
    };
    let beat = serde_json::to_vec(&beat)?;
    api.writer.bus.js.publish(subjects::beat(&late.id), beat.into()).await?.await?;
    found(&api, "clocks", "warning", "late 70.0 s behind").await?;
    Ok(())
}

#[tokio::test]
async fn jobs_that_went_wrong_are_counted_with_their_causes() -> Result<()> {
    let (api, _projector) = Served::start_with_projector().await?;
    let worker = api.worker("w").await?;
    let lose = async |job, attempt, orderly| {
        worker.claim(job).await?;
        let cause = LossCause::SessionEnded {
            worker: worker.id.clone(),
            orderly,
        };
        let attempt = Attempt(attempt);
        api.writer.say(job, &Actor::Watcher, Command::GiveUp { attempt, cause }).await
    };
    let dead = api.submit(&json!({ "command": ["x"], "max_losses": 1 })).await?;
    lose(dead, 1, false).await?;
    let dying = api.submit(&json!({ "command": ["x"], "name": "heavy" })).await?;
    let drained = api.submit(&json!({ "command": ["x"], "name": "innocent" })).await?;
    for attempt in [1, 2] {
        lose(dying, attempt, false).await?;
        lose(drained, attempt, true).await?;
    }
    let found_dead = found(
        &api,
        "jobs",
        "warning",
        "1 job is dead, with all attempts lost: worker w was restarted (1)",
    )
    .await?;
    assert!(found_dead["do"].as_str().is_some_and(|advice| advice.contains("rgrid requeue")) && found_dead["since"].is_string());
    found(&api, "jobs", "warning", "(heavy) has lost 2 attempts").await?;
    let diagnosis = api.read("/v1/doctor").await?;
    assert!(!diagnosis.to_string().contains("innocent"), "{diagnosis}");
    api.writer
        .bus
        .js
        .publish("rgrid.submit.default.default", "garbage".into())
        .await?
        .await?;
    api.writer
        .bus
        .js
        .publish("rgrid.submit.default.default", "{}".into())
        .await?
        .await?;
    let refused = found(&api, "refused", "warning", "2 submissions were refused in the last 24 hours").await?;
    assert!(
        refused["what"]
            .as_str()
            .is_some_and(|what| what.contains("missing field `command`")),
        "{refused}"
    );
    Ok(())
}

#[tokio::test]
async fn tables_that_are_away_or_stand_still_are_told_of() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let postgres = cluster.database().await?;
    let api = Served::start_with_tables(&postgres).await?;
    found(&api, "postgres", "error", "check that the projector runs").await?;
    let projector = api.projector(postgres.url());
    let job = api.submit_any().await?;
    super::served::eventually(async || Ok(api.get("/v1/jobs?min_sequence=1").await?.status() == 200)).await?;
    drop(projector);
    // It may be writing for a moment longer; what comes then, nobody folds.
    let standing = async {
        loop {
            api.submit_any().await?;
            let diagnosis = api.read("/v1/doctor").await?;
            let findings = diagnosis["findings"].as_array().context("no findings")?;
            if let Some(finding) = findings.iter().find(|finding| finding["topic"] == "projector") {
                return anyhow::Ok(finding.clone());
            }
        }
    };
    let standing = tokio::time::timeout(LONG, standing).await??;
    assert!(standing["severity"] == "error" && standing["since"].is_string(), "{standing}");
    assert!(
        standing["what"].as_str().is_some_and(|what| what.contains("makes no progress")),
        "{standing}"
    );
    cluster.kill()?;
    found(&api, "postgres", "error", "Postgres does not answer").await?;
    assert_eq!(api.read(&format!("/v1/jobs/{job}")).await?["state"], "queued");
    let without = Served::start().await?;
    found(&without, "postgres", "notice", "without Postgres").await?;
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_away_or_hangs_and_streams_that_are_not_right_are_told_of() -> Result<()> {
    let nats = NatsServer::start().await?;
    let writer = Writer::connect(nats.url()).await?;
    let js = writer.bus.js.clone();
    let mut api = Served::start_on(nats, |_| {}).await?;
    // It has begun, and what it found was well.
    api.submit_any().await?;
    let mut config = js.get_stream(INBOX).await?.cached_info().config.clone();
    config.discard = async_nats::jetstream::stream::DiscardPolicy::Old;
    js.update_stream(config).await?;
    found(&api, "streams", "error", "RGRID_INBOX has the wrong configuration: `discard`").await?;
    js.delete_stream(REFUSED).await?;
    found(&api, "streams", "error", "RGRID_REFUSED does not exist").await?;
    let filler = json!({ "command": ["x", "y".repeat(500_000)] });
    for _ in 0..8 {
        api.submit(&filler).await?;
    }
    let info = js.get_stream(EVENTS).await?.cached_info().clone();
    for (percent, severity) in [(85, "warning"), (95, "error")] {
        let mut config = info.config.clone();
        config.max_bytes = i64::try_from(info.state.bytes * 100 / percent)?;
        js.update_stream(config).await?;
        found(&api, "streams", severity, &format!("RGRID_EVENTS is {} % full", percent)).await?;
    }
    api.nats.freeze()?;
    // That it does not answer; or, where the machine is so slow that the connection has been given up by then, that there is none.
    found(&api, "nats", "error", "NATS").await?;
    api.nats.thaw()?;
    api.nats.kill()?;
    found(&api, "nats", "error", "no connection to NATS").await?;
    Ok(())
}

#[tokio::test]
async fn a_store_that_is_away_holds_submissions_up_and_both_are_told_of() -> Result<()> {
    let api = Served::start().await?;
    api.submit_any().await?;
    let store = api.dir().join("store");
    std::fs::rename(&store, api.dir().join("away"))?;
    std::fs::write(&store, "a file in the way")?;
    found(&api, "store", "error", "cannot reach the file store").await?;
    let job = json!({ "command": ["a.py"], "key": "k", "files": [{ "path": "a.py", "content": "print(1)" }] });
    let detail = super::served::problem(api.post("/v1/jobs", &job).await?, reqwest::StatusCode::SERVICE_UNAVAILABLE).await?;
    assert!(detail.contains("cannot store") && detail.contains("try again"), "{detail}");
    api.writer
        .bus
        .js
        .publish("rgrid.submit.default.default", job.to_string().into())
        .await?
        .await?;
    let waiting = found(&api, "inbox", "warning", "1 submission waits in the inbox").await?;
    assert!(waiting["since"].is_string());
    // Nothing is lost: when it is back, what waited is taken.
    std::fs::remove_file(&store)?;
    std::fs::rename(api.dir().join("away"), &store)?;
    let id = bus::ids::JobId::of_key(&default_token(), "k");
    super::served::eventually(async || Ok(api.get(&format!("/v1/jobs/{id}")).await?.status() == 200)).await?;
    Ok(())
}
