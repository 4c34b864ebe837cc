//! Two watchers, of which one is stopped in the midst of what it says, and goes on with what it knew then.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bus::spec::policy::Start;
use futures::StreamExt as _;
use grid_tests::{
    grid::{Grid, Part},
    writer::{Writer, spec},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

use super::{Beating, LONG, Watching, is_queued, losses, submit, until};

const ROUNDS: u64 = 8;
const JOBS: usize = 20;

fn signal(grid: &Grid, signal: Signal) -> Result<()> {
    let pid = i32::try_from(grid.pid(Part::Watcher)?).ok().and_then(Pid::from_raw);
    Ok(kill_process(pid.context("a process")?, signal)?)
}

/// Waits until both watchers have received their own heartbeats, two a second, for longer than the 2 s after which they act on the
/// end of a connection.
async fn both_hear(writer: &Writer) -> Result<()> {
    let mut heartbeats = writer.bus.client.subscribe(bus::subjects::BEATS).await?;
    let mut counts = BTreeMap::<String, usize>::new();
    while counts.values().filter(|count| **count >= 8).count() < 2 {
        let heartbeat = timeout(LONG, heartbeats.next()).await?.context("the connection ended")?;
        if let Some(token) = bus::subjects::parse_beat(&heartbeat.subject).filter(|token| bus::subjects::is_watcher(token)) {
            *counts.entry(token.to_owned()).or_default() += 1;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_was_stopped_says_nothing_twice_and_loses_nobody() -> Result<()> {
    let mut grid = Grid::start_only(&[]).await?;
    grid.run_with(Part::Watcher, &["--nats-system", &grid.nats.system_url()])?;
    let other = Watching::quick(&grid.nats);
    let writer = Writer::connect(grid.nats.url()).await?;
    let healthy = Beating::start(grid.nats.url(), "healthy").await?;
    healthy.claim(writer.submit().await?).await?;
    both_hear(&writer).await?;
    let (mut jobs, mut delayed) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let doomed = Beating::start(grid.nats.url(), &format!("doomed-{round}")).await?;
        for _ in 0..JOBS {
            let job = writer.submit().await?;
            doomed.claim(job).await?;
            jobs.push(job);
        }
        let mut later = spec();
        later.start = Some(Start {
            delay_ms: Some(410),
            ..Start::default()
        });
        delayed.push(submit(&writer, later).await?);
        drop(doomed);
        // 400 ms after the end of its connection both begin to speak; from round to round a little more of it is said.
        sleep(Duration::from_millis(396 + 4 * round)).await;
        signal(&grid, Signal::STOP)?;
        for job in &jobs {
            until(&writer, *job, "the other one says it", is_queued(2)).await?;
        }
        // Longer than it may be deaf, and in the last round than a healthy worker may be silent.
        sleep(Duration::from_millis(if round + 1 == ROUNDS { 6_000 } else { 1_200 })).await;
        signal(&grid, Signal::CONT)?;
    }
    // And the one that was stopped does it alone.
    other.kill().await;
    let last = Beating::start(grid.nats.url(), "last").await?;
    let job = writer.submit().await?;
    last.claim(job).await?;
    jobs.push(job);
    drop(last);
    until(&writer, job, "it goes on", is_queued(2)).await?;
    for job in jobs {
        let types = writer.types(job).await?;
        ensure!(types == ["job.submitted.v1", "job.claimed.v1", "job.rescheduled.v1"], "{types:?}");
    }
    for job in delayed {
        let types = writer.types(job).await?;
        ensure!(types == ["job.submitted.v1", "job.released.v1"], "{types:?}");
    }
    let losses = losses(&writer).await?;
    ensure!(losses.len() == usize::try_from(ROUNDS)? + 1, "{losses:?}");
    ensure!(losses.values().all(|times| *times == 1), "{losses:?}");
    ensure!(!losses.contains_key(&healthy.worker.id), "{losses:?}");
    Ok(())
}
