//! The images that the grid keeps in its own store: looked up in the log, fetched once, verified, and handed to the daemon.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use async_compression::{tokio::bufread::ZstdDecoder, zstd::DParameter};
use async_nats::jetstream;
use bollard::query_parameters::ImportImageOptions;
use bus::{
    files::{self, Files, ZSTD_WINDOW_LOG_MAX},
    image::{Entry, ImageName},
    stream::sys,
};
use futures::TryStreamExt as _;
use tokio::{fs::File, io::BufReader, sync::mpsc, time::timeout};
use tokio_util::io::ReaderStream;
use tracing::info;

use super::{
    archive,
    image::{Image, Images},
};
use crate::{executor::Error, patience::patiently, stage::chain};

/// Bytes that are handed to the daemon at once.
const CHUNK: usize = 256 << 10;
/// How long the daemon may be silent over what it was handed: it unpacks all of an image before it says anything.
const SILENCE: Duration = Duration::from_secs(600);

/// Where the grid's images are found.
#[derive(Debug, Clone)]
pub(crate) struct Catalogue {
    js: jetstream::Context,
    files: Files,
    /// Where archives lie while they are loaded.
    spool: PathBuf,
}

impl Catalogue {
    /// Images by the log and the store. What an earlier runner left half-fetched below the work directory is removed.
    ///
    /// # Errors
    /// If the directory for archives cannot be made.
    pub(crate) fn new(js: jetstream::Context, files: Files, work_dir: &Path) -> io::Result<Self> {
        let spool = work_dir.join("images");
        match std::fs::remove_dir_all(&spool) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir_all(&spool)?,
        }
        Ok(Self { js, files, spool })
    }

    /// The image that the grid keeps under a name; with a digest (`name@sha256:…`), only if it is the one.
    ///
    /// # Errors
    /// [`Error::Broken`] if the log does not tell.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Entry>, Error> {
        let (name, id) = name.split_once('@').map_or((name, None), |(name, id)| (name, Some(id)));
        // What is no name of ours is some registry's.
        let Ok(name) = name.parse::<ImageName>() else {
            return Ok(None);
        };
        let found = sys::image(&self.js, &name).await;
        let found = found.map_err(|error| Error::Broken(format!("cannot look whether the grid keeps image {name}: {}", chain(&error))))?;
        Ok(found.filter(|entry| id.is_none_or(|id| entry.pushed.id == id)))
    }

    /// Fetches an image's archive, all of it before the daemon sees a byte, and has the daemon load it.
    ///
    /// # Errors
    /// [`Error::Unrunnable`] if the archive is gone, damaged, or holds something else; [`Error::Broken`] if the disk or the
    /// store fails.
    pub(super) async fn load(
        &self,
        images: &Images,
        wanted: &str,
        entry: &Entry,
        notice: Option<&mpsc::Sender<String>>,
    ) -> Result<Image, Error> {
        let tell = |sentence: String| {
            info!("{sentence}");
            notice.map(|notice| notice.try_send(sentence));
        };
        let name = &entry.name;
        let megabytes = entry.pushed.archive_bytes.div_ceil(1_000_000);
        tell(format!("loading image {name} from the grid's store ({megabytes} MB)"));
        let begun = Instant::now();
        let room = |error| Error::Broken(format!("cannot make room for image {name} in {}: {error}", self.spool.display()));
        // A directory of its own, which goes with this load, however that ends.
        let spool = tempfile::tempdir_in(&self.spool).map_err(room)?;
        let path = spool.path().join("image.tar.zst");
        let fetch = || self.files.get_file(&entry.pushed.archive, &path, false);
        let fetched = patiently("fetch an image's archive", fetch).await;
        fetched.map_err(|error| unfetched(name, error))?;
        check(name, &path).await?;
        hand_over(images, name, &path).await?;
        drop(spool);
        images.forget(wanted);
        images.changed_now();
        let image = images.find(wanted).await?.ok_or_else(|| other(name, "does not hold that image"))?;
        tell(format!("loaded image {name} in {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(image)
    }
}

fn unfetched(name: &ImageName, error: files::Error) -> Error {
    let again = format!("push it again (`rgrid image push {name}`)");
    match error {
        error @ (files::Error::Missing { .. } | files::Error::Corrupt { .. }) => Error::Unrunnable(format!(
            "image `{name}`, which the grid keeps, cannot be loaded: its archive is not as it was pushed ({error}): {again}"
        )),
        error => Error::Broken(format!(
            "image `{name}`, which the grid keeps, could not be fetched: {}; make room on the worker's disk, or {again}",
            chain(&error)
        )),
    }
}

fn other(name: &ImageName, words: &str) -> Error {
    Error::Unrunnable(format!(
        "the archive of image `{name}` that the grid keeps {words}: push it again (`rgrid image push {name}`)"
    ))
}

/// Makes sure that an archive brings the image of this name and no other: Docker would give each name in it a new meaning here.
async fn check(name: &ImageName, path: &Path) -> Result<(), Error> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut plain = zstd::Decoder::new(std::fs::File::open(path)?)?;
        plain.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        archive::names(plain)
    });
    let read = read.await.map_err(io::Error::other).flatten();
    let mut names = read.map_err(|error| other(name, &format!("cannot be read ({error})")))?;
    let held = names.remove(name.as_str());
    match names.first() {
        Some(another) => Err(other(
            name,
            &format!("holds the image `{another}`, and would give that name a new meaning here"),
        )),
        None if held => Ok(()),
        None => Err(other(name, "does not hold that image")),
    }
}

async fn hand_over(images: &Images, name: &ImageName, path: &Path) -> Result<(), Error> {
    let refused = |why: &str| {
        Error::Unrunnable(format!(
            "Docker did not take image `{name}`, which the grid keeps: {why}; push it again (`rgrid image push {name}`)"
        ))
    };
    let file = File::open(path)
        .await
        .map_err(|error| Error::Broken(format!("cannot read {}: {error}", path.display())))?;
    let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX)];
    let archive = ReaderStream::with_capacity(ZstdDecoder::with_params(BufReader::with_capacity(CHUNK, file), &window), CHUNK);
    let quiet = ImportImageOptions {
        quiet: true,
        ..ImportImageOptions::default()
    };
    let mut steps = std::pin::pin!(images.client().import_image_stream(quiet, archive, None));
    loop {
        match timeout(SILENCE, steps.try_next()).await {
            Ok(Ok(Some(step))) => {
                if let Some(error) = step.error_detail.and_then(|detail| detail.message) {
                    return Err(refused(&error));
                }
            }
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(refused(&error.to_string())),
            Err(_) => return Err(refused(&format!("it said nothing for {} s", SILENCE.as_secs()))),
        }
    }
}
