//! docs/events.md is a contract: its example runs, with a client of another language.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::Grid;

use super::here::Here;

#[tokio::test]
async fn the_example_in_the_contract_runs_as_it_stands() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let contract = std::fs::read_to_string(root.join("docs/events.md"))?;
    let example = contract
        .split("```python\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .context("no example")?;
    here.write("example.py", example)?;
    let python = root.join(".rgrid/venv/bin/python");
    ensure!(python.is_file(), "{} is not there; run: scripts/bootstrap test", python.display());
    let output = Command::new(python)
        .arg("example.py")
        .current_dir(here.path())
        .env("RGRID_NATS", grid.nats.url())
        .output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    let (events, printed) = out.split_at(out.find("hello").unwrap_or_default());
    let types: Vec<&str> = events.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(
        types,
        ["job.submitted.v1", "job.claimed.v1", "job.started.v1", "job.finished.v1"],
        "{out}{err}"
    );
    assert_eq!(printed, "hello world\n");
    Ok(())
}
