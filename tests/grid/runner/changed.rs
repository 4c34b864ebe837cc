//! What a container does to its inputs after its runner restarted comes back all the same. This test needs a Docker daemon and the
//! image `rgrid/python:3`, and fails without.

use anyhow::{Context as _, Result, ensure};
use bus::{
    job::Outcome,
    output::manifest::Manifest,
    spec::{ExecutorKind, InputFile, JobSpec},
};
use rustix::process::Signal;
use store::{Files, StoreUrl};

use super::{LONG, Yard, outcome};
use crate::log::eventually;

/// Waits for a file that only the test makes, and then moves `b` over `a`, with the time that `a` had, and removes the directory `in`.
const MOVES: &str = "\
import os, shutil, time
while not os.path.exists('go'):
    time.sleep(0.02)
before = os.stat('a')
os.rename('b', 'a')
os.utime('a', ns=(before.st_atime_ns, before.st_mtime_ns))
shutil.rmtree('in')
";

#[tokio::test]
async fn a_restart_forgets_nothing_of_what_was_laid() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let store: StoreUrl = "nats://rgrid-files".parse()?;
    let files = Files::open(&store, Some(yard.writer.bus.js.clone())).await?;
    let mut inputs = Vec::new();
    for (path, content) in [("a", "1"), ("b", "2"), ("in/x", "x"), ("left", "left alone")] {
        inputs.push(InputFile {
            path: path.parse()?,
            sha256: files.put_bytes(content.into()).await?,
            size: content.len() as u64,
            executable: false,
            mode: None,
            modified_ms: None,
        });
    }
    let mut runner = yard.docker_runner("w", &[])?;
    let spec = JobSpec {
        executor: Some(ExecutorKind::Docker),
        runtime: "python".parse().ok(),
        inputs,
        ..JobSpec::new(vec!["-c".to_owned(), MOVES.to_owned()])
    };
    let job = yard.submit(spec).await?;
    yard.container(job).await?;
    runner.signal(Signal::HUP)?;
    ensure!(runner.end().await?.success());
    let work = eventually("the work directory is there", LONG, async || {
        let found = walkdir::WalkDir::new(yard.dir.path()).into_iter().flatten();
        let mut works = found.filter(|entry| entry.path().ends_with("work/left"));
        Ok(works.next().and_then(|entry| Some(entry.path().parent()?.to_owned())))
    })
    .await?;
    std::fs::write(work.join("go"), "")?;
    let _runner = yard.docker_runner("w", &[])?;
    let job = yard.ended(job).await?;
    assert_eq!(outcome(&job)?, &Outcome::Succeeded);
    let reference = job
        .finished()
        .and_then(|finished| finished.manifest.clone())
        .context("it left nothing")?;
    let manifest: Manifest = serde_json::from_slice(&files.get_bytes(&reference.sha256, 1 << 20).await?)?;
    let outputs: Vec<&str> = manifest.outputs.iter().map(|output| output.path.as_str()).collect();
    let deleted: Vec<&str> = manifest.deleted.iter().map(|path| path.as_str()).collect();
    assert_eq!((outputs, deleted), (vec!["a", "go"], vec!["b", "in", "in/x"]));
    Ok(())
}
