//! A long log: how soon a watcher is ready on it, and in how much memory, with a snapshot and without.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bus::{
    envelope::{Actor, Envelope},
    ids::{Attempt, JobId},
    job::{Claimed, Finished, JobEvent, Outcome, Started, Submitted, Usage},
    log::{append::Append, connect::Bus},
    spec::{ExecutorKind, JobSpec},
};
use grid_tests::{
    grid::{Grid, Part},
    writer::{Worker, Writer, namespace},
};
use object_store::{ObjectStoreExt as _, path::Path};
use store::Files;

use super::{LONG, is_queued, until};
use crate::log::eventually;

/// Jobs whose events are sent together.
const WINDOW: usize = 250;
/// Events of one job: submitted, claimed, started, finished.
const EVENTS: usize = 4;

/// Writes the events of jobs that ran, one as one; nobody else may write meanwhile, as sequences are counted ahead.
async fn fill(writer: &Writer, worker: &Worker, jobs: usize) -> Result<()> {
    let mut last = writer.bus.js.get_stream(bus::log::EVENTS).await?.cached_info().state.last_sequence;
    let spec = JobSpec::new(["python3", "simulate.py", "--steps", "1000"].map(ToOwned::to_owned).to_vec());
    for window in 0..jobs.div_ceil(WINDOW) {
        let ids = (window * WINDOW..jobs.min((window + 1) * WINDOW)).map(|_| JobId::new());
        let ids = ids.collect::<Vec<_>>();
        let mut pending = Vec::with_capacity(ids.len() * EVENTS);
        for step in 0..EVENTS {
            for (at, id) in ids.iter().enumerate() {
                let (actor, event) = event(step, worker, &spec);
                let after = if step == 0 { 0 } else { last + 1 + at as u64 - ids.len() as u64 };
                pending.push(
                    writer
                        .log
                        .send(Append::job(&namespace(), *id, after, &Envelope::new(actor, event)))
                        .await,
                );
            }
            last += ids.len() as u64;
        }
        for pending in pending {
            pending.stored().await?;
        }
    }
    Ok(())
}

fn event(step: usize, worker: &Worker, spec: &JobSpec) -> (Actor, JobEvent) {
    let (attempt, session) = (Attempt::FIRST, worker.session);
    let event = match step {
        0 => return (Actor::Api, JobEvent::Submitted(Box::new(Submitted { spec: spec.clone() }))),
        1 => JobEvent::Claimed(Claimed {
            attempt,
            worker: worker.id.clone(),
            session,
        }),
        2 => JobEvent::Started(Started {
            attempt,
            session,
            executor: ExecutorKind::Process,
            environment: Some("/usr/bin/python3".to_owned()),
        }),
        _ => JobEvent::Finished(Box::new(Finished {
            attempt,
            session,
            outcome: Outcome::Succeeded,
            manifest: None,
            usage: Usage::default(),
            retry_after_ms: None,
        })),
    };
    (worker.actor(), event)
}

/// The most memory that a process ever had, in MiB.
fn peak_mib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024)
}

/// Starts a watcher, and says after how long it is ready, and how much memory that took, in MiB.
async fn start(grid: &mut Grid) -> Result<(Duration, u64)> {
    let ready = |grid: &Grid| grid.log(Part::Watcher).matches("ready: ").count();
    let (before, since) = (ready(grid), Instant::now());
    grid.run(Part::Watcher)?;
    let patience = Duration::from_secs(300);
    eventually("the watcher is ready", patience, async || Ok((ready(grid) > before).then_some(()))).await?;
    Ok((since.elapsed(), peak_mib(grid.pid(Part::Watcher)?)?))
}

/// Of jobs that ran: ready with the whole log, and with a snapshot, within so long and so many MiB.
async fn ready_within(jobs: usize, whole: Duration, with_snapshot: Duration, mib: u64) -> Result<()> {
    let mut grid = Grid::start_only(&[]).await?;
    let writer = Writer::connect(grid.nats.url()).await?;
    let worker = Worker::register(&writer, "w").await?;
    fill(&writer, &worker, jobs).await?;
    // What the watcher has to find in all of that: a job that its dead worker holds.
    let held = writer.submit().await?;
    worker.claim(held).await?;
    let files = Files::open(&"nats://".parse()?, Some(Bus::connect(grid.nats.url(), "test/files").await?.js)).await?;
    let (took, peak) = start(&mut grid).await?;
    println!("{} events: ready after {took:?} with the whole log; peak {peak} MiB", jobs * EVENTS);
    ensure!(took < whole && peak < mib, "{took:?}, {peak} MiB");
    eventually("a snapshot is kept", LONG, async || {
        Ok(files.object_store().head(&Path::from("watcher/snapshot")).await.ok())
    })
    .await?;
    grid.kill(Part::Watcher)?;
    let (took, peak) = start(&mut grid).await?;
    println!("{} events: ready after {took:?} with a snapshot; peak {peak} MiB", jobs * EVENTS);
    ensure!(grid.log(Part::Watcher).contains("starting from a snapshot"));
    ensure!(took < with_snapshot && peak < mib, "{took:?}, {peak} MiB");
    until(&writer, held, "the silent worker's job is queued again", is_queued(2)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_soon_ready_on_a_long_log() -> Result<()> {
    ready_within(5_000, Duration::from_secs(20), Duration::from_secs(5), 200).await
}

/// Minutes, and 600 MB of disk; the bounds are those of a release build: `RGRID_BIN=target/release/rgrid`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it writes a million events"]
async fn a_watcher_is_ready_on_a_million_events_within_ten_seconds() -> Result<()> {
    ready_within(250_000, Duration::from_secs(10), Duration::from_secs(2), 300).await
}
