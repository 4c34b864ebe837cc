//! The machine's own floors: the same work without a grid.

use std::{
    num::NonZero,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use async_nats::jetstream::stream;
use bus::log::connect::Bus;
use tokio::process::Command;

/// An event's usual size in bytes.
const MESSAGE: usize = 256;

/// How long `xargs -P<cpus>` takes for so many `/bin/true`, in seconds.
///
/// # Errors
/// If there is no xargs.
pub(super) async fn xargs(jobs: u32) -> anyhow::Result<f64> {
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let begun = Instant::now();
    let status = Command::new("sh")
        .args(["-c", &format!("seq {jobs} | xargs -P{cpus} -n1 /bin/true")])
        .status()
        .await;
    let took = begun.elapsed();
    ensure!(
        status.context("cannot start sh for the floor")?.success(),
        "cannot measure the floor: `xargs /bin/true` failed"
    );
    Ok(took.as_secs_f64())
}

/// How long it takes to start `/bin/true` and wait for it, each time.
///
/// # Errors
/// If it cannot be started.
pub(super) async fn spawn(times: u32) -> anyhow::Result<Vec<Duration>> {
    let measure = move || -> std::io::Result<Vec<Duration>> {
        let mut took = Vec::new();
        for _ in 0..times {
            let begun = Instant::now();
            std::process::Command::new("/bin/true").stdin(Stdio::null()).status()?;
            took.push(begun.elapsed());
        }
        Ok(took)
    };
    tokio::task::spawn_blocking(measure)
        .await?
        .context("cannot start /bin/true for the floor")
}

/// How long publishing to `JetStream` takes, with the acknowledgement, into a stream of its own that is removed again.
///
/// # Errors
/// If NATS cannot be reached.
pub(super) async fn publish(nats: &str, times: u32) -> anyhow::Result<Vec<Duration>> {
    let bus = Bus::connect(nats, "bench").await?;
    let name = format!("RGRID_BENCH_{}", std::process::id());
    let subject = format!("rgrid.bench.{}", std::process::id());
    let config = stream::Config {
        name: name.clone(),
        subjects: vec![subject.clone()],
        ..stream::Config::default()
    };
    bus.js.create_stream(config).await.context("cannot make a stream for the floor")?;
    let measured = publish_each(&bus, &subject, times).await;
    bus.js.delete_stream(&name).await.context("cannot remove the floor's stream")?;
    measured
}

async fn publish_each(bus: &Bus, subject: &str, times: u32) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        bus.js.publish(subject.to_owned(), vec![b'x'; MESSAGE].into()).await?.await?;
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// How long `docker run --rm` of a program that does nothing takes.
///
/// # Errors
/// If it fails.
pub(super) async fn docker_run(image: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let output = Command::new("docker")
        .args(["run", "--rm", "--entrypoint", "/bin/true", image])
        .output()
        .await;
    let took = begun.elapsed();
    let output = output.context("cannot start docker for the floor; is it installed?")?;
    ensure!(
        output.status.success(),
        "`docker run {image}` failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(took)
}

/// Whether an image is on this machine.
pub(super) async fn has_image(image: &str) -> bool {
    let status = Command::new("docker")
        .args(["image", "inspect", image])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    status.is_ok_and(|status| status.success())
}
