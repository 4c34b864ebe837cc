//! Messages that no client library can take: they are set aside and named, and stop nothing.

use anyhow::{Result, ensure};
use bus::{
    envelope::Actor,
    ids::{BatchId, JobId, default_token},
    subjects,
};
use grid_tests::{
    grid::{Grid, Part},
    poison::{HEADERS, publish},
};
use reqwest::Method;
use serde_json::{Value, json};

const PARTS: [Part; 4] = [Part::Api, Part::Projector, Part::Watcher, Part::Runner(1)];

/// A job runs, and another one that was submitted through the inbox.
async fn jobs_run(grid: &Grid, key: &str) -> Result<String> {
    let js = grid.nats.context().await?;
    let submission = json!({ "command": ["echo", "hello"], "key": key }).to_string();
    js.publish("rgrid.submit.default.default", submission.into()).await?.await?;
    let direct = grid.shell("echo hello").await?;
    let job = grid.ended(&direct).await?;
    ensure!(job["state"] == "succeeded" && job["attempt"] == 1, "{job}");
    let by_key = bus::ids::JobId::of_key(&bus::ids::default_token(), key).to_string();
    grid.eventually("the inbox's job ends", async || {
        let job = grid.get(&format!("jobs/{by_key}")).await.ok()?;
        (job["state"] == "succeeded").then_some(())
    })
    .await?;
    ensure!(grid.printed(&direct, "stdout").await? == b"hello\n");
    Ok(direct)
}

async fn messages(grid: &Grid, stream: &str) -> Result<u64> {
    let mut stream = grid.nats.context().await?.get_stream(stream).await?;
    Ok(stream.info().await?.state.messages)
}

/// What `doctor` says of what was set aside, once it is so many messages.
async fn named(grid: &Grid, least: u64) -> Result<Value> {
    grid.eventually("doctor names what was set aside", async || {
        let diagnosis = grid.get("doctor").await.ok()?;
        let finding = diagnosis["findings"]
            .as_array()?
            .iter()
            .find(|finding| finding["topic"] == "undeliverable")?;
        let number: u64 = finding["what"].as_str()?.split(' ').next()?.parse().ok()?;
        (number >= least).then(|| finding.clone())
    })
    .await
}

fn unharmed(grid: &Grid, parts: &[(Part, u32)]) -> Result<()> {
    for (part, pid) in parts {
        ensure!(grid.pid(*part)? == *pid, "{part:?} is another process");
        let log = grid.log(*part);
        ensure!(
            !log.contains("lost the connection to NATS") && !log.contains("panicked"),
            "{part:?}: {log}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_in_a_row_are_stepped_over() -> Result<()> {
    let grid = Grid::start().await?;
    let parts: Vec<(Part, u32)> = PARTS.into_iter().map(|part| Ok((part, grid.pid(part)?))).collect::<Result<_>>()?;
    let subjects = (0..1_000).flat_map(|number| {
        let job = uuid::Uuid::now_v7();
        let header = HEADERS[number % HEADERS.len()];
        [
            (format!("rgrid.evt.default.job.{job}.ready.default.normal-s").into_bytes(), header),
            (b"rgrid.submit.default.default".to_vec(), header),
        ]
    });
    publish(grid.nats.url(), subjects).await?;
    jobs_run(&grid, "behind them all").await?;
    grid.eventually("the inbox is empty", async || {
        (messages(&grid, "RGRID_INBOX").await.ok()? == 0).then_some(())
    })
    .await?;
    named(&grid, 2_000).await?;
    ensure!(messages(&grid, "RGRID_REFUSED").await? == 1_000);
    unharmed(&grid, &parts)
}

/// Where the last word on a worker, a batch, a job, an image or the runtimes is one that nobody can read, the next one is appended
/// behind it all the same, and who starts anew reads what was said before.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_word_on_anything_may_be_one_that_nobody_can_read() -> Result<()> {
    let mut grid = Grid::start().await?;
    let batch = BatchId::new();
    let first_attempt_hangs = "test $RGRID_ATTEMPT != 1 || sleep 600";
    let members: Vec<Value> = [first_attempt_hangs, "true", "true"]
        .iter()
        .map(|script| json!({ "item": script, "command": ["/bin/sh", "-c", script] }))
        .collect();
    let job = json!({ "command": [], "executor": "process", "resources": { "cpu_milli": 100 } });
    let submission = json!({ "id": batch, "name": "a test", "job": job, "members": members, "parallel": 1 });
    let answer = grid.request(Method::POST, "batches").json(&submission).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.text().await?);
    grid.eventually("a member runs", async || {
        (grid.get(&format!("batches/{batch}")).await.ok()?["counts"]["running"] == 1).then_some(())
    })
    .await?;

    let subjects = [
        subjects::worker(&"worker-1".parse()?),
        subjects::batch(&default_token(), batch),
        subjects::job_by(&default_token(), JobId::of_member(batch, 0), &Actor::Api),
        subjects::image(&"known".parse()?),
        subjects::RUNTIMES.to_owned(),
    ];
    let readable: &[u8] = b"NATS/1.0\r\n\r\n";
    let messages = subjects.iter().flat_map(|subject| {
        HEADERS
            .iter()
            .copied()
            .chain([readable])
            .map(|header| (subject.clone().into_bytes(), header))
    });
    publish(grid.nats.url(), messages).await?;
    grid.kill(Part::Runner(1))?;
    grid.run(Part::Runner(2))?;
    grid.kill(Part::Api)?;
    grid.run(Part::Api)?;
    grid.api_answers().await?;
    let ended = grid
        .eventually("the batch ends on another worker", async || {
            let view = grid.get(&format!("batches/{batch}")).await.ok()?;
            (view["state"] == "succeeded").then_some(view)
        })
        .await?;
    ensure!(ended["counts"]["succeeded"] == 3, "{ended}");
    grid.worker_is("worker-1", "lost").await?;
    let named = named(&grid, (subjects.len() * HEADERS.len()) as u64).await?;
    ensure!(named["what"].as_str().is_some_and(|what| what.contains("RGRID_EVENTS")), "{named}");
    Ok(())
}
