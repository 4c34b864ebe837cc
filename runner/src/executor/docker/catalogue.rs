//! The images that the grid keeps in its own store: looked up in the log, fetched once, verified, and handed to the daemon.

use std::{
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use async_nats::jetstream;
use bus::{
    grid::image::{Entry, ImageName},
    log::sys,
};
use store::Files;
use tokio::sync::mpsc;
use tracing::info;

use super::{
    image::{Image, Images},
    load,
};
use crate::{
    beneath,
    errors::chain,
    executor::{Error, runtimes::OWN},
    patience::patiently,
};

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
        beneath::clear(&spool)?;
        std::fs::create_dir_all(&spool)?;
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
    /// [`Error::Unrunnable`] if the archive is gone, damaged, or does not hold the image; [`Error::Broken`] if the disk or the
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
        let size = entry.pushed.size;
        let loaded = load::load(images.client(), &path, &entry.pushed.id, load::bytes_max(size)).await;
        let id = loaded.map_err(|error| unloaded(name, &error))?;
        drop(spool);
        name_it(images, name, &id).await?;
        images.forget(wanted);
        images.changed_now();
        let image = images.find_as(wanted, &id).await?;
        let image = image.ok_or_else(|| Error::Broken(format!("Docker loaded image {name} as {id}, and does not have it")))?;
        tell(format!("loaded image {name} in {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(image)
    }
}

/// What Docker calls an image that came from the grid's store: one of rgrid's own by its name, any other by its content, below rgrid's own
/// name, since other users of this Docker mean another registry's by `debian:13`.
fn name_here(name: &ImageName, id: &str) -> String {
    if name.as_str().starts_with(OWN) {
        return name.to_string();
    }
    format!("{OWN}kept:{}", id.trim_start_matches("sha256:"))
}

/// Gives a loaded image the name that keeps it from being pruned. A name that means something already keeps its meaning.
async fn name_it(images: &Images, name: &ImageName, id: &str) -> Result<(), Error> {
    let here = name_here(name, id);
    images.forget(&here);
    if images.find(&here).await?.is_some() {
        return Ok(());
    }
    let tagged = load::tag(images.client(), id, &here).await;
    tagged.map_err(|error| Error::Broken(format!("Docker could not name image {id} `{here}`: {error}")))?;
    images.forget(&here);
    Ok(())
}

fn unfetched(name: &ImageName, error: store::Error) -> Error {
    let again = format!("push it again (`rgrid image push {name}`)");
    match error {
        error @ (store::Error::Missing { .. } | store::Error::Corrupt { .. }) => Error::Unrunnable(format!(
            "image `{name}`, which the grid keeps, cannot be loaded: its archive is not as it was pushed ({error}): {again}"
        )),
        error => Error::Broken(format!(
            "image `{name}`, which the grid keeps, could not be fetched: {}; make room on the worker's disk, or {again}",
            chain(&error)
        )),
    }
}

fn unloaded(name: &ImageName, error: &load::Error) -> Error {
    Error::Unrunnable(format!(
        "image `{name}`, which the grid keeps, cannot be loaded: {error}; push it again (`rgrid image push {name}`)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rgrid_s_own_names_are_given_to_what_the_grid_keeps() {
        let id = "sha256:00ff";
        for (name, here) in [
            ("rgrid/python:3.11", "rgrid/python:3.11"),
            ("debian:13", "rgrid/kept:00ff"),
            ("lab.example:5000/science:2", "rgrid/kept:00ff"),
        ] {
            assert_eq!(name_here(&name.parse().expect(name), id), here);
        }
    }
}
