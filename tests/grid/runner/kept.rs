//! What a worker keeps of inputs: the next job that names them starts without the store, whatever became of the files of the job before.
//! The tests with containers need a Docker daemon and the image `rgrid/python:3`, and fail without.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use bus::ids::Digest;
use grid_tests::grid::{Grid, Part};
use serde_json::json;
use store::Files;
use tempfile::TempDir;

/// The runner, whose directory is known.
const RUNNER: Part = Part::Runner(1);

/// A grid over a directory, whose worker has this executor.
struct Kept {
    store: TempDir,
    files: Files,
    grid: Grid,
    executor: &'static str,
}

impl Kept {
    async fn start(executor: &'static str, options: &[&str]) -> Result<Self> {
        let store = TempDir::new()?;
        let url = format!("file://{}", store.path().display());
        let files = Files::open(&url.parse()?, None).await?;
        let grid = Grid::start_with(&[Part::Api, Part::Projector, Part::Watcher], vec![("RGRID_STORE", url)]).await?;
        let mut kept = Self {
            store,
            files,
            grid,
            executor,
        };
        kept.run(options)?;
        Ok(kept)
    }

    fn run(&mut self, options: &[&str]) -> Result<()> {
        self.grid.run_with(RUNNER, &[&["--executor", self.executor], options].concat())
    }

    /// Submits a job that has this content as `data.txt`.
    async fn submit(&self, script: &str, digest: &Digest, size: usize) -> Result<String> {
        let submitted = self
            .grid
            .submit(&json!({
                "runtime": "python",
                "command": ["-c", script],
                "executor": self.executor,
                "inputs": [{ "path": "in/data.txt", "sha256": digest, "size": size }],
            }))
            .await?;
        Ok(submitted["id"].as_str().context("an identity")?.to_owned())
    }

    async fn printed(&self, job: &str) -> Result<String> {
        let ended = self.grid.ended(job).await?;
        ensure!(ended["state"] == "succeeded", "{ended}\n{}", self.grid.log(RUNNER));
        Ok(String::from_utf8(self.grid.printed(job, "stdout").await?)?)
    }

    /// What is kept.
    fn inputs(&self) -> PathBuf {
        self.grid.dir().join("runner-1/inputs")
    }

    fn kept(&self) -> Vec<String> {
        let found = walkdir::WalkDir::new(self.inputs()).into_iter().flatten();
        let files = found.filter(|entry| entry.file_type().is_file());
        files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn lose_in_store(&self, digest: &Digest) -> Result<()> {
        Ok(fs::remove_file(self.store.path().join(Files::key(digest).as_ref()))?)
    }
}

/// Changes its input in every way that leaves the file where it is.
const REWRITES: &str = "\
import os
os.chmod('in/data.txt', 0o777)
with open('in/data.txt', 'r+') as file:
    print(file.read(), end='')
    file.seek(0)
    file.write('CHANGED')
";
const READS: &str = "print(open('in/data.txt').read(), end='')";

async fn a_second_job_gets_what_was_kept(executor: &'static str) -> Result<()> {
    let mut kept = Kept::start(executor, &[]).await?;
    let digest = kept.files.put_bytes("content".into()).await?;
    for _ in 0..2 {
        let job = kept.submit(REWRITES, &digest, 7).await?;
        ensure!(kept.printed(&job).await? == "content");
        let made = kept.grid.get(&format!("jobs/{job}/artifacts")).await?;
        ensure!(made["artifacts"][0]["sha256"] == json!(Digest::of(b"CHANGED")), "{made}");
    }
    ensure!(kept.kept() == [digest.to_string()]);
    ensure!(fs::metadata(kept.inputs())?.permissions().mode() & 0o777 == 0o700);
    kept.grid.kill(RUNNER)?;
    let job = kept.submit(READS, &digest, 7).await?;
    kept.lose_in_store(&digest)?;
    kept.run(&[])?;
    ensure!(kept.printed(&job).await? == "content");
    Ok(())
}

#[tokio::test]
async fn a_second_plain_process_gets_what_was_kept_though_the_first_rewrote_it() -> Result<()> {
    a_second_job_gets_what_was_kept("process").await
}

#[tokio::test]
async fn a_second_container_gets_what_was_kept_though_the_first_rewrote_it() -> Result<()> {
    a_second_job_gets_what_was_kept("docker").await
}

#[tokio::test]
async fn a_kept_input_that_is_damaged_is_fetched_again() -> Result<()> {
    let kept = Kept::start("process", &[]).await?;
    let digest = kept.files.put_bytes("content".into()).await?;
    let first = kept.submit(READS, &digest, 7).await?;
    ensure!(kept.printed(&first).await? == "content");
    let path = kept.inputs().join(&digest.to_string()[..2]).join(digest.to_string());
    fs::write(&path, "c0ntent")?;
    let second = kept.submit(READS, &digest, 7).await?;
    ensure!(kept.printed(&second).await? == "content");
    ensure!(fs::read_to_string(&path)? == "content" && kept.grid.log(RUNNER).contains("is damaged"));
    Ok(())
}

#[tokio::test]
async fn no_more_inputs_are_kept_than_the_worker_may() -> Result<()> {
    let kept = Kept::start("process", &["--cache-inputs", "40KiB"]).await?;
    let mut last = String::new();
    for content in ["a", "b", "c"] {
        let digest = kept.files.put_bytes(content.into()).await?;
        let job = kept.submit(READS, &digest, 1).await?;
        ensure!(kept.printed(&job).await? == content);
        last = digest.to_string();
        // Each counts 16 KiB.
        ensure!(kept.kept().len() <= 2 && kept.kept().contains(&last), "{:?}", kept.kept());
    }
    let large = "x".repeat(50_000);
    let digest = kept.files.put_bytes(large.clone().into()).await?;
    let job = kept.submit(READS, &digest, large.len()).await?;
    ensure!(
        kept.printed(&job).await? == large && kept.kept().contains(&last),
        "what is too large costs no other its place"
    );
    Ok(())
}

#[tokio::test]
async fn a_worker_that_keeps_nothing_fetches_each_time() -> Result<()> {
    let kept = Kept::start("process", &["--cache-inputs", "0B"]).await?;
    let digest = kept.files.put_bytes("content".into()).await?;
    let job = kept.submit(REWRITES, &digest, 7).await?;
    ensure!(kept.printed(&job).await? == "content" && kept.kept().is_empty());
    let job = kept.submit(READS, &digest, 7).await?;
    ensure!(kept.printed(&job).await? == "content");
    Ok(())
}

#[tokio::test]
async fn what_a_runner_was_killed_at_fetching_is_not_used() -> Result<()> {
    const SIZE: usize = 300 << 20;
    let mut kept = Kept::start("process", &[]).await?;
    let content = vec![7_u8; SIZE];
    let expected = Digest::of(&content);
    let digest = kept.files.put_bytes(content.into()).await?;
    let hash = "import hashlib\nprint(hashlib.sha256(open('in/data.txt', 'rb').read()).hexdigest())";
    let job = kept.submit(hash, &digest, SIZE).await?;
    kept.grid
        .eventually("some of it is there", async || (!kept.kept().is_empty()).then_some(()))
        .await?;
    kept.grid.kill(RUNNER)?;
    kept.run(&[])?;
    ensure!(kept.printed(&job).await?.trim() == expected.to_string());
    ensure!(kept.kept() == [digest.to_string()], "nothing half done is left: {:?}", kept.kept());
    Ok(())
}
