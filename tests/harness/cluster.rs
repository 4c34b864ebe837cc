//! Three nats-servers that hold one log together, by the configuration that operators use.

use std::{
    fs::File,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use bus::log::{connect::Bus, setup};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::process::{Server, free_port, program};

/// How many servers.
const SIZE: usize = 3;
/// How long the cluster may take to have a leader, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(60);
const USER: &str = "rgrid:cluster-test";
const SYSTEM_USER: &str = "rgrid-system:system-test";

/// The servers, each killed with this handle.
#[derive(Debug)]
pub struct Cluster {
    dir: TempDir,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    port: u16,
    cluster_port: u16,
    /// Nothing while it is down.
    server: Option<Server>,
}

impl Cluster {
    /// Starts all of them, and makes the streams with three replicas.
    pub async fn start() -> Result<Self> {
        let nodes = (0..SIZE).map(|_| {
            Ok(Node {
                port: free_port()?,
                cluster_port: free_port()?,
                server: None,
            })
        });
        let mut cluster = Self {
            dir: TempDir::with_prefix("rgrid-cluster-")?,
            nodes: nodes.collect::<Result<_>>()?,
        };
        for node in 0..SIZE {
            cluster.launch(node)?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// All of them, as services take them.
    #[must_use]
    pub fn urls(&self) -> String {
        let url = |node: &Node| format!("nats://{USER}@127.0.0.1:{}", node.port);
        self.nodes.iter().map(url).collect::<Vec<_>>().join(",")
    }

    /// The same, for the system account.
    #[must_use]
    pub fn system_urls(&self) -> String {
        self.urls().replace(USER, SYSTEM_USER)
    }

    /// One of them.
    #[must_use]
    pub fn url(&self, node: usize) -> String {
        format!("nats://{USER}@127.0.0.1:{}", self.nodes[node].port)
    }

    /// Sends a signal to a server: SIGTERM ends it in good order, SIGSTOP freezes it.
    pub fn signal(&self, node: usize, signal: Signal) -> Result<()> {
        self.nodes[node].server.as_ref().context("it does not run")?.signal(signal)
    }

    /// A new connection to whichever answers.
    pub async fn bus(&self, name: &str) -> Result<Bus> {
        Ok(Bus::connect(&self.urls(), name).await?)
    }

    /// The server that leads a stream.
    pub async fn leader(&self, bus: &Bus, stream: &str) -> Result<usize> {
        let start = Instant::now();
        loop {
            let info: serde_json::Value = bus.js.request(format!("STREAM.INFO.{stream}"), &()).await.unwrap_or_default();
            if let Some(name) = info["cluster"]["leader"].as_str().and_then(|name| name.strip_prefix("node-")) {
                return Ok(name.parse()?);
            }
            if start.elapsed() > READY_MAX {
                bail!("stream {stream} has no leader: {info}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends a server with SIGKILL.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.nodes[node].server.take().context("it does not run")?.kill()
    }

    /// Starts a server again, with the store that it had.
    pub fn launch(&mut self, node: usize) -> Result<()> {
        let home = self.dir.path().join(format!("node-{node}"));
        std::fs::create_dir_all(&home)?;
        let route = |other: usize| format!("nats://127.0.0.1:{}", self.nodes[(node + other) % SIZE].cluster_port);
        let server = Server::start(
            Command::new(program("nats-server"))
                .arg("--config")
                .arg(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../nats/cluster.conf")))
                .arg("--log")
                .arg(home.join("nats.log"))
                .env("RGRID_NATS_NAME", format!("node-{node}"))
                .env("RGRID_NATS_LISTEN", format!("127.0.0.1:{}", self.nodes[node].port))
                .env("RGRID_NATS_CLUSTER_LISTEN", format!("127.0.0.1:{}", self.nodes[node].cluster_port))
                .env("RGRID_NATS_ROUTE_1", route(1))
                .env("RGRID_NATS_ROUTE_2", route(2))
                .env("RGRID_NATS_STORE", home.join("store"))
                .env("RGRID_NATS_PASSWORD", "cluster-test")
                .env("RGRID_NATS_SYSTEM_PASSWORD", "system-test")
                .stdout(Stdio::null())
                .stderr(File::create(home.join("nats.err"))?),
        )?;
        self.nodes[node].server = Some(server);
        Ok(())
    }

    /// Waits until every stream is there, in three copies that are level.
    pub async fn ready(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let tried = async {
                let bus = self.bus("test").await?;
                setup::streams(&bus.js, 3).await?;
                let info: serde_json::Value = bus.js.request(format!("STREAM.INFO.{}", bus::log::EVENTS), &()).await?;
                let replicas = info["cluster"]["replicas"].as_array().context("it has replicas")?;
                let level = replicas.iter().filter(|replica| replica["current"] == true).count();
                anyhow::ensure!(level + 1 == SIZE, "{level} replicas are level");
                Ok::<_, anyhow::Error>(())
            };
            match tried.await {
                Ok(()) => return Ok(()),
                Err(error) if start.elapsed() > READY_MAX => {
                    let logs = (0..SIZE)
                        .map(|node| std::fs::read_to_string(self.dir.path().join(format!("node-{node}/nats.log"))).unwrap_or_default());
                    return Err(error.context(logs.map(|log| tail(&log)).collect::<Vec<_>>().join("\n---\n")));
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
