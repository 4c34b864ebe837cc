//! Sends hashed files to the store: asks which contents are missing, and sends those.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Context as _;
use bus::ids::Digest;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::{Hashes, Missing, SignedUpload};
use reqwest::{Body, Method, StatusCode, header};
use tokio_util::io::ReaderStream;

use super::{
    Client,
    direct::innermost,
    hashed::{CHUNK, Hashed, changed},
    progress::Progress,
    resumable::{InitialState, send},
};

/// The number of concurrent uploads of large and of small files.
const AT_ONCE: usize = 4;
const SMALL_AT_ONCE: usize = 32;
/// The maximum size of a small file, in bytes.
const SMALL: u64 = 256 << 10;
/// The maximum number of digests in one request, which is the API's limit.
const ASKED_AT_ONCE: usize = 10_000;
/// The totals of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// How many contents there are.
    pub files: usize,
    /// How many of them were already stored.
    pub there: usize,
    /// How many bytes were sent.
    pub bytes: u64,
    /// How many of those bytes went directly to the store.
    pub straight: u64,
    /// How many more bytes had arrived in an earlier, interrupted upload.
    pub before: u64,
}

/// Uploads the files that the store lacks, each content once, and returns the totals.
///
/// # Errors
/// If a file cannot be read or stored, or has changed since it was hashed. Uploaded data is kept, and is not sent again.
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
        before.extend(
            answer
                .begun
                .into_iter()
                .map(|(digest, bytes)| (digest, InitialState::Partial(bytes))),
        );
        before.extend(answer.arriving.into_iter().map(|digest| (digest, InitialState::InProgress)));
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
                let before = before.get(&file.sha256).copied().unwrap_or(InitialState::Partial(0));
                if before == InitialState::Partial(0)
                    && let Some(upload) = direct.get(&file.sha256)
                    && put_straight(client, upload, &file, &bar).await?
                {
                    straight.fetch_add(file.size, Ordering::Relaxed);
                    bytes.fetch_add(file.size, Ordering::Relaxed);
                    return Ok(());
                }
                let transferred = send(client, &file, before, &bar).await?;
                bytes.fetch_add(transferred.sent, Ordering::Relaxed);
                earlier.fetch_add(transferred.before, Ordering::Relaxed);
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
    client.insist_on(request).await.context("cannot store the job's inputs")?;
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
