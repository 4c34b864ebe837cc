//! An S3 server of the test's own: the `MinIO` gateway in `JuiceFS`.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use object_store::{aws::AmazonS3Builder, path::Path as Key, signer::Signer as _};
use reqwest::{Client, Method};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Server, free_port, program};

const KEY: &str = "rgrid-test";
const SECRET: &str = "rgrid-test/secret+1";

/// An S3 server on a loopback port, which dies with this handle.
#[derive(Debug)]
pub struct Minio {
    dir: TempDir,
    server: Server,
    address: String,
}

impl Minio {
    /// Starts a server with an empty store, and waits until it takes requests.
    pub async fn start() -> Result<Self> {
        let dir = TempDir::with_prefix("rgrid-minio-")?;
        format(dir.path(), &meta(dir.path()))?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let server = launch(dir.path(), &address).await?;
        Ok(Self { dir, server, address })
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Stops it in its tracks with SIGSTOP: connections stay, nothing answers.
    pub fn freeze(&self) -> Result<()> {
        self.server.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.server.signal(Signal::CONT)
    }

    /// Starts it again, at the same address and with what it holds. Kills it first if it still runs.
    pub async fn restart(&mut self) -> Result<()> {
        self.server.kill()?;
        self.server = launch(self.dir.path(), &self.address).await?;
        Ok(())
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a bucket, and returns the URL of the store in it.
    pub async fn bucket(&self, name: &str) -> Result<String> {
        let store = AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(name)
            .with_access_key_id(KEY)
            .with_secret_access_key(SECRET)
            .build()?;
        let url = store.signed_url(Method::PUT, &Key::from(""), Duration::from_secs(60)).await?;
        let answer = Client::new().put(url).send().await?;
        ensure!(
            answer.status().is_success(),
            "the bucket {name} was not made: {} {}",
            answer.status(),
            answer.text().await?
        );
        let secret = SECRET.replace('/', "%2F").replace('+', "%2B");
        Ok(format!("s3://{KEY}:{secret}@{name}?endpoint={}&region=us-east-1", self.endpoint()))
    }
}

fn meta(dir: &Path) -> String {
    format!("sqlite3://{}", dir.join("meta.db").display())
}

async fn launch(dir: &Path, address: &str) -> Result<Server> {
    let log = dir.join("gateway.log");
    let output = File::options().create(true).append(true).open(&log)?;
    let mut server = Server::start(
        Command::new(program("juicefs"))
            .args(["gateway", "--no-usage-report", "--multi-buckets", "--cache-dir"])
            .arg(dir.join("cache"))
            .args([&meta(dir), address])
            .envs([("MINIO_ROOT_USER", KEY), ("MINIO_ROOT_PASSWORD", SECRET)])
            .stdout(output.try_clone()?)
            .stderr(output),
    )?;
    let health = format!("http://{address}/minio/health/live");
    let client = Client::new();
    let live = async || {
        let answer = client.get(&health).send().await;
        answer.is_ok_and(|answer| answer.status().is_success()).then_some(())
    };
    server.until(&log, live).await?;
    Ok(server)
}

fn format(dir: &Path, meta: &str) -> Result<()> {
    let output = Command::new(program("juicefs"))
        .args(["format", "--no-update", "--storage", "file", "--bucket"])
        .arg(format!("{}/", dir.join("data").display()))
        .args([meta, "files"])
        .stdin(Stdio::null())
        .output()
        .context("failed to run juicefs; the bootstrap installs it to .rgrid/bin")?;
    ensure!(
        output.status.success(),
        "juicefs format: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
