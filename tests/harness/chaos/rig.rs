//! The grid under test: each part a process of its own, each runner behind a cable of its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bus::log::connect::{self, Bus};
use reqwest::Client;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{
    fault::{Crew, Part},
    net::{Net, is_orphan},
};
use crate::{
    grid::rgrid,
    postgres::{Cluster, Postgres},
    process::{Server, free_port, program},
};

const KEY: &str = "the-chaos-key";
/// What directories of runs begin with; the pid follows.
const PREFIX: &str = "rgrid-chaos-";
/// The file that says that a directory is to stay.
const KEPT: &str = "kept";
const USER: &str = "nats://grid:grid-secret@";
const SYSTEM: &str = "nats://system:system-secret@";
/// How long a part may take to come up, or to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many jobs one runner takes at once. They sleep, and the machine has not so many CPUs.
pub const SLOTS: u8 = 40;

/// A grid that is to be harmed.
#[derive(Debug)]
pub struct Rig {
    parts: BTreeMap<Part, Server>,
    cluster: Cluster,
    database: Postgres,
    /// The cables, where this machine lets us have some.
    pub net: Option<Net>,
    /// Why there are none.
    pub no_net: Option<String>,
    dir: TempDir,
    nats_address: String,
    api_port: u16,
    http: Client,
    crew: Crew,
}

impl Rig {
    /// Starts everything, and waits until each worker is registered.
    pub async fn start(crew: Crew) -> Result<Self> {
        sweep();
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let (net, no_net) = match Net::make(crew.runners) {
            Ok(net) => (Some(net), None),
            Err(why) => (None, Some(why)),
        };
        let host = net.as_ref().map_or_else(|| "127.0.0.1".to_owned(), Net::host);
        let nats_port = TcpListener::bind((host.as_str(), 0))?.local_addr()?.port();
        let cluster = Cluster::start().await?;
        let database = cluster.database().await?;
        let mut rig = Self {
            parts: BTreeMap::new(),
            cluster,
            database,
            net,
            no_net,
            dir: TempDir::with_prefix(format!("{PREFIX}{}-", std::process::id()))?,
            nats_address: format!("{host}:{nats_port}"),
            api_port: free_port()?,
            http: Client::builder().timeout(Duration::from_secs(20)).build()?,
            crew,
        };
        fs::create_dir(rig.traces())?;
        rig.start_all().await?;
        Ok(rig)
    }

    async fn start_all(&mut self) -> Result<()> {
        self.run(Part::Nats)?;
        let bus = self.bus("chaos").await?;
        for part in [Part::Projector, Part::Api] {
            self.run(part)?;
        }
        for number in 1..=self.crew.watchers {
            self.run(Part::Watcher(number))?;
        }
        for number in 1..=self.crew.runners {
            self.run(Part::Runner(number))?;
        }
        self.until("the API answers", async || self.get("health").await.ok().map(drop))
            .await?;
        let workers = usize::from(self.crew.runners);
        self.until("every worker is live", async || {
            let answer = self.get("workers").await.ok()?;
            let live = answer["workers"]
                .as_array()?
                .iter()
                .filter(|worker| worker["state"] == "live")
                .count();
            (live == workers).then_some(())
        })
        .await?;
        drop(bus);
        Ok(())
    }

    /// Where attempts leave their traces.
    #[must_use]
    pub fn traces(&self) -> PathBuf {
        self.dir.path().join("traces")
    }

    /// Keeps the logs, the traces and the stores of this run, and says where.
    #[must_use]
    pub fn keep(&mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        // Without it the next run removes the directory.
        let _marked = fs::write(self.dir.path().join(KEPT), "");
        self.dir.path().to_owned()
    }

    /// Where NATS is, with the grid's credentials.
    #[must_use]
    pub fn nats_url(&self) -> String {
        format!("{USER}{}", self.nats_address)
    }

    /// The tables.
    #[must_use]
    pub fn database_url(&self) -> &str {
        self.database.url()
    }

    /// How many there are of each part.
    #[must_use]
    pub const fn crew(&self) -> Crew {
        self.crew
    }

    /// A connection of the checker's own; waits for the server.
    pub async fn bus(&self, name: &str) -> Result<Bus> {
        let url = self.nats_url();
        Ok(tokio::time::timeout(PATIENCE, connect::patiently(&url, name)).await??)
    }

    /// What a part wrote to its log.
    #[must_use]
    pub fn log(&self, part: Part) -> String {
        fs::read_to_string(self.log_path(part)).unwrap_or_default()
    }

    fn log_path(&self, part: Part) -> PathBuf {
        self.dir.path().join(format!("{part}.log"))
    }

    /// Starts a part that does not run.
    pub fn run(&mut self, part: Part) -> Result<()> {
        ensure!(part != Part::Postgres, "Postgres is started by its own");
        let log = File::options().create(true).append(true).open(self.log_path(part))?;
        let mut command = self.command(part)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.parts.insert(part, Server::start(&mut command)?);
        Ok(())
    }

