//! A whole grid: real servers, and every service as a process of its own, so that each can be killed.

use std::{
    collections::BTreeMap,
    fs::File,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    nats::NatsServer,
    postgres::Postgres,
    process::{Server, free_port},
};

/// How long a fact may take to come true, on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);
const KEY: &str = "the-tests-own-key";

/// A service of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `rgrid api`
    Api,
    /// `rgrid projector`
    Projector,
    /// `rgrid watcher`
    Watcher,
    /// `rgrid runner`, for the worker of this number.
    Runner(u8),
}

impl Part {
    fn name(self) -> String {
        match self {
            Self::Api => "api".to_owned(),
            Self::Projector => "projector".to_owned(),
            Self::Watcher => "watcher".to_owned(),
            Self::Runner(number) => format!("runner-{number}"),
        }
    }
}

/// A grid of its own, ended with this handle.
#[derive(Debug)]
pub struct Grid {
    /// Its services, those that run.
    parts: BTreeMap<Part, Server>,
    /// Its NATS.
    pub nats: NatsServer,
    /// Its tables.
    pub postgres: Postgres,
    dir: TempDir,
    port: u16,
    http: Client,
    /// What services find in their environment besides what the harness says, and in its place.
    env: Vec<(&'static str, String)>,
}

impl Grid {
    /// Starts everything, with one worker of two CPUs that runs plain processes, and waits until that is registered.
    pub async fn start() -> Result<Self> {
        let mut grid = Self::start_only(&[Part::Api, Part::Projector, Part::Watcher]).await?;
        grid.run(Part::Runner(1))?;
        grid.worker_is("worker-1", "live").await?;
        Ok(grid)
    }

    /// Starts the servers and these services.
    pub async fn start_only(parts: &[Part]) -> Result<Self> {
        Self::start_with(parts, Vec::new()).await
    }

    /// Starts the servers and these services, with this in the services' environment.
    pub async fn start_with(parts: &[Part], env: Vec<(&'static str, String)>) -> Result<Self> {
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let mut grid = Self {
            parts: BTreeMap::new(),
            nats: NatsServer::start().await?,
            postgres: Postgres::start().await?,
            dir: TempDir::with_prefix("rgrid-grid-")?,
            port: free_port()?,
            http: Client::new(),
            env,
        };
        for part in parts {
            grid.run(*part)?;
        }
        if parts.contains(&Part::Api) {
            grid.api_answers().await?;
        }
        if [Part::Api, Part::Projector].iter().all(|part| parts.contains(part)) {
            // On a busy machine, the tables are made a while later.
            grid.projected().await?;
        }
        Ok(grid)
    }

    /// Starts a service that does not run.
    pub fn run(&mut self, part: Part) -> Result<()> {
        self.run_with(part, &[])
    }

    /// Starts a service with arguments of its own.
    pub fn run_with(&mut self, part: Part, arguments: &[&str]) -> Result<()> {
        let name = part.name();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("{name}.log")))?;
        let mut command = Command::new(rgrid());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("RGRID_NATS", self.nats.url())
            .env("RGRID_DATABASE_URL", self.postgres.url())
            .env("RGRID_API_LISTEN", format!("{}:{}", Ipv4Addr::LOCALHOST, self.port))
            .env("RGRID_API_KEY", KEY)
            .env("RGRID_LOG", "debug")
            .env("RGRID_EXECUTOR", "process")
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        match part {
            Part::Api => command.arg("api"),
            Part::Projector => command.arg("projector"),
            Part::Watcher => command.arg("watcher"),
            Part::Runner(number) => command
                .arg("runner")
                .args(["--worker", &format!("worker-{number}"), "--cpus", "2", "--memory", "4GiB"])
                .arg("--work-dir")
                .arg(self.dir.path().join(&name)),
        };
        self.parts.insert(part, Server::start(command.args(arguments))?);
        Ok(())
    }

    /// Ends a service with SIGKILL.
    pub fn kill(&mut self, part: Part) -> Result<()> {
        let mut server = self.parts.remove(&part).with_context(|| format!("{part:?} does not run"))?;
        server.kill()
    }

    /// The process of a service.
    pub fn pid(&self, part: Part) -> Result<u32> {
        Ok(self.parts.get(&part).with_context(|| format!("{part:?} does not run"))?.id())
    }

