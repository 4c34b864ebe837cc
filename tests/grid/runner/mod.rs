//! A runner as a process of its own, over a real nats-server: what it does when it must end something, or itself.

mod ahead;
mod asks;
mod changed;
mod clocks;
mod equipment;
mod everybody;
mod fence;
mod full;
mod heartbeats;
mod kept;
mod leave;
mod notes;
mod outages;
mod restart;
mod strangers;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bus::{
    envelope::{Actor, Envelope},
    ids::{JobId, WorkerId},
    job::{self, End, Job, Outcome, Phase},
    log::append::Append,
    spec::JobSpec,
    worker::{Heartbeat, WorkerEvent},
};
use futures::StreamExt as _;
use grid_tests::{grid::rgrid, nats::NatsServer, writer::Writer};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::log::eventually;

/// Longer than anything takes here; only a failure waits so long.
const LONG: Duration = Duration::from_secs(60);

/// A broker, and a directory for what jobs leave outside the grid.
struct Yard {
    nats: NatsServer,
    writer: Writer,
    dir: TempDir,
}

impl Yard {
    async fn start() -> Result<Self> {
        let nats = NatsServer::start().await?;
        let writer = Writer::connect(nats.url()).await?;
        Ok(Self {
            nats,
            writer,
            dir: TempDir::with_prefix("rgrid-yard-")?,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A runner of plain processes for the worker `w`, with one CPU.
    fn runner(&self, arguments: &[&str]) -> Result<Service> {
        self.runner_as("w", arguments)
    }

    fn runner_as(&self, worker: &str, arguments: &[&str]) -> Result<Service> {
        let mut command = self.service("runner");
        command
            .args(["--worker", worker])
            .envs([("RGRID_CPUS", "1"), ("RGRID_MEMORY", "1GiB"), ("RGRID_EXECUTOR", "process")]);
        command.arg("--work-dir").arg(self.path(worker)).args(arguments);
        Service::start(command, self.path(&format!("{worker}.log")))
    }

    fn watcher(&self) -> Result<Service> {
        Service::start(self.service("watcher"), self.path("watcher.log"))
    }

    fn service(&self, verb: &str) -> Command {
        let mut command = Command::new(rgrid());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("RGRID_NATS", self.nats.url())
            .env("RGRID_LOG", "debug")
            .arg(verb);
        command
    }

    async fn submit(&self, spec: JobSpec) -> Result<JobId> {
        let id = JobId::new();
        let submit = job::Command::Submit { spec: Box::new(spec) };
        self.writer.say(id, &Actor::Api, submit).await?;
        Ok(id)
    }

    /// Submits a shell script.
    async fn script(&self, script: &str) -> Result<JobId> {
        self.submit(shell(script)).await
    }

    /// Submits a script that leaves its process id, and its attempt's number, outside the grid.
    async fn marked(&self, script: &str) -> Result<JobId> {
        self.script(&format!("echo $$ > {}/pid.$RGRID_ATTEMPT; {script}", self.dir.path().display()))
            .await
    }

    /// The process of a marked attempt, once it runs.
    async fn pid(&self, attempt: u32) -> Result<i32> {
        let file = self.path(&format!("pid.{attempt}"));
        eventually("the attempt runs", LONG, async || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            Ok(text.trim().parse().ok())
        })
        .await
    }

    /// An operator's word on the worker `w`.
    async fn operator(&self, event: WorkerEvent) -> Result<()> {
        let worker: WorkerId = "w".parse()?;
        let envelope = Envelope::new(Actor::Api, event);
        self.writer.log.append(Append::worker(&worker, None, &envelope)).await?;
        Ok(())
    }

    async fn until(&self, job: JobId, what: &str, so: impl Fn(&Job) -> bool) -> Result<Job> {
        let awaited = eventually(what, LONG, async || Ok(self.writer.job(job).await?.filter(&so))).await;
        let last = self.writer.job(job).await?;
        awaited.with_context(|| format!("it is {last:?}"))
    }

    async fn running(&self, job: JobId) -> Result<Job> {
        self.until(job, "the job runs", |job| matches!(job.phase, Phase::Running { .. }))
            .await
    }

    async fn ended(&self, job: JobId) -> Result<Job> {
        self.until(job, "the job ends", |job| job.state().is_end()).await
    }

    /// Waits until a worker has sent two heartbeats from now on that list no attempt: in the time between them it takes none.
    async fn idles(&self, worker: &str) -> Result<()> {
        let subject = bus::subjects::beat(&worker.parse()?);
        let mut heartbeats = self.writer.bus.client.subscribe(subject).await?;
        let mut idle = 0;
        while idle < 2 {
            let heartbeat = tokio::time::timeout(LONG, heartbeats.next())
                .await?
                .context("the connection ended")?;
            let heartbeat: Heartbeat = serde_json::from_slice(&heartbeat.payload)?;
            idle = if heartbeat.attempts.is_empty() { idle + 1 } else { 0 };
        }
        Ok(())
    }

    async fn cancel(&self, job: JobId) -> Result<()> {
        self.writer.say(job, &Actor::Api, job::Command::Cancel { reason: None }).await?;
        Ok(())
    }
}

fn shell(script: &str) -> JobSpec {
    JobSpec::new(["/bin/sh", "-c", script].map(ToOwned::to_owned).to_vec())
}

/// How the job's last attempt ended on its worker.
fn outcome(job: &Job) -> Result<&Outcome> {
    match &job.phase {
        Phase::Ended(End::Finished(outcome)) => Ok(outcome),
        other => anyhow::bail!("{other:?}"),
    }
}

/// A process of rgrid, killed with this handle.
struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().context("rgrid is not built: `cargo build -p rgrid` first")?;
        Ok(Self { child, log })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("no such process")?;
        Ok(kill_process(pid, signal)?)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its log holds this.
    async fn says(&self, words: &str) -> Result<()> {
        eventually(&format!("the runner says `{words}`"), LONG, async || {
            Ok(self.log().contains(words).then_some(()))
        })
        .await
        .with_context(|| self.log())
    }

    /// Waits until it ends by itself.
    async fn end(&mut self) -> Result<ExitStatus> {
        eventually("the process ends", LONG, async || Ok(self.child.try_wait()?))
            .await
            .with_context(|| self.log())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended before.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Whether a process is there, and no zombie.
fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

/// Waits until a process is gone, and says how long that took.
async fn gone(pid: i32) -> Result<Duration> {
    let start = Instant::now();
    eventually("the process is gone", LONG, async || Ok((!lives(pid)).then_some(()))).await?;
    Ok(start.elapsed())
}

/// Whether no attempt of a worker has left anything in its work directory.
fn is_clean(work_dir: &Path) -> Result<bool> {
    let mut left = 0;
    for place in std::fs::read_dir(work_dir.join("attempts"))? {
        let place = place?.path();
        let names = ["work", "tmp"].map(|name| std::fs::read_dir(place.join(name)).map_or(0, Iterator::count));
        left += names.iter().sum::<usize>();
    }
    Ok(left == 0)
}
