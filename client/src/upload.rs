//! Files on their way to the store: hashed, asked for, sent where they are missing.

use std::{
    collections::{HashMap, HashSet},
    fs::{File, Metadata},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use anyhow::{Context as _, bail};
use bus::ids::Digest;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::{Hashes, Missing, SignedUpload};
use reqwest::{Body, Method, StatusCode, header};
use sha2::{Digest as _, Sha256};
use store::compression;
use tokio_util::io::ReaderStream;

use super::{
    Client,
    direct::innermost,
    progress::Progress,
    sending::{Before, send},
};

/// Files that are sent at once: large ones, and small ones.
const AT_ONCE: usize = 4;
const SMALL_AT_ONCE: usize = 32;
/// Up to so many bytes a file is small.
const SMALL: u64 = 256 << 10;
/// Contents that the store is asked for at once, the most that the API takes.
const ASKED_AT_ONCE: usize = 10_000;
/// Bytes that are read at once.
pub(super) const CHUNK: usize = 256 << 10;

/// A file of this machine, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// Where it is.
    pub source: PathBuf,
    /// Its content's SHA-256.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last changed before it was read, where that counts.
    pub modified: Option<SystemTime>,
}

/// Reads files to learn their hashes, in the given order.
///
/// # Errors
/// If one cannot be read, or changes while it is read: what was read then is no content that it ever had.
pub async fn hash(sources: Vec<PathBuf>, bar: &Progress) -> anyhow::Result<Vec<Hashed>> {
    let hash_one = |source: PathBuf| {
        let bar = bar.clone();
        async move { tokio::task::spawn_blocking(move || hash_file(source, &bar)).await? }
    };
    stream::iter(sources).map(hash_one).buffered(2).try_collect().await
}

fn hash_file(source: PathBuf, bar: &Progress) -> anyhow::Result<Hashed> {
    let cannot = || format!("cannot read {}", source.display());
    let mut file = File::open(&source).with_context(cannot)?;
    let before = file.metadata().with_context(cannot)?;
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
    let after = file.metadata().with_context(cannot)?;
    if !is_at_rest((&before, &after), size) {
        bail!(
            "{} changed while it was read; run again when it is at rest, or send a copy of it",
            source.display()
        );
    }
    Ok(Hashed {
        modified: after.modified().ok(),
        source,
        sha256: Digest::finish(hasher),
        size,
    })
}

/// Whether a file was the same before and after so many bytes of it were read. What has no size of its own (`/proc`) is not asked.
fn is_at_rest((before, after): (&Metadata, &Metadata), read: u64) -> bool {
    let stamp = |meta: &Metadata| (meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
    !after.is_file() || after.len() == 0 && before.len() == 0 || (stamp(before) == stamp(after) && after.len() == read)
}

/// What became of files that were to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// How many contents there are.
    pub files: usize,
    /// How many of them the store had.
    pub there: usize,
    /// How many bytes were sent.
    pub bytes: u64,
    /// How many of those went to the store itself.
    pub straight: u64,
    /// How many bytes besides had arrived before their sender was cut off.
    pub before: u64,
}

/// Sends the files that the store lacks, each content once, and says what that came to.
///
/// # Errors
/// If one cannot be read or stored, or changed since it was hashed. What arrived is kept, and not sent again.
pub async fn upload(client: &Client, mut files: Vec<Hashed>) -> anyhow::Result<Sent> {
    files.sort_by_key(|file| file.sha256);
    files.dedup_by_key(|file| file.sha256);
    let all = files.len();
    let (mut lacking, mut direct, mut before) = (HashSet::new(), HashMap::new(), HashMap::new());
    for some in files.chunks(ASKED_AT_ONCE) {
        let (sha256, sizes) = some.iter().map(|file| (file.sha256, file.size)).unzip();
        let asked = Hashes { sha256, sizes };
        let answer: Missing = client
            .insist(|| client.request(Method::POST, "/v1/files/missing").json(&asked))
            .await?;
        lacking.extend(answer.missing);
        direct.extend(answer.uploads);
        before.extend(answer.begun.into_iter().map(|(digest, bytes)| (digest, Before::Known(bytes))));
        before.extend(answer.arriving.into_iter().map(|digest| (digest, Before::Arrives)));
    }
    files.retain(|file| lacking.contains(&file.sha256));
    let there = all - files.len();
    let bar = client.begin("sending", files.iter().map(|file| file.size).sum());
    let (direct, before) = (&direct, &before);
    let [bytes, straight, earlier] = &[const { AtomicU64::new(0) }; 3];
    // A small one waits for its answer most of the time, a large one for the network.
    let (small, large): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.size <= SMALL);
    for (files, at_once) in [(small, SMALL_AT_ONCE), (large, AT_ONCE)] {
        let put_one = |file: Hashed| {
            let bar = bar.clone();
            async move {
                let before = before.get(&file.sha256).copied().unwrap_or(Before::Known(0));
                if before == Before::Known(0)
                    && let Some(upload) = direct.get(&file.sha256)
                    && put_straight(client, upload, &file, &bar).await?
                {
                    straight.fetch_add(file.size, Ordering::Relaxed);
                    bytes.fetch_add(file.size, Ordering::Relaxed);
                    return Ok(());
                }
                let passed = send(client, &file, before, &bar).await?;
                bytes.fetch_add(passed.sent, Ordering::Relaxed);
                earlier.fetch_add(passed.before, Ordering::Relaxed);
                anyhow::Ok(())
            }
        };
        stream::iter(files)
            .map(put_one)
            .buffer_unordered(at_once)
            .try_collect::<()>()
            .await?;
    }
    bar.finish();
    let [bytes, straight, before] = [bytes, straight, earlier].map(|count| count.load(Ordering::Relaxed));
    Ok(Sent {
        files: all,
        there,
        bytes,
        straight,
        before,
    })
}

