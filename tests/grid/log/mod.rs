//! The log on `JetStream`: against a real nats-server, which is killed when that matters.

mod append;
mod follow;
mod setup;
mod usage;
mod work;

use std::time::{Duration, Instant};

/// Asks until the answer is there; a fact that never comes is an error that says which one.
pub(crate) async fn eventually<T>(
    what: &str,
    within: Duration,
    mut fact: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = fact().await? {
            return Ok(answer);
        }
        anyhow::ensure!(start.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
