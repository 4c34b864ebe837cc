//! The tables are the fold of the log: at every moment, whatever is killed, and again when they are made anew.

mod batches;
mod beside;
mod random;
mod rebuild;
mod upgrade;
mod world;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bus::{
    envelope::Actor,
    ids::{Attempt, Digest, JobId},
    job::{Command, LossCause, Outcome, Usage},
    output::manifest::{LogSegment, Manifest, OutputFile},
    spec::ExecutorKind,
    subjects,
};
use grid_tests::{
    postgres::Cluster,
    writer::{Worker, Writer, namespace},
};
use rand::Rng as _;
use store::Files;
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

use self::{
    random::Babbler,
    world::{PATIENCE, World, eventually},
};

/// Runs a job to its end on a worker, its manifest stored.
async fn finish(writer: &Writer, worker: &Worker, files: &Files, manifest: &Manifest) -> Result<JobId> {
    let sha256 = files.put_bytes(manifest.to_json().into()).await?;
    end(writer, worker, Some(manifest.reference(sha256))).await
}

async fn end(writer: &Writer, worker: &Worker, manifest: Option<bus::job::ManifestRef>) -> Result<JobId> {
    let job = writer.submit().await?;
    worker.claim(job).await?;
    let (attempt, session) = (Attempt::FIRST, worker.session);
    let start = Command::Start {
        attempt,
        session,
        executor: ExecutorKind::Process,
        environment: None,
    };
    writer.say(job, &worker.actor(), start).await?;
    let finish = Command::Finish {
        attempt,
        session,
        outcome: Outcome::Failed { exit_code: 3 },
        manifest,
        usage: Usage::default(),
    };
    writer.say(job, &worker.actor(), finish).await?;
    Ok(job)
}

fn manifest() -> Result<Manifest> {
    let file = |path: &str, executable| {
        Ok::<_, anyhow::Error>(OutputFile {
            mode: None,
            path: path.parse()?,
            sha256: Digest::of(path.as_bytes()),
            size: path.len() as u64,
            executable,
        })
    };
    Ok(Manifest {
        links: Vec::new(),
        outputs: vec![file("out/täble.csv", false)?, file("run.sh", true)?],
        log: vec![LogSegment {
            sha256: Digest::of(b"log"),
            size: 3,
        }],
        stdout_bytes: 3,
        ..Manifest::default()
    })
}

type Artifact = (i32, i32, String, Vec<u8>, i64, bool);

async fn artifacts(world: &World, job: JobId) -> Result<Vec<Artifact>> {
    let query = "SELECT attempt, position, path, sha256, size, executable FROM artifacts WHERE job_id = $1 ORDER BY position";
    Ok(sqlx::query_as(query).bind(job.uuid()).fetch_all(&world.pool).await?)
}

fn listed(manifest: &Manifest) -> Vec<Artifact> {
    let row = |(position, file): (i32, &OutputFile)| {
        (
            1,
            position,
            file.path.to_string(),
            file.sha256.as_bytes().to_vec(),
            file.size.cast_signed(),
            file.executable,
        )
    };
    (0..).zip(&manifest.outputs).map(row).collect()
}

async fn skipped(world: &World) -> Result<Vec<(i64, String)>> {
    Ok(sqlx::query_as("SELECT sequence, reason FROM projection_skipped ORDER BY sequence")
        .fetch_all(&world.pool)
        .await?)
}

#[tokio::test]
async fn stories_become_rows() -> Result<()> {
    let world = World::start().await?;
    let (writer, projector) = (&world.writer, world.projector());
    let files = Files::open(&world.config.store.parse()?, None).await?;
    let (one, two) = (Worker::register(writer, "one").await?, Worker::register(writer, "two").await?);
    let manifest = manifest()?;
    let finished = finish(writer, &one, &files, &manifest).await?;

    // Lost once, then run by another, then cancelled there.
    let moved = writer.submit().await?;
    one.claim(moved).await?;
    let cause = LossCause::WorkerLost { worker: one.id.clone() };
    let give_up = Command::GiveUp {
        attempt: Attempt(1),
        cause,
    };
    writer.say(moved, &Actor::Watcher, give_up).await?;
    world.projected().await?;
    two.claim(moved).await?;
    let reason = Some("wrong file".to_owned());
    writer.say(moved, &Actor::Api, Command::Cancel { reason }).await?;
    // What the first one still says counts for nothing.
    let late = bus::job::decide(writer.job(finished).await?.as_ref(), one.claim_command(Attempt(1)));
    ensure!(late.is_err(), "an ended job was claimed");
    two.leave().await?;
    world.projected().await?;

    ensure!(world.check().await? == 2);
    ensure!(artifacts(&world, finished).await? == listed(&manifest));
    let workers: Vec<(String, String)> = sqlx::query_as("SELECT id, state FROM workers ORDER BY id")
        .fetch_all(&world.pool)
        .await?;
    ensure!(
        workers == [("one".to_owned(), "live".to_owned()), ("two".to_owned(), "left".to_owned())],
        "{workers:?}"
    );
    projector.stop().await
}

