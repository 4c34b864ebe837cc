//! What workers ask for: little while nothing is there, and no more than lets others have their part.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bus::{
    ids::default_token,
    job::{Job, Phase},
    log::{EVENTS, setup::work_consumer_name},
    spec::{Class, JobSpec, Priority, Resources, Size},
};
use futures::StreamExt as _;

use super::{LONG, Yard, shell};
use crate::log::eventually;

fn with_cpus(script: &str, cpu_milli: u32) -> JobSpec {
    JobSpec {
        resources: Resources {
            cpu_milli,
            ..Resources::default()
        },
        ..shell(script)
    }
}

#[tokio::test]
async fn an_idle_worker_asks_for_one_job_of_each_class_and_waits_long() -> Result<()> {
    let yard = Yard::start().await?;
    let client = yard.writer.bus.js.client();
    let asks = client.subscribe("$JS.API.CONSUMER.MSG.NEXT.RGRID_EVENTS.*").await?;
    let mut asks = asks.filter(|ask| std::future::ready(ask.subject.contains(".work-")));
    client.flush().await?;
    let _runner = yard.runner(&["--cpus", "8"])?;
    let mut asked = BTreeMap::new();
    while asked.len() < Class::ALL.len() {
        let ask = tokio::time::timeout(LONG, asks.next()).await?.context("the subscription ended")?;
        let request: serde_json::Value = serde_json::from_slice(&ask.payload)?;
        asked.insert(ask.subject.to_string(), (request["batch"].as_u64(), request["expires"].as_u64()));
    }
    let patient = u64::try_from(Duration::from_secs(120).as_nanos())?;
    ensure!(
        asked.values().all(|ask| *ask == (Some(1), Some(patient))),
        "300 of them would keep nats-server busy: {asked:?}"
    );
    // While something runs, an ask ends before its worker can be given up.
    yard.running(yard.submit(with_cpus("sleep 60", 1_000)).await?).await?;
    let next = tokio::time::timeout(LONG, asks.next()).await?.context("the subscription ended")?;
    let request: serde_json::Value = serde_json::from_slice(&next.payload)?;
    ensure!(request["expires"].as_u64() < Some(patient / 40), "{request}");
    Ok(())
}

#[tokio::test]
async fn a_burst_is_spread_over_the_workers_that_are_idle() -> Result<()> {
    const WORKERS: usize = 10;
    let yard = Yard::start().await?;
    let mut runners = Vec::new();
    for number in 0..WORKERS {
        runners.push(yard.runner_as(&format!("w{number}"), &["--cpus", "8", "--memory", "64GiB"])?);
    }
    let stream = yard.writer.bus.js.get_stream(EVENTS).await?;
    let class = Class {
        priority: Priority::Normal,
        size: Size::S,
    };
    let name = work_consumer_name(&default_token(), class);
    eventually("each of them waits for work", LONG, async || {
        let Ok(consumer) = stream.consumer_info(&name).await else {
            return Ok(None);
        };
        Ok((consumer.num_waiting == WORKERS).then_some(()))
    })
    .await?;
    // The first may not take all of it.
    let go = yard.path("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done", go.display());
    let jobs = (0..WORKERS * 2).map(|_| yard.submit(with_cpus(&script, 1_000)));
    let jobs = futures::future::try_join_all(jobs).await?;
    let mut workers = BTreeSet::new();
    for job in jobs {
        let job = yard.running(job).await?;
        workers.extend(job.attempts.last().map(|attempt| attempt.worker.to_string()));
    }
    std::fs::write(go, "")?;
    ensure!(workers.len() * 10 >= WORKERS * 9, "only {workers:?} of {WORKERS} have work");
    Ok(())
}

#[tokio::test]
async fn half_a_cpu_that_is_free_gets_a_job_that_asks_for_no_more() -> Result<()> {
    let yard = Yard::start().await?;
    let _runner = yard.runner(&["--cpus", "2"])?;
    let (go, first) = (yard.path("go"), yard.path("first"));
    let waits_for = |file: &std::path::Path| format!("while [ ! -e {} ]; do sleep 0.05; done", file.display());
    let large = yard.submit(with_cpus(&waits_for(&go), 1_500)).await?;
    yard.running(large).await?;
    let small = yard.submit(with_cpus(&waits_for(&first), 500)).await?;
    yard.running(small).await?;
    // What the worker asked for while it had more room, it gets now, and has to hand back.
    let ended = |job: &Job| matches!(job.phase, Phase::Ended(_));
    let wait = (0..4).map(|_| yard.submit(with_cpus("true", 500)));
    let wait = futures::future::try_join_all(wait).await?;
    std::fs::write(first, "")?;
    for job in wait {
        yard.until(job, "it runs beside the large one", ended).await?;
    }
    // What needs more waits until there is room, and gets it.
    let whole = yard.submit(with_cpus("true", 1_000)).await?;
    std::fs::write(go, "")?;
    yard.until(whole, "the one that waits runs", ended).await?;
    Ok(())
}
