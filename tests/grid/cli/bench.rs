//! The JSON of `rgrid bench` is a contract.

use anyhow::{Context as _, Result};
use grid_tests::grid::Grid;
use serde_json::Value;

use super::here::Here;

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .map(|map| map.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

#[tokio::test]
async fn what_is_measured_has_the_shape_that_was_promised() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let process = here.rgrid(&["bench", "process", "--jobs", "20", "--json"])?.json()?;
    assert_eq!(keys(&process), ["floor_s", "jobs", "projected_s", "ratio", "wall_s"]);
    assert_eq!(process["jobs"], 20);
    assert!(process["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{process}");

    let noop = here.rgrid(&["bench", "noop", "--jobs", "500", "--json"])?.json()?;
    assert_eq!(keys(&noop), ["jobs", "jobs_per_s", "projected_s", "wall_s"]);

    let latency = here.rgrid(&["bench", "latency", "--jobs", "10", "--json"])?.json()?;
    assert_eq!(keys(&latency), ["submit_to_finished_ms", "submit_to_started_ms"]);
    let (started, finished) = (&latency["submit_to_started_ms"], &latency["submit_to_finished_ms"]);
    assert_eq!((keys(started), keys(finished)), (vec!["p50", "p99"], vec!["p50", "p99"]));
    let p50 = |value: &Value| value["p50"].as_f64().context("no p50");
    assert!(p50(started)? > 0.0 && p50(started)? < p50(finished)?, "{latency}");

    let upload = here.rgrid(&["bench", "upload", "--max-size", "1MB", "--json"])?.json()?;
    let sizes = upload["sizes"].as_array().context("no sizes")?;
    assert_eq!(
        sizes.iter().map(|size| size["bytes"].as_u64()).collect::<Vec<_>>(),
        [Some(10_000), Some(100_000), Some(1_000_000)]
    );
    assert!(sizes.iter().all(|size| keys(size) == ["bytes", "get_ms", "put_ms"]), "{upload}");

    // Every job of all that succeeded, and is in the tables.
    grid.projected().await?;
    let list = here.rgrid(&["list", "--all", "--json", "--label", "rgrid.bench=true"])?.json()?;
    let states: Vec<&Value> = list["jobs"]
        .as_array()
        .context("no jobs")?
        .iter()
        .map(|job| &job["state"])
        .collect();
    assert_eq!(states.len(), 20 + 500 + 20);
    assert!(states.iter().all(|state| *state == "succeeded"));
    Ok(())
}