    /// What a service logged.
    #[must_use]
    pub fn log(&self, part: Part) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{}.log", part.name()))).unwrap_or_default()
    }

    /// A directory for the test's own files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The API's URL and key, as the CLI takes them.
    #[must_use]
    pub fn access(&self) -> [(&'static str, String); 2] {
        [
            ("RGRID_URL", format!("http://127.0.0.1:{}", self.port)),
            ("RGRID_API_KEY", KEY.to_owned()),
        ]
    }

    /// A request to the API.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("http://127.0.0.1:{}/v1/{path}", self.port))
            .bearer_auth(KEY)
    }

    /// What the API answers, which must be a success.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.request(Method::GET, path).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "GET {path}: {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Submits one job, or an array of them.
    pub async fn submit(&self, submission: &Value) -> Result<Value> {
        let answer = self.request(Method::POST, "jobs").json(submission).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "POST jobs: {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Submits a shell script as a plain process, and returns the job's id.
    pub async fn shell(&self, script: &str) -> Result<String> {
        let job = self
            .submit(&json!({ "command": ["/bin/sh", "-c", script], "executor": "process" }))
            .await?;
        Ok(job["id"].as_str().context("a job has an id")?.to_owned())
    }

    /// Waits until a job has ended, and returns its view.
    pub async fn ended(&self, id: &str) -> Result<Value> {
        let start = Instant::now();
        loop {
            // The API may be away just now; that is what some tests are about.
            if let Ok(job) = self.get(&format!("jobs/{id}?wait=5s&until=end")).await
                && !["queued", "claimed", "running"].contains(&job["state"].as_str().unwrap_or_default())
            {
                return Ok(job);
            }
            if start.elapsed() > SOON {
                bail!("job {id} did not end: {:?}", self.get(&format!("jobs/{id}")).await);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The types of a job's events, in order.
    pub async fn history(&self, id: &str) -> Result<Vec<String>> {
        let history = self.get(&format!("jobs/{id}/history")).await?;
        let events = history["events"].as_array().context("a history has events")?;
        Ok(events
            .iter()
            .map(|event| event["type"].as_str().unwrap_or_default().to_owned())
            .collect())
    }

    /// What a job printed to a stream.
    pub async fn printed(&self, id: &str, stream: &str) -> Result<Vec<u8>> {
        let answer = self
            .request(Method::GET, &format!("jobs/{id}/logs?stream={stream}"))
            .send()
            .await?
            .error_for_status()?;
        Ok(answer.bytes().await?.to_vec())
    }

    /// Waits until a worker is in this state, as the tables tell.
    pub async fn worker_is(&self, worker: &str, state: &str) -> Result<()> {
        self.eventually(&format!("{worker} is {state}"), async || {
            let workers = self.get("workers").await.ok()?;
            let is = |candidate: &Value| candidate["id"] == worker && candidate["state"] == state;
            workers["workers"].as_array()?.iter().any(is).then_some(())
        })
        .await
    }

    /// Waits until the tables hold everything that the log does.
    pub async fn projected(&self) -> Result<()> {
        self.eventually("the tables have caught up", async || {
            let projection = self.get("projection").await.ok()?;
            (projection["sequence"].as_u64()? >= projection["last"].as_u64()?).then_some(())
        })
        .await
    }

    /// Waits until the API answers.
    pub async fn api_answers(&self) -> Result<()> {
        self.eventually("the API answers", async || self.get("health").await.ok().map(drop))
            .await
    }

    /// Waits for a fact.
    pub async fn eventually<T>(&self, what: &str, fact: impl AsyncFn() -> Option<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(value) = fact().await {
                return Ok(value);
            }
            if start.elapsed() > SOON {
                let logs: Vec<String> = self.parts.keys().map(|part| tail(&self.log(*part))).collect();
                bail!("it did not come true that {what}; {}", logs.join("\n---\n"));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// The binary under test: beside the test's own.
#[must_use]
pub fn rgrid() -> PathBuf {
    built("rgrid")
}

/// A program of this workspace: beside the one that runs, or, since tests lie one below, above it.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let mut dirs = own.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    let here = dirs.next().unwrap_or_default();
    let above = dirs.next().unwrap_or_default();
    if here.is_file() { here } else { above }
}
