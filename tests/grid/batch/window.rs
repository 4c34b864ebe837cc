//! `parallel`, `max_failures`, `fail_fast`.

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bus::{
    batch::BatchEvent,
    ids::{Attempt, JobId},
    job::{Command as Wish, JobEvent},
    log::{
        EVENTS,
        follow::Follower,
        read::{Fact, decode},
    },
};
use grid_tests::{
    grid::{Grid, Part, rgrid},
    writer::{Worker, Writer},
};
use serde_json::json;

use super::{ended, id, of, post};

const PARALLEL: usize = 3;

/// A watcher beside the grid's own.
struct Another(Child);

impl Another {
    fn start(grid: &Grid) -> Result<Self> {
        let mut command = Command::new(rgrid());
        command.env("RGRID_NATS", grid.nats.url()).arg("watcher");
        Ok(Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }
}

impl Drop for Another {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The most members that were claimed or running at once, by the log, and how often the window moved.
async fn most_at_once(grid: &Grid) -> Result<(usize, usize)> {
    let writer = Writer::connect(grid.nats.url()).await?;
    let mut follower = Follower::new(&writer.bus.js, EVENTS, Vec::new(), 0);
    let (mut held, mut most, mut moves) = (BTreeSet::<JobId>::new(), 0, 0);
    loop {
        let message = follower.next().await;
        match decode(&message.subject, message.sequence, &message.payload)? {
            Some(Fact::Batch(recorded)) => moves += usize::from(matches!(recorded.envelope.event, BatchEvent::Advanced(_))),
            Some(Fact::Job(recorded)) => match &recorded.envelope.event {
                JobEvent::Released(_) | JobEvent::Claimed(_) | JobEvent::Rescheduled(_) => {
                    held.insert(recorded.job);
                }
                JobEvent::Returned(_) | JobEvent::Finished(_) | JobEvent::Cancelled(_) | JobEvent::Died(_) | JobEvent::Expired(_) => {
                    held.remove(&recorded.job);
                }
                _ => {}
            },
            Some(Fact::Worker(_) | Fact::Runtimes(_) | Fact::Image(_)) | None => {}
        }
        most = most.max(held.len());
        if message.pending == 0 {
            return Ok((most, moves));
        }
    }
}

#[tokio::test]
async fn no_more_members_than_the_window_run_at_once_whoever_dies() -> Result<()> {
    let mut grid = Grid::start().await?;
    let other = Another::start(&grid)?;
    grid.run(Part::Runner(2))?;
    grid.worker_is("worker-2", "live").await?;
    let (running, seen) = (grid.dir().join("running"), grid.dir().join("seen"));
    fs::create_dir_all(&running)?;
    fs::create_dir_all(&seen)?;
    // Each says how many run, itself among them; some fail the first time, and are tried again.
    let script = |index: usize| {
        let (running, seen) = (running.display(), seen.display());
        format!(
            "touch {running}/{index}; ls {running} | wc -l > {seen}/{index}.$$; sleep 0.05; rm {running}/{index}; \
             test {index} -gt 5 || test $(ls {seen} | grep -c '^{index}\\.') -gt 1"
        )
    };
    let mut batch = of(&(0..60).map(script).collect::<Vec<_>>());
    batch["parallel"] = json!(PARALLEL);
    batch["job"]["retry"] = json!({ "max": 2, "backoff_ms": 50 });
    post(&grid, "batches", &batch, 201).await?;
    let done = |number: usize| {
        let seen = seen.clone();
        async move || (fs::read_dir(&seen).ok()?.count() >= number).then_some(())
    };
    grid.eventually("some have run", done(10)).await?;
    grid.kill(Part::Watcher)?;
    grid.eventually("more have run", done(25)).await?;
    grid.run(Part::Watcher)?;
    drop(other);
    ended(&grid, &batch, "succeeded").await?;
    for entry in fs::read_dir(&seen)? {
        let number: usize = fs::read_to_string(entry?.path())?.trim().parse()?;
        ensure!(number <= PARALLEL, "{number} ran at once");
    }
    let (most, moves) = most_at_once(&grid).await?;
    ensure!(most == PARALLEL, "{most} held a slot by the log");
    ensure!(moves > 10, "it moved in {moves} steps");
    Ok(())
}

#[tokio::test]
async fn a_slot_outlives_the_worker_that_held_it() -> Result<()> {
    let mut grid = Grid::start().await?;
    let mut batch = of(&vec!["sleep 0.2".to_owned(); 12]);
    batch["parallel"] = json!(PARALLEL);
    post(&grid, "batches", &batch, 201).await?;
    let path = format!("batches/{}", id(&batch)?);
    let view = async || {
        let counts = grid.get(&path).await.ok()?["counts"].clone();
        (counts["succeeded"].as_u64()? > 2 && counts["running"].as_u64()? > 0).then_some(())
    };
    grid.eventually("some run", view).await?;
    grid.kill(Part::Runner(1))?;
    grid.run(Part::Runner(2))?;
    ended(&grid, &batch, "succeeded").await?;
    let (most, _) = most_at_once(&grid).await?;
    ensure!(most == PARALLEL, "{most} held a slot by the log");
    Ok(())
}

#[tokio::test]
async fn a_member_that_was_given_back_waits_for_its_turn_again() -> Result<()> {
    let mut grid = Grid::start().await?;
    grid.kill(Part::Runner(1))?;
    let writer = Writer::connect(grid.nats.url()).await?;
    let mut batch = of(&vec!["true".to_owned(); 3]);
    batch["parallel"] = json!(1);
    post(&grid, "batches", &batch, 201).await?;
    let first = JobId::of_member(id(&batch)?.parse()?, 0);
    for number in 1..=3 {
        let full = Worker::register(&writer, "full").await?;
        let turn = async || full.claim(first).await.ok();
        grid.eventually("it is its turn", turn).await?;
        let (attempt, session) = (Attempt(number), full.session);
        writer
            .say(
                first,
                &full.actor(),
                Wish::Return {
                    attempt,
                    session,
                    interrupted: false,
                },
            )
            .await?;
    }
    grid.run(Part::Runner(1))?;
    ended(&grid, &batch, "succeeded").await?;
    let job = writer.job(first).await?.context("it is there")?;
    assert_eq!((job.attempts.len(), job.failures, job.losses), (4, 0, 0));
    let (most, _) = most_at_once(&grid).await?;
    ensure!(most == 1, "{most} held a slot by the log");
    let view = grid.get(&format!("jobs/{first}")).await?;
    assert_eq!(view["attempts"][2]["outcome"], json!({ "kind": "returned" }));
    Ok(())
}

#[tokio::test]
async fn failures_stop_a_batch_and_fail_fast_ends_those_that_run() -> Result<()> {
    let grid = Grid::start().await?;
    for fail_fast in [false, true] {
        let flag = grid.dir().join(format!("go-on-{fail_fast}"));
        // The first waits, until it is told to end; the second fails.
        let wait = format!("while ! test -e {}; do sleep 0.02; done", flag.display());
        let mut scripts = vec![wait, "exit 7".to_owned()];
        scripts.extend(vec!["true".to_owned(); 8]);
        let mut batch = of(&scripts);
        batch["parallel"] = json!(2);
        batch["max_failures"] = json!(1);
        batch["fail_fast"] = json!(fail_fast);
        post(&grid, "batches", &batch, 201).await?;
        let path = format!("batches/{}", id(&batch)?);
        if !fail_fast {
            let stopping = async || {
                let view = grid.get(&path).await.ok()?;
                (view["state"] == "stopping" && view["counts"]["cancelled"].as_u64()? >= 7).then_some(())
            };
            grid.eventually("the others are cancelled", stopping).await?;
            fs::write(&flag, "")?;
        }
        let view = ended(&grid, &batch, "failed").await?;
        ensure!(view["counts"]["failed"] == 1, "{view}");
        let first = grid.get(&format!("{path}/jobs?limit=1")).await?;
        let first = &first["members"][0]["job"];
        let expected = if fail_fast { "cancelled" } else { "succeeded" };
        ensure!(first["state"] == expected, "{first}");
        let cancelled = grid.get(&format!("{path}/jobs?state=cancelled")).await?;
        let last = cancelled["members"].as_array().and_then(|members| members.last()).context("some")?;
        ensure!(
            last["job"]["message"]
                .as_str()
                .is_some_and(|words| words.contains("its batch was stopped after 1 member failed")),
            "{last}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_batch_with_a_window_is_ended_by_its_user() -> Result<()> {
    let grid = Grid::start().await?;
    let mut batch = of(&vec!["sleep 60".to_owned(); 30]);
    batch["parallel"] = json!(2);
    post(&grid, "batches", &batch, 201).await?;
    let path = format!("batches/{}", id(&batch)?);
    let running = async || (grid.get(&path).await.ok()?["counts"]["running"] == 2).then_some(());
    grid.eventually("two run", running).await?;
    post(&grid, &format!("{path}/cancel"), &json!({ "reason": "enough" }), 202).await?;
    let view = ended(&grid, &batch, "cancelled").await?;
    ensure!(view["counts"]["cancelled"] == 30 && view["reason"] == "enough", "{view}");
    post(&grid, &format!("{path}/cancel"), &json!({}), 200).await?;
    tokio::time::timeout(Duration::from_secs(60), grid.projected()).await??;
    Ok(())
}
