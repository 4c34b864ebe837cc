//! An attempt's log: live on `rgrid.log.…` while the command runs, and complete in the store when the attempt ends.
//!
//! The command's output is split into frames, which go two ways. The live log is a window: it may lose its beginning, and it may fall
//! behind. The stored log loses nothing: frames are spooled to a file, split into segments of [`SEGMENT_BYTES`], and each segment is
//! stored while the command runs. Where the store is slower than the command, the attempt's spool fills up to its limit, and then this
//! command (and no other) blocks at its pipe.

mod segment;

use std::path::{Path, PathBuf};

use async_nats::jetstream;
use bus::{
    ids::{Attempt, JobId, Namespace},
    output::{
        frame::{Frame, Stream},
        manifest::LogSegment,
    },
    subjects,
};
use bytes::{Bytes, BytesMut};
use chrono::Utc;
use serde::{Deserialize, Serialize};
use store::Files;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::segment::{Segment, Storer, store};
use crate::{
    errors::chain,
    executor::docker::Counts,
    log::{live::Live, mask::Mask},
    secrets::Values,
};

/// The size of a stored segment, frame headers included.
const SEGMENT_BYTES: usize = 8 << 20;
/// How much is read from a pipe at once (a pipe holds 64 KiB).
const READ_BYTES: usize = 64 << 10;
/// The same until a read fills the buffer: most commands print little, and a large buffer costs a short job more than its reads.
const FIRST_READ_BYTES: usize = 4 << 10;

/// Why a log cannot be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The spool cannot be written.
    #[error("cannot keep the log in {path}: {source}; make room on the worker's disk")]
    Spool {
        /// The spool's file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A pipe cannot be read.
    #[error("cannot read what the command prints: {0}")]
    Pipe(std::io::Error),
    /// The store failed.
    #[error("cannot store the log: {}", chain(.0))]
    Store(store::Error),
    /// Secrets cannot be masked.
    #[error("cannot keep secrets out of the log: {0}")]
    Mask(String),
    /// The task that stores segments ended.
    #[error("the task that stores the log is gone")]
    Storer,
}

/// A complete log, stored.
#[derive(Debug, Default)]
pub(crate) struct StoredLog {
    /// The segments, in order.
    pub(crate) segments: Vec<LogSegment>,
    /// Bytes written to standard output.
    pub(crate) stdout_bytes: u64,
    /// Bytes written to standard error.
    pub(crate) stderr_bytes: u64,
}

/// The log of one attempt.
#[derive(Debug)]
pub(crate) struct Logbook {
    live: Live,
    dir: PathBuf,
    files: Files,
    most_waiting: usize,
    storer: Option<Storer>,
    segment: Segment,
    cut: u32,
    /// Segments that an earlier runner stored.
    before: Vec<LogSegment>,
    stdout_bytes: u64,
    stderr_bytes: u64,
    piped: Counts,
    /// Masks secrets.
    mask: Option<Mask>,
}

/// A log that the next runner continues: all of it so far, stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Suspended {
    segments: Vec<LogSegment>,
    stdout_bytes: u64,
    stderr_bytes: u64,
    /// Bytes that were sent live, frame headers included.
    live: u64,
    /// Bytes that came from the command's own pipes.
    pub(crate) piped: Counts,
}

impl Logbook {
    /// A log that spools below `dir`, up to `spool_bytes` at once.
    #[must_use]
    pub(crate) fn new(
        js: &jetstream::Context,
        files: &Files,
        (namespace, job, attempt): (&Namespace, JobId, Attempt),
        dir: &Path,
        spool_bytes: u64,
    ) -> Self {
        let live = Live::new(js, subjects::log(namespace, job, attempt));
        let most_waiting = usize::try_from(spool_bytes).unwrap_or(usize::MAX) / SEGMENT_BYTES;
        Self {
            live,
            dir: dir.to_owned(),
            files: files.clone(),
            most_waiting: most_waiting.max(1),
            storer: None,
            segment: Segment::default(),
            cut: 0,
            before: Vec::new(),
            stdout_bytes: 0,
            stderr_bytes: 0,
            piped: Counts::default(),
            mask: None,
        }
    }

    /// Masks these values in the command's output from now on.
    ///
    /// # Errors
    /// If the thread that prepares the mask failed.
    pub(crate) async fn mask(&mut self, values: &Values) -> Result<(), Error> {
        if values.is_empty() {
            return Ok(());
        }
        let values = values.clone();
        // On another thread, because many values take a while.
        let made = tokio::task::spawn_blocking(move || Mask::new(values.iter().map(|(_, value)| value))).await;
        self.mask = Some(made.map_err(|error| Error::Mask(error.to_string()))?);
        Ok(())
    }

    /// Continues a log that an earlier runner suspended.
    #[must_use]
    pub(crate) fn resume(mut self, suspended: Suspended) -> Self {
        self.before = suspended.segments;
        self.stdout_bytes = suspended.stdout_bytes;
        self.stderr_bytes = suspended.stderr_bytes;
        self.piped = suspended.piped;
        self.live.resume(suspended.live);
        self
    }

    /// Ends this runner's part of the log: stores all of it, so that the next runner can continue it.
    ///
    /// # Errors
    /// If it cannot be stored. A store that does not answer is waited for.
    pub(crate) async fn suspend(mut self) -> Result<Suspended, Error> {
        let (live, mut piped) = (self.live.suspend().await, self.piped);
        if let Some(mask) = &self.mask {
            // The next runner reads the bytes again that the mask holds back.
            piped.stdout -= mask.held(Stream::Stdout) as u64;
            piped.stderr -= mask.held(Stream::Stderr) as u64;
        }
        let kept = self.store_rest().await?;
        Ok(Suspended {
            segments: kept.segments,
            stdout_bytes: kept.stdout_bytes,
            stderr_bytes: kept.stderr_bytes,
            live,
            piped,
        })
    }

