//! A worker dies while the watcher has tens of thousands of other things to do.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bus::{
    envelope::{Actor, Envelope},
    ids::JobId,
    job::{Command, decide},
    log::{EVENTS, read},
    spec::{JobSpec, policy::Start},
    subjects,
};
use chrono::{DateTime, TimeDelta, Utc};
use grid_tests::{
    nats::NatsServer,
    writer::{Writer, namespace, spec},
};

use super::{Beating, LONG, Watching, is_queued, until, until_lost};
use crate::log::eventually;

/// Jobs whose time comes at one moment.
const BACKLOG: usize = 50_000;
/// Of these, those that are sent together.
const TOGETHER: usize = 1_000;
/// Of these, those that tell how long all of them take.
const SAMPLE: usize = 5_000;
/// Jobs of the worker that dies.
const HELD: usize = 20;

/// Stores jobs that are all to be released at this time.
async fn submit(writer: &Writer, jobs: usize, at: DateTime<Utc>) -> Result<()> {
    let spec = JobSpec {
        start: Some(Start {
            at: Some(at),
            ..Start::default()
        }),
        ..spec()
    };
    for number in 1..=jobs {
        let event = decide(
            None,
            Command::Submit {
                spec: Box::new(spec.clone()),
            },
        )?;
        let subject = subjects::job_by(&namespace(), JobId::new(), &Actor::Api);
        let payload = Envelope::new(Actor::Api, event).to_json().into();
        if number % TOGETHER > 0 {
            writer.bus.client.publish(subject, payload).await?;
        } else {
            // They are stored in their order: with this one, all of them are.
            writer.bus.js.publish(subject, payload).await?.await?;
        }
    }
    Ok(())
}

/// Stores the backlog, for a moment by which this machine has stored all of it: it is found out how fast it is just now.
async fn submit_backlog(writer: &Writer) -> Result<()> {
    let began = Instant::now();
    submit(writer, SAMPLE, Utc::now() + TimeDelta::days(1)).await?;
    let all = began.elapsed() * u32::try_from(BACKLOG / SAMPLE)?;
    let at = Utc::now() + 2 * all + Duration::from_secs(2);
    submit(writer, BACKLOG, at).await?;
    ensure!(
        Utc::now() < at,
        "the timers fired before the backlog was there: it took more than twice {all:?}"
    );
    Ok(())
}

/// Events in the log.
async fn length(writer: &Writer) -> Result<u64> {
    let stream = writer.bus.js.get_stream(EVENTS).await?;
    Ok(stream.cached_info().state.messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_worker_does_not_wait_behind_a_backlog_of_timers() -> Result<()> {
    let server = NatsServer::start().await?;
    let writer = Writer::connect(server.url()).await?;
    let watching = Watching::quick(&server);
    // From the first one on that is found out at once, the watcher takes the broker's word.
    let mut probes = 0;
    eventually("a dead worker is found out at once", LONG, async || {
        probes += 1;
        let probe = Beating::start(server.url(), &format!("probe-{probes}")).await?;
        let worker = probe.worker.clone();
        drop(probe);
        let since = Instant::now();
        until_lost(&writer, &worker).await?;
        Ok((since.elapsed() < Duration::from_secs(1)).then_some(()))
    })
    .await?;
    let doomed = Beating::start(server.url(), "doomed").await?;
    let mut held = Vec::new();
    for _ in 0..HELD {
        let job = writer.submit().await?;
        doomed.claim(job).await?;
        held.push(job);
    }
    submit_backlog(&writer).await?;
    let before = length(&writer).await?;
    eventually(
        "the timers fire",
        LONG,
        async || Ok((length(&writer).await? > before).then_some(())),
    )
    .await?;
    drop(doomed);
    let died = Utc::now();
    let mut took = TimeDelta::zero();
    for job in &held {
        until(&writer, *job, "it is queued again", is_queued(2)).await?;
        // When it was said, and not when we came to see that.
        let history = read::history(&writer.bus.js, *job).await?;
        let last = history.last().context("it has a history")?;
        took = took.max(last.envelope.time - died);
    }
    let fired = length(&writer).await? - before;
    println!("{HELD} jobs of a dead worker were queued again after {took:?}; about {fired} timers had fired");
    ensure!(fired < BACKLOG as u64, "all timers had fired, so nothing was behind a backlog");
    ensure!(took < TimeDelta::seconds(1), "{took:?}");
    drop(watching);
    Ok(())
}
