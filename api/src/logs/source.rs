//! Reads an attempt's frames: from the stream while it runs, from the store after it has ended.
//!
//! Both hold the same frames, so that an offset in the framed log is valid in both: each message carries its offset, and each stored
//! segment has a size.

use std::{pin::pin, sync::Arc, time::Duration};

use async_nats::Message;
use bus::{
    ids::Attempt,
    job::{AttemptEnd, AttemptRecord, ManifestRef, State},
    log::{LOGS, puller::header, replay},
    subjects,
};
use bytes::Bytes;
use futures::TryStreamExt as _;
use model::JobView;
use tokio::sync::mpsc;
use tracing::debug;

use super::{cursor::Cursor, frames::Joiner, tail::Missed};
use crate::{
    app::Shared,
    error::ApiError,
    files::{artifacts, content::read_problem},
    jobs::watch::Watch,
};

/// The header with a message's offset in its attempt's log.
const OFFSET: &str = "Rgrid-Offset";
/// The header that marks the last message of an attempt.
const MARK: &str = "Rgrid-Log";
/// How long to wait for the last message after the attempt's end is known.
const LAST_MESSAGE_MAX: Duration = Duration::from_millis(20);
/// The pause after a read of the stream failed.
const PAUSE: Duration = Duration::from_millis(500);
/// How long it may take until every server of a cluster knows of the subscription; messages before that may be lost.
const SUBSCRIBED_AFTER: Duration = Duration::from_secs(1);
/// Messages in one read of the stream: each may have a MiB.
const READ_MAX: usize = 32;

/// A part of a log.
#[derive(Debug)]
pub(super) enum Item {
    /// The next items belong to this attempt, from this offset in its framed log.
    Attempt(Attempt, u64),
    /// Complete frames.
    Frames(Bytes),
    /// This many bytes are no longer available.
    Gap(u64),
    /// The job is held or waits to be retried; no output comes until then.
    Waiting(Box<JobView>),
    /// The end of the log.
    End(Box<JobView>),
    /// The rest cannot be read.
    Failed(ApiError),
}

/// Why progress stops early.
enum Stopped {
    /// The client is gone.
    ClientGone,
    /// The log cannot be read further.
    Failed(ApiError),
}

impl From<ApiError> for Stopped {
    fn from(problem: ApiError) -> Self {
        Self::Failed(problem)
    }
}

/// Reads a job's log.
pub(super) struct Source {
    pub(super) app: Shared,
    pub(super) watch: Watch,
    /// Only this attempt.
    pub(super) attempt: Option<Attempt>,
    /// The first attempt; the last one by default.
    pub(super) from: Option<Attempt>,
    pub(super) follow: bool,
    /// Whether to continue with the attempts after the first one.
    pub(super) all: bool,
}

/// The progress in an attempt's log, and where its items go.
struct Progress<'a> {
    items: &'a mpsc::Sender<Item>,
    offset: u64,
    /// Whether the last message was read.
    complete: bool,
}

impl Source {
    /// Reads from a cursor to the end of what the client wants.
    pub(super) async fn run(mut self, cursor: Cursor, items: mpsc::Sender<Item>) {
        let end = match self.attempts(&cursor, &items).await {
            Ok(()) => Item::End(Box::new(JobView::from(self.watch.job()))),
            Err(Stopped::Failed(problem)) => Item::Failed(problem),
            Err(Stopped::ClientGone) => return,
        };
        let _unread = items.send(end).await;
    }

    async fn attempts(&mut self, cursor: &Cursor, items: &mpsc::Sender<Item>) -> Result<(), Stopped> {
        let job = self.watch.job();
        // An attempt that was returned has no log. A client that follows waits for the next attempt.
        let waits = self.follow && !job.state().is_end();
        let has_log = |attempt: &&AttemptRecord| waits || attempt.end != Some(AttemptEnd::Returned);
        let last = job.attempts.iter().rev().find(has_log).or(job.attempts.last());
        let last = last.map_or(Attempt::FIRST, |attempt| attempt.number);
        let mut number = self.attempt.or(cursor.attempt).or(self.from).unwrap_or(last);
        loop {
            if !self.wait_for_attempt(number, items).await? {
                return Ok(());
            }
            // The cursor is valid only for its own attempt.
            let offset = if cursor.attempt == Some(number) { cursor.offset } else { 0 };
            send(items, Item::Attempt(number, offset)).await?;
            let mut progress = Progress {
                items,
                offset,
                complete: false,
            };
            self.read_attempt(number, &mut progress).await?;
            // An attempt that was returned has no log: continue with the next one.
            let was_returned =
                self.follow && self.attempt.is_none() && matches!(self.end(number), Some(AttemptEnd::Returned | AttemptEnd::Interrupted));
            if !self.all && !was_returned {
                return Ok(());
            }
            number = number.next();
        }
    }

