//! A connection that breaks while a job is followed.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
};

use anyhow::{Context as _, Result};
use grid_tests::grid::{Grid, Part};

use super::here::Here;

/// Prints one line for each file that appears, and ends with the last.
const STEPS: &str = "\
import os, sys, time
for step in range(5):
    for line in range(400):
        print(step, line, 'ü' * 50, flush=True)
    print('end of', step, file=sys.stderr, flush=True)
    while not os.path.exists(f'{sys.argv[1]}/go-{step}'):
        time.sleep(0.01)
";

#[tokio::test]
async fn an_api_that_is_killed_and_comes_back_loses_and_doubles_nothing() -> Result<()> {
    let mut grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("steps.py", STEPS)?;
    let go = grid.dir().to_owned();
    // The directory is the worker's business: it is given as plain text.
    let mut child = here
        .command(&[
            "run",
            "--no-input",
            &go.display().to_string(),
            "steps.py",
            &go.display().to_string(),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut out = BufReader::new(child.stdout.take().context("no output")?);
    let mut seen = String::new();
    for step in 0..5 {
        let last = format!("{step} 399 ");
        while !seen.lines().last().is_some_and(|line| line.starts_with(&last)) {
            anyhow::ensure!(out.read_line(&mut seen)? > 0, "it ended early: {:?}", child.wait_with_output()?);
        }
        if step % 2 == 0 {
            grid.kill(Part::Api)?;
        }
        std::fs::write(go.join(format!("go-{step}")), "")?;
        if step % 2 == 0 {
            grid.run(Part::Api)?;
        }
    }
    out.read_to_string(&mut seen)?;
    let ended = child.wait_with_output()?;
    let expected: String = (0..5)
        .flat_map(|step| (0..400).map(move |line| format!("{step} {line} {}\n", "ü".repeat(50))))
        .collect();
    assert!(seen == expected, "{} bytes instead of {}", seen.len(), expected.len());
    let errors: String = String::from_utf8_lossy(&ended.stderr)
        .lines()
        .filter(|line| !line.starts_with("rgrid: "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(errors, (0..5).map(|step| format!("end of {step}\n")).collect::<String>());
    assert_eq!(ended.status.code(), Some(0));
    Ok(())
}
