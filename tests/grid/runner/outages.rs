//! A Docker daemon that is cut off or frozen, and a full disk: the runner goes on, and says what is wrong.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bus::{
    job::Outcome,
    spec::{ExecutorKind, JobSpec},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Service, Yard, gone, outcome, restart, shell};

/// How a daemon behind a proxy behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Daemon {
    Well,
    /// It takes connections, and says nothing.
    Frozen,
    /// It takes none, and those that there were are gone.
    Away,
}

/// Stands before the Docker daemon's socket.
struct Proxy {
    socket: PathBuf,
    daemon: watch::Sender<Daemon>,
    stop: CancellationToken,
}

impl Proxy {
    fn start(dir: &Path) -> Result<Self> {
        let socket = dir.join("docker.sock");
        let (daemon, state) = watch::channel(Daemon::Well);
        let stop = CancellationToken::new();
        let listener = UnixListener::bind(&socket)?;
        TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(accept(listener, state)));
        Ok(Self { socket, daemon, stop })
    }

    fn is(&self, daemon: Daemon) {
        self.daemon.send_replace(daemon);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: UnixListener, state: watch::Receiver<Daemon>) {
    let connections = TaskTracker::new();
    while let Ok((client, _)) = listener.accept().await {
        if *state.borrow() == Daemon::Away {
            continue;
        }
        let state = state.clone();
        connections.spawn(async move {
            let Ok(daemon) = UnixStream::connect("/var/run/docker.sock").await else {
                return;
            };
            let ((from_client, to_client), (from_daemon, to_daemon)) = (client.into_split(), daemon.into_split());
            let mut away = state.clone();
            tokio::select! {
                _ = async { tokio::join!(carry(from_client, to_daemon, state.clone()), carry(from_daemon, to_client, state.clone())) } => {}
                _ = away.wait_for(|daemon| *daemon == Daemon::Away) => {}
            }
        });
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<Daemon>) -> Option<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await.ok()?;
        state.wait_for(|daemon| *daemon != Daemon::Frozen).await.ok()?;
        if read == 0 {
            return to.shutdown().await.ok();
        }
        to.write_all(&buffer[..read]).await.ok()?;
    }
}

impl Yard {
    /// A runner whose Docker daemon is behind a proxy.
    fn behind(&self, proxy: &Arc<Proxy>, executor: &str) -> Result<Service> {
        let mut command = self.service("runner");
        command
            .args([
                "--worker",
                "w",
                "--cpus",
                "4",
                "--memory",
                "2GiB",
                "--executor",
                executor,
                "--grace",
                "500ms",
            ])
            .arg("--work-dir")
            .arg(self.path("w"))
            .env("DOCKER_HOST", format!("unix://{}", proxy.socket.display()));
        Service::start(command, self.path("w.log"))
    }
}

fn contained(script: &str) -> JobSpec {
    JobSpec {
        executor: Some(ExecutorKind::Docker),
        image: Some("rgrid/python:3".to_owned()),
        ..shell(script)
    }
}

#[tokio::test]
async fn a_container_outlives_a_daemon_that_is_cut_off_and_its_log_is_whole() -> Result<()> {
    let yard = Yard::start().await?;
    let proxy = Arc::new(Proxy::start(yard.dir.path())?);
    let runner = yard.behind(&proxy, "auto")?;
    let job = yard.submit(restart::counts(100)).await?;
    let container = yard.container(job).await?;
    for _ in 0..2 {
        restart::prints(&container, 8).await?;
        proxy.is(Daemon::Away);
        restart::prints(&container, 8).await?;
        proxy.is(Daemon::Well);
    }
    yard.counts_well(job, 100, 1).await?;
    runner.says("waiting for it, and for container").await
}

#[tokio::test]
async fn a_container_that_ended_with_its_daemon_is_told_from_one_that_was_killed() -> Result<()> {
    let yard = Yard::start().await?;
    let proxy = Arc::new(Proxy::start(yard.dir.path())?);
    let runner = yard.behind(&proxy, "docker")?;
    let job = yard.submit(contained("echo begun; sleep 300")).await?;
    let container = yard.container(job).await?;
    proxy.is(Daemon::Away);
    runner.says("waiting for it, and for container").await?;
    // As a daemon does when it comes back.
    let killed = Command::new("docker").args(["kill", &container]).output()?;
    ensure!(killed.status.success());
    proxy.is(Daemon::Well);
    let job = yard.ended(job).await?;
    let Outcome::Error { message, .. } = outcome(&job)? else {
        anyhow::bail!("{job:?}")
    };
    ensure!(
        message.contains("went away while the container ran") && message.contains("live-restore"),
        "{message}"
    );
    assert_eq!(yard.kept(&job).await?.0, "begun\n");
    Ok(())
}

