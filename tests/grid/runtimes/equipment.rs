//! What each worker has is shown, whoever says it how and when, and whatever becomes of the tables meanwhile.

use anyhow::{Context as _, Result};
use bus::log::EQUIPMENT;
use grid_tests::{
    grid::{Grid, Part},
    writer::{Worker, Writer},
};

/// The image that the worker `w` is shown to have.
async fn shown(grid: &Grid) -> Option<String> {
    let all = grid.get("runtimes/workers").await.ok()?;
    let of_worker = all["workers"].as_array()?.iter().find(|one| one["worker"] == "w")?;
    Some(of_worker["images"].as_object()?.keys().next().cloned().unwrap_or_default())
}

/// Waits until the worker `w` is shown to have this image; the empty name: to have none.
async fn shows(grid: &Grid, image: &str) -> Result<()> {
    grid.eventually(&format!("the worker has `{image}`"), async || {
        (shown(grid).await? == image).then_some(())
    })
    .await
}

/// The same, once what was said before, in the log and elsewhere, is in the tables: a worker that speaks later than all of it is.
async fn still_shows(grid: &Grid, writer: &Writer, image: &str) -> Result<()> {
    let name = format!("last-{}", uuid::Uuid::now_v7().simple());
    let last = Worker::register(writer, &name).await?;
    last.equips("x").await?;
    grid.eventually("the last one is in the tables", async || {
        let all = grid.get("runtimes/workers").await.ok()?;
        let of_last = all["workers"].as_array()?.iter().find(|one| one["worker"] == name)?;
        of_last["images"].get("x").map(drop)
    })
    .await?;
    let shown = shown(grid).await;
    anyhow::ensure!(shown.as_deref() == Some(image), "{shown:?} in place of {image}");
    Ok(())
}

async fn grid() -> Result<(Grid, Writer)> {
    let grid = Grid::start_only(&[Part::Api, Part::Projector]).await?;
    let writer = Writer::connect(grid.nats.url()).await?;
    Ok((grid, writer))
}

/// A rebuild by an operator, who is told how many rows were otherwise.
async fn rebuild(grid: &Grid) -> Result<projector::Report> {
    let config = projector::Config {
        nats: grid.nats.url().to_owned(),
        replicas: 1,
        database_url: grid.postgres.url().to_owned(),
        store: "nats://rgrid-files".to_owned(),
    };
    Ok(projector::rebuild(config).await?)
}

#[tokio::test]
async fn it_does_not_matter_which_of_the_two_streams_is_read_first() -> Result<()> {
    let (mut grid, writer) = grid().await?;
    let pool = grid.postgres.pool().await?;
    let early = Worker::unregistered(&writer, "w")?;
    early.equips("early").await?;
    grid.eventually("it is in the table", async || {
        let query = "SELECT worker FROM worker_equipment";
        sqlx::query_scalar::<_, String>(query).fetch_optional(&pool).await.ok()?
    })
    .await?;
    early.registers().await?;
    shows(&grid, "early").await?;
    early.equips("changed").await?;
    shows(&grid, "changed").await?;

    // What is said while the projector is away, and what was said before, is there after a restart.
    let other = Worker::register(&writer, "w").await?;
    shows(&grid, "").await?;
    grid.kill(Part::Projector)?;
    other.equips("while it was away").await?;
    grid.run(Part::Projector)?;
    shows(&grid, "while it was away").await?;
    grid.kill(Part::Projector)?;
    grid.run(Part::Projector)?;
    still_shows(&grid, &writer, "while it was away").await
}

/// A runner that is upgraded, or the contrary, goes on with its session. Each says it its way, and the last one counts.
#[tokio::test]
async fn a_runner_of_an_earlier_version_says_it_in_the_log() -> Result<()> {
    let (mut grid, writer) = grid().await?;
    let mut worker = Worker::register(&writer, "w").await?;
    worker.equips_in_the_log("old").await?;
    shows(&grid, "old").await?;
    worker.equips_in_the_log("old, changed").await?;
    shows(&grid, "old, changed").await?;

    worker.registers_again().await?;
    shows(&grid, "").await?;
    worker.equips("upgraded").await?;
    shows(&grid, "upgraded").await?;

    worker.registers_again().await?;
    worker.equips_in_the_log("put back").await?;
    shows(&grid, "put back").await?;
    // The word of the newer one is still in its stream, and read again.
    grid.kill(Part::Projector)?;
    grid.run(Part::Projector)?;
    still_shows(&grid, &writer, "put back").await?;
    assert_eq!(rebuild(&grid).await?.identical(), Some(true));
    still_shows(&grid, &writer, "put back").await
}

