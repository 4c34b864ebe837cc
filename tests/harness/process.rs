//! A server program as a child of the test.

use std::{
    collections::BTreeSet,
    env,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

/// How long a server may take to be ready, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(30);

/// A child that is killed and reaped when it is dropped.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.spawn();
        Ok(Self(child.with_context(|| format!("failed to start {command:?}"))?))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        signal_to(self.id(), signal)
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    /// Waits until it has ended.
    pub(crate) async fn gone(&mut self, patience: Duration) -> Result<()> {
        let start = Instant::now();
        while self.ended().is_none() {
            if start.elapsed() > patience {
                bail!("process {} did not end within {patience:?}", self.id());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Asks until `ready` has an answer. A server that has ended is an error that quotes its log.
    pub(crate) async fn until<T>(&mut self, log: &Path, ready: impl AsyncFn() -> Option<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(answer) = ready().await {
                return Ok(answer);
            }
            if let Some(status) = self.0.try_wait()? {
                bail!(
                    "the server ended with {status}: {}",
                    std::fs::read_to_string(log).unwrap_or_default()
                );
            }
            if start.elapsed() > READY_MAX {
                bail!(
                    "the server was not ready after {READY_MAX:?}: {}",
                    std::fs::read_to_string(log).unwrap_or_default()
                );
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ended = self.kill();
    }
}

/// A program that the bootstrap installed: in `RGRID_BIN_DIR`, else in `.rgrid/bin` of the workspace, else on the path.
pub(crate) fn program(name: &str) -> PathBuf {
    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.rgrid/bin"));
    let dirs = env::var_os("RGRID_BIN_DIR").map(PathBuf::from).into_iter().chain([own]);
    dirs.map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| name.into())
}

/// A port for a program that cannot choose one itself: free a moment ago, never given to anybody else here, and none of those that
/// the kernel gives to whoever connects or binds without a wish, which would soon be taken.
pub(crate) fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let kernels = range.split_whitespace().next().context("a range has a beginning")?.parse::<u16>()?;
    for _ in 0..1_000 {
        let port = rand::random_range(10_000..kernels.max(20_000));
        let is_new = GIVEN
            .lock()
            .map_err(|_| anyhow!("a test broke while it chose a port"))?
            .insert(port);
        if is_new && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port below {kernels} is free")
}

/// How long a process may take to stop on a machine that is busy with everything else.
const STOPPED: Duration = Duration::from_secs(30);

/// Sends a process a signal. Where that is SIGSTOP, it stands still on return: the kernel stops a process only once the thread that it
/// picked for the signal has had a CPU, and on a busy machine the other threads answer requests until then.
pub fn signal_to(pid: u32, signal: Signal) -> Result<()> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no such process")?;
    kill_process(target, signal)?;
    let begun = Instant::now();
    while signal == Signal::STOP && !stands_still(pid)? {
        ensure!(begun.elapsed() < STOPPED, "process {pid} goes on for {STOPPED:?} after SIGSTOP");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether every thread of a process is stopped, or gone.
fn stands_still(pid: u32) -> Result<bool> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // `123 (its name) T …`, and nothing for a thread that ended just now.
        let stat = std::fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, None | Some('T' | 'Z' | 'X')) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How much memory a process has now, and has had at most, in bytes (`VmRSS` and `VmHWM`).
pub fn memory_of(pid: u32) -> Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .context("a process has memory")?;
        let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        Ok(kib.parse::<u64>()? << 10)
    };
    Ok((field("VmRSS")?, field("VmHWM")?))
}