#[tokio::test]
async fn random_events_come_out_as_replay_says_and_a_rebuild_finds_no_difference() -> Result<()> {
    let world = World::start().await?;
    let projector = world.projector();
    for seed in 0..6 {
        let mut babbler = Babbler::new(seed)?;
        for _ in 0..4 {
            // Now a batch at once, now one that is cut in the middle.
            babbler.say(&world.writer, 150).await?;
            if seed % 2 == 0 {
                world.projected().await?;
            }
        }
    }
    world.projected().await?;
    ensure!(world.check().await? > 100);
    let report = projector::rebuild(world.config.clone()).await?;
    ensure!(report.identical() == Some(true), "{report:?}");
    ensure!(world.check().await? > 100);

    // It goes on over the swap, and forgets what it knew of the old tables.
    Babbler::new(7)?.say(&world.writer, 200).await?;
    world.projected().await?;
    world.check().await?;
    projector.stop().await
}

#[tokio::test]
async fn after_every_few_events_the_tables_are_exact() -> Result<()> {
    let world = World::start().await?;
    let projector = world.projector();
    let mut babbler = Babbler::new(29)?;
    for _ in 0..60 {
        babbler.say(&world.writer, 8).await?;
        world.projected().await?;
        world.check().await?;
    }
    projector.stop().await
}

#[tokio::test]
async fn killed_anywhere_it_goes_on_exactly() -> Result<()> {
    let world = World::start().await?;
    let mut babbler = Babbler::new(11)?;
    for round in 0..15 {
        let projector = world.projector();
        babbler.say(&world.writer, 60).await?;
        let so_long = Duration::from_micros(rand::rng().random_range(0..60_000));
        sleep(so_long).await;
        projector.kill().await?;
        ensure!(world.checkpoint().await <= world.last().await?, "round {round}");
    }
    let projector = world.projector();
    world.projected().await?;
    world.check().await?;
    projector.stop().await
}

#[tokio::test]
async fn two_projectors_never_write_an_event_twice() -> Result<()> {
    let world = World::start().await?;
    let (one, two) = (world.projector(), world.projector());
    let mut babbler = Babbler::new(13)?;
    for _ in 0..20 {
        babbler.say(&world.writer, 50).await?;
    }
    world.projected().await?;
    world.check().await?;
    one.stop().await?;
    babbler.say(&world.writer, 50).await?;
    world.projected().await?;
    world.check().await?;
    two.stop().await
}

#[tokio::test]
async fn garbage_is_set_aside_and_stops_nothing() -> Result<()> {
    let world = World::start().await?;
    let (writer, job) = (&world.writer, world.writer.submit().await?);
    let by_api = subjects::job_by(&namespace(), job, &Actor::Api);
    let newer =
        r#"{"type":"job.claimed.v9","id":"01890a5d-ac96-774b-bcce-b302099a8057","time":"2026-01-01T00:00:00Z","actor":"api","data":{}}"#;
    let garbage = [
        (by_api.clone(), "not JSON".to_owned()),
        (by_api, newer.to_owned()),
        ("rgrid.evt.default.batch.x".to_owned(), "{}".to_owned()),
        (format!("rgrid.evt.default.job.{job}.by.nobody-known"), "{}".to_owned()),
    ];
    for (subject, payload) in garbage {
        writer.bus.js.publish(subject, payload.into()).await?.await?;
    }
    // Values that the log holds and Postgres does not take.
    let mut spec = grid_tests::writer::spec();
    spec.name = Some("a\0b".to_owned());
    spec.labels = [("k\0".to_owned(), "v\0".to_owned())].into();
    spec.timeout_ms = Some(u64::MAX);
    let odd = JobId::new();
    writer.say(odd, &Actor::Api, Command::Submit { spec: Box::new(spec) }).await?;
    let reason = Some("nul \0".to_owned());
    writer.say(odd, &Actor::Api, Command::Cancel { reason }).await?;

    let projector = world.projector();
    world.projected().await?;
    let skipped = skipped(&world).await?;
    let sequences: Vec<i64> = skipped.iter().map(|(sequence, _)| *sequence).collect();
    ensure!(sequences == [2, 3, 4, 5], "{skipped:?}");
    ensure!(skipped[1].1.contains("job.claimed.v9"), "{skipped:?}");
    let rows: Vec<(String, String, Option<String>)> =
        sqlx::query_as("SELECT name, state, cancel_reason FROM jobs ORDER BY submitted_sequence")
            .fetch_all(&world.pool)
            .await?;
    let row = |name: &str, state: &str, reason: Option<&str>| (name.to_owned(), state.to_owned(), reason.map(str::to_owned));
    ensure!(
        rows == [row("true", "queued", None), row("a\u{fffd}b", "cancelled", Some("nul \u{fffd}"))],
        "{rows:?}"
    );
    let report = projector::rebuild(world.config.clone()).await?;
    ensure!(report.identical() == Some(true), "{report:?}");
    projector.stop().await
}

