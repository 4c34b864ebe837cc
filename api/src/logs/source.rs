//! An attempt's frames: from the stream while it runs, from the store when it has ended.
//!
//! Both hold the same frames, cut alike, so that a byte count of the framed log says everywhere where one is: each
//! message carries the count of what stands before it, and each stored segment has a size.

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

/// The frame bytes before a message in its attempt's log.
const OFFSET: &str = "Rgrid-Offset";
/// Marks the last message of an attempt.
const MARK: &str = "Rgrid-Log";
/// How long a message may be on its way that is stored already.
const MOMENT: Duration = Duration::from_millis(20);
/// The pause before the stream is read again that could not be.
const PAUSE: Duration = Duration::from_millis(500);
/// How long it may take until every server of a cluster knows that somebody follows; what was published before may not have come.
const SETTLED: Duration = Duration::from_secs(1);
/// Messages that are read at once: each may have a MiB.
const WINDOW: usize = 32;

/// What stands in a log.
#[derive(Debug)]
pub(super) enum Item {
    /// What follows is of this attempt, from this byte of its framed log.
    Attempt(Attempt, u64),
    /// Whole frames.
    Frames(Bytes),
    /// So many bytes are not there any more.
    Gap(u64),
    /// Nothing comes until the job, which waits for a time or for other jobs, is ready.
    Waiting(Box<JobView>),
    /// That was all.
    End(Box<JobView>),
    /// It cannot be read further.
    Failed(ApiError),
}

/// Why reading ends early.
enum Stopped {
    /// Nobody reads any more.
    Unread,
    /// It cannot go on.
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
    /// The attempt to begin with; else the last.
    pub(super) from: Option<Attempt>,
    pub(super) follow: bool,
    /// Whether to go on with the attempts that follow the first one.
    pub(super) all: bool,
}

/// Where in an attempt's log reading is, and who reads.
struct Reading<'a> {
    items: &'a mpsc::Sender<Item>,
    offset: u64,
    /// Whether the message was seen that is marked as the last.
    complete: bool,
}

impl Source {
    /// Reads from a cursor on, until the end of what was asked for.
    pub(super) async fn run(mut self, cursor: Cursor, items: mpsc::Sender<Item>) {
        let end = match self.attempts(&cursor, &items).await {
            Ok(()) => Item::End(Box::new(JobView::from(self.watch.job()))),
            Err(Stopped::Failed(problem)) => Item::Failed(problem),
            Err(Stopped::Unread) => return,
        };
        let _unread = items.send(end).await;
    }

    async fn attempts(&mut self, cursor: &Cursor, items: &mpsc::Sender<Item>) -> Result<(), Stopped> {
        let job = self.watch.job();
        // What was given back has no log; another one is to come where that is waited for.
        let waits = self.follow && !job.state().is_end();
        let has_log = |attempt: &&AttemptRecord| waits || attempt.end != Some(AttemptEnd::Returned);
        let last = job.attempts.iter().rev().find(has_log).or(job.attempts.last());
        let last = last.map_or(Attempt::FIRST, |attempt| attempt.number);
        let mut number = self.attempt.or(cursor.attempt).or(self.from).unwrap_or(last);
        loop {
            if !self.made(number, items).await? {
                return Ok(());
            }
            // The cursor counts where it stands, and nowhere else.
            let offset = if cursor.attempt == Some(number) { cursor.offset } else { 0 };
            send(items, Item::Attempt(number, offset)).await?;
            let mut reading = Reading {
                items,
                offset,
                complete: false,
            };
            self.one(number, &mut reading).await?;
            // What was given back has no log to be the one that was asked for.
            let given_back =
                self.follow && self.attempt.is_none() && matches!(self.end(number), Some(AttemptEnd::Returned | AttemptEnd::Interrupted));
            if !self.all && !given_back {
                return Ok(());
            }
            number = number.next();
        }
    }

