//! Files on their way to the store: hashed, asked for, sent where they are missing.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use api::view::{Hashes, Missing};
use bus::ids::Digest;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Body, Method, header};
use sha2::{Digest as _, Sha256};
use tokio_util::io::ReaderStream;

use super::{Client, Error};
use crate::output::Bar;

/// Files that are sent at once.
const AT_ONCE: usize = 4;
/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// A file of this machine, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hashed {
    /// Where it is.
    pub(crate) source: PathBuf,
    /// Its content's SHA-256.
    pub(crate) sha256: Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
}

/// Reads files to learn their hashes, in the given order.
///
/// # Errors
/// If one cannot be read.
pub(crate) async fn hash(sources: Vec<PathBuf>, bar: &Bar) -> anyhow::Result<Vec<Hashed>> {
    let hash_one = |source: PathBuf| {
        let bar = bar.clone();
        async move { tokio::task::spawn_blocking(move || hash_file(source, &bar)).await? }
    };
    stream::iter(sources).map(hash_one).buffered(2).try_collect().await
}

fn hash_file(source: PathBuf, bar: &Bar) -> anyhow::Result<Hashed> {
    let cannot = || format!("cannot read {}", source.display());
    let mut file = File::open(&source).with_context(cannot)?;
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        let read = file.read(&mut buffer).with_context(cannot)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
        bar.add(read as u64);
    }
    Ok(Hashed {
        source,
        sha256: Digest::finish(hasher),
        size,
    })
}

/// Sends the files that the store lacks.
///
/// # Errors
/// If one cannot be read or stored, or changed since it was hashed.
pub(crate) async fn upload(client: &Client, mut files: Vec<Hashed>) -> anyhow::Result<()> {
    files.sort_by_key(|file| file.sha256);
    files.dedup_by_key(|file| file.sha256);
    let asked = Hashes {
        sha256: files.iter().map(|file| file.sha256).collect(),
    };
    let Missing { missing } = client.post("/v1/files/missing", &asked).await?;
    files.retain(|file| missing.contains(&file.sha256));
    let bar = Bar::new("sending", files.iter().map(|file| file.size).sum());
    let put_one = |file: Hashed| {
        let bar = bar.clone();
        async move { put(client, &file, &bar).await }
    };
    stream::iter(files)
        .map(put_one)
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    bar.finish();
    Ok(())
}

/// Sends one file, whether it is missing or not.
pub(crate) async fn put(client: &Client, file: &Hashed, bar: &Bar) -> anyhow::Result<()> {
    let open = tokio::fs::File::open(&file.source)
        .await
        .with_context(|| format!("cannot read {}", file.source.display()))?;
    let bar = bar.clone();
    let bytes = ReaderStream::with_capacity(open, CHUNK).inspect_ok(move |chunk| bar.add(chunk.len() as u64));
    let request = client
        .request(Method::PUT, &format!("/v1/files/{}", file.sha256))
        .header(header::CONTENT_LENGTH, file.size)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .body(Body::wrap_stream(bytes));
    match client.send(request).await {
        Ok(_) => Ok(()),
        Err(error) if changed(file) => Err(error).with_context(|| {
            format!(
                "{} changed while it was being sent; run again when it is at rest",
                file.source.display()
            )
        }),
        Err(error @ Error::Unreachable { .. }) => Err(error).with_context(|| {
            format!(
                "the connection broke while {} was being sent; run again: what has arrived is kept",
                file.source.display()
            )
        }),
        Err(error) => Err(error).with_context(|| format!("cannot store {}", file.source.display())),
    }
}

fn changed(file: &Hashed) -> bool {
    size_of(&file.source) != Some(file.size)
}

fn size_of(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|meta| meta.len())
}