/// Tables and streams as they were before what workers have had a stream of its own.
#[tokio::test]
async fn an_upgraded_grid_shows_what_its_log_says_until_its_runners_are_upgraded() -> Result<()> {
    let (mut grid, writer) = grid().await?;
    let mut worker = Worker::register(&writer, "w").await?;
    worker.equips_in_the_log("old").await?;
    shows(&grid, "old").await?;
    grid.kill(Part::Projector)?;
    let pool = grid.postgres.pool().await?;
    for statement in ["DROP TABLE worker_equipment", "DELETE FROM _sqlx_migrations WHERE version = 12"] {
        sqlx::query(statement).execute(&pool).await?;
    }
    writer.bus.js.delete_stream(EQUIPMENT).await?;

    grid.run(Part::Projector)?;
    shows(&grid, "old").await?;
    worker.equips_in_the_log("old, changed").await?;
    shows(&grid, "old, changed").await?;
    let report = rebuild(&grid).await?;
    assert_eq!(report.identical(), Some(true), "{report:?}");
    shows(&grid, "old, changed").await?;
    worker.registers_again().await?;
    worker.equips("upgraded").await?;
    shows(&grid, "upgraded").await
}

#[tokio::test]
async fn a_rebuild_keeps_what_the_workers_said_and_fetches_what_was_lost() -> Result<()> {
    let (mut grid, writer) = grid().await?;
    let pool = grid.postgres.pool().await?;
    let worker = Worker::register(&writer, "w").await?;
    worker.equips("one").await?;
    shows(&grid, "one").await?;
    assert_eq!(rebuild(&grid).await?.identical(), Some(true));
    still_shows(&grid, &writer, "one").await?;

    // Beside a projector that read it long ago: what was falsified, what was removed, and where the table is gone.
    for statement in [
        "UPDATE worker_equipment SET equipment = jsonb_set(equipment, '{images}', '{\"falsified\":\"x\"}')",
        "DELETE FROM worker_equipment",
        "DROP TABLE worker_equipment",
    ] {
        sqlx::query(statement).execute(&pool).await?;
        anyhow::ensure!(shown(&grid).await.as_deref() != Some("one"), "{statement}");
        assert_eq!(rebuild(&grid).await?.identical(), Some(true), "{statement}");
        shows(&grid, "one").await?;
    }
    worker.equips("two").await?;
    shows(&grid, "two").await?;

    // And without a projector.
    grid.kill(Part::Projector)?;
    worker.equips("three").await?;
    assert_eq!(rebuild(&grid).await?.identical(), Some(true));
    shows(&grid, "three").await?;
    // What only the table knows any more stays there.
    writer.bus.js.delete_stream(EQUIPMENT).await?;
    assert_eq!(rebuild(&grid).await?.identical(), Some(true));
    shows(&grid, "three").await.context("the stream is gone")
}

#[tokio::test]
async fn what_was_said_of_workers_that_are_gone_goes_by_itself() -> Result<()> {
    let (grid, writer) = grid().await?;
    let pool = grid.postgres.pool().await?;
    let (gone, worker) = (Worker::register(&writer, "gone").await?, Worker::register(&writer, "w").await?);
    gone.equips("x").await?;
    let known = async || {
        let query = "SELECT worker FROM worker_equipment ORDER BY worker";
        sqlx::query_scalar::<_, String>(query).fetch_all(&pool).await.ok()
    };
    grid.eventually("it is in the table", async || (known().await? == ["gone"]).then_some(()))
        .await?;
    sqlx::query("UPDATE worker_equipment SET said_at = said_at - interval '8 days'")
        .execute(&pool)
        .await?;
    worker.equips("y").await?;
    grid.eventually("what is old is gone", async || (known().await? == ["w"]).then_some(()))
        .await
}
