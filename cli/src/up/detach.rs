//! `rgrid up --detach`: a supervisor in the background, and the wait until it says how it went.

use std::{env, fs::File, process::Stdio};

use anyhow::{Context, anyhow};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    signal::ctrl_c,
};

use super::{dir::DataDir, logs, process::Identity, report::Message};

/// The hidden option that makes a process the supervisor in the background.
pub(super) const SUPERVISOR_FLAG: &str = "--supervisor";

/// How bringing up a grid in the background ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Up,
    AlreadyUp,
}

/// Starts this program again, with the same options, as a supervisor, and waits until the grid is up.
pub(super) async fn start(dir: &DataDir) -> anyhow::Result<Outcome> {
    let log = open_log(dir)?;
    let program = env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1)).arg(SUPERVISOR_FLAG);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().context("cannot start the supervisor")?;
    let supervisor = child.id().and_then(Identity::of).and_then(|identity| identity.open());
    let mut lines = BufReader::new(child.stdout.take().context("the supervisor has no output")?).lines();
    let mut interrupted = false;
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            // Waiting goes on: it says when everything is down again.
            _ = ctrl_c(), if !interrupted => {
                interrupted = true;
                if let Some(supervisor) = &supervisor {
                    supervisor.signal(rustix::process::Signal::TERM);
                }
                continue;
            }
        };
        let Some(line) = line else {
            let status = child.wait().await?;
            if interrupted {
                return Err(anyhow!("interrupted before the grid was up; none of its processes is running"));
            }
            return Err(anyhow!(
                "the supervisor ended before the grid was up ({status}); see {}",
                dir.up_log().display()
            ));
        };
        match serde_json::from_str(&line) {
            Ok(Message::Progress(line)) => eprintln!("rgrid up: {line}"),
            Ok(Message::Up) => return Ok(Outcome::Up),
            Ok(Message::AlreadyUp) => return Ok(Outcome::AlreadyUp),
            Ok(Message::Failed(reason)) => {
                child.wait().await?;
                return Err(anyhow!(reason));
            }
            Err(_) => eprintln!("{line}"),
        }
    }
}

/// Leaves the starter's session: what ends that, a closed terminal or Ctrl-C, does not end the grid.
pub(super) fn leave_session() -> anyhow::Result<()> {
    rustix::process::setsid().map(drop).context("cannot go into the background")
}

/// The supervisor's log, which is also where its panics go.
pub(super) fn open_log(dir: &DataDir) -> anyhow::Result<File> {
    logs::open(&dir.up_log()).with_context(|| format!("cannot open {}", dir.up_log().display()))
}
