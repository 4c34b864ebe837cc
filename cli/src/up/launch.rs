//! Starting one part: its command, its log, and the question that tells when it is ready.

use std::{
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use bus::ids::Queue;
use chrono::{DateTime, Utc};
use model::WorkerState;
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
    part::{Part, WORKER_GRACE},
    postgres,
    programs::{NatsServer, Postgres, calm},
};
use crate::values::{ByteSize, Cpus};

/// Between two questions whether a part is ready; doubled up to the second.
const ASK_MIN: Duration = Duration::from_millis(10);
const ASK_MAX: Duration = Duration::from_millis(250);

/// What the worker is started with, where the user said so.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkerOptions {
    pub(super) queues: Vec<Queue>,
    pub(super) executor: Option<String>,
    pub(super) cpus: Option<Cpus>,
    pub(super) memory: Option<ByteSize>,
}

impl WorkerOptions {
    /// As `rgrid runner` reads them.
    fn environment(&self) -> impl Iterator<Item = (&'static str, String)> {
        let queues: Vec<&str> = self.queues.iter().map(Queue::as_str).collect();
        let values = [
            ("RGRID_QUEUES", (!queues.is_empty()).then(|| queues.join(","))),
            ("RGRID_EXECUTOR", self.executor.clone()),
            (
                "RGRID_CPUS",
                self.cpus.map(|cpus| format!("{}.{:03}", cpus.0 / 1000, cpus.0 % 1000)),
            ),
            ("RGRID_MEMORY", self.memory.map(|memory| memory.0.to_string())),
        ];
        values.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
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
    /// When.
    pub(super) since: DateTime<Utc>,
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
        let since = Utc::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.as_std().get_program().to_string_lossy()))?;
        Ok(Started { child, since, log_from })
    }

    /// One of rgrid's own services. Everything goes by environment: a command line can be read by every user of the machine.
    fn service(&self, part: Part) -> Command {
        let grid = &self.grid;
        let mut command = match part {
            // Its jobs would inherit it.
            Part::Runner => Command::new(&self.program),
            _ => calm(&self.program),
        };
        command.arg(part.name()).current_dir(self.dir.root());
        // What the caller has set for a grid elsewhere must not matter here.
        command.env_remove("RGRID_KEY_FILE").env("RGRID_REPLICAS", "1");
        command
            .env("RGRID_NATS", grid.nats_url.as_str())
            .env("RGRID_STORE", &grid.store_url);
        if matches!(part, Part::Projector | Part::Api) {
            command.env("RGRID_DATABASE_URL", grid.database_url.as_str());
        }
        if part == Part::Api {
            let port = grid.port(Part::Api).unwrap_or_default();
            command.env("RGRID_API_LISTEN", format!("127.0.0.1:{port}"));
            command.env("RGRID_API_KEY", &grid.api_key);
            command.env("RGRID_SECRETS_KEY_FILE", self.dir.secrets_key());
            command.env("RGRID_RUNTIMES_FILE", self.dir.runtimes());
        }
        if part == Part::Watcher {
            command.env("RGRID_NATS_SYSTEM", grid.nats_system_url.as_str());
        }
        if part == Part::Runner {
            command.env("RGRID_WORKER", grid.worker.as_str());
            command.env("RGRID_WORK_DIR", self.dir.work());
            command.env("RGRID_SECRETS_KEY_FILE", self.dir.secrets_key());
            command.env("RGRID_DRAIN", format!("{}s", WORKER_GRACE.as_secs()));
            command.envs(self.worker.environment());
        }
        command
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

    /// Asks a part that was started at `since` until it is ready. One that has nothing to answer with is, at once. Why it is
    /// not yet goes to `why_not`.
    pub(super) async fn ready(&self, part: Part, since: DateTime<Utc>, why_not: impl Fn(String)) {
        let mut pause = ASK_MIN;
        while let Err(reason) = self.ask(part, since).await {
            why_not(format!("{reason:#}"));
            sleep(pause).await;
            pause = (pause * 2).min(ASK_MAX);
        }
    }

    async fn ask(&self, part: Part, since: DateTime<Utc>) -> anyhow::Result<()> {
        let get = |path| http::get(&self.grid.api_url, path, &self.grid.api_key);
        match part {
            Part::Nats => nats::probe(&self.grid).await?,
            Part::Postgres => postgres::probe(&self.grid).await?,
            Part::Api => ensure!(get("/v1/health").await?["status"] == "ok", "the API is not well"),
            Part::Runner => {
                let answer = get("/v1/workers").await?;
                ensure!(serves(&answer, self.grid.worker.as_str(), since), "its worker is not registered");
            }
            Part::Projector | Part::Watcher => {}
        }
        Ok(())
    }
}

/// Whether the API's list has this worker, live, with a session that began after `since`: the same worker may stand there
/// from the last time.
fn serves(answer: &Value, name: &str, since: DateTime<Utc>) -> bool {
    let workers = answer["workers"].as_array();
    workers.into_iter().flatten().any(|worker| {
        let began = worker["registered_at"].as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
        worker["id"] == name && worker["state"] == WorkerState::Live.as_str() && began.is_some_and(|began| began >= since)
    })
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
    fn a_worker_of_an_earlier_session_does_not_count() {
        let worker = |id: &str, state: &str, at: &str| json!({ "id": id, "state": state, "registered_at": at });
        let since = "2026-01-02T03:04:05Z".parse().expect("a time");
        let serves = |worker: Value| serves(&json!({ "workers": [worker] }), "a", since);
        assert!(serves(worker("a", "live", "2026-01-02T03:04:05.5Z")));
        assert!(!serves(worker("a", "live", "2026-01-02T03:04:04.5Z")));
        assert!(!serves(worker("a", "left", "2026-01-02T03:04:05.5Z")));
        assert!(!serves(worker("b", "live", "2026-01-02T03:04:05.5Z")));
        assert!(!serves(json!({ "problem": "?" })));
    }

    #[test]
    fn the_worker_reads_its_options_as_they_were_meant() -> Result<(), Box<dyn std::error::Error>> {
        let options = WorkerOptions {
            queues: vec!["gpu".parse()?, "default".parse()?],
            executor: None,
            cpus: Some("1.05".parse()?),
            memory: Some("8GB".parse()?),
        };
        let read: Vec<_> = options.environment().collect();
        let expected = [
            ("RGRID_QUEUES", "gpu,default"),
            ("RGRID_CPUS", "1.050"),
            ("RGRID_MEMORY", "8000000000"),
        ];
        assert_eq!(read, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(WorkerOptions::default().environment().count(), 0);
        Ok(())
    }

    #[test]
    fn an_end_is_said_in_words() {
        assert_eq!(describe(ExitStatus::from_raw(256)), "exit code 1");
        assert_eq!(describe(ExitStatus::from_raw(9)), "signal 9");
    }
}