/// Stores a content that is in memory.
///
/// # Errors
/// If it cannot be stored.
pub async fn put_bytes(client: &Client, sha256: Digest, content: Vec<u8>) -> anyhow::Result<()> {
    let content = Bytes::from(content);
    let path = format!("/v1/files/{sha256}");
    let request = || {
        client
            .request(Method::PUT, &path)
            .header(header::CONTENT_LENGTH, content.len())
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(content.clone())
    };
    client.insist_on(request).await.context("cannot store what the job is made of")?;
    Ok(())
}

/// Sends one file to the store itself; says whether it is there now. If not, the API takes it, or says what is wrong with it.
async fn put_straight(client: &Client, upload: &SignedUpload, file: &Hashed, bar: &Progress) -> anyhow::Result<bool> {
    if !client.is_direct() {
        return Ok(false);
    }
    let Some(mut request) = client.store_request(Method::PUT, &upload.url) else {
        return Ok(false);
    };
    let open = tokio::fs::File::open(&file.source)
        .await
        .with_context(|| format!("cannot read {}", file.source.display()))?;
    for (name, value) in &upload.headers {
        request = request.header(name, value);
    }
    let body = Body::wrap_stream(ReaderStream::with_capacity(open, CHUNK));
    match request.body(body).send().await {
        Ok(answer) if answer.status().is_success() => {
            bar.add(file.size);
            Ok(true)
        }
        // Other bytes than were announced: the file changed, which the API finds too, and says in our words.
        Ok(answer) if answer.status() == StatusCode::BAD_REQUEST => Ok(false),
        Ok(answer) => {
            client.give_up_direct(&upload.url, &format!("it answered {}", answer.status()));
            Ok(false)
        }
        Err(_) if changed(file) => Ok(false),
        Err(error) => {
            client.give_up_direct(&upload.url, &innermost(&error));
            Ok(false)
        }
    }
}

/// Whether it pays to compress a file.
pub(super) fn shrinks(file: &Hashed) -> bool {
    let mut beginning = Vec::with_capacity(compression::SAMPLE);
    let mut read = || {
        File::open(&file.source)?
            .take(compression::SAMPLE as u64)
            .read_to_end(&mut beginning)
    };
    file.size >= compression::MIN_BYTES && read().is_ok() && compression::pays(&beginning)
}

/// Whether a file is not as it was hashed.
pub(super) fn changed(file: &Hashed) -> bool {
    let Ok(meta) = std::fs::metadata(&file.source) else { return true };
    let is_later = file.modified.is_some_and(|then| meta.modified().is_ok_and(|now| now != then));
    meta.len() != file.size || is_later
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_that_changes_while_it_is_read_is_told_from_one_at_rest() -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(b"12345")?;
        let before = file.as_file().metadata()?;
        assert!(is_at_rest((&before, &before), 5));
        assert!(!is_at_rest((&before, &before), 4), "it grew and shrank again");
        file.write_all(b"6")?;
        assert!(!is_at_rest((&before, &file.as_file().metadata()?), 5));
        let hashed = hash_file(file.path().to_owned(), &Progress::hidden())?;
        assert!(hashed.size == 6 && !changed(&hashed));
        // As many bytes, and others.
        file.as_file().set_modified(SystemTime::UNIX_EPOCH)?;
        assert!(changed(&hashed));
        let kernel = std::fs::metadata("/proc/self/status")?;
        assert!(is_at_rest((&kernel, &kernel), 1000), "its size is not known before");
        Ok(())
    }
}
