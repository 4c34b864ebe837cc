//! What a watcher keeps, and how the next one begins with it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bus::{ids::JobId, job::Phase, log::connect::Bus, spec::policy::Start};
use futures::TryStreamExt as _;
use grid_tests::{
    grid::{Grid, Part},
    writer::{Writer, spec},
};
use object_store::{ObjectStoreExt as _, path::Path};
use serde_json::Value;
use store::Files;

use super::{Beating, LONG, is_queued, submit, until};
use crate::log::eventually;

const NAME: &str = "watcher/snapshot";

struct Kept {
    grid: Grid,
    writer: Writer,
    files: Files,
    /// Holds one job and finished many.
    worker: Beating,
    held: JobId,
    delayed: JobId,
}

impl Kept {
    /// A grid whose watcher kept a snapshot of all that there is, and is dead.
    async fn start() -> Result<Self> {
        let mut grid = Grid::start_only(&[]).await?;
        let writer = Writer::connect(grid.nats.url()).await?;
        let worker = Beating::start(grid.nats.url(), "w").await?;
        let held = writer.submit().await?;
        worker.claim(held).await?;
        let mut later = spec();
        later.start = Some(Start {
            delay_ms: Some(8_000),
            ..Start::default()
        });
        let delayed = submit(&writer, later).await?;
        for _ in 0..20 {
            let job = writer.submit().await?;
            worker.worker.claim(job).await?;
            worker.worker.finish(job, bus::ids::Attempt::FIRST).await?;
        }
        // The store is made by others; the watcher makes none.
        let store = Bus::connect(grid.nats.url(), "test/files").await?;
        let files = Files::open(&"nats://".parse()?, Some(store.js)).await?;
        grid.run_with(Part::Watcher, &["--snapshot-every", "60"])?;
        eventually("a snapshot is kept", LONG, async || {
            Ok(files.object_store().head(&Path::from(NAME)).await.ok())
        })
        .await?;
        grid.kill(Part::Watcher)?;
        Ok(Self {
            grid,
            writer,
            files,
            worker,
            held,
            delayed,
        })
    }

    async fn snapshot(&self) -> Result<String> {
        let found = self.files.object_store().get(&Path::from(NAME)).await?;
        Ok(String::from_utf8(found.bytes().await?.to_vec())?)
    }

    async fn replace(&self, text: String) -> Result<()> {
        self.files.object_store().put(&Path::from(NAME), text.into()).await?;
        Ok(())
    }

    /// The next watcher says this at its start, and knows all that there is to know.
    async fn next_one(mut self, says: &str) -> Result<()> {
        self.grid.run_with(Part::Watcher, &["--snapshot-every", "60"])?;
        let log = async || Ok(self.grid.log(Part::Watcher).contains(says).then_some(()));
        eventually(says, LONG, log).await?;
        let dead = self.worker.worker.id.clone();
        drop(self.worker);
        until(&self.writer, self.held, "the dead worker's job is queued again", is_queued(2)).await?;
        let losses = super::losses(&self.writer).await?;
        ensure!(losses.into_iter().collect::<Vec<_>>() == [(dead, 1)]);
        until(&self.writer, self.delayed, "the delayed job is released", is_queued(1)).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_goes_on_from_the_last_snapshot() -> Result<()> {
    let kept = Kept::start().await?;
    let text = kept.snapshot().await?;
    let header: Value = serde_json::from_str(text.lines().next().context("a header")?)?;
    assert!(header["sequence"].as_u64().is_some_and(|sequence| sequence >= 60), "{header}");
    assert!(text.contains(&kept.held.to_string()) && text.contains(&kept.delayed.to_string()));
    assert!(matches!(
        kept.writer.job(kept.held).await?.context("there")?.phase,
        Phase::Claimed { .. }
    ));
    kept.next_one("starting from a snapshot").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_not_used() -> Result<()> {
    let kept = Kept::start().await?;
    let text = kept.snapshot().await?.replace(r#""registered":true"#, r#""registered":false"#);
    kept.replace(text).await?;
    kept.next_one("the last snapshot is not used: it is damaged").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_another_program_is_not_used() -> Result<()> {
    let kept = Kept::start().await?;
    let text = kept.snapshot().await?;
    let header: Value = serde_json::from_str(text.lines().next().context("a header")?)?;
    let format = header["format"].as_u64().context("its format")?;
    let (was, later) = (format!(r#""format":{format}"#), format!(r#""format":{}"#, format + 1));
    kept.replace(text.replacen(&was, &later, 1)).await?;
    kept.next_one("the last snapshot is not used: another version of rgrid made it")
        .await
}

/// The log was restored from a backup that is older, or is another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_another_log_is_not_used() -> Result<()> {
    let kept = Kept::start().await?;
    let text = kept.snapshot().await?;
    let header: Value = serde_json::from_str(text.lines().next().context("a header")?)?;
    let sequence = header["sequence"].as_u64().context("a sequence")?;
    let (was, ahead) = (format!(r#""sequence":{sequence}"#), format!(r#""sequence":{}"#, sequence + 1_000));
    kept.replace(text.replacen(&was, &ahead, 1)).await?;
    kept.next_one("another log, or none, stands there now").await
}

/// One snapshot, however many were taken; and what was there when the watcher began is not read again.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_do_not_pile_up() -> Result<()> {
    let mut kept = Kept::start().await?;
    let sequence = async || -> Result<u64> {
        let header: Value = serde_json::from_str(kept.snapshot().await?.lines().next().context("a header")?)?;
        header["sequence"].as_u64().context("a sequence")
    };
    let first = sequence().await?;
    for _ in 0..40 {
        let job = kept.writer.submit().await?;
        kept.worker.worker.claim(job).await?;
        kept.worker.worker.finish(job, bus::ids::Attempt::FIRST).await?;
    }
    kept.grid.run_with(Part::Watcher, &["--snapshot-every", "60"])?;
    eventually("the next snapshot takes its place", Duration::from_secs(60), async || {
        let header: Value = serde_json::from_str(kept.snapshot().await?.lines().next().context("a header")?)?;
        Ok((header["sequence"].as_u64() > Some(first)).then_some(()))
    })
    .await?;
    let log = kept.grid.log(Part::Watcher);
    ensure!(log.contains(&format!("of the log up to sequence {first}")), "{log}");
    let all = kept
        .files
        .object_store()
        .list(Some(&Path::from("watcher")))
        .try_collect::<Vec<_>>()
        .await?;
    ensure!(all.len() == 1, "{all:?}");
    let stream = kept.writer.bus.js.get_stream("OBJ_rgrid-files").await?;
    ensure!(
        stream.cached_info().state.messages <= 2,
        "its metadata and one chunk: {:?}",
        stream.cached_info().state
    );
    Ok(())
}