    fn command(&self, part: Part) -> Result<Command> {
        // Whatever ends this program ends them, a SIGKILL too.
        let mut line = vec!["setpriv".to_owned(), "--pdeathsig=KILL".to_owned(), "--".to_owned()];
        if let (Some(net), Part::Runner(number)) = (&self.net, part) {
            line.splice(0..0, net.inside(number));
        }
        let binary = if part == Part::Nats { program("nats-server") } else { rgrid() };
        line.push(binary.to_str().context("a path of UTF-8")?.to_owned());
        let dir = self.dir.path();
        let path = |name: &str| dir.join(name).display().to_string();
        let more: Vec<String> = match part {
            Part::Nats => vec!["--config".to_owned(), self.nats_config()?],
            Part::Postgres => Vec::new(),
            Part::Api => vec!["api".to_owned()],
            Part::Projector => vec!["projector".to_owned()],
            Part::Watcher(_) => vec!["watcher".to_owned()],
            Part::Runner(number) => {
                let (cpus, work) = (SLOTS.to_string(), path(&format!("runner-{number}")));
                let worker = format!("worker-{number}");
                let line = [
                    "runner",
                    "--worker",
                    &worker,
                    "--cpus",
                    &cpus,
                    "--memory",
                    "8GiB",
                    "--executor",
                    "process",
                ];
                let more = ["--allow-process", "--drain", "3s", "--grace", "2s", "--work-dir", &work];
                line.iter().chain(&more).map(|word| (*word).to_owned()).collect()
            }
        };
        let mut command = Command::new(&line[0]);
        command
            .args(&line[1..])
            .args(more)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("RGRID_NATS", self.nats_url())
            .env("RGRID_DATABASE_URL", self.database.url())
            .env("RGRID_API_LISTEN", format!("127.0.0.1:{}", self.api_port))
            .env("RGRID_API_KEY", KEY)
            .env("RGRID_LOG", std::env::var("CHAOS_LOG").unwrap_or_else(|_| "info".to_owned()));
        if matches!(part, Part::Watcher(_)) {
            command.env("RGRID_NATS_SYSTEM", format!("{SYSTEM}{}", self.nats_address));
        }
        Ok(command)
    }

    /// As `rgrid up` configures its own: an account for the grid, and one for the server's advisories.
    fn nats_config(&self) -> Result<String> {
        let path = self.dir.path().join("nats.conf");
        let user = |name: &str| json!({ "user": name, "password": format!("{name}-secret") });
        let config = json!({
            "server_name": "chaos",
            "listen": self.nats_address,
            "max_payload": 8 << 20,
            "jetstream": { "store_dir": self.dir.path().join("nats"), "sync_interval": "2s", "max_file_store": 1_u64 << 40 },
            "accounts": {
                "RGRID": { "jetstream": "enabled", "users": [user("grid")] },
                "SYS": { "users": [user("system")] },
            },
            "system_account": "SYS",
        });
        fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        Ok(path.display().to_string())
    }

    /// Ends a part with SIGKILL.
    pub fn kill(&mut self, part: Part) -> Result<()> {
        if part == Part::Postgres {
            return self.cluster.crash();
        }
        let mut server = self.parts.remove(&part).with_context(|| format!("{part} does not run"))?;
        server.kill()
    }

    /// Asks a part to end, and waits until it has.
    pub async fn stop(&mut self, part: Part) -> Result<()> {
        if part == Part::Postgres {
            return self.cluster.kill();
        }
        let mut server = self.parts.remove(&part).with_context(|| format!("{part} does not run"))?;
        server.signal(Signal::TERM)?;
        server.gone(PATIENCE).await
    }

    /// Starts a part again, and for a server waits until it answers.
    pub async fn again(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Postgres => self.cluster.restart().await,
            Part::Nats => {
                self.run(part)?;
                self.bus("chaos").await.map(drop)
            }
            _ => self.run(part),
        }
    }

    /// Stops a part in its tracks, or lets it go on.
    pub fn signal(&self, part: Part, signal: Signal) -> Result<()> {
        if part == Part::Postgres {
            return self.cluster.signal(signal);
        }
        let server = self.parts.get(&part).with_context(|| format!("{part} does not run"))?;
        server.signal(signal)
    }

    /// The parts that ended although nobody ended them, and what they said last.
    pub fn fallen(&mut self) -> Vec<String> {
        let mut fallen = Vec::new();
        for (part, server) in &mut self.parts {
            if let Some(status) = server.ended() {
                let path = self.dir.path().join(format!("{part}.log"));
                fallen.push(format!("{part} ended by itself ({status}): {}", tail(&path)));
            }
        }
        fallen
    }

    /// Asks the API.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.http.get(self.api(path)).bearer_auth(KEY).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    /// Tells the API to do something.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let asked = self.http.post(self.api(path)).bearer_auth(KEY).json(body);
        Ok(asked.send().await?.error_for_status()?.json().await?)
    }

    /// Where the API is, for somebody who asks by himself.
    #[must_use]
    pub fn door(&self) -> Door {
        Door {
            http: self.http.clone(),
            jobs: self.api("jobs"),
        }
    }

    fn api(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/v1/{path}", self.api_port)
    }

    /// Waits for a fact.
    pub async fn until<T>(&self, what: &str, fact: impl AsyncFn() -> Option<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(value) = fact().await {
                return Ok(value);
            }
            let logs = || {
                self.parts
                    .keys()
                    .map(|part| tail(&self.log_path(*part)))
                    .collect::<Vec<_>>()
                    .join("\n---\n")
            };
            ensure!(start.elapsed() < PATIENCE * 2, "it did not come true that {what}; {}", logs());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The API's own door, which outlives a borrow of the rig.
#[derive(Debug, Clone)]
pub struct Door {
    http: Client,
    jobs: String,
}

impl Door {
    /// Submits jobs; the answer tells for each whether it is acknowledged.
    pub async fn submit(&self, submissions: &Value) -> Result<Value> {
        let answer = self.http.post(&self.jobs).bearer_auth(KEY).json(submissions).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }
}

/// Removes the directories of runs that were killed.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let orphan = entry.file_name().to_str().is_some_and(|name| is_orphan(name, PREFIX));
        if orphan && !entry.path().join(KEPT).exists() {
            let _gone = fs::remove_dir_all(entry.path());
        }
    }
}

fn tail(path: &Path) -> String {
    let log = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
