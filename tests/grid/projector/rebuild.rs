//! The tables made again: they come out identical, and what was not is said.

use std::time::Duration;

use anyhow::{Result, ensure};
use bus::{
    envelope::Actor,
    job::{CancelRequested, JobEvent},
};
use grid_tests::writer::Worker;
use store::Files;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{artifacts, finish, listed, manifest, random::Babbler, world::World};

#[tokio::test]
async fn a_rebuild_finds_what_was_tampered_with_and_mends_it() -> Result<()> {
    let world = World::start().await?;
    let files = Files::open(&world.config.store.parse()?, None).await?;
    let worker = Worker::register(&world.writer, "one").await?;
    let done = finish(&world.writer, &worker, &files, &manifest()?).await?;
    let waiting = world.writer.submit().await?;
    let projector = world.projector();
    world.projected().await?;
    for (statement, job) in [
        ("UPDATE jobs SET state = 'succeeded' WHERE id = $1", waiting),
        ("DELETE FROM attempts WHERE job_id = $1", done),
        ("UPDATE artifacts SET size = size + 1 WHERE job_id = $1", done),
    ] {
        sqlx::query(statement).bind(job.uuid()).execute(&world.pool).await?;
    }
    let report = projector::rebuild(world.config.clone()).await?;
    let differing: Vec<(&str, Option<u64>)> = report.tables.iter().map(|table| (table.name.as_str(), table.differing)).collect();
    let wanted = [
        ("jobs", Some(1)),
        ("batches", Some(0)),
        ("attempts", Some(1)),
        ("artifacts", Some(2)),
        ("workers", Some(0)),
        ("projection_skipped", Some(0)),
    ];
    ensure!(differing == wanted, "{differing:?}");
    ensure!(report.identical() == Some(false));
    ensure!(world.check().await? == 2);
    ensure!(artifacts(&world, done).await? == listed(&manifest()?));

    // The tables are as if migrated: the same indexes, by the same names.
    let index: Option<String> = sqlx::query_scalar("SELECT schemaname::text FROM pg_indexes WHERE indexname = 'idx_heartbeats_last'")
        .fetch_optional(&world.pool)
        .await?;
    ensure!(index.as_deref() == Some("public"), "{index:?}");
    ensure!(projector::rebuild(world.config.clone()).await?.identical() == Some(true));
    projector.stop().await
}

#[tokio::test]
async fn what_a_running_projector_learned_from_wrong_tables_is_forgotten() -> Result<()> {
    let world = World::start().await?;
    let worker = Worker::register(&world.writer, "one").await?;
    let job = world.writer.submit().await?;
    let projector = world.projector();
    world.projected().await?;
    projector.stop().await?;
    sqlx::query("UPDATE jobs SET attempt = 5").execute(&world.pool).await?;
    let projector = world.projector();
    let after = world.last().await?;
    let asked = JobEvent::CancelRequested(CancelRequested { reason: None });
    world.writer.append(job, after, &Actor::Api, asked).await?;
    // The row is written anew by this, and right again; the projector still believes that the next attempt is the sixth.
    world.projected().await?;
    projector::rebuild(world.config.clone()).await?;
    worker.claim(job).await?;
    world.projected().await?;
    ensure!(world.check().await? == 1);
    projector.stop().await
}

#[tokio::test]
async fn a_rebuild_beside_a_busy_projector_swaps_without_a_gap() -> Result<()> {
    let world = World::start().await?;
    let projector = world.projector();
    let writer = world.writer.clone();
    let babbling = world.tasks.spawn(async move {
        let mut babbler = Babbler::new(19)?;
        for _ in 0..60 {
            babbler.say(&writer, 50).await?;
        }
        anyhow::Ok(())
    });
    for _ in 0..3 {
        let report = projector::rebuild(world.config.clone()).await?;
        ensure!(report.identical() == Some(true), "{report:?}");
    }
    babbling.await??;
    world.projected().await?;
    world.check().await?;
    ensure!(projector::rebuild(world.config.clone()).await?.identical() == Some(true));
    projector.stop().await
}

