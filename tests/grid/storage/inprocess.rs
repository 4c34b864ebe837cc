//! An S3 server in the test's own process, of another make than `MinIO`: the same files, the same URLs, the same passes.

use anyhow::{Context as _, Result, ensure};
use axum::{Router, error_handling::HandleError, http::StatusCode};
use bus::ids::Digest;
use reqwest::Client;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use store::Files;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{exist, gone, job_of, put, served};
use crate::files::behaviour;

/// The server, which ends with this handle.
struct Server {
    /// Where its buckets are.
    _dir: TempDir,
    url: String,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start() -> Result<Self> {
        let dir = TempDir::with_prefix("rgrid-s3s-")?;
        std::fs::create_dir(dir.path().join("grid"))?;
        let store = s3s_fs::FileSystem::new(dir.path()).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut builder = S3ServiceBuilder::new(store);
        builder.set_auth(SimpleAuth::from_single("key", "secret"));
        let service = HandleError::new(builder.build(), |error| async move {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}"))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("s3://key:secret@grid?endpoint=http://{}&region=us-east-1", listener.local_addr()?);
        let app = Router::new().fallback_service(service);
        let serving = tokio_util::task::TaskTracker::new().spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                eprintln!("the S3 server ended: {error}");
            }
        });
        Ok(Self { _dir: dir, url, serving })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_s3_server_keeps_files_by_content() -> Result<()> {
    let server = Server::start().await?;
    behaviour::all(&Files::open(&server.url.parse()?, None).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_s3_server_takes_signed_urls_and_passes() -> Result<()> {
    let server = Server::start().await?;
    let api = served(Some(server.url.clone())).await?;
    let planned = super::direct::plan(&api, b"the content").await?;
    ensure!(
        planned["headers"].get("x-amz-content-sha256").is_none(),
        "it checks the checksum: {planned}"
    );
    ensure!(super::direct::follow(&planned, b"the CONTENT").await?.is_client_error());
    assert_eq!(super::direct::follow(&planned, b"the content").await?, StatusCode::OK);
    let (digest, (loose, _)) = (Digest::of(b"the content"), put(&api, "loose").await?);
    job_of(&api, &[digest]).await?;
    gone(&api, &[loose]).await?;
    ensure!(exist(&api.files().await?, &[digest]).await? == 1);
    let files = api.files().await?;
    let signed = files.presigner().context("it is in S3")?;
    let read = signed.get(&digest, std::time::Duration::from_secs(60)).await?;
    assert_eq!(Client::new().get(read.url).send().await?.bytes().await?, &b"the content"[..]);
    Ok(())
}
