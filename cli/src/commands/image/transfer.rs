//! Images on their way between Docker and the grid's store, in constant memory.

use std::{io::Write as _, path::Path};

use anyhow::{Context as _, bail, ensure};
use async_compression::tokio::bufread::ZstdEncoder;
use bollard::Docker;
use bus::{
    grid::image::{ImageName, ImagePushed},
    ids::Digest,
};
use client::{Client, Hashed, bounded::unless_silent, encode_path, upload};
use futures::TryStreamExt as _;
use model::{ImageView, Images};
use reqwest::Method;
use runner::executor::docker::load;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio_util::io::StreamReader;

use super::docker::{self, Local};
use crate::output::progress;

/// The size of a read, in bytes.
const CHUNK: usize = 256 << 10;

/// What a push came to.
pub(super) struct Pushed {
    /// The image, as the grid has it now.
    pub(super) image: ImageView,
    /// What was sent; nothing where the grid had this very image.
    pub(super) sent_bytes: Option<u64>,
}

/// The address of an image.
pub(super) fn path(name: &ImageName) -> String {
    format!("/v1/images/{}", encode_path(name.as_str()))
}

/// Puts an image of this machine's Docker into the store and its name into the catalogue.
///
/// # Errors
/// If Docker does not have it, or the grid does not take it. What has arrived is kept, and not sent again.
pub(super) async fn push(client: &Client, name: &ImageName) -> anyhow::Result<Pushed> {
    let docker = docker::connect().await?;
    let here = docker::find(&docker, name).await?;
    let here = here.with_context(|| format!("this machine's Docker has no image {name}; `docker images` shows those it has"))?;
    let kept: Images = client.get("/v1/images", &()).await?;
    let same = |image: &ImageView| image.name == *name && image.pushed.id == here.id && image.pushed.platform == here.platform;
    if let Some(image) = kept.images.into_iter().find(same) {
        let missing: model::Missing = client
            .post(
                "/v1/files/missing",
                &model::Hashes {
                    sha256: vec![image.pushed.archive],
                    sizes: Vec::new(),
                },
            )
            .await?;
        if missing.missing.is_empty() {
            return Ok(Pushed { image, sent_bytes: None });
        }
    }
    let archive =
        NamedTempFile::with_prefix("rgrid-image-").context("cannot make a temporary file for the image; make room, or set TMPDIR")?;
    let hashed = save(&docker, name, &here, archive.path()).await?;
    let (sha256, bytes) = (hashed.sha256, hashed.size);
    let id = id_of(name, archive.path(), here.size).await?;
    let sent = upload(client, vec![hashed]).await?;
    let pushed = ImagePushed {
        archive: sha256,
        archive_bytes: bytes,
        id,
        size: here.size,
        platform: here.platform,
        by: Some(crate::commands::secret::user_and_host()),
    };
    let image = client.json(client.request(Method::PUT, &path(name)).json(&pushed)).await?;
    Ok(Pushed {
        image,
        sent_bytes: Some(sent.bytes),
    })
}

/// The id of the image in an archive, by which workers know it: the hash of its configuration, which Docker's own id is too but where it
/// keeps images in containerd.
async fn id_of(name: &ImageName, archive: &Path, size: u64) -> anyhow::Result<String> {
    let archive = archive.to_owned();
    let ids = tokio::task::spawn_blocking(move || load::survey(&archive, load::bytes_max(size))?.ids());
    let ids = ids.await?.with_context(|| format!("cannot use what Docker gave of image {name}"))?;
    match &ids[..] {
        [id] => Ok(id.clone()),
        _ => bail!("Docker gave {} images under the name {name}; push them one by one", ids.len()),
    }
}

/// Writes what `docker save` gives into a file, compressed.
async fn save(docker: &Docker, name: &ImageName, here: &Local, into: &Path) -> anyhow::Result<Hashed> {
    let bar = progress("saving", here.size);
    let counted = bar.clone();
    let plain = docker.export_image(name.as_str()).map_err(std::io::Error::other);
    let plain = plain.inspect_ok(move |chunk| counted.add(chunk.len() as u64));
    let mut packed = ZstdEncoder::new(BufReader::with_capacity(CHUNK, StreamReader::new(Box::pin(plain))));
    let cannot = || format!("cannot write image {name} to {}; make room, or set TMPDIR", into.display());
    let mut file = std::fs::File::create(into).with_context(cannot)?;
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        let read = packed
            .read(&mut buffer)
            .await
            .with_context(|| format!("Docker did not give all of image {name}"))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        file.write_all(&buffer[..read]).with_context(cannot)?;
        size += read as u64;
    }
    bar.finish();
    Ok(Hashed {
        source: into.to_owned(),
        sha256: Digest::finish(hasher),
        size,
        modified: None,
    })
}

/// Puts an image that the grid keeps into this machine's Docker. Docker sees nothing of it before all is here and verified.
///
/// # Errors
/// If the grid does not have it, its archive is damaged or holds another image, or Docker does not take it.
pub(super) async fn load(client: &Client, name: &ImageName) -> anyhow::Result<ImageView> {
    let docker = docker::connect().await?;
    let image: ImageView = client.get(&path(name), &()).await?;
    let archive =
        NamedTempFile::with_prefix("rgrid-image-").context("cannot make a temporary file for the image; make room, or set TMPDIR")?;
    fetch(client, &image.pushed, archive.path())
        .await
        .with_context(|| format!("cannot fetch image {name}"))?;
    let ImagePushed { id, size, .. } = &image.pushed;
    let loaded = load::load(&docker, archive.path(), id, load::bytes_max(*size)).await;
    let id = loaded.with_context(|| format!("cannot load image {name}; push it again"))?;
    // Its name was asked for, and no other is given.
    load::tag(&docker, &id, name.as_str())
        .await
        .with_context(|| format!("Docker could not name image {id} {name}"))?;
    Ok(image)
}

async fn fetch(client: &Client, pushed: &ImagePushed, into: &Path) -> anyhow::Result<()> {
    let answer = client
        .send(client.request(Method::GET, &format!("/v1/files/{}", pushed.archive)))
        .await?;
    let bar = progress("fetching", pushed.archive_bytes);
    let (mut file, mut hasher) = (std::fs::File::create(into)?, Sha256::new());
    let (mut chunks, mut size) = (std::pin::pin!(unless_silent(answer)), 0_u64);
    while let Some(chunk) = chunks.try_next().await.context("the connection broke; run again")? {
        size += chunk.len() as u64;
        ensure!(
            size <= pushed.archive_bytes,
            "more came than the {} bytes that were pushed; push the image again",
            pushed.archive_bytes
        );
        hasher.update(&chunk);
        file.write_all(&chunk)
            .with_context(|| format!("cannot write {}; make room, or set TMPDIR", into.display()))?;
        bar.add(chunk.len() as u64);
    }
    bar.finish();
    ensure!(
        Digest::finish(hasher) == pushed.archive,
        "what came is not what was pushed; push the image again"
    );
    Ok(())
}
