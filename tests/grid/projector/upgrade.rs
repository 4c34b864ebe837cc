//! Tables that an older projector made, with what stands in them.

use anyhow::{Result, ensure};
use bus::ids::JobId;
use grid_tests::writer::Worker;
use store::Files;

use super::{
    finish, manifest,
    world::{World, eventually},
};

/// Takes the tables back to what they were before the migration of this number, which added indexes, settings and a column.
const BACK: [&str; 5] = [
    "DROP INDEX jobs_name",
    "ALTER TABLE jobs DROP COLUMN ended_on",
    "ALTER TABLE jobs RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_analyze_scale_factor)",
    "ALTER TABLE attempts RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_analyze_scale_factor)",
    "DELETE FROM _sqlx_migrations WHERE version = 11",
];

/// Jobs of many names and workers, enough for a plan to be made as for a million.
const MANY: &str = "
    INSERT INTO jobs (id, submitted_sequence, sequence, namespace, queue, name, state, spec, submitted_at, ended_at, attempt, worker)
    SELECT gen_random_uuid(), 1000000 + n, 1000000 + n, 'many', 'default', 'name-' || n % 1000, 'succeeded', '{\"command\":[\"x\"]}', now(), now(),
           1, 'worker-' || n % 300
    FROM generate_series(1, 50000) n";

/// How a statement would be carried out.
async fn plan(world: &World, condition: &'static str) -> Result<String> {
    let sql = format!("EXPLAIN SELECT id FROM jobs WHERE namespace = 'many' AND {condition} ORDER BY submitted_sequence DESC LIMIT 51");
    let lines: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&world.pool).await?;
    Ok(lines.join("\n"))
}

#[tokio::test]
async fn an_older_grid_gets_its_indexes_and_keeps_its_rows() -> Result<()> {
    let world = World::start().await?;
    let files = Files::open(&world.config.store.parse()?, None).await?;
    let worker = Worker::register(&world.writer, "one").await?;
    let done: JobId = finish(&world.writer, &worker, &files, &manifest()?).await?;
    world.writer.submit().await?;
    let projector = world.projector();
    world.projected().await?;
    projector.stop().await?;
    for statement in BACK {
        sqlx::query(statement).execute(&world.pool).await?;
    }
    sqlx::query(MANY).execute(&world.pool).await?;
    sqlx::query("ANALYZE jobs").execute(&world.pool).await?;
    ensure!(!plan(&world, "name = 'name-7'").await?.contains("jobs_name"), "the tables are old");

    let projector = world.projector();
    world.writer.submit().await?;
    world.projected().await?;
    sqlx::query("ANALYZE jobs").execute(&world.pool).await?;
    for (condition, index) in [("name = 'name-7'", "jobs_name"), ("ended_on = 'worker-7'", "jobs_worker")] {
        let plan = plan(&world, condition).await?;
        ensure!(plan.contains(index), "{condition}: {plan}");
    }
    let on: Option<String> = sqlx::query_scalar("SELECT ended_on FROM jobs WHERE id = $1")
        .bind(done.uuid())
        .fetch_one(&world.pool)
        .await?;
    ensure!(on.as_deref() == Some("one"), "{on:?}");
    let settled = async || {
        let options: Vec<String> = sqlx::query_scalar("SELECT unnest(reloptions) FROM pg_class WHERE oid = 'jobs'::regclass")
            .fetch_all(&world.pool)
            .await
            .unwrap_or_default();
        options.iter().any(|option| option == "autovacuum_vacuum_threshold=10000")
    };
    eventually("the bound on dead entries", settled).await?;
    sqlx::query("DELETE FROM jobs WHERE namespace = 'many'")
        .execute(&world.pool)
        .await?;
    ensure!(world.check().await? == 3);
    ensure!(projector::rebuild(world.config.clone()).await?.identical() == Some(true));
    let (_, index): (i64, Option<String>) =
        sqlx::query_as("SELECT count(*) OVER (), schemaname::text FROM pg_indexes WHERE indexname = 'jobs_worker'")
            .fetch_one(&world.pool)
            .await?;
    ensure!(index.as_deref() == Some("public"), "{index:?}");
    projector.stop().await
}
