//! The upload of one file to the API, resumed over as many connections as it takes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::TryStreamExt as _;
use model::{Hashes, Missing, UPLOAD_OFFSET};
use parking_lot::Mutex;
use reqwest::{Body, Method, header};
use store::compression;
use tokio::io::AsyncSeekExt as _;
use tokio_util::io::ReaderStream;

use super::{
    Client, Error,
    hashed::{CHUNK, Hashed, changed, shrinks},
    patience::Patience,
    progress::Progress,
};

/// How long to wait for a file that is arriving over another connection. Within this time the API notices that our broken connection has
/// ended.
const MAX_WAIT: Duration = Duration::from_secs(6);
/// The interval between two queries.
const QUERY_INTERVAL: Duration = Duration::from_millis(300);

/// How much of a file the API has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UploadState {
    /// The whole file.
    Complete,
    /// This many bytes; the upload can be resumed from there.
    Partial(u64),
    /// It is arriving over another connection.
    InProgress,
}

/// How much of a file the API has before this client sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InitialState {
    /// This many bytes.
    Partial(u64),
    /// It is arriving over another connection.
    InProgress,
}

/// How much of a file was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Transferred {
    /// Bytes that were sent, some of them perhaps twice.
    pub(super) sent: u64,
    /// Bytes that the API had before.
    pub(super) before: u64,
}

/// Uploads one file, and resumes after a broken connection.
///
/// # Errors
/// If the file cannot be read or stored, has changed since it was hashed, or makes no progress for too long.
pub(super) async fn send(client: &Client, file: &Hashed, before: InitialState, bar: &Progress) -> anyhow::Result<Transferred> {
    let mut offset = match before {
        InitialState::Partial(bytes) => bytes.min(file.size),
        InitialState::InProgress => match wait_until_settled(client, file).await {
            Ok(UploadState::Complete) => file.size,
            Ok(UploadState::Partial(bytes)) => bytes,
            Ok(UploadState::InProgress) => 0,
            Err(error) => return Err(explained(error, file)),
        },
    };
    bar.add(offset);
    let mut transferred = Transferred { sent: 0, before: offset };
    if offset == file.size && before == InitialState::InProgress {
        return Ok(transferred);
    }
    let mut patience = Patience::from(offset);
    loop {
        let progress = Arc::new(RequestProgress::default());
        let ended = send_from(client, file, offset, (bar, &progress)).await?;
        transferred.sent += progress.end();
        let error = match ended {
            Ok(()) => {
                client.is_well();
                return Ok(transferred);
            }
            Err(error) => error,
        };
        bar.take_back(progress.end());
        if changed(file) {
            return Err(explained(error, file));
        }
        let now = if error.is_conflict() && offset > 0 {
            // It does not wait any more, or is not ours: what does not fit once is not believed again.
            patience.reached(0);
            0
        } else {
            match next_offset(client, file, error, &mut patience).await? {
                Some(now) => now,
                None => {
                    bar.add(file.size - offset);
                    return Ok(transferred);
                }
            }
        };
        bar.take_back(offset);
        bar.add(now);
        offset = now;
    }
}

/// Pauses after a failed request, and returns the offset to resume from; `None` if the file is complete.
async fn next_offset(client: &Client, file: &Hashed, error: Error, patience: &mut Patience) -> anyhow::Result<Option<u64>> {
    if !error.breaks_off() && !error.is_conflict() {
        return Err(explained(error, file));
    }
    loop {
        patience.pause(client, &error).await;
        let next = match wait_until_settled(client, file).await {
            Ok(UploadState::Complete) => return Ok(None),
            Ok(UploadState::Partial(bytes)) => Some(bytes),
            Ok(UploadState::InProgress) => Some(0),
            Err(error) if error.breaks_off() => None,
            Err(error) => return Err(explained(error, file)),
        };
        next.into_iter().for_each(|bytes| patience.reached(bytes));
        if !patience.holds() {
            return Err(explained(error, file));
        }
        if next.is_some() {
            return Ok(next);
        }
    }
}

