//! The examples, run by the commands that `examples/README.md` shows.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use grid_tests::grid::{Grid, Part, rgrid};

use crate::cli::here::{Came, Here};

/// A command, and the lines that it is to print.
#[derive(Debug, Default)]
struct Step {
    command: String,
    lines: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The commands that the README shows for an example.
fn steps(readme: &str, example: &str) -> Result<Vec<Step>> {
    let heading = format!("\n## {example}\n");
    let section = readme.split_once(&heading).with_context(|| format!("no section `{example}`"))?.1;
    let section = section.split("\n## ").next().unwrap_or_default();
    let block = section.split_once("```console\n").context("no commands")?.1;
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines().take_while(|line| *line != "```") {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step {
                command: command.to_owned(),
                lines: Vec::new(),
            }),
            (None, Some(step)) => step.lines.push(line.to_owned()),
            (None, None) => anyhow::bail!("`{line}` is printed by no command"),
        }
    }
    Ok(steps)
}

fn copy(from: &Path, here: &Here, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), here, &to)?;
        } else {
            here.write(to.to_str().context("not UTF-8")?, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// Runs an example in a copy of its directory, as a user does who has `rgrid` and the tests' Python on the search path.
fn run(grid: &Grid, example: &str) -> Result<Here> {
    let here = Here::of(grid)?;
    copy(&root().join("examples").join(example), &here, Path::new(""))?;
    let steps = steps(&fs::read_to_string(root().join("examples/README.md"))?, example)?;
    ensure!(!steps.is_empty(), "{example} shows no command");
    let python = root().join(".rgrid/venv/bin").canonicalize().context("`make test` makes it")?;
    let own = rgrid();
    let inherited = env::var_os("PATH").unwrap_or_default();
    let places = [python, own.parent().context("no directory")?.to_owned()];
    let path = env::join_paths(places.into_iter().chain(env::split_paths(&inherited)))?;
    for step in steps {
        let mut shell = here.program("sh");
        shell
            .args(["-c", &step.command])
            .env("PATH", &path)
            .env("RGRID_NATS", grid.nats.url());
        let came = Came::from(shell.output()?);
        ensure!(came.code == 0, "{}: {} {}", step.command, came.out(), came.err());
        for line in &step.lines {
            ensure!(
                came.out().lines().any(|printed| printed == line),
                "{}: {}",
                step.command,
                came.out()
            );
        }
    }
    Ok(here)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_along_and_come_back() -> Result<()> {
    let grid = Grid::start().await?;
    let here = run(&grid, "wordcount")?;
    assert!(here.path().join("words.svg").is_file());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_fans_out_and_is_combined() -> Result<()> {
    let grid = Grid::start().await?;
    let here = run(&grid, "batch")?;
    let all = String::from_utf8(here.read("all.csv")?)?;
    assert_eq!(all.lines().count(), 10, "{all}");
    assert!(all.lines().any(|line| line.starts_with("2026-07,summit,")), "{all}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_submits_over_nats_and_reads_the_result() -> Result<()> {
    let grid = Grid::start().await?;
    run(&grid, "service")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_runs_in_a_container() -> Result<()> {
    let parts = [Part::Api, Part::Projector, Part::Watcher];
    let mut grid = Grid::start_with(&parts, vec![("RGRID_EXECUTOR", "docker".to_owned())]).await?;
    grid.run(Part::Runner(1))?;
    grid.worker_is("worker-1", "live").await?;
    let here = run(&grid, "container")?;
    let about: serde_json::Value = serde_json::from_slice(&here.read("about.json")?)?;
    // The container's own init, and the script.
    assert_eq!(about["processes"], 2, "{about}");
    Ok(())
}
