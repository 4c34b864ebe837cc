//! Kill -9 of a service in the midst of work: every job has exactly one committed end.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use bus::{
    job::{Job, JobEvent, Recorded},
    log::{EVENTS, follow::Follower, read},
};
use grid_tests::grid::{Grid, Part};
use serde_json::json;

const JOBS: usize = 200;

/// Every job's history, read from the log itself.
async fn histories(grid: &Grid) -> Result<BTreeMap<String, Vec<Recorded>>> {
    let js = grid.nats.context().await?;
    let last = js.get_stream(EVENTS).await?.cached_info().state.last_sequence;
    let mut follower = Follower::new(&js, EVENTS, Vec::new(), 0);
    let mut histories: BTreeMap<String, Vec<Recorded>> = BTreeMap::new();
    loop {
        let message = follower.next().await;
        if let Some(read::Fact::Job(recorded)) = read::decode(&message.subject, message.sequence, &message.payload)? {
            histories.entry(recorded.job.to_string()).or_default().push(*recorded);
        }
        if message.sequence >= last {
            return Ok(histories);
        }
    }
}

/// Submits jobs that each leave a line outside the grid, kills a service in their midst and starts it again, and checks that
/// each of them ended once, well, in the log and in the tables.
async fn survives(part: Part) -> Result<()> {
    let mut grid = Grid::start().await?;
    let traces = grid.dir().join("traces");
    std::fs::create_dir(&traces)?;
    let script = format!(
        "sleep 0.0$((RANDOM % 9)); echo $RGRID_ATTEMPT >> {}/$RGRID_JOB_ID",
        traces.display()
    );
    let jobs = vec![json!({ "command": ["/bin/bash", "-c", script], "executor": "process" }); JOBS];
    let submitted = grid.submit(&json!(jobs)).await?;
    let ids: Vec<String> = submitted["jobs"]
        .as_array()
        .context("a list")?
        .iter()
        .map(|job| job["id"].as_str().map(ToOwned::to_owned).with_context(|| job.to_string()))
        .collect::<Result<_>>()?;
    ensure!(ids.len() == JOBS);

    grid.eventually("a part of them ran", async || {
        (std::fs::read_dir(&traces).ok()?.count() > JOBS / 10).then_some(())
    })
    .await?;
    grid.kill(part)?;
    grid.run(part)?;
    for id in &ids {
        let job = grid.ended(id).await?;
        ensure!(job["state"] == "succeeded", "{job}");
    }
    for (id, history) in histories(&grid).await? {
        let ends = history
            .iter()
            .filter(|recorded| matches!(recorded.envelope.event, JobEvent::Finished(_)))
            .count();
        ensure!(ends == 1, "job {id} has {ends} committed ends");
        let job = Job::replay(&history).context("a job")?;
        ensure!(job.state() == bus::job::State::Succeeded, "{job:?}");
        ensure!(traces.join(&id).exists(), "job {id} never ran");
    }
    grid.projected().await?;
    let pool = grid.postgres.pool().await?;
    let (succeeded,): (i64,) = sqlx::query_as("SELECT count(*) FROM jobs WHERE state = 'succeeded'")
        .fetch_one(&pool)
        .await?;
    ensure!(succeeded == i64::try_from(JOBS)?, "{succeeded} jobs in the table");
    Ok(())
}

#[tokio::test]
async fn jobs_survive_the_death_of_a_runner() -> Result<()> {
    survives(Part::Runner(1)).await
}

#[tokio::test]
async fn jobs_survive_the_death_of_the_api() -> Result<()> {
    survives(Part::Api).await
}

#[tokio::test]
async fn jobs_survive_the_death_of_the_projector() -> Result<()> {
    survives(Part::Projector).await
}

#[tokio::test]
async fn jobs_survive_the_death_of_nats() -> Result<()> {
    let mut grid = Grid::start().await?;
    let ids: Vec<String> = {
        let jobs = vec![json!({ "command": ["/bin/sleep", "0.02"], "executor": "process" }); JOBS];
        let submitted = grid.submit(&json!(jobs)).await?;
        submitted["jobs"]
            .as_array()
            .context("a list")?
            .iter()
            .filter_map(|job| job["id"].as_str().map(ToOwned::to_owned))
            .collect()
    };
    grid.ended(&ids[10]).await?;
    grid.nats.kill()?;
    grid.nats.restart().await?;
    for id in &ids {
        let job = grid.ended(id).await?;
        ensure!(job["state"] == "succeeded", "{job}");
    }
    Ok(())
}

#[tokio::test]
async fn a_dead_workers_job_runs_elsewhere_and_its_processes_are_gone() -> Result<()> {
    let mut grid = Grid::start().await?;
    let (pids, go) = (grid.dir().join("pids"), grid.dir().join("go"));
    let id = grid
        .shell(&format!(
            "echo $$ >> {}; [ $RGRID_ATTEMPT -gt 1 ] || sleep 300; touch {}",
            pids.display(),
            go.display()
        ))
        .await?;
    let pid = grid
        .eventually("it runs", async || {
            std::fs::read_to_string(&pids).ok().filter(|pids| !pids.is_empty())
        })
        .await?;
    grid.run(Part::Runner(2))?;
    grid.worker_is("worker-2", "live").await?;
    grid.kill(Part::Runner(1))?;
    grid.eventually("its process is gone", async || {
        (!std::path::Path::new("/proc").join(pid.trim()).exists()).then_some(())
    })
    .await?;
    let job = grid.ended(&id).await?;
    ensure!(job["state"] == "succeeded" && go.exists(), "{job}");
    ensure!(
        job["attempts"][0]["outcome"]["kind"] == "lost" && job["attempts"][1]["worker"] == "worker-2",
        "{job}"
    );
    Ok(())
}
