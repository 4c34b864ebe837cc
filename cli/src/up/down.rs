//! `rgrid down`: ends the grid of a data directory, no matter which process started it.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{DownArgs, dir::DataDir, leftovers, part::WORKER_GRACE, process::Process};

/// How long a supervisor may take to end: more than all that it waits for itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take without a word about why.
const QUIET: Duration = Duration::from_secs(2);
/// How long a supervisor that has just taken the lock may take to say who it is.
const RECORD_PATIENCE: Duration = Duration::from_secs(5);

/// Takes a grid down, and returns when nothing of it runs any more.
///
/// # Errors
/// If the data directory belongs to another user, or something cannot be ended.
pub(crate) async fn down(args: DownArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::new(args.data_dir.as_deref())?;
    let shown = dir.root().display().to_string();
    if !dir.exists() {
        println!("No grid is running in {shown}.");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(_lock) = dir.lock()? {
        let stopped = leftovers::stop(&dir).await;
        if stopped.is_empty() {
            println!("No grid is running in {shown}.");
        } else {
            println!(
                "The grid in {shown} had lost its supervisor. Stopped what was left: {}.",
                leftovers::names(&stopped)
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    let supervisor = find_supervisor(&dir).await?;
    supervisor.signal(Signal::TERM);
    let mut ended = supervisor.ended_within(QUIET).await;
    if !ended {
        eprintln!("rgrid down: running jobs may continue for {} s", WORKER_GRACE.as_secs());
        ended = supervisor.ended_within(PATIENCE).await;
    }
    if !ended {
        supervisor.signal(Signal::KILL);
        supervisor.ended_within(PATIENCE).await;
        let _lock = dir
            .lock()?
            .with_context(|| format!("cannot end the grid in {shown}: its supervisor does not end, not even when killed"))?;
        let stopped = leftovers::stop(&dir).await;
        println!(
            "The supervisor did not end within {} s and was killed; then stopped: {}.",
            PATIENCE.as_secs(),
            leftovers::names(&stopped)
        );
        return Ok(ExitCode::SUCCESS);
    }
    let killed = dir.read_up().map(|up| up.killed).unwrap_or_default();
    if !killed.is_empty() {
        println!("Killed, because it did not end in time: {}.", leftovers::names(&killed));
    }
    println!("The grid in {shown} has stopped.");
    Ok(ExitCode::SUCCESS)
}

/// The process that holds the lock. One that took it a moment ago has yet to write who it is.
async fn find_supervisor(dir: &DataDir) -> anyhow::Result<Process> {
    let until = Instant::now() + RECORD_PATIENCE;
    loop {
        match dir.read_up() {
            Ok(up) => {
                if let Some(process) = up.process.open() {
                    return Ok(process);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                bail!(
                    "cannot look into {}: it belongs to another user; run `rgrid down` as that user",
                    dir.root().display()
                );
            }
            Err(_) => {}
        }
        if Instant::now() >= until {
            bail!(
                "an unknown process holds {}/up.lock; find it with: fuser {0}/up.lock",
                dir.root().display()
            );
        }
        sleep(Duration::from_millis(20)).await;
    }
}
