//! Cancelling many jobs: those that a filter finds, by few requests.

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::Grid;
use reqwest::Method;
use serde_json::{Value, json};

use super::here::Here;

#[tokio::test(flavor = "multi_thread")]
async fn those_that_a_filter_finds_are_cancelled_and_no_others() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    // Nobody serves these queues.
    let of = |queue: &str, label: &str| json!({ "command": ["true"], "executor": "noop", "queue": queue, "labels": { "kind": label } });
    let mut jobs: Vec<Value> = vec![of("night", "a"); 1_200];
    jobs.extend(vec![of("day", "b"); 30]);
    grid.submit(&Value::from(jobs)).await?;
    let slow = grid
        .submit(&json!({ "command": ["/bin/sh", "-c", "exec sleep 600"], "executor": "process", "name": "slow" }))
        .await?;
    let slow = slow["id"].as_str().context("an id")?;
    grid.get(&format!("jobs/{slow}?wait=60s&until=started")).await?;
    grid.projected().await?;

    let unnamed = here.rgrid(&["cancel"])?;
    ensure!(
        unnamed.code == 2 && unnamed.err().contains("--all selects all jobs"),
        "{}",
        unnamed.err()
    );
    let unasked = here.rgrid(&["cancel", "--all"])?;
    ensure!(
        unasked.code == 2 && unasked.err().contains("1231 jobs would be cancelled"),
        "{}",
        unasked.err()
    );
    let ended = here.rgrid(&["cancel", "--state", "failed", "--queue", "night"])?;
    ensure!(ended.code == 2, "{}", ended.err());

    let night = here.rgrid(&["cancel", "--queue", "night", "--reason", "not tonight"])?.line()?;
    ensure!(night == "1200 jobs cancelled", "{night}");
    let again = here.rgrid(&["cancel", "--queue", "night"])?.line()?;
    ensure!(again.starts_with("no job was cancelled"), "{again}");
    let running = here.rgrid(&["cancel", "--name", "slow", "--worker", "worker-1"])?.line()?;
    ensure!(running == "1 job cancelled, 1 of them while running", "{running}");
    ensure!(grid.get(&format!("jobs/{slow}")).await?["state"] == "cancelled");
    grid.projected().await?;
    let left = grid.get("jobs?state=queued&limit=1000").await?;
    let left = left["jobs"].as_array().context("jobs")?;
    ensure!(left.len() == 30 && left.iter().all(|job| job["queue"] == "day"), "{}", left.len());

    // The answer says how many, in bounded pages; a state that has ended is refused.
    let answer = grid
        .request(Method::POST, "cancel?label=kind=b&limit=20")
        .json(&json!({}))
        .send()
        .await?;
    let page: Value = answer.error_for_status()?.json().await?;
    ensure!(page["cancelled"].as_array().is_some_and(|jobs| jobs.len() == 20), "{page}");
    let next = page["next"].as_i64().context("more follow")?;
    let path = format!("cancel?label=kind=b&limit=20&before={next}");
    let page: Value = grid.request(Method::POST, &path).send().await?.error_for_status()?.json().await?;
    ensure!(
        page["cancelled"].as_array().is_some_and(|jobs| jobs.len() == 10) && page["next"].is_null(),
        "{page}"
    );
    let refused = grid.request(Method::POST, "cancel?state=dead").send().await?;
    ensure!(refused.status() == 400, "{}", refused.status());
    Ok(())
}
