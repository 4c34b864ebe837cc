//! A worker dies while the watcher has tens of thousands of other things to do.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bus::{
    envelope::{Actor, Envelope},
    ids::JobId,
    job::{Command, decide},
    policy::Start,
    spec::JobSpec,
    stream::EVENTS,
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
/// Jobs of the worker that dies.
const HELD: usize = 20;

/// Jobs that are all to be released at this time.
async fn submit_all(writer: &Writer, at: DateTime<Utc>) -> Result<()> {
    let spec = JobSpec {
        start: Some(Start {
            at: Some(at),
            ..Start::default()
        }),
        ..spec()
    };
    for first in (0..BACKLOG).step_by(TOGETHER) {
        for number in first..BACKLOG.min(first + TOGETHER) {
            let event = decide(
                None,
                Command::Submit {
                    spec: Box::new(spec.clone()),
                },
            )?;
            let subject = subjects::job_by(&namespace(), JobId::new(), &Actor::Api);
            let payload = Envelope::new(Actor::Api, event).to_json().into();
            if number + 1 < first + TOGETHER {
                writer.bus.client.publish(subject, payload).await?;
            } else {
                // They are stored in their order: with this one, all of them are.
                writer.bus.js.publish(subject, payload).await?.await?;
            }
        }
    }
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
    let at = Utc::now() + TimeDelta::seconds(10);
    submit_all(&writer, at).await?;
    let before = length(&writer).await?;
    ensure!(
        Utc::now() < at,
        "the machine is too slow for this test: the timers fired before the backlog was there"
    );
    eventually(
        "the timers fire",
        LONG,
        async || Ok((length(&writer).await? > before).then_some(())),
    )
    .await?;
    drop(doomed);
    let since = Instant::now();
    for job in &held {
        until(&writer, *job, "it is queued again", is_queued(2)).await?;
    }
    let took = since.elapsed();
    let fired = length(&writer).await? - before;
    println!("{HELD} jobs of a dead worker were queued again after {took:?}; about {fired} timers had fired");
    ensure!(fired < BACKLOG as u64, "all timers had fired, so nothing was behind a backlog");
    ensure!(took < Duration::from_secs(1), "{took:?}");
    drop(watching);
    Ok(())
}