    /// Reads two pipes until both end, or until `leave` is cancelled; nothing that was read is lost then.
    ///
    /// # Errors
    /// If a pipe cannot be read, or the log cannot be stored.
    pub(crate) async fn pump(
        &mut self,
        stdout: impl AsyncRead + Unpin,
        stderr: impl AsyncRead + Unpin,
        leave: &CancellationToken,
    ) -> Result<(), Error> {
        let (mut stdout, mut stderr) = (Some(stdout), Some(stderr));
        let (mut out, mut err) = (Reading::new(), Reading::new());
        while stdout.is_some() || stderr.is_some() {
            let due = self.live.due();
            tokio::select! {
                read = read(stdout.as_mut(), &mut out), if stdout.is_some() => match read? {
                    Some(bytes) => {
                        self.piped.stdout += bytes.len() as u64;
                        self.take(Stream::Stdout, bytes).await?;
                    }
                    None => stdout = None,
                },
                read = read(stderr.as_mut(), &mut err), if stderr.is_some() => match read? {
                    Some(bytes) => {
                        self.piped.stderr += bytes.len() as u64;
                        self.take(Stream::Stderr, bytes).await?;
                    }
                    None => stderr = None,
                },
                () = leave.cancelled() => break,
                () = sleep_until(due), if due.is_some() => self.live.flush().await,
            }
        }
        Ok(())
    }

    /// Adds output of the command, with its secrets masked.
    async fn take(&mut self, stream: Stream, bytes: Bytes) -> Result<(), Error> {
        let shown = match &mut self.mask {
            Some(mask) => mask.feed(stream, &bytes),
            None => bytes,
        };
        if shown.is_empty() {
            Ok(())
        } else {
            self.write(stream, shown).await
        }
    }

    /// Adds the bytes that the mask held back and that do not begin a secret.
    async fn take_held(&mut self) -> Result<(), Error> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = self.mask.as_mut().map(|mask| mask.rest(stream)).unwrap_or_default();
            if !rest.is_empty() {
                self.write(stream, rest).await?;
            }
        }
        Ok(())
    }

    /// Adds a piece of one stream.
    ///
    /// # Errors
    /// If it cannot be stored.
    pub(crate) async fn write(&mut self, stream: Stream, bytes: Bytes) -> Result<(), Error> {
        match stream {
            Stream::Stdout => self.stdout_bytes += bytes.len() as u64,
            Stream::Stderr => self.stderr_bytes += bytes.len() as u64,
        }
        let time_us = u64::try_from(Utc::now().timestamp_micros()).unwrap_or(0);
        let frame = Frame { stream, time_us, bytes };
        self.live.push(&frame).await;
        self.segment.push(&frame, || self.dir.join(format!("log.{}", self.cut)))?;
        if self.segment.len >= SEGMENT_BYTES {
            self.hand_over().await?;
        }
        Ok(())
    }

    /// Adds a notice of the runner to standard error.
    ///
    /// # Errors
    /// If it cannot be stored.
    pub(crate) async fn note(&mut self, sentence: &str) -> Result<(), Error> {
        self.write(Stream::Stderr, format!("rgrid: {sentence}\n").into()).await
    }

    /// Ends the log: stores the rest, and publishes the end on the live subject.
    ///
    /// # Errors
    /// If it cannot be stored. A store that does not answer is waited for.
    pub(crate) async fn finish(mut self) -> Result<StoredLog, Error> {
        self.take_held().await?;
        self.live.finish().await;
        self.store_rest().await
    }

    async fn store_rest(mut self) -> Result<StoredLog, Error> {
        let mut segments = std::mem::take(&mut self.before);
        if self.storer.is_some() {
            self.hand_over().await?;
        }
        if let Some(storer) = self.storer.take() {
            drop(storer.segments);
            segments.extend(storer.task.await.map_err(|_| Error::Storer)??);
        } else if self.segment.len > 0 {
            segments.push(store(&self.files, std::mem::take(&mut self.segment)).await?);
        }
        Ok(StoredLog {
            segments,
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
        })
    }

    /// Passes the full segment to the task that stores it; blocks where too many are waiting.
    async fn hand_over(&mut self) -> Result<(), Error> {
        let segment = std::mem::take(&mut self.segment);
        if segment.len == 0 {
            return Ok(());
        }
        self.cut += 1;
        let storer = self
            .storer
            .get_or_insert_with(|| Storer::spawn(self.files.clone(), self.most_waiting));
        storer.segments.send(segment).await.map_err(|_| Error::Storer)
    }
}

impl Drop for Logbook {
    fn drop(&mut self) {
        if let Some(storer) = self.storer.take() {
            storer.task.abort();
        }
    }
}

/// A pipe's buffer.
struct Reading {
    buffer: BytesMut,
    /// How much is read at once.
    most: usize,
}

impl Reading {
    fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            most: FIRST_READ_BYTES,
        }
    }
}

async fn read(pipe: Option<&mut (impl AsyncRead + Unpin)>, reading: &mut Reading) -> Result<Option<Bytes>, Error> {
    let Some(pipe) = pipe else { return Ok(None) };
    reading.buffer.reserve(reading.most);
    let read = pipe.read_buf(&mut reading.buffer).await.map_err(Error::Pipe)?;
    if read >= reading.most {
        reading.most = READ_BYTES;
    }
    Ok((read > 0).then(|| reading.buffer.split().freeze()))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
