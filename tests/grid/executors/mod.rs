//! The two executors, with real processes and real containers.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bus::ids::{Attempt, JobId, SessionId};
use runner::executor::{
    Ended, Executor, Launch, Limits, Process, Running, RuntimeTable,
    process::{Config, helper},
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _};

mod docker;
mod guarded;
mod limits;
mod process;
mod table;
mod takedown;

/// No command here takes that long, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A work directory and a scratch directory.
struct Place(TempDir);

impl Place {
    fn new() -> anyhow::Result<Self> {
        let place = TempDir::new()?;
        std::fs::create_dir(place.path().join("work"))?;
        std::fs::create_dir(place.path().join("scratch"))?;
        Ok(Self(place))
    }

    fn work(&self) -> PathBuf {
        self.0.path().join("work")
    }

    fn launch(&self, command: &[&str]) -> Launch {
        Launch {
            job: JobId::new(),
            attempt: Attempt::FIRST,
            session: SessionId::new(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            runtime: None,
            image: None,
            env: BTreeMap::new(),
            secrets: runner::secrets::Values::default(),
            work_dir: self.work(),
            dir: None,
            scratch_dir: self.0.path().join("scratch"),
            stdin: None,
            user: None,
            packages: None,
            inputs: runner::inputs::Inputs::default(),
            installs: false,
            limits: Limits::default(),
            notice: None,
        }
    }

    /// A shell script.
    fn script(&self, script: &str) -> Launch {
        self.launch(&["/bin/sh", "-c", script])
    }
}

/// The binary that is the spawn helper: `rgrid`, which cargo puts beside the tests.
fn rgrid() -> anyhow::Result<PathBuf> {
    let tests = std::env::current_exe()?;
    let rgrid = tests.parent().and_then(Path::parent).context("no target directory")?.join("rgrid");
    anyhow::ensure!(rgrid.exists(), "{} is not built: `cargo build -p rgrid` first", rgrid.display());
    Ok(rgrid)
}

fn config() -> anyhow::Result<Config> {
    Ok(Config {
        helper: vec![rgrid()?.into(), helper::VERB.into()],
        ..Config::new("tests".parse()?, RuntimeTable::default().into())
    })
}

async fn processes() -> anyhow::Result<Process> {
    Ok(Process::start(config()?).await?)
}

/// What a command said, and how it ended.
#[derive(Debug)]
struct Outcome {
    stdout: String,
    stderr: String,
    ended: Ended,
}

/// Reads both outputs to their ends, and waits.
async fn finish(running: Running) -> anyhow::Result<Outcome> {
    let Running {
        mut stdout,
        mut stderr,
        handle,
        ..
    } = running;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let all = async { tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err), handle.wait()) };
    let (read_out, read_err, ended) = tokio::time::timeout(PATIENCE, all).await.context("the command does not end")?;
    read_out?;
    read_err?;
    Ok(Outcome {
        stdout: String::from_utf8_lossy(&out).into_owned(),
        stderr: String::from_utf8_lossy(&err).into_owned(),
        ended: ended?,
    })
}

async fn run(executor: &dyn Executor, launch: Launch) -> anyhow::Result<Outcome> {
    finish(executor.launch(launch).await?).await
}

/// The next line of an output.
async fn line(output: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<String> {
    let mut line = Vec::new();
    loop {
        let byte = tokio::time::timeout(PATIENCE, output.read_u8()).await.context("no line comes")??;
        if byte == b'\n' {
            return Ok(String::from_utf8(line)?);
        }
        line.push(byte);
    }
}

/// Whether a process is there, and no zombie.
fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

/// Waits until something is so.
async fn eventually(what: &str, is_so: impl Fn() -> bool) -> anyhow::Result<Duration> {
    let start = Instant::now();
    while !is_so() {
        anyhow::ensure!(start.elapsed() < PATIENCE, "it does not come to be that {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(start.elapsed())
}