    /// Whether the attempt exists; waits for it if the client follows.
    async fn wait_for_attempt(&mut self, number: Attempt, items: &mpsc::Sender<Item>) -> Result<bool, Stopped> {
        loop {
            let job = self.watch.job();
            if job.attempts.iter().any(|attempt| attempt.number == number) {
                return Ok(true);
            }
            if !self.follow || job.state().is_end() {
                return Ok(false);
            }
            if matches!(job.state(), State::Held | State::Retrying) {
                send(items, Item::Waiting(Box::new(JobView::from(job)))).await?;
            }
            self.watch.changed(&self.app).await?;
        }
    }

    /// How the attempt ended; `None` while it runs.
    fn end(&self, number: Attempt) -> Option<&AttemptEnd> {
        let attempts = &self.watch.job().attempts;
        attempts.iter().find(|attempt| attempt.number == number)?.end.as_ref()
    }

    /// Reads the rest of an attempt's log: to its end if the client follows, otherwise as far as it exists.
    async fn read_attempt(&mut self, number: Attempt, progress: &mut Progress<'_>) -> Result<(), Stopped> {
        if self.end(number).is_none() && self.follow {
            self.follow_live(number, progress).await?;
        }
        match self.end(number) {
            Some(AttemptEnd::Finished(finished)) => match finished.manifest.clone() {
                Some(manifest) if !progress.complete => self.read_stored(&manifest, progress).await,
                Some(_) | None => Ok(()),
            },
            Some(AttemptEnd::Returned) => Ok(()),
            Some(AttemptEnd::Lost(_) | AttemptEnd::Interrupted | AttemptEnd::Cancelled) | None => {
                self.read_stream(&self.subject(number), 0, progress).await?;
                Ok(())
            }
        }
    }

    /// The subject that an attempt's log is published on.
    fn subject(&self, number: Attempt) -> String {
        let job = self.watch.job();
        subjects::log(&job.namespace, job.id, number)
    }

    /// Follows an attempt until it has ended.
    async fn follow_live(&mut self, number: Attempt, progress: &mut Progress<'_>) -> Result<(), Stopped> {
        let subject = self.subject(number);
        let mut resets = self.app.waiters.resets();
        let unreadable = |error: async_nats::SubscribeError| ApiError::unavailable("cannot follow the log", &error);
        let mut tail = self.app.tails.follow(subject.clone()).await.map_err(unreadable)?;
        let mut settled = pin!(tokio::time::sleep(SUBSCRIBED_AFTER));
        let (mut is_settled, mut after) = (self.app.replicas < 2, self.read_stream_retrying(&subject, 0, progress).await?);
        while self.end(number).is_none() {
            let came = tokio::select! {
                came = tail.next(), if !progress.complete => came,
                changed = self.watch.changed(&self.app) => {
                    changed?;
                    continue;
                }
                _ = resets.changed() => Err(Missed),
                () = &mut settled, if !is_settled => {
                    is_settled = true;
                    Err(Missed)
                }
            };
            after = self.take(&subject, after, came, progress).await?;
        }
        // The last message was published before the end of the attempt, and arrives soon: waiting for it saves a read from the store.
        let finished = matches!(self.end(number), Some(AttemptEnd::Finished(finished)) if finished.manifest.is_some());
        while finished && !progress.complete {
            let Ok(came) = tokio::time::timeout(LAST_MESSAGE_MAX, tail.next()).await else {
                break;
            };
            after = self.take(&subject, after, came, progress).await?;
        }
        Ok(())
    }

