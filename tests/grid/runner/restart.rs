//! An upgraded runner loses no work. These tests need a Docker daemon and the image `rgrid/python:3`, and fail without.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, ensure};
use bus::{
    ids::JobId,
    job::{Job, Outcome, Phase},
    output::{
        frame::{Frame, Stream},
        manifest::Manifest,
    },
    spec::{ExecutorKind, JobSpec},
};
use rustix::process::Signal;
use store::{Files, StoreUrl};

use super::{LONG, Service, Yard, gone, outcome, shell};
use crate::log::eventually;

/// Prints a number each 50 ms on one stream, and now and then on the other, in lines of all kinds; and writes an output.
const COUNTS: &str = "
import os, sys, time
def out(stream, text):
    os.write(stream, text.encode())
for i in range(int(sys.argv[1])):
    out(1, f'{i}\\n' if i % 7 else f'{i}')
    if i % 7 == 0:
        out(1, '\\n')
    if i % 10 == 0:
        out(2, f'err {i}\\n')
    if i == 25:
        out(1, 'x' * 50000 + '\\n')
    time.sleep(0.05)
open('output', 'w').write('made by ' + os.environ['RGRID_ATTEMPT'])
out(1, 'end without newline')
";

/// The largest content that is read here, in bytes.
const MOST: usize = 64 << 20;

fn counted(count: usize) -> (String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    for i in 0..count {
        out.push_str(&format!("{i}\n"));
        if i % 10 == 0 {
            err.push_str(&format!("err {i}\n"));
        }
        if i == 25 {
            out.push_str(&"x".repeat(50_000));
            out.push('\n');
        }
    }
    out.push_str("end without newline");
    (out, err)
}

pub(super) fn counts(count: usize) -> JobSpec {
    JobSpec {
        executor: Some(ExecutorKind::Docker),
        runtime: "python".parse().ok(),
        ..JobSpec::new(vec!["-c".to_owned(), COUNTS.to_owned(), count.to_string()])
    }
}

impl Yard {
    pub(super) fn docker_runner(&self, worker: &str, arguments: &[&str]) -> Result<Service> {
        let arguments: Vec<&str> = ["--executor", "auto", "--cpus", "4"].iter().chain(arguments).copied().collect();
        self.runner_as(worker, &arguments)
    }

    /// What a job printed, as it is kept, and its outputs.
    pub(super) async fn kept(&self, job: &Job) -> Result<(String, String, BTreeMap<String, String>)> {
        let store: StoreUrl = "nats://rgrid-files".parse()?;
        let files = Files::open(&store, Some(self.writer.bus.js.clone())).await?;
        let finished = job.finished().context("it is not finished")?;
        let manifest = finished.manifest.as_ref().context("it left nothing")?;
        let manifest: Manifest = serde_json::from_slice(&files.get_bytes(&manifest.sha256, MOST).await?)?;
        let mut log = Vec::new();
        for segment in &manifest.log {
            log.extend_from_slice(&files.get_bytes(&segment.sha256, MOST).await?);
        }
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for frame in Frame::read_all(log.into())? {
            match frame.stream {
                Stream::Stdout => out.extend_from_slice(&frame.bytes),
                Stream::Stderr => err.extend_from_slice(&frame.bytes),
            }
        }
        ensure!(
            (manifest.stdout_bytes, manifest.stderr_bytes) == (out.len() as u64, err.len() as u64),
            "the counts are wrong"
        );
        let mut outputs = BTreeMap::new();
        for output in &manifest.outputs {
            let content = files.get_bytes(&output.sha256, MOST).await?;
            outputs.insert(output.path.to_string(), String::from_utf8(content.to_vec())?);
        }
        Ok((String::from_utf8(out)?, String::from_utf8(err)?, outputs))
    }

    pub(super) async fn counts_well(&self, job: JobId, count: usize, attempt: u32) -> Result<()> {
        let job = self.ended(job).await?;
        assert_eq!(outcome(&job)?, &Outcome::Succeeded);
        assert_eq!(job.attempts.len(), usize::try_from(attempt)?, "{job:?}");
        let (out, err, outputs) = self.kept(&job).await?;
        let expected = counted(count);
        ensure!(
            out == expected.0,
            "lost, doubled or out of order: {:?}",
            out.replace(&"x".repeat(50_000), "…")
        );
        assert_eq!(err, expected.1);
        assert_eq!(outputs, BTreeMap::from([("output".to_owned(), format!("made by {attempt}"))]));
        removed(job.id).await
    }

    /// Waits until a job's container is there, and says its first process.
    pub(super) async fn container(&self, job: JobId) -> Result<String> {
        self.running(job).await?;
        let ids = containers_of(job)?;
        ids.into_iter().next().context("no container")
    }
}

pub(super) fn containers_of(job: JobId) -> Result<Vec<String>> {
    let filter = format!("label=rgrid.job={job}");
    let listed = Command::new("docker")
        .args(["ps", "-aq", "--no-trunc", "--filter", &filter])
        .output()?;
    Ok(String::from_utf8(listed.stdout)?.lines().map(ToOwned::to_owned).collect())
}

/// Waits until a container has printed so many more lines than now.
pub(super) async fn prints(container: &str, more: usize) -> Result<()> {
    let lines = || -> Result<usize> {
        let logs = Command::new("docker").args(["logs", container]).output()?;
        Ok(logs.stdout.iter().filter(|byte| **byte == b'\n').count())
    };
    let before = lines()?;
    eventually("the container prints", LONG, async || Ok((lines()? >= before + more).then_some(()))).await
}

