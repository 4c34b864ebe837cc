//! One job after the other: `latency`.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bus::{job::State, spec::ExecutorKind};
use chrono::Utc;
use model::{JobView, Submitted};
use serde::Serialize;

use super::{
    floor,
    grid::{Grid, job},
    rounded::millis,
};

/// Jobs before the first that counts: connections are made, programs are in memory.
const WARM_UP: u32 = 10;

/// `latency`.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) submit_to_started_ms: Percentiles,
    pub(super) submit_to_finished_ms: Percentiles,
    /// For the table: publishing to `JetStream` with its acknowledgement, and starting `/bin/true`.
    #[serde(skip)]
    pub(super) publish: Option<Percentiles>,
    #[serde(skip)]
    pub(super) spawn: Percentiles,
    #[serde(skip)]
    pub(super) jobs: u32,
}

/// What half and 99 of 100 stay below, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Percentiles {
    /// Of these times.
    pub(super) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(index).map_or(0.0, |time| millis(*time))
        };
        Self { p50: at(50), p99: at(99) }
    }
}

/// Runs jobs of `/bin/true`, each when the one before it has ended.
///
/// # Errors
/// If one of them does not succeed.
pub(super) async fn measure(grid: &Grid, jobs: u32) -> anyhow::Result<Latency> {
    let submission = job(&["/bin/true"], ExecutorKind::Process, None);
    let (mut started, mut finished) = (Vec::new(), Vec::new());
    for number in 0..jobs + WARM_UP {
        // The start is told by the events' own time, so the client's must be of the same clock: one machine.
        let (submitted_at, begun) = (Utc::now(), Instant::now());
        let submitted: Submitted = grid.client.post("/v1/jobs", &submission).await?;
        let path = format!("/v1/jobs/{}", submitted.id);
        let view: JobView = grid.client.get(&path, &[("wait", "30s"), ("until", "end")]).await?;
        let took = begun.elapsed();
        ensure!(
            view.state == State::Succeeded,
            "job {} is {}: {}",
            view.id,
            view.state,
            view.message.unwrap_or_default()
        );
        if number >= WARM_UP {
            finished.push(took);
            let start = view
                .started_at
                .map(|time| time.signed_duration_since(submitted_at).to_std().unwrap_or_default());
            started.extend(start);
        }
    }
    let publish = match &grid.nats {
        Some(nats) => Some(Percentiles::of(floor::publish(nats, jobs).await?)),
        None => None,
    };
    let spawn = Percentiles::of(floor::spawn(jobs).await?);
    Ok(Latency {
        submit_to_started_ms: Percentiles::of(started),
        submit_to_finished_ms: Percentiles::of(finished),
        publish,
        spawn,
        jobs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(Percentiles::of(times), Percentiles { p50: 100.0, p99: 198.0 });
        assert_eq!(Percentiles::of(vec![Duration::from_millis(7)]), Percentiles { p50: 7.0, p99: 7.0 });
    }
}
