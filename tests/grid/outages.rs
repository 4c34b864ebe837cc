//! The store is away, and comes back: nothing that ran is lost, and nobody has to do anything.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use grid_tests::{
    grid::{Grid, Part},
    minio::Minio,
};
use serde_json::{Value, json};

/// A grid whose files live in an S3 server of its own.
async fn grid_on(minio: &Minio) -> Result<Grid> {
    let store = minio.bucket("grid").await?;
    let parts = [Part::Api, Part::Projector, Part::Watcher];
    let mut grid = Grid::start_with(&parts, vec![("RGRID_STORE", store)]).await?;
    grid.run(Part::Runner(1))?;
    grid.worker_is("worker-1", "live").await?;
    Ok(grid)
}

/// Submits a job that says that it runs, waits until `go` is there, and writes an output.
async fn waiting_job(grid: &Grid, name: &str) -> Result<String> {
    let (runs, go) = (grid.dir().join(format!("{name}-runs")), grid.dir().join(format!("{name}-go")));
    let script = format!(
        "touch {}; until [ -e {} ]; do sleep 0.02; done; echo made > out.txt; echo said",
        runs.display(),
        go.display()
    );
    let id = grid.shell(&script).await?;
    grid.eventually("the job runs", async || runs.exists().then_some(())).await?;
    Ok(id)
}

async fn made_it(grid: &Grid, id: &str) -> Result<()> {
    let job = grid.ended(id).await?;
    ensure!(job["state"] == "succeeded" && job["attempt"] == 1, "{job}");
    let artifacts = grid.get(&format!("jobs/{id}/artifacts")).await?;
    let paths: Vec<&Value> = artifacts["artifacts"]
        .as_array()
        .context("a list")?
        .iter()
        .map(|file| &file["path"])
        .collect();
    ensure!(paths == [&json!("out.txt")], "{artifacts}");
    ensure!(grid.printed(id, "stdout").await? == b"said\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_while_the_store_is_dead_is_committed_when_it_lives_again() -> Result<()> {
    let mut minio = Minio::start().await?;
    let grid = grid_on(&minio).await?;
    let id = waiting_job(&grid, "dead").await?;
    minio.kill()?;
    std::fs::write(grid.dir().join("dead-go"), "")?;
    grid.eventually("the runner meets the outage", async || {
        grid.log(Part::Runner(1)).contains("cannot store").then_some(())
    })
    .await?;
    let job = grid.get(&format!("jobs/{id}")).await?;
    ensure!(job["state"] == "running", "nothing is committed before it is stored: {job}");
    // What asks nothing of the store is taken meanwhile.
    let other = grid.shell("exit 3").await?;
    minio.restart().await?;
    made_it(&grid, &id).await?;
    ensure!(grid.ended(&other).await?["exit_code"] == 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_holds_up_what_needs_it_and_nothing_else() -> Result<()> {
    let minio = Minio::start().await?;
    let grid = grid_on(&minio).await?;
    let id = waiting_job(&grid, "frozen").await?;
    minio.freeze()?;
    std::fs::write(grid.dir().join("frozen-go"), "")?;
    // Longer than the silence by which a worker is given up: its heart must beat meanwhile.
    let since = tokio::time::Instant::now();
    while since.elapsed() < Duration::from_secs(6) {
        let other = grid.shell(":").await?;
        ensure!(grid.ended(&other).await?["state"] == "succeeded", "a job that stores nothing ends");
    }
    ensure!(grid.get(&format!("jobs/{id}")).await?["state"] == "running");
    minio.thaw()?;
    made_it(&grid, &id).await
}
