//! A signal that everything on a machine gets at once: what a shutdown ends is no failure and no loss of its job.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, Result, ensure};
use bus::{
    job::{AttemptEnd, Job, Outcome, Phase},
    spec::{ExecutorKind, JobSpec},
};
use rustix::process::{Pid, Signal, kill_process};

use super::{LONG, Service, Yard, lives, outcome, restart::containers_of, shell};
use crate::log::eventually;

/// Runs until it is ended, the first time; then it ends well.
const ONCE: &str = "[ $RGRID_ATTEMPT -gt 1 ] || sleep 300";

/// A process and everything below it that lives.
fn tree(root: u32) -> Result<Vec<i32>> {
    let mut found = vec![i32::try_from(root)?];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        // One that was listed a moment ago may have ended.
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
        for task in tasks.filter_map(Result::ok) {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    Ok(found)
}

/// Signals a runner, its helper and every command, in this order or the other, as an init system does.
fn signal_all(runner: &Service, signal: Signal, runner_last: bool) -> Result<Vec<i32>> {
    let mut all = tree(runner.child.id())?;
    ensure!(all.len() > 2, "nothing runs: {all:?}");
    if runner_last {
        all.reverse();
    }
    for pid in &all {
        match kill_process(Pid::from_raw(*pid).context("no process")?, signal) {
            // Its parent's end was its own.
            Err(rustix::io::Errno::SRCH) => {}
            signalled => signalled?,
        }
    }
    Ok(all)
}

fn returned(job: &Job) -> bool {
    matches!(job.phase, Phase::Retrying { .. } | Phase::Queued { .. }) && !job.attempts.is_empty()
}

/// A job that was interrupted by a shutdown, and then run well by the next runner.
async fn went_on(yard: &Yard, job: bus::ids::JobId) -> Result<()> {
    let job = yard.ended(job).await?;
    assert_eq!(outcome(&job)?, &Outcome::Succeeded, "{job:?}");
    assert_eq!((job.attempts.len(), job.losses, job.failures), (2, 0, 0), "{job:?}");
    assert_eq!(job.attempts[0].end, Some(AttemptEnd::Interrupted));
    Ok(())
}

#[tokio::test]
async fn commands_that_die_with_their_runner_are_handed_back() -> Result<()> {
    for (signal, runner_last) in [
        (Signal::TERM, false),
        (Signal::TERM, true),
        (Signal::INT, true),
        (Signal::HUP, true),
    ] {
        let yard = Yard::start().await?;
        let _watcher = yard.watcher()?;
        let mut runner = yard.runner_as("w", &["--cpus", "4"])?;
        let mut jobs = Vec::new();
        // A command itself, one below a shell, and one whose shell tells its child's end as an exit code.
        for script in [
            "[ $RGRID_ATTEMPT -gt 1 ] || exec sleep 300".to_owned(),
            ONCE.to_owned(),
            format!("trap : TERM INT HUP; {ONCE}; exit $?"),
        ] {
            jobs.push(yard.script(&script).await?);
        }
        for job in &jobs {
            yard.running(*job).await?;
        }
        eventually("the commands run", LONG, async || {
            let sleeps = tree(runner.child.id())?
                .into_iter()
                .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep"));
            Ok((sleeps.count() == jobs.len()).then_some(()))
        })
        .await?;
        let all: BTreeSet<i32> = signal_all(&runner, signal, runner_last)?.into_iter().collect();
        ensure!(runner.end().await?.success(), "{}", runner.log());
        for job in &jobs {
            yard.until(*job, "it is handed back", returned)
                .await
                .with_context(|| runner.log())?;
        }
        assert!(!all.into_iter().any(lives), "something goes on: {}", runner.log());
        let _next = yard.runner_as("next", &["--cpus", "4"])?;
        for job in jobs {
            went_on(&yard, job).await.with_context(|| format!("{signal:?}: {}", runner.log()))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_container_that_is_stopped_with_its_runner_is_handed_back() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let mut runner = yard.docker_runner("w", &[])?;
    let job = yard
        .submit(JobSpec {
            executor: Some(ExecutorKind::Docker),
            ..shell(ONCE)
        })
        .await?;
    yard.running(job).await?;
    let containers = containers_of(job)?;
    ensure!(!containers.is_empty(), "no container");
    // As a machine that is shut down does: the daemon ends its containers, and the runner hears of it too.
    let mut docker = Command::new("docker")
        .args(["kill", "--signal", "TERM"])
        .args(&containers)
        .spawn()?;
    ensure!(docker.wait()?.success());
    runner.signal(Signal::TERM)?;
    ensure!(runner.end().await?.success(), "{}", runner.log());
    yard.until(job, "it is handed back", returned).await.with_context(|| runner.log())?;
    let _next = yard.docker_runner("next", &[])?;
    went_on(&yard, job).await.with_context(|| runner.log())
}

#[tokio::test]
async fn a_command_that_somebody_kills_while_its_runner_goes_on_is_a_failure() -> Result<()> {
    let yard = Yard::start().await?;
    let _watcher = yard.watcher()?;
    let _runner = yard.runner(&[])?;
    let job = yard.marked("exec sleep 300").await?;
    let pid = yard.pid(1).await?;
    yard.running(job).await?;
    kill_process(Pid::from_raw(pid).context("no process")?, Signal::TERM)?;
    let job = yard.ended(job).await?;
    assert_eq!(outcome(&job)?, &Outcome::Signalled { signal: 15 });
    Ok(())
}