    /// Whether the attempt was made; waits for it where that is wanted.
    async fn made(&mut self, number: Attempt, items: &mpsc::Sender<Item>) -> Result<bool, Stopped> {
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

    /// How the attempt ended: nothing while it goes on.
    fn end(&self, number: Attempt) -> Option<&AttemptEnd> {
        let attempts = &self.watch.job().attempts;
        attempts.iter().find(|attempt| attempt.number == number)?.end.as_ref()
    }

    /// One attempt's log, from where reading is to its end; as far as it is there, unless it is to be followed.
    async fn one(&mut self, number: Attempt, reading: &mut Reading<'_>) -> Result<(), Stopped> {
        if self.end(number).is_none() && self.follow {
            self.live(number, reading).await?;
        }
        match self.end(number) {
            Some(AttemptEnd::Finished(finished)) => match finished.manifest.clone() {
                Some(manifest) if !reading.complete => self.stored(&manifest, reading).await,
                Some(_) | None => Ok(()),
            },
            Some(AttemptEnd::Returned) => Ok(()),
            Some(AttemptEnd::Lost(_) | AttemptEnd::Interrupted | AttemptEnd::Cancelled) | None => {
                self.window(&self.subject(number), 0, reading).await?;
                Ok(())
            }
        }
    }

    /// What an attempt prints to.
    fn subject(&self, number: Attempt) -> String {
        let job = self.watch.job();
        subjects::log(&job.namespace, job.id, number)
    }

    /// Follows the attempt until it has ended.
    async fn live(&mut self, number: Attempt, reading: &mut Reading<'_>) -> Result<(), Stopped> {
        let subject = self.subject(number);
        let mut resets = self.app.waiters.resets();
        let unreadable = |error: async_nats::SubscribeError| ApiError::unavailable("the log cannot be followed", &error);
        let mut tail = self.app.tails.follow(subject.clone()).await.map_err(unreadable)?;
        let mut settled = pin!(tokio::time::sleep(SETTLED));
        let (mut is_settled, mut after) = (self.app.replicas < 2, self.window_at_last(&subject, 0, reading).await?);
        while self.end(number).is_none() {
            let came = tokio::select! {
                came = tail.next(), if !reading.complete => came,
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
            after = self.take(&subject, after, came, reading).await?;
        }
        // The last message was published before the end was, and is about to come: it saves asking the store.
        let finished = matches!(self.end(number), Some(AttemptEnd::Finished(finished)) if finished.manifest.is_some());
        while finished && !reading.complete {
            let Ok(came) = tokio::time::timeout(MOMENT, tail.next()).await else {
                break;
            };
            after = self.take(&subject, after, came, reading).await?;
        }
        Ok(())
    }

    /// Takes a message that was published, and before it what was missed; returns the sequence up to which the stream was read.
    async fn take(&self, subject: &str, after: u64, came: Result<Arc<Message>, Missed>, reading: &mut Reading<'_>) -> Result<u64, Stopped> {
        let mut after = after;
        let missed = match &came {
            Ok(message) => place(header(message, OFFSET)).is_some_and(|at| at > reading.offset),
            Err(Missed) => true,
        };
        if missed {
            after = self.window_at_last(subject, after, reading).await?;
        }
        if let Ok(message) = came {
            let (at, is_last) = (place(header(&message, OFFSET)), header(&message, MARK) == Some("end"));
            reading.message(at, is_last, &message.payload).await?;
        }
        Ok(after)
    }

    /// What the stream holds, over every outage.
    async fn window_at_last(&self, subject: &str, after: u64, reading: &mut Reading<'_>) -> Result<u64, Stopped> {
        loop {
            match self.window(subject, after, reading).await {
                Err(Stopped::Failed(problem)) => {
                    debug!("{}; trying again", problem.detail);
                    tokio::time::sleep(PAUSE).await;
                }
                came => return came,
            }
        }
    }

    /// What the stream holds of the attempt behind a sequence at this moment; returns the sequence up to which that goes.
    async fn window(&self, subject: &str, after: u64, reading: &mut Reading<'_>) -> Result<u64, Stopped> {
        let mut after = after;
        loop {
            let piece = replay::piece(&self.app.bus.client, LOGS, subject, after, WINDOW).await;
            let piece = piece.map_err(|error| ApiError::unavailable("the stream of logs cannot be read", &error))?;
            for message in &piece.messages {
                let (at, is_last) = (place(message.header(OFFSET)), message.header(MARK) == Some("end"));
                reading.message(at, is_last, &message.payload).await?;
                after = message.sequence;
            }
            if piece.is_last {
                return Ok(after);
            }
        }
    }

    /// The log as it was committed.
    async fn stored(&self, reference: &ManifestRef, reading: &mut Reading<'_>) -> Result<(), Stopped> {
        let manifest = artifacts::manifest(&self.app, &reference.sha256).await?;
        let mut start = 0;
        for segment in &manifest.log {
            let skip = reading.offset.saturating_sub(start);
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
                reading.frames(whole).await?;
            }
            if !joiner.is_empty() {
                let detail = format!("segment {} of the log does not end with a frame", segment.sha256);
                return Err(ApiError::new(model::Kind::Internal, detail).into());
            }
        }
        Ok(())
    }
}

impl Reading<'_> {
    /// A message of the log, which says where it stands: passed on, but for what was read before.
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

/// The byte of its attempt's log that a message begins at, by its header.
fn place(header: Option<&str>) -> Option<u64> {
    header?.parse().ok()
}

async fn send(items: &mpsc::Sender<Item>, item: Item) -> Result<(), Stopped> {
    items.send(item).await.map_err(|_| Stopped::Unread)
}
