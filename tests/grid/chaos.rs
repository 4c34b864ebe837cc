//! The short form of `make chaos`: every part of a grid is harmed once under load, and every promise holds.

use anyhow::Result;
use grid_tests::chaos::cases::short;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_part_is_harmed_and_every_promise_holds() -> Result<()> {
    let outcome = short(1).await?;
    eprintln!("{}", outcome.text());
    outcome.assert()
}
