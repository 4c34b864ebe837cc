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

/// For how long a file that is arriving over another connection is waited for: what broke off here waits there within that, unless
/// somebody else sends the same.
const ARRIVES: Duration = Duration::from_secs(6);
/// How often it is asked.
const ASK: Duration = Duration::from_millis(300);

/// How far a file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Come {
    /// All of it.
    Whole,
    /// So many bytes, which wait for the rest.
    To(u64),
    /// It is arriving.
    Arrives,
}

/// How many bytes of a file are there before it is sent: known, or somebody is sending it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// So many.
    Known(u64),
    /// It is arriving.
    Arrives,
}

/// What was sent of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// Bytes that were sent, some of them perhaps twice.
    pub(super) sent: u64,
    /// Bytes that were there before.
    pub(super) before: u64,
}

/// Sends one file, and goes on where it breaks off.
///
/// # Errors
/// If it cannot be read or stored, or changed since it was hashed, or nothing comes over for too long.
pub(super) async fn send(client: &Client, file: &Hashed, before: Before, bar: &Progress) -> anyhow::Result<Passed> {
    let mut place = match before {
        Before::Known(bytes) => bytes.min(file.size),
        Before::Arrives => match settled(client, file).await {
            Ok(Come::Whole) => file.size,
            Ok(Come::To(bytes)) => bytes,
            Ok(Come::Arrives) => 0,
            Err(error) => return Err(explained(error, file)),
        },
    };
    bar.add(place);
    let mut passed = Passed { sent: 0, before: place };
    if place == file.size && before == Before::Arrives {
        return Ok(passed);
    }
    let mut patience = Patience::from(place);
    loop {
        let a_try = Arc::new(Try::default());
        let ended = once(client, file, place, (bar, &a_try)).await?;
        passed.sent += a_try.end();
        let error = match ended {
            Ok(()) => {
                client.is_well();
                return Ok(passed);
            }
            Err(error) => error,
        };
        bar.take_back(a_try.end());
        if changed(file) {
            return Err(explained(error, file));
        }
        let now = if error.is_conflict() && place > 0 {
            // It does not wait any more, or is not ours: what does not fit once is not believed again.
            patience.reached(0);
            0
        } else {
            match again(client, file, error, &mut patience).await? {
                Some(now) => now,
                None => {
                    bar.add(file.size - place);
                    return Ok(passed);
                }
            }
        };
        bar.take_back(place);
        bar.add(now);
        place = now;
    }
}

/// Waits after a try that ended so, and says from which byte to send next; nothing if all of it is there.
async fn again(client: &Client, file: &Hashed, error: Error, patience: &mut Patience) -> anyhow::Result<Option<u64>> {
    if !error.breaks_off() && !error.is_conflict() {
        return Err(explained(error, file));
    }
    loop {
        patience.pause(client, &error).await;
        let next = match settled(client, file).await {
            Ok(Come::Whole) => return Ok(None),
            Ok(Come::To(bytes)) => Some(bytes),
            Ok(Come::Arrives) => Some(0),
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

/// How far a file has come, once that stands still; or that somebody else is sending it.
async fn settled(client: &Client, file: &Hashed) -> Result<Come, Error> {
    let since = Instant::now();
    loop {
        let come = come(client, file).await?;
        if come != Come::Arrives || since.elapsed() >= ARRIVES {
            return Ok(come);
        }
        tokio::time::sleep(ASK).await;
    }
}

async fn come(client: &Client, file: &Hashed) -> Result<Come, Error> {
    let asked = Hashes {
        sha256: vec![file.sha256],
        sizes: vec![file.size],
    };
    let answer: Missing = client.post("/v1/files/missing", &asked).await?;
    if !answer.missing.contains(&file.sha256) {
        return Ok(Come::Whole);
    }
    if answer.arriving.contains(&file.sha256) {
        return Ok(Come::Arrives);
    }
    let bytes = answer.begun.get(&file.sha256).copied().unwrap_or(0);
    // Nobody has more than all of it.
    Ok(Come::To(if bytes <= file.size { bytes } else { 0 }))
}

/// One try, and what its body came to: the connection reads it on its own, also after an early answer.
#[derive(Debug, Default)]
struct Try {
    passed: AtomicU64,
    is_over: AtomicBool,
    unread: Mutex<Option<io::Error>>,
}

impl Try {
    /// Ends it, and says how many bytes were read for it.
    fn end(&self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.passed.load(Ordering::Relaxed)
    }
}

/// Sends a file from this byte on. The outer error means that it cannot be read.
async fn once(client: &Client, file: &Hashed, from: u64, (bar, a_try): (&Progress, &Arc<Try>)) -> anyhow::Result<Result<(), Error>> {
    let cannot = || format!("cannot read {}", file.source.display());
    let mut open = tokio::fs::File::open(&file.source).await.with_context(cannot)?;
    open.seek(io::SeekFrom::Start(from)).await.with_context(cannot)?;
    let (bar, counted, failed) = (bar.clone(), Arc::clone(a_try), Arc::clone(a_try));
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
                counted.passed.fetch_add(chunk.len() as u64, Ordering::Relaxed);
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
    match a_try.unread.lock().take() {
        Some(error) if sent.is_err() => Err(error).with_context(cannot),
        _ => Ok(sent),
    }
}

/// What an upload's end means for who sent it.
fn explained(error: Error, file: &Hashed) -> anyhow::Error {
    let source = file.source.display();
    let words = match &error {
        _ if changed(file) => format!("{source} changed while it was being sent; run again when it is at rest"),
        Error::Unreachable { .. } => format!("the connection broke while {source} was being sent; run again: what has arrived is kept"),
        _ => format!("cannot store {source}"),
    };
    anyhow::Error::new(error).context(words)
}