#[tokio::test]
async fn the_swapped_tables_have_statistics_and_every_index() -> Result<()> {
    let world = World::start().await?;
    let projector = world.projector();
    Babbler::new(37)?.say(&world.writer, 300).await?;
    world.projected().await?;
    let indexes = async || -> Result<Vec<(String, String)>> {
        let query = "SELECT indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1";
        Ok(sqlx::query_as(query).fetch_all(&world.pool).await?)
    };
    let before = indexes().await?;
    ensure!(before.iter().any(|(name, _)| name == "jobs_labels"), "{before:?}");
    ensure!(projector::rebuild(world.config.clone()).await?.identical() == Some(true));
    let after = indexes().await?;
    ensure!(before == after, "{before:?}, and after it {after:?}");
    let described: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stats WHERE schemaname = 'public' AND tablename = 'jobs'")
        .fetch_one(&world.pool)
        .await?;
    ensure!(described > 10, "no statistics");
    projector.stop().await
}

#[tokio::test]
async fn a_long_log_is_rebuilt_in_pieces_beside_a_projector_and_without_one() -> Result<()> {
    let world = World::start().await?;
    let mut babbler = Babbler::new(41)?;
    // More than are folded at once while the running projector waits, so that the rebuild goes beyond where the tables are.
    babbler.say(&world.writer, 5_000).await?;
    let report = projector::rebuild(world.config.clone()).await?;
    ensure!(report.identical() == Some(true) && report.sequence == 5_000, "{report:?}");
    world.check().await?;
    let projector = world.projector();
    babbler.say(&world.writer, 3_000).await?;
    world.projected().await?;
    sqlx::query("UPDATE jobs SET queue = 'another'").execute(&world.pool).await?;
    let report = projector::rebuild(world.config.clone()).await?;
    ensure!(report.tables[0].differing == Some(report.tables[0].rows), "{report:?}");
    world.check().await?;
    projector.stop().await
}

#[tokio::test]
async fn a_rebuild_needs_no_projector_and_fills_an_empty_database() -> Result<()> {
    let world = World::start().await?;
    Babbler::new(23)?.say(&world.writer, 300).await?;
    let report = projector::rebuild(world.config.clone()).await?;
    ensure!(world.checkpoint().await == world.last().await?);
    let jobs = world.check().await?;
    ensure!(jobs > 10);
    ensure!(report.events == 300 && report.tables[0].rows == jobs as u64, "{report:?}");
    Ok(())
}

#[tokio::test]
async fn a_table_that_was_dropped_comes_back() -> Result<()> {
    let world = World::start().await?;
    let projector = world.projector();
    Babbler::new(31)?.say(&world.writer, 100).await?;
    world.projected().await?;
    sqlx::query("DROP TABLE jobs").execute(&world.pool).await?;
    sqlx::query("DROP TABLE worker_heartbeats").execute(&world.pool).await?;
    let report = projector::rebuild(world.config.clone()).await?;
    let jobs = world.check().await?;
    ensure!(report.tables[0].differing == Some(jobs as u64), "{report:?}");
    projector.stop().await
}

#[tokio::test]
async fn tables_of_another_log_are_refused() -> Result<()> {
    let world = World::start().await?;
    let projector = world.projector();
    world.writer.submit().await?;
    world.projected().await?;
    projector.stop().await?;
    sqlx::query("UPDATE projection_checkpoint SET sequence = 1000")
        .execute(&world.pool)
        .await?;
    let stop = CancellationToken::new();
    let refused = timeout(Duration::from_secs(30), projector::run(world.config.clone(), stop)).await?;
    ensure!(
        matches!(refused, Err(projector::Error::AnotherLog { checkpoint: 1000, last: 1 })),
        "{refused:?}"
    );
    let report = projector::rebuild(world.config.clone()).await?;
    ensure!(report.identical().is_none(), "{report:?}");
    ensure!(world.checkpoint().await == 1);
    Ok(())
}
