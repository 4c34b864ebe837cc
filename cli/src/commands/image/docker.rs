//! This machine's Docker: what it has, and the way of an image in and out.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bollard::{Docker, errors::Error::DockerResponseServerError, query_parameters::ImportImageOptions};
use bus::grid::image::ImageName;
use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use reqwest::StatusCode;
use tokio::time::timeout;

/// How long the daemon may take to say that it is there.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may take to begin an answer: it unpacks all of an image before it says anything.
const ANSWER: Duration = Duration::from_secs(600);

/// An image that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Local {
    /// Docker's own id.
    pub(super) id: String,
    /// Its size in bytes.
    pub(super) size: u64,
    /// What it runs on.
    pub(super) platform: String,
}

/// Connects to the daemon.
///
/// # Errors
/// If none answers, with what to do.
pub(super) async fn connect() -> anyhow::Result<Docker> {
    let how = "start Docker, or say where it is with DOCKER_HOST; who may use it is in the group `docker`";
    let silent = || anyhow!("the Docker daemon did not answer within {} s; {how}", CONNECT.as_secs());
    let docker = Docker::connect_with_unix_defaults().with_context(|| format!("cannot reach Docker on this machine; {how}"))?;
    let answered = timeout(CONNECT, docker.negotiate_version()).await.map_err(|_| silent())?;
    let docker = answered.with_context(|| format!("no Docker daemon answers on this machine; {how}"))?;
    Ok(docker.with_timeout(ANSWER))
}

/// What Docker has under a name; nothing where it has none.
///
/// # Errors
/// If the daemon does not say.
pub(super) async fn find(docker: &Docker, name: &ImageName) -> anyhow::Result<Option<Local>> {
    let found = match docker.inspect_image(name.as_str()).await {
        Ok(found) => found,
        Err(DockerResponseServerError { status_code, .. }) if status_code == StatusCode::NOT_FOUND.as_u16() => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("Docker could not look for image {name}")),
    };
    let (os, arch) = (found.os.unwrap_or_default(), found.architecture.unwrap_or_default());
    Ok(Some(Local {
        id: found.id.context("Docker did not say the image's id")?,
        size: u64::try_from(found.size.unwrap_or_default()).unwrap_or_default(),
        platform: format!("{os}/{arch}"),
    }))
}

/// Has Docker load an archive.
///
/// # Errors
/// If it does not take it, with its words.
pub(super) async fn load<S, E>(docker: &Docker, archive: S) -> anyhow::Result<()>
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let quiet = ImportImageOptions {
        quiet: true,
        ..ImportImageOptions::default()
    };
    let mut steps = std::pin::pin!(docker.import_image_stream(quiet, archive, None));
    while let Some(step) = steps.try_next().await.context("Docker did not take the image")? {
        if let Some(why) = step.error_detail.and_then(|detail| detail.message) {
            bail!("Docker did not take the image: {why}");
        }
    }
    Ok(())
}
