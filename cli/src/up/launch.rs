//! Starting one part: its command, its log, and the question that tells when it is ready.

use std::{
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    time::sleep,
};

use super::{
    dir::DataDir,
    grid_file::{GridFile, Ports},
    http, logs, nats,
    part::Part,
    postgres,
    programs::{NatsServer, Postgres},
};

/// Between two questions whether a part is ready; doubled up to the second.
const ASK_MIN: Duration = Duration::from_millis(10);
const ASK_MAX: Duration = Duration::from_millis(250);

/// What the worker is started with, where the user said so.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkerOptions {
    pub(super) queues: Vec<String>,
    pub(super) executor: Option<String>,
    pub(super) cpus: Option<String>,
    pub(super) memory: Option<String>,
}

/// Everything that is needed to start any part.
#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) dir: DataDir,
    pub(super) grid: GridFile,
    pub(super) nats: NatsServer,
    pub(super) postgres: Postgres,
    /// This program, of which the services are verbs.
    pub(super) program: PathBuf,
    pub(super) worker: WorkerOptions,
    /// The ports, held until the first server starts.
    pub(super) ports: Mutex<Option<Ports>>,
}

/// A part's process, just started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) child: Child,
    /// How long its log was before.
    pub(super) log_from: u64,
}

impl Launcher {
    /// Starts a part's process. Its output goes to its log.
    pub(super) async fn start(&self, part: Part) -> anyhow::Result<Started> {
        let mut command = match part {
            Part::Nats => nats::command(&self.dir, &self.grid, &self.nats)?,
            Part::Postgres => postgres::command(&self.dir, &self.grid, &self.postgres).await?,
            Part::Projector | Part::Api | Part::Watcher | Part::Runner => self.service(part),
        };
        let path = self.dir.log(part);
        let log = logs::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let log_from = log.metadata()?.len();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A group of its own: Ctrl-C at the terminal is for the supervisor, which takes the parts down in their order.
        command.process_group(0);
        self.release_port(part);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.as_std().get_program().to_string_lossy()))?;
        Ok(Started { child, log_from })
    }

    /// One of rgrid's own services. Everything goes by environment: a command line can be read by every user of the machine.
    fn service(&self, part: Part) -> Command {
        let grid = &self.grid;
        let mut command = Command::new(&self.program);
        command.arg(part.name()).current_dir(self.dir.root());
        command
            .env("RGRID_NATS", grid.nats_url.as_str())
            .env("RGRID_NATS_SYSTEM", grid.nats_system_url.as_str());
        command.env("RGRID_STORE", &grid.store_url);
        match part {
            Part::Projector => {
                command.env("RGRID_DATABASE_URL", grid.database_url.as_str());
            }
            Part::Api => {
                let port = grid.port(Part::Api).unwrap_or_default();
                command.env("RGRID_DATABASE_URL", grid.database_url.as_str());
                command
                    .env("RGRID_API_LISTEN", format!("127.0.0.1:{port}"))
                    .env("RGRID_API_KEY", &grid.api_key);
            }
            Part::Runner => {
                command
                    .env("RGRID_WORKER", grid.worker.as_str())
                    .env("RGRID_WORK_DIR", self.dir.work());
                self.worker_options(&mut command);
            }
            Part::Watcher | Part::Nats | Part::Postgres => {}
        }
        command
    }

    fn worker_options(&self, command: &mut Command) {
        let WorkerOptions {
            queues,
            executor,
            cpus,
            memory,
        } = &self.worker;
        if !queues.is_empty() {
            command.env("RGRID_QUEUE", queues.join(","));
        }
        for (name, value) in [("RGRID_EXECUTOR", executor), ("RGRID_CPUS", cpus), ("RGRID_MEMORY", memory)] {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
    }

    fn release_port(&self, part: Part) {
        let mut ports = self.ports.lock();
        if let Some(held) = ports.as_mut() {
            match part {
                Part::Nats => held.nats.release(),
                Part::Postgres => held.postgres.release(),
                Part::Api => held.api.release(),
                Part::Projector | Part::Watcher | Part::Runner => {}
            }
        }
    }

    /// Asks a part that was started as process `pid` until it is ready. One that has nothing to answer with is, at once.
    /// Why it is not yet goes to `why_not`.
    pub(super) async fn ready(&self, part: Part, pid: u32, why_not: impl Fn(String)) {
        let mut pause = ASK_MIN;
        while let Err(reason) = self.ask(part, pid).await {
            why_not(format!("{reason:#}"));
            sleep(pause).await;
            pause = (pause * 2).min(ASK_MAX);
        }
    }

    async fn ask(&self, part: Part, pid: u32) -> anyhow::Result<()> {
        let get = |path| http::get(&self.grid.api_url, path, &self.grid.api_key);
        match part {
            Part::Nats => nats::probe(&self.grid).await?,
            Part::Postgres => postgres::probe(&self.grid).await?,
            Part::Api => ensure!(get("/v1/health").await?["status"] == "ok", "the API is not well"),
            Part::Runner => ensure!(serves(&get("/v1/workers").await?, pid), "its worker is not registered"),
            Part::Projector | Part::Watcher => {}
        }
        Ok(())
    }
}

/// Whether the API's list of workers has one that a runner of this process id registered. The name alone would not do: the
/// same worker stands there from the last time.
fn serves(answer: &Value, pid: u32) -> bool {
    let workers = answer.get("workers").unwrap_or(answer).as_array();
    workers.into_iter().flatten().any(|worker| worker["pid"] == pid)
}

/// How a process ended, in words.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_worker_of_an_earlier_runner_does_not_count() {
        let answer = json!({ "workers": [{ "worker": "a", "pid": 7 }, { "worker": "b", "pid": 8 }] });
        assert!(serves(&answer, 8));
        assert!(!serves(&answer, 9));
        assert!(serves(&json!([{ "pid": 9 }]), 9));
        assert!(!serves(&json!({ "problem": "?" }), 9));
    }

    #[test]
    fn an_end_is_said_in_words() {
        assert_eq!(describe(ExitStatus::from_raw(256)), "exit code 1");
        assert_eq!(describe(ExitStatus::from_raw(9)), "signal 9");
    }
}
