//! Containers that do nothing: `docker`.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bus::{
    job::State,
    spec::{ExecutorKind, submission::Submission},
};
use client::Client;
use model::{JobView, Submitted};
use serde::Serialize;

use super::{
    floor,
    grid::{Grid, job},
    rounded::seconds,
};

/// The image that `make` builds from the machine's own files.
const LOCAL_IMAGE: &str = "rgrid/python:3";
/// What there is everywhere.
const PUBLIC_IMAGE: &str = "debian:stable-slim";

/// `docker`.
#[derive(Debug, Serialize)]
pub(super) struct Docker {
    pub(super) jobs: u32,
    pub(super) median_s: f64,
    pub(super) floor_s: f64,
    pub(super) ratio: f64,
}

/// Runs containers one after the other, by turns on the grid and with `docker run`: what slows one slows the other.
///
/// # Errors
/// If there is no Docker, or a job does not succeed.
pub(super) async fn measure(grid: &Grid, jobs: u32, image: Option<&str>) -> anyhow::Result<Docker> {
    let image = match image {
        Some(image) => image,
        None if floor::has_image(LOCAL_IMAGE).await => LOCAL_IMAGE,
        None => PUBLIC_IMAGE,
    };
    let submission = Submission {
        image: Some(image.to_owned()),
        ..job(&["/bin/true"], ExecutorKind::Docker, None)
    };
    // Once each before it counts: the image may have to be pulled.
    floor::docker_run(image).await?;
    run(&grid.client, &submission).await?;
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..jobs {
        floors.push(floor::docker_run(image).await?);
        ours.push(run(&grid.client, &submission).await?);
    }
    let (median_s, floor_s) = (median(ours), median(floors));
    Ok(Docker {
        jobs,
        median_s: seconds(median_s),
        floor_s: seconds(floor_s),
        ratio: seconds(median_s / floor_s),
    })
}

async fn run(client: &Client, submission: &Submission) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let submitted: Submitted = client.post("/v1/jobs", submission).await?;
    let path = format!("/v1/jobs/{}", submitted.id);
    let view: JobView = loop {
        let view: JobView = client.get(&path, &[("wait", "60s"), ("until", "end")]).await?;
        // An image may take longer to pull than one wait is long.
        if view.state.is_end() {
            break view;
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(900),
            "job {} does not end; see `rgrid history {}`",
            view.id,
            view.id
        );
    };
    let took = begun.elapsed();
    ensure!(
        view.state == State::Succeeded,
        "job {} is {}: {}",
        view.id,
        view.state,
        view.message.unwrap_or_default()
    );
    Ok(took)
}

/// The middle one, in seconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
}