#[tokio::test]
async fn postgres_may_go_and_come_back() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let world = World::with(&cluster.database().await?).await?;
    let projector = world.projector();
    let mut babbler = Babbler::new(17)?;
    for _ in 0..3 {
        babbler.say(&world.writer, 100).await?;
        cluster.kill()?;
        babbler.say(&world.writer, 100).await?;
        cluster.restart().await?;
        world.projected().await?;
        world.check().await?;
    }
    projector.stop().await
}

#[tokio::test]
async fn it_starts_before_postgres_does() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let world = World::with(&cluster.database().await?).await?;
    cluster.kill()?;
    let projector = world.projector();
    let job = world.writer.submit().await?;
    cluster.restart().await?;
    world.projected().await?;
    let found: Option<String> = sqlx::query_scalar("SELECT state FROM jobs WHERE id = $1")
        .bind(job.uuid())
        .fetch_optional(&world.pool)
        .await?;
    ensure!(found.as_deref() == Some("queued"), "{found:?}");
    projector.stop().await
}

#[tokio::test]
async fn a_manifest_that_is_gone_is_said_and_one_that_is_out_of_reach_is_waited_for() -> Result<()> {
    let world = World::start().await?;
    let worker = Worker::register(&world.writer, "one").await?;
    let gone = end(&world.writer, &worker, Some(manifest()?.reference(Digest::of(b"gone")))).await?;
    // A store that ends every connection.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let away = projector::Config {
        store: format!("s3://key:secret@bucket?endpoint=http://{}&region=none", listener.local_addr()?),
        ..world.config.clone()
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let waiting = world.tasks.spawn(projector::run(away, stop.clone()));
    eventually("the tables", async || {
        sqlx::query("SELECT FROM jobs").execute(&world.pool).await.is_ok()
    })
    .await?;
    for _ in 0..2 {
        timeout(PATIENCE, listener.accept()).await.context("the store is not asked")??;
    }
    stop.cancel();
    timeout(Duration::from_secs(30), waiting).await???;
    ensure!(world.checkpoint().await == 0, "it went on without the store");

    let projector = world.projector();
    world.projected().await?;
    ensure!(world.check().await? == 1);
    ensure!(artifacts(&world, gone).await?.is_empty());
    let skipped = skipped(&world).await?;
    ensure!(skipped.len() == 1 && skipped[0].1.contains("is not in the store"), "{skipped:?}");
    projector.stop().await
}

#[tokio::test]
async fn beats_of_known_workers_are_kept_and_others_skipped() -> Result<()> {
    let world = World::start().await?;
    let projector = world.projector();
    let worker = Worker::register(&world.writer, "one").await?;
    let mut stranger = worker.clone();
    stranger.id = "watcher_1".parse()?;
    let job = JobId::new();
    let row = async || -> Result<Vec<(String, i64, serde_json::Value)>> {
        let query = "SELECT worker, cpu_milli_free, attempts FROM worker_heartbeats";
        Ok(sqlx::query_as(query).fetch_all(&world.pool).await?)
    };
    world.projected().await?;
    eventually("a beat in the table", async || {
        let beaten = stranger.beat(0, &[]).await.is_ok() && worker.beat(1, &[(job, Attempt::FIRST)]).await.is_ok();
        beaten && row().await.is_ok_and(|rows| !rows.is_empty())
    })
    .await?;
    let rows = row().await?;
    ensure!(rows == [("one".to_owned(), 1_000, serde_json::json!([[job, 1]]))], "{rows:?}");
    // A rebuild keeps them.
    projector::rebuild(world.config.clone()).await?;
    ensure!(row().await?.len() == 1);
    projector.stop().await
}