pub(super) async fn removed(job: JobId) -> Result<()> {
    eventually("the container is gone", LONG, async || {
        Ok(containers_of(job)?.is_empty().then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_container_goes_on_over_restarts_of_its_runner_and_nothing_of_it_is_lost_or_doubled() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let mut runner = yard.docker_runner("w", &[])?;
    let job = yard.submit(counts(160)).await?;
    let container = yard.container(job).await?;
    for _ in 0..3 {
        prints(&container, 10).await?;
        runner.signal(Signal::HUP)?;
        ensure!(runner.end().await?.success(), "{}", runner.log());
        assert_eq!(
            containers_of(job)?,
            std::slice::from_ref(&container),
            "it was ended: {}",
            runner.log()
        );
        prints(&container, 6).await?;
        runner = yard.docker_runner("w", &[])?;
        runner.says("continuing attempt 1").await?;
    }
    yard.counts_well(job, 160, 1).await?;
    let job = yard.writer.job(job).await?.context("no job")?;
    assert_eq!(job.losses, 0);
    Ok(())
}

#[tokio::test]
async fn a_container_that_ended_while_there_was_no_runner_is_committed_by_the_next() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let mut runner = yard.docker_runner("w", &[])?;
    let job = yard.submit(counts(40)).await?;
    let container = yard.container(job).await?;
    runner.signal(Signal::HUP)?;
    ensure!(runner.end().await?.success());
    let state = || -> Result<bool> {
        let inspected = Command::new("docker")
            .args(["inspect", "-f", "{{.State.Status}}", &container])
            .output()?;
        Ok(String::from_utf8(inspected.stdout)?.trim() == "exited")
    };
    eventually("the container ends", LONG, async || Ok(state()?.then_some(()))).await?;
    let _runner = yard.docker_runner("w", &[])?;
    yard.counts_well(job, 40, 1).await
}

#[tokio::test]
async fn a_crash_is_a_loss_and_its_containers_are_killed_by_any_runner_of_the_machine() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let mut runner = yard.docker_runner("w", &[])?;
    let job = yard.submit(counts(100)).await?;
    let container = yard.container(job).await?;
    runner.child.kill()?;
    runner.end().await?;
    assert_eq!(
        containers_of(job)?,
        std::slice::from_ref(&container),
        "a container outlives its runner"
    );
    let _other = yard.docker_runner("other", &[])?;
    eventually("the container is gone", LONG, async || {
        Ok((!containers_of(job)?.contains(&container)).then_some(()))
    })
    .await?;
    yard.counts_well(job, 100, 2).await
}

#[tokio::test]
async fn a_runner_that_comes_back_too_late_commits_nothing() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let mut runner = yard.docker_runner("w", &["--restart-deadline", "1s"])?;
    let job = yard.submit(counts(60)).await?;
    let container = yard.container(job).await?;
    runner.signal(Signal::HUP)?;
    ensure!(runner.end().await?.success());
    let rescheduled = |job: &Job| matches!(job.phase, Phase::Queued { .. });
    yard.until(job, "it is given up", rescheduled).await?;
    let late = yard.docker_runner("w", &[])?;
    late.says("was given up before this runner could resume it").await?;
    eventually("the container is gone", LONG, async || {
        Ok((!containers_of(job)?.contains(&container)).then_some(()))
    })
    .await?;
    yard.counts_well(job, 60, 2).await
}

#[tokio::test]
async fn plain_processes_do_not_outlive_a_restart_and_are_no_loss_where_nothing_is_left() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let mut runner = yard.runner(&["--grace", "1s"])?;
    let job = yard.marked("[ $RGRID_ATTEMPT -gt 1 ] || exec sleep 300").await?;
    let pid = yard.pid(1).await?;
    yard.running(job).await?;
    runner.signal(Signal::HUP)?;
    ensure!(runner.end().await?.success());
    gone(pid).await?;
    let _runner = yard.runner(&[])?;
    let job = yard.ended(job).await?;
    assert_eq!((job.attempts.len(), job.losses), (2, 0), "{job:?}");
    Ok(())
}

#[tokio::test]
async fn processes_and_containers_restart_side_by_side() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let mut runner = yard.docker_runner("w", &["--grace", "1s"])?;
    let contained = yard.submit(counts(120)).await?;
    let plain = yard
        .submit(JobSpec {
            executor: Some(ExecutorKind::Process),
            ..shell("[ $RGRID_ATTEMPT -gt 1 ] || exec sleep 300")
        })
        .await?;
    yard.container(contained).await?;
    yard.running(plain).await?;
    runner.signal(Signal::HUP)?;
    ensure!(runner.end().await?.success());
    let _runner = yard.docker_runner("w", &[])?;
    assert_eq!(yard.ended(plain).await?.attempts.len(), 2);
    yard.counts_well(contained, 120, 1).await
}

#[tokio::test]
async fn a_container_that_vanished_meanwhile_is_made_again() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let mut runner = yard.docker_runner("w", &[])?;
    let job = yard.submit(counts(80)).await?;
    let container = yard.container(job).await?;
    runner.signal(Signal::HUP)?;
    ensure!(runner.end().await?.success());
    let removed = Command::new("docker").args(["rm", "-f", &container]).output()?;
    ensure!(removed.status.success());
    let _runner = yard.docker_runner("w", &[])?;
    yard.counts_well(job, 80, 2).await
}

#[tokio::test]
async fn a_cancel_reaches_a_container_that_a_restart_left() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let mut runner = yard.docker_runner("w", &["--grace", "200ms"])?;
    let job = yard.submit(counts(2_000)).await?;
    yard.container(job).await?;
    runner.signal(Signal::HUP)?;
    ensure!(runner.end().await?.success());
    yard.cancel(job).await?;
    let _runner = yard.docker_runner("w", &["--grace", "200ms"])?;
    assert_eq!(outcome(&yard.ended(job).await?)?, &Outcome::Cancelled);
    removed(job).await
}
