//! The watcher over a real nats-server, with workers that do nothing but speak: or fall silent.

mod backlog;
mod disconnects;
mod ends;
mod follows;
mod long;
mod nodes;
mod outages;
mod pairs;
mod silence;
mod snapshots;
mod times;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::watcher::Config;
use anyhow::{Context as _, Result};
use bus::{
    envelope::{Actor, Envelope, Event as _},
    ids::{Attempt, JobId, WorkerId},
    job::{AttemptEnd, Command, Job, LossCause, Outcome, Phase},
    log::{EVENTS, connect::Bus, follow::Follower, read},
    spec::JobSpec,
    worker::WorkerEvent,
};
use chrono::{DateTime, Utc};
use grid_tests::{
    nats::NatsServer,
    writer::{Worker, Writer},
};
use tokio::task::JoinHandle;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::log::eventually;

/// Longer than anything takes here; only a failure waits so long.
const LONG: Duration = Duration::from_secs(30);

/// A watcher in this process.
struct Watching {
    stop: CancellationToken,
    running: JoinHandle<Result<(), ::watcher::Error>>,
}

impl Watching {
    fn start(url: &str) -> Self {
        Self::start_with(url, Config::LAPSE)
    }

    /// A hasty one, for tests in which nobody beats.
    fn hasty(url: &str) -> Self {
        Self::start_with(url, Duration::from_secs(1))
    }

    fn start_with(url: &str, lapse: Duration) -> Self {
        Self::start_as(Config { lapse, ..Config::new(url) })
    }

    /// One that hears of the broker's clients.
    fn quick(server: &NatsServer) -> Self {
        Self::start_as(Config {
            nats_system: Some(server.system_url()),
            ..Config::new(server.url())
        })
    }

    fn start_as(config: Config) -> Self {
        let stop = CancellationToken::new();
        let running = TaskTracker::new().spawn(::watcher::run(config, stop.clone()));
        Self { stop, running }
    }

    /// Ends it as a SIGKILL would: in the middle of whatever it does.
    async fn kill(self) {
        self.running.abort();
        let _aborted = self.running.await;
    }

    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(tokio::time::timeout(LONG, self.running).await???)
    }
}

/// What a worker says of itself: its last claim, and the attempts that it has.
type Said = Arc<Mutex<(u64, Vec<(JobId, Attempt)>)>>;

/// A worker that beats each second, over a connection of its own, until this is dropped.
struct Beating {
    worker: Worker,
    said: Said,
    /// A connection that is called as a runner's is.
    line: Bus,
    _stop: DropGuard,
}

impl Beating {
    async fn start(url: &str, name: &str) -> Result<Self> {
        let bus = Bus::connect(url, "test").await?;
        let worker = Worker::register(&Writer::over(bus), name).await?;
        let said = Arc::new(Mutex::new((0, Vec::new())));
        let line = line(url, &worker).await?;
        let stop = CancellationToken::new();
        // As a runner does, it beats over the connection that is called by its name.
        let beats = worker.over(line.clone());
        // Where a server was just lost, its heirs are still being chosen.
        eventually("it is heard", LONG, async || Ok(beats.beat(0, &[]).await.ok())).await?;
        TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(beat(beats, said.clone())));
        let _stop = stop.drop_guard();
        Ok(Self { worker, said, line, _stop })
    }

    /// Claims a job, and lists it in every heartbeat from now on.
    async fn claim(&self, job: JobId) -> Result<()> {
        let sequence = self.worker.claim(job).await?;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.0 = sequence;
        said.1.push((job, Attempt::FIRST));
        Ok(())
    }

    /// Lists nothing any more.
    fn forget(&self) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).1.clear();
    }
}

/// Connects as this worker's runner would.
async fn line(url: &str, worker: &Worker) -> Result<Bus> {
    Ok(Bus::connect(url, &format!("worker/{}/{}", worker.id, worker.session)).await?)
}

async fn beat(worker: Worker, said: Said) {
    let beats = TaskTracker::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (last_claim, attempts) = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let worker = worker.clone();
        // Not waited for: a heartbeat that the broker does not acknowledge holds up no other.
        beats.spawn(async move { worker.beat(last_claim, &attempts).await });
    }
}

/// The job, as soon as it is so.
async fn until(writer: &Writer, job: JobId, what: &str, so: impl Fn(&Job) -> bool) -> Result<Job> {
    eventually(what, LONG, async || Ok(writer.job(job).await?.filter(&so))).await
}

fn is_queued(attempt: u32) -> impl Fn(&Job) -> bool {
    move |job| matches!(job.phase, Phase::Queued { next } if next == Attempt(attempt))
}

/// Why the job's last attempt was lost.
fn lost(job: &Job) -> Option<&LossCause> {
    match job.attempts.last()?.end.as_ref()? {
        AttemptEnd::Lost(cause) => Some(cause),
        AttemptEnd::Finished(_) | AttemptEnd::Returned | AttemptEnd::Interrupted | AttemptEnd::Cancelled => None,
    }
}

/// How often each worker was given up.
async fn losses(writer: &Writer) -> Result<BTreeMap<WorkerId, usize>> {
    let mut losses = BTreeMap::new();
    for (worker, envelope) in worker_events(writer).await? {
        if matches!(envelope.event, WorkerEvent::Lost(_)) {
            *losses.entry(worker).or_default() += 1;
        }
    }
    Ok(losses)
}

/// Every event of every worker until now.
async fn worker_events(writer: &Writer) -> Result<Vec<(WorkerId, Envelope<WorkerEvent>)>> {
    let mut follower = Follower::new(&writer.bus.js, EVENTS, vec![bus::subjects::WORKER_EVENTS.to_owned()], 0);
    let mut events = Vec::new();
    loop {
        let message = follower.next().await;
        let worker = message.subject.rsplit('.').next().context("a token")?.parse()?;
        // One test writes what cannot be read.
        events.extend(Envelope::from_json(&message.payload).ok().map(|envelope| (worker, envelope)));
        if message.pending == 0 {
            return Ok(events);
        }
    }
}

/// Waits until this worker is given up.
async fn until_lost(writer: &Writer, worker: &Worker) -> Result<BTreeMap<WorkerId, usize>> {
    eventually("the worker is lost", LONG, async || {
        let losses = losses(writer).await?;
        Ok(losses.contains_key(&worker.id).then_some(losses))
    })
    .await
}

/// Submits a job of this spec; when the API says that it was.
async fn submit(writer: &Writer, spec: JobSpec) -> Result<JobId> {
    let id = JobId::new();
    let spec = Box::new(spec);
    writer.say(id, &Actor::Api, Command::Submit { spec }).await?;
    Ok(id)
}

/// Ends an attempt with this exit code.
async fn fail(writer: &Writer, worker: &Worker, job: JobId, attempt: u32, exit_code: i32) -> Result<()> {
    let Command::Finish {
        attempt,
        session,
        manifest,
        usage,
        ..
    } = worker.finish_command(Attempt(attempt))
    else {
        unreachable!()
    };
    let outcome = Outcome::Failed { exit_code };
    let command = Command::Finish {
        attempt,
        session,
        outcome,
        manifest,
        usage,
    };
    writer.say(job, &worker.actor(), command).await?;
    Ok(())
}

/// When the last event of this type was said.
async fn said_at(writer: &Writer, job: JobId, kind: &str) -> Result<DateTime<Utc>> {
    let history = read::history(&writer.bus.js, job).await?;
    let last = history.iter().rev().find(|recorded| recorded.envelope.event.kind() == kind);
    Ok(last.with_context(|| format!("no {kind}"))?.envelope.time)
}