    /// Reads a published message, after the ones that were missed before it; returns the sequence up to which the stream was read.
    async fn take(
        &self,
        subject: &str,
        after: u64,
        came: Result<Arc<Message>, Missed>,
        progress: &mut Progress<'_>,
    ) -> Result<u64, Stopped> {
        let mut after = after;
        let missed = match &came {
            Ok(message) => offset_of(header(message, OFFSET)).is_some_and(|at| at > progress.offset),
            Err(Missed) => true,
        };
        if missed {
            after = self.read_stream_retrying(subject, after, progress).await?;
        }
        if let Ok(message) = came {
            let (at, is_last) = (offset_of(header(&message, OFFSET)), header(&message, MARK) == Some("end"));
            progress.message(at, is_last, &message.payload).await?;
        }
        Ok(after)
    }

    /// Reads the stream, retrying through every outage.
    async fn read_stream_retrying(&self, subject: &str, after: u64, progress: &mut Progress<'_>) -> Result<u64, Stopped> {
        loop {
            match self.read_stream(subject, after, progress).await {
                Err(Stopped::Failed(problem)) => {
                    debug!("{}; trying again", problem.detail);
                    tokio::time::sleep(PAUSE).await;
                }
                came => return came,
            }
        }
    }

    /// Reads the messages of an attempt after a sequence that the stream holds now; returns the last one's sequence.
    async fn read_stream(&self, subject: &str, after: u64, progress: &mut Progress<'_>) -> Result<u64, Stopped> {
        let mut after = after;
        loop {
            let piece = replay::piece(&self.app.bus.client, LOGS, subject, after, READ_MAX).await;
            let piece = piece.map_err(|error| ApiError::unavailable("cannot read the stream of logs", &error))?;
            for message in &piece.messages {
                let (at, is_last) = (offset_of(message.header(OFFSET)), message.header(MARK) == Some("end"));
                progress.message(at, is_last, &message.payload).await?;
                after = message.sequence;
            }
            if piece.is_last {
                return Ok(after);
            }
        }
    }

    /// Reads the committed log from the store.
    async fn read_stored(&self, reference: &ManifestRef, progress: &mut Progress<'_>) -> Result<(), Stopped> {
        let manifest = artifacts::manifest(&self.app, &reference.sha256).await?;
        let mut start = 0;
        for segment in &manifest.log {
            let skip = progress.offset.saturating_sub(start);
            start += segment.size;
            if skip >= segment.size {
                continue;
            }
            let (_, mut chunks) = self
                .app
                .files
                .get_stream(&segment.sha256)
                .await
                .map_err(|error| read_problem(&error))?;
            let (mut skip, mut joiner) = (skip, Joiner::default());
            while let Some(mut chunk) = chunks.try_next().await.map_err(|error| read_problem(&error))? {
                let ahead = skip.min(chunk.len() as u64);
                skip -= ahead;
                let whole = joiner.push(&chunk.split_off(usize::try_from(ahead).unwrap_or(chunk.len())));
                progress.frames(whole).await?;
            }
            if !joiner.is_empty() {
                let detail = format!("segment {} of the log does not end with a complete frame", segment.sha256);
                return Err(ApiError::new(model::Kind::Internal, detail).into());
            }
        }
        Ok(())
    }
}

impl Progress<'_> {
    /// Sends the frames of a message, without those that were sent before.
    async fn message(&mut self, at: Option<u64>, is_last: bool, frames: &Bytes) -> Result<(), Stopped> {
        let at = at.unwrap_or(self.offset);
        if at > self.offset {
            send(self.items, Item::Gap(at - self.offset)).await?;
            self.offset = at;
        }
        let known = usize::try_from(self.offset - at).unwrap_or(usize::MAX);
        if known < frames.len() {
            self.frames(frames.slice(known..)).await?;
        }
        self.complete = self.complete || is_last;
        Ok(())
    }

    async fn frames(&mut self, frames: Bytes) -> Result<(), Stopped> {
        if frames.is_empty() {
            return Ok(());
        }
        self.offset += frames.len() as u64;
        send(self.items, Item::Frames(frames)).await
    }
}

/// Parses a message's offset in its attempt's log.
fn offset_of(header: Option<&str>) -> Option<u64> {
    header?.parse().ok()
}

async fn send(items: &mpsc::Sender<Item>, item: Item) -> Result<(), Stopped> {
    items.send(item).await.map_err(|_| Stopped::ClientGone)
}
