//! An image's archive on its way into Docker: made anew, loaded without any name, and known by its content afterwards.

use std::{
    io::{self, Read, Write},
    path::Path,
    time::Duration,
};

use bollard::{
    Docker,
    errors::Error as DockerError,
    models::SystemInfo,
    query_parameters::{ImportImageOptions, TagImageOptions},
};
use bytes::Bytes;
use futures::{TryStreamExt as _, stream};
use tokio::{sync::mpsc, time::timeout};

use super::archive::{Plan, Survey};

/// Bytes that are handed to the daemon at once.
const CHUNK: usize = 256 << 10;
/// How many such pieces wait for the daemon at most.
const WAITING: usize = 4;
/// How long the daemon may be silent over what it was handed: it unpacks all of an image before it says anything.
const SILENCE: Duration = Duration::from_secs(600);
/// What Docker says of an image that it loaded without a name.
const LOADED: &str = "Loaded image ID: ";
/// How much larger an image's archive may be than what Docker says that the image's files come to (headers, and what layers
/// overwrite), and how many bytes more.
const LARGER: (u64, u64) = (4, 1 << 30);

/// Why an archive was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not what it should be.
    #[error("its archive cannot be used: {0}")]
    Archive(#[source] io::Error),
    /// Docker rejected it.
    #[error("Docker rejected it: {0}")]
    Docker(String),
}

/// The most that the archive of an image may come to of which Docker said that it has `size` bytes.
#[must_use]
pub fn bytes_max(size: u64) -> u64 {
    size.saturating_mul(LARGER.0).saturating_add(LARGER.1)
}

/// What an archive (`docker save`, compressed with zstd) is found to hold.
///
/// # Errors
/// If it cannot be read, or holds more than `bytes_max`.
pub fn survey(path: &Path, bytes_max: u64) -> io::Result<Survey> {
    Survey::of(open(path)?, bytes_max)
}

/// Has Docker load the image of this id (`sha256:…`, the hash of its configuration) from an archive, and nothing else. No name leads to it
/// then. Returns what Docker calls it: the same, but where Docker keeps its images in containerd.
///
/// # Errors
/// If the archive holds no such image or more than `bytes_max`, or Docker does not take it.
pub async fn load(client: &Docker, path: &Path, id: &str, bytes_max: u64) -> Result<String, Error> {
    let (own, wanted) = (path.to_owned(), id.to_owned());
    let surveyed = tokio::task::spawn_blocking(move || survey(&own, bytes_max)?.plan(&wanted)).await;
    let plan = surveyed.map_err(io::Error::other).flatten().map_err(Error::Archive)?;
    let loaded = hand_over(client, path, plan).await?;
    if loaded == id {
        return Ok(loaded);
    }
    let info = client.info().await.map_err(|error| Error::Docker(error.to_string()))?;
    if is_containerd(&info) {
        return Ok(loaded);
    }
    Err(Error::Docker(format!("it loaded `{loaded}` instead of `{id}`")))
}

/// Has a name lead to an image.
///
/// # Errors
/// If Docker does not do it.
pub async fn tag(client: &Docker, id: &str, name: &str) -> Result<(), DockerError> {
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    };
    let options = TagImageOptions {
        repo: Some(repository.to_owned()),
        tag: Some(tag.to_owned()),
    };
    client.tag_image(id, Some(options)).await
}

/// Whether images are in containerd's store, where the id of one is the hash of a list that Docker makes of its parts.
fn is_containerd(info: &SystemInfo) -> bool {
    let mut status = info.driver_status.iter().flatten().flatten();
    status.any(|word| word.starts_with("io.containerd.snapshotter"))
}

fn open(path: &Path) -> io::Result<impl Read + use<>> {
    let mut plain = zstd::Decoder::new(std::fs::File::open(path)?)?;
    plain.window_log_max(store::ZSTD_WINDOW_LOG_MAX)?;
    Ok(plain)
}

/// Streams the new archive to Docker; says what Docker calls the image.
async fn hand_over(client: &Docker, path: &Path, plan: Plan) -> Result<String, Error> {
    let (pieces, mut arriving) = mpsc::channel(WAITING);
    let path = path.to_owned();
    // It ends when nobody takes the pieces any more.
    let writing = tokio::task::spawn_blocking(move || {
        let out = io::BufWriter::with_capacity(CHUNK, Pieces(pieces.clone()));
        if let Err(error) = open(&path).and_then(|archive| plan.write(archive, out)) {
            // Without it, Docker would take what came for all there is.
            let _gone = pieces.blocking_send(Err(error));
        }
    });
    let quiet = ImportImageOptions {
        quiet: true,
        ..ImportImageOptions::default()
    };
    let archive = stream::poll_fn(move |context| arriving.poll_recv(context));
    let mut loaded = None;
    {
        let mut steps = std::pin::pin!(client.import_image_stream(quiet, archive, None));
        loop {
            let step = match timeout(SILENCE, steps.try_next()).await {
                Ok(Ok(Some(step))) => step,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(Error::Docker(error.to_string())),
                Err(_) => return Err(Error::Docker(format!("it said nothing for {} s", SILENCE.as_secs()))),
            };
            if let Some(error) = step.error_detail.and_then(|detail| detail.message) {
                return Err(Error::Docker(error));
            }
            if let Some(id) = step.stream.as_deref().and_then(|said| said.trim().strip_prefix(LOADED)) {
                loaded = Some(id.to_owned());
            }
        }
    }
    writing.await.map_err(|error| Error::Archive(io::Error::other(error)))?;
    loaded.ok_or_else(|| Error::Docker("it did not say what it loaded".to_owned()))
}

/// Hands what is written to whom it is sent to.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
