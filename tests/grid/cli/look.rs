//! Looking at jobs: lists, states, histories, logs, outputs.

use anyhow::{Context as _, Result};
use grid_tests::grid::Grid;
use serde_json::Value;

use super::here::Here;

const SCRIPT: &str = "import sys\nprint('to out')\nprint('to err', file=sys.stderr)\nopen('r.txt', 'w').write('result')\n";

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

#[tokio::test]
async fn a_job_can_be_looked_at_from_every_side() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", SCRIPT)?;
    let id = here
        .rgrid(&[
            "run",
            "-d",
            "--name",
            "the job",
            "--label",
            "order=4711",
            "--memory",
            "1GiB",
            "s.py",
        ])?
        .line()?;
    grid.ended(&id).await?;

    let status = here.rgrid(&["status", "last", "--json"])?.json()?;
    assert_eq!((text(&status, "/id"), text(&status, "/state")), (id.as_str(), "succeeded"));
    assert_eq!(status.pointer("/resources/memory_bytes"), Some(&Value::from(1_u64 << 30)));
    for part in [&id[..13], &id[24..], &id[30..]] {
        assert_eq!(text(&here.rgrid(&["status", part, "--json"])?.json()?, "/id"), id, "{part}");
    }
    let shown = here.rgrid(&["status", &id])?.line()?;
    for expected in ["the job", "succeeded", "order=4711", "worker worker-1", "1 output"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }

    let other = here.rgrid(&["run", "-d", "--json", "s.py"])?.json()?;
    grid.ended(text(&other, "/id")).await?;
    let list = here.rgrid(&["list", "--json", "--label", "order=4711"])?.json()?;
    assert_eq!(list["jobs"].as_array().map(Vec::len), Some(1));
    assert_eq!(text(&list, "/jobs/0/id"), id);
    let both = here.rgrid(&["list", "--state", "succeeded", "--all"])?.line()?;
    assert_eq!(both.lines().count(), 3, "{both}");
    assert!(
        both.lines().nth(1).is_some_and(|line| line.starts_with(text(&other, "/id"))),
        "newest first: {both}"
    );
    assert_eq!(here.rgrid(&["list", "--name", "no such"])?.line()?, "no jobs");

    let history = here.rgrid(&["history", &id, "--json"])?.json()?;
    let types: Vec<&str> = history["events"]
        .as_array()
        .context("no events")?
        .iter()
        .map(|event| text(event, "/type"))
        .collect();
    assert_eq!(types, ["job.submitted.v1", "job.claimed.v1", "job.started.v1", "job.finished.v1"]);
    let told = here.rgrid(&["history", &id])?.line()?;
    for expected in ["api", "submitted: s.py", "worker worker-1", "attempt 1 succeeded", "1 output (6 B)"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }

    let logs = here.rgrid(&["logs", &id])?;
    assert_eq!(
        (logs.code, logs.out(), logs.err()),
        (0, "to out\n".to_owned(), "to err\n".to_owned())
    );
    let followed = here.rgrid(&["logs", "-f", "--stream", "stderr", &id])?;
    assert_eq!((followed.out(), followed.err()), (String::new(), "to err\n".to_owned()));
    let pieces = here.rgrid(&["logs", "-f", "--json", &id])?.line()?;
    let last: Value = serde_json::from_str(pieces.lines().last().context("no lines")?)?;
    assert_eq!(text(&last, "/job/state"), "succeeded");

    let workers = here.rgrid(&["workers", "--json"])?.json()?;
    assert_eq!(text(&workers, "/workers/0/id"), "worker-1");
    assert!(here.rgrid(&["workers"])?.line()?.contains("worker-1"));
    Ok(())
}

#[tokio::test]
async fn outputs_wait_in_the_store_until_they_are_fetched() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write(
        "s.py",
        "import os\nos.makedirs('out')\nopen('out/a b.txt', 'w').write('a')\nopen('b.txt', 'w').write('b')\n",
    )?;
    let came = here.rgrid(&["run", "--no-download", "--json", "s.py"])?.json()?;
    assert_eq!((text(&came, "/state"), came["exit_code"].as_i64()), ("succeeded", Some(0)));
    assert!(!here.path().join("b.txt").exists());

    let listed = here.rgrid(&["download", "last", "--list"])?.line()?;
    assert!(listed.contains("out/a b.txt") && listed.contains("b.txt"), "{listed}");
    here.rgrid(&["download", "last", "--file", "out/a b.txt", "-o", "kept"])?.line()?;
    assert_eq!(here.read("kept/out/a b.txt")?, b"a");
    assert!(!here.path().join("kept/b.txt").exists());
    // What is in the way is replaced only where that is said.
    here.write("b.txt", "old and longer")?;
    assert_eq!(here.rgrid(&["download", "last", "--json"])?.code, 1);
    let files = here.rgrid(&["download", "last", "--json", "--overwrite"])?.json()?;
    assert_eq!(files["artifacts"].as_array().map(Vec::len), Some(2));
    assert_eq!((here.read("b.txt")?, here.read("out/a b.txt")?), (b"b".to_vec(), b"a".to_vec()));
    Ok(())
}

#[tokio::test]
async fn the_same_key_is_the_same_job() -> Result<()> {
    let grid = Grid::start().await?;
    let here = Here::of(&grid)?;
    here.write("s.py", "print('once')\n")?;
    let first = here.rgrid(&["run", "-d", "--idempotency-key", "k", "s.py"])?.line()?;
    assert_eq!(here.rgrid(&["run", "-d", "--idempotency-key", "k", "s.py"])?.line()?, first);
    // Run to its end, it shows the first one's output.
    assert_eq!(here.rgrid(&["run", "--idempotency-key", "k", "s.py"])?.line()?, "once");
    here.write("s.py", "print('twice')\n")?;
    let other = here.rgrid(&["run", "--idempotency-key", "k", "s.py"])?;
    assert_eq!(other.code, 2, "{}", other.err());
    assert!(other.err().contains("key"), "{}", other.err());
    Ok(())
}

#[test]
fn help_says_what_there_is() -> Result<()> {
    let here = Here::without_grid()?;
    insta::assert_snapshot!("help", here.rgrid(&["--help"])?.line()?);
    let shown = here.rgrid(&["run", "--help"])?.line()?;
    let own = here.path().with_file_name("no-grid").display().to_string();
    insta::assert_snapshot!("run-help", shown.replace(&own, "DIR"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(here.rgrid(&["completions", shell])?.line()?.contains("rgrid"), "{shell}");
    }
    assert!(here.rgrid(&["version"])?.line()?.starts_with("rgrid "));
    Ok(())
}

#[test]
fn a_configuration_is_shown_without_its_secrets() -> Result<()> {
    let here = Here::without_grid()?;
    let secret = ["--nats", "nats://me:hidden@127.0.0.1:4222", "--print-config"];
    let database = ["--database-url", "postgres://me:hidden@127.0.0.1/db"];
    for verb in [
        &["api", "--key", "hidden"][..],
        &["projector"],
        &["watcher"],
        &["runner", "--store", "s3://me:hidden@bucket"],
    ] {
        let with_database: &[&str] = if matches!(verb[0], "api" | "projector") { &database } else { &[] };
        let shown = here.rgrid(&[verb, &secret, with_database].concat())?.line()?;
        assert!(shown.contains("\"nats\": \"nats://me:***@127.0.0.1:4222\""), "{shown}");
        assert!(!shown.contains("hidden"), "{shown}");
    }
    Ok(())
}
