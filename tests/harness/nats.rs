//! A nats-server of the test's own.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use async_nats::{ServerAddr, jetstream};
use rustix::process::Signal;
use serde::Deserialize;
use tempfile::TempDir;

use crate::process::{Server, program};

/// Who names no user is the grid's; only its system account hears of dead clients.
const CONFIG: &str = "
max_payload: 8MB
accounts {
  RGRID { jetstream: enabled, users: [{ user: grid, password: grid }] }
  SYS { users: [{ user: system, password: system }] }
}
system_account: SYS
no_auth_user: grid
";

/// A nats-server with `JetStream` on a loopback port, which dies with this handle.
#[derive(Debug)]
pub struct NatsServer {
    dir: TempDir,
    server: Server,
    url: String,
    max_store: u64,
}

/// What a server may store, in bytes, unless a test says otherwise: what the streams reserve is more than some machines have free, and no
/// test fills it.
const MAX_STORE: u64 = 1 << 40;

#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

impl NatsServer {
    /// Starts a server with an empty store, and waits until it takes connections.
    pub async fn start() -> Result<Self> {
        Self::start_with_store(MAX_STORE).await
    }

    /// The same, with a store for this many bytes.
    pub async fn start_with_store(max_store: u64) -> Result<Self> {
        let dir = TempDir::with_prefix("rgrid-nats-")?;
        let (server, url) = launch(dir.path(), "-1", max_store).await?;
        Ok(Self {
            dir,
            server,
            url,
            max_store,
        })
    }

    /// Where it listens: `nats://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same, for its system account.
    #[must_use]
    pub fn system_url(&self) -> String {
        self.url.replace("://", "://system:system@")
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// The directory of its store, its configuration and its log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A new connection.
    pub async fn client(&self) -> Result<async_nats::Client> {
        let address: ServerAddr = self.url.parse()?;
        async_nats::connect(address)
            .await
            .with_context(|| format!("failed to connect to {}", self.url))
    }

    /// A new connection, for `JetStream`.
    pub async fn context(&self) -> Result<jetstream::Context> {
        Ok(jetstream::new(self.client().await?))
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Stops it in its tracks with SIGSTOP: connections stay, nothing answers.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after a [`NatsServer::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.server.signal(signal)
    }

    /// Starts it again, on the same port and with the same store. Kills it first if it still runs.
    pub async fn restart(&mut self) -> Result<()> {
        self.server.kill()?;
        let port = self.url.rsplit(':').next().unwrap_or_default().to_owned();
        (self.server, self.url) = launch(self.dir.path(), &port, self.max_store).await?;
        Ok(())
    }
}

/// Starts a server in `dir`; the port `-1` is a free one. It writes the ports that it got to a file named by its pid.
async fn launch(dir: &Path, port: &str, max_store: u64) -> Result<(Server, String)> {
    let (config, log, ports) = (dir.join("nats.conf"), dir.join("nats.log"), dir.join("ports"));
    fs::create_dir_all(&ports)?;
    fs::write(&config, format!("{CONFIG}\njetstream {{ max_file_store: {max_store} }}\n"))?;
    let mut server = Server::start(
        Command::new(program("nats-server"))
            .arg("--config")
            .arg(&config)
            .args(["--addr", "127.0.0.1", "--port", port, "--jetstream", "--store_dir"])
            .arg(dir.join("store"))
            .arg("--ports_file_dir")
            .arg(&ports)
            .arg("--log")
            .arg(&log)
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("nats.err"))?),
    )?;
    let file = ports.join(format!("nats-server_{}.ports", server.id()));
    let read = async || {
        let text = fs::read(&file).ok()?;
        serde_json::from_slice::<Ports>(&text).ok()?.nats.into_iter().next()
    };
    let url = server.until(&log, read).await?;
    Ok((server, url))
}