/// The state of a file's upload, once no other connection is sending it, or after the time limit.
async fn wait_until_settled(client: &Client, file: &Hashed) -> Result<UploadState, Error> {
    let since = Instant::now();
    loop {
        let state = upload_state(client, file).await?;
        if state != UploadState::InProgress || since.elapsed() >= MAX_WAIT {
            return Ok(state);
        }
        tokio::time::sleep(QUERY_INTERVAL).await;
    }
}

async fn upload_state(client: &Client, file: &Hashed) -> Result<UploadState, Error> {
    let asked = Hashes {
        sha256: vec![file.sha256],
        sizes: vec![file.size],
    };
    let answer: Missing = client.post("/v1/files/missing", &asked).await?;
    if !answer.missing.contains(&file.sha256) {
        return Ok(UploadState::Complete);
    }
    if answer.arriving.contains(&file.sha256) {
        return Ok(UploadState::InProgress);
    }
    let bytes = answer.begun.get(&file.sha256).copied().unwrap_or(0);
    // Nobody has more than all of it.
    Ok(UploadState::Partial(if bytes <= file.size { bytes } else { 0 }))
}

/// The progress of one request's body. The connection may read the body even after an early response.
#[derive(Debug, Default)]
struct RequestProgress {
    transferred: AtomicU64,
    is_over: AtomicBool,
    unread: Mutex<Option<io::Error>>,
}

impl RequestProgress {
    /// Stops the body, and returns how many bytes were read.
    fn end(&self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.transferred.load(Ordering::Relaxed)
    }
}

/// Sends a file from this offset in one request. The outer error means that the file cannot be read.
async fn send_from(
    client: &Client,
    file: &Hashed,
    from: u64,
    (bar, progress): (&Progress, &Arc<RequestProgress>),
) -> anyhow::Result<Result<(), Error>> {
    let cannot = || format!("cannot read {}", file.source.display());
    let mut open = tokio::fs::File::open(&file.source).await.with_context(cannot)?;
    open.seek(io::SeekFrom::Start(from)).await.with_context(cannot)?;
    let (bar, counted, failed) = (bar.clone(), Arc::clone(progress), Arc::clone(progress));
    let bytes = ReaderStream::with_capacity(open, CHUNK)
        .map_err(move |error| {
            let words = io::Error::new(error.kind(), error.to_string());
            *failed.unread.lock() = Some(error);
            words
        })
        .and_then(move |chunk| {
            let read = if counted.is_over.load(Ordering::Relaxed) {
                Err(io::ErrorKind::BrokenPipe.into())
            } else {
                bar.add(chunk.len() as u64);
                counted.transferred.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                Ok(chunk)
            };
            std::future::ready(read)
        });
    let mut request = client
        .request(Method::PUT, &format!("/v1/files/{}", file.sha256))
        .header(header::CONTENT_TYPE, "application/octet-stream");
    if from > 0 {
        request = request.header(UPLOAD_OFFSET, from);
    }
    let rest = file.size.saturating_sub(from);
    let request = if client.compresses && shrinks(file) {
        request
            .header(header::CONTENT_ENCODING, compression::ZSTD)
            .header(compression::DECODED_LENGTH, rest)
            .body(Body::wrap_stream(compression::encode(bytes)))
    } else {
        request.header(header::CONTENT_LENGTH, rest).body(Body::wrap_stream(bytes))
    };
    let sent = client.send(request).await.map(drop);
    match progress.unread.lock().take() {
        Some(error) if sent.is_err() => Err(error).with_context(cannot),
        _ => Ok(sent),
    }
}

/// Adds an explanation for the user to an upload error.
fn explained(error: Error, file: &Hashed) -> anyhow::Error {
    let source = file.source.display();
    let words = match &error {
        _ if changed(file) => format!("{source} changed while it was being sent; run again when it no longer changes"),
        Error::Unreachable { .. } => {
            format!("the connection broke while {source} was being sent; run again: the data that has arrived is kept")
        }
        _ => format!("cannot store {source}"),
    };
    anyhow::Error::new(error).context(words)
}