#[tokio::test]
async fn a_job_waits_for_a_daemon_that_is_away_and_says_so() -> Result<()> {
    let yard = Yard::start().await?;
    let proxy = Arc::new(Proxy::start(yard.dir.path())?);
    let runner = yard.behind(&proxy, "docker")?;
    runner.says("worker w serves").await?;
    proxy.is(Daemon::Away);
    let job = yard.submit(contained("echo ran")).await?;
    runner.says("waits for it").await?;
    proxy.is(Daemon::Well);
    let job = yard.ended(job).await?;
    assert_eq!(outcome(&job)?, &Outcome::Succeeded);
    let (out, err, _) = yard.kept(&job).await?;
    assert_eq!(out, "ran\n");
    ensure!(err.contains("the Docker daemon does not answer; waiting"), "{err}");
    Ok(())
}

#[tokio::test]
async fn a_frozen_daemon_holds_up_nobody_else_and_takes_a_cancel_when_it_can() -> Result<()> {
    let yard = Yard::start().await?;
    let proxy = Arc::new(Proxy::start(yard.dir.path())?);
    let _runner = yard.behind(&proxy, "auto")?;
    let held = yard.submit(contained("sleep 300")).await?;
    yard.running(held).await?;
    proxy.is(Daemon::Frozen);
    yard.cancel(held).await?;
    // What leaves it open how it is run does without Docker.
    let open = JobSpec {
        runtime: "python".parse().ok(),
        ..JobSpec::new(vec!["-c".to_owned(), "print('ran')".to_owned()])
    };
    let open = yard.submit(open).await?;
    let open = yard.ended(open).await?;
    assert_eq!(outcome(&open)?, &Outcome::Succeeded);
    assert_eq!(open.attempts[0].executor, Some(ExecutorKind::Process));
    proxy.is(Daemon::Well);
    assert_eq!(outcome(&yard.ended(held).await?)?, &Outcome::Cancelled);
    restart::removed(held).await
}

/// A file system of its own, small, for as long as this lives.
struct Small(PathBuf);

impl Small {
    fn mount(dir: PathBuf) -> Result<Option<Self>> {
        std::fs::create_dir_all(&dir)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(&dir)
            .output()?;
        Ok(mounted.status.success().then_some(Self(dir)))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // What still uses it keeps it until then.
        let _unmounted = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_full_disk_ends_the_jobs_that_need_it_with_a_sentence_and_no_other() -> Result<()> {
    let yard = Yard::start().await?;
    // Only root may mount.
    let Some(_small) = Small::mount(yard.path("w"))? else {
        return Ok(());
    };
    let mut runner = yard.runner(&["--cpus", "2"])?;
    let message = async |job| {
        let job = yard.ended(job).await?;
        match outcome(&job)? {
            Outcome::Error { message, .. } => Ok(message.clone()),
            other => anyhow::bail!("{other:?}"),
        }
    };
    // It prints more than the disk holds.
    let chatty = yard.script("head -c 4000000 /dev/zero; sleep 300").await?;
    let said = message(chatty).await?;
    ensure!(said.contains("cannot keep the log") && said.contains("make room"), "{said}");
    // It fills the disk itself, and says so; another meanwhile cannot begin, or cannot lay out its files.
    let full = yard
        .marked("cat /dev/zero > big; echo filled; while [ -e big ]; do sleep 0.05; done")
        .await?;
    yard.running(full).await?;
    let pid = yard.pid(1).await?;
    let next = yard.script("echo small").await?;
    let next = yard.ended(next).await?;
    ensure!(next.state().is_end());
    yard.cancel(full).await?;
    yard.ended(full).await?;
    gone(pid).await?;
    let begun = Instant::now();
    let well = yard.script("echo well > out").await?;
    let well = yard.ended(well).await?;
    assert_eq!(outcome(&well)?, &Outcome::Succeeded, "{}", runner.log());
    ensure!(begun.elapsed() < Duration::from_secs(30) && runner.child.try_wait()?.is_none());
    Ok(())
}
