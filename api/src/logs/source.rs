//! An attempt's frames: from the stream while it runs, from the store when it has ended.
//!
//! Both hold the same frames, cut alike, so that a byte count of the framed log says everywhere where one is: each
//! message carries the count of what stands before it, and each stored segment has a size.

use std::time::Duration;

use async_nats::jetstream::stream::DirectGetErrorKind;
use bus::{
    ids::Attempt,
    job::{AttemptEnd, AttemptRecord, ManifestRef, State},
    stream::{
        LOGS,
        follow::{Followed, Follower},
    },
    subjects,
};
use bytes::Bytes;
use futures::TryStreamExt as _;
use tokio::sync::mpsc;

use super::{cursor::Cursor, frames::Joiner};
use crate::{app::Shared, artifacts, content::read_problem, error::Problem, view::JobView, watch::Watch};

/// The frame bytes before a message in its attempt's log.
const OFFSET: &str = "Rgrid-Offset";
/// Marks the last message of an attempt.
const MARK: &str = "Rgrid-Log";
/// How long a message may be on its way that is stored already.
const MOMENT: Duration = Duration::from_millis(20);
/// Messages that are asked for ahead: each may have a MiB.
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
    Failed(Problem),
}

/// Why reading ends early.
enum Stopped {
    /// Nobody reads any more.
    Unread,
    /// It cannot go on.
    Failed(Problem),
}

impl From<Problem> for Stopped {
    fn from(problem: Problem) -> Self {
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
            Some(AttemptEnd::Lost(_) | AttemptEnd::Interrupted | AttemptEnd::Cancelled) | None => self.window(number, reading).await,
        }
    }

    fn follower(&self, number: Attempt) -> Follower {
        let job = self.watch.job();
        let subject = subjects::log(&job.namespace, job.id, number);
        Follower::new(&self.app.bus.js, LOGS, vec![subject], 0).window(WINDOW)
    }

    /// Follows the stream until the attempt has ended.
    async fn live(&mut self, number: Attempt, reading: &mut Reading<'_>) -> Result<(), Stopped> {
        let mut follower = self.follower(number);
        while self.end(number).is_none() {
            tokio::select! {
                chunk = follower.chunk(WINDOW), if !reading.complete => {
                    for message in &chunk {
                        reading.message(message).await?;
                    }
                }
                changed = self.watch.changed(&self.app) => changed?,
            }
        }
        // The last message was stored before the end was, and is about to come: it saves asking the store.
        let finished = matches!(self.end(number), Some(AttemptEnd::Finished(finished)) if finished.manifest.is_some());
        while finished && !reading.complete {
            let Ok(chunk) = tokio::time::timeout(MOMENT, follower.chunk(WINDOW)).await else {
                break;
            };
            for message in &chunk {
                reading.message(message).await?;
            }
        }
        Ok(())
    }

    /// What the stream holds of the attempt at this moment.
    async fn window(&self, number: Attempt, reading: &mut Reading<'_>) -> Result<(), Stopped> {
        let job = self.watch.job();
        let subject = subjects::log(&job.namespace, job.id, number);
        let unreadable = |error: &(dyn std::error::Error + 'static)| Problem::unavailable("the stream of logs cannot be read", error);
        let stream = self.app.bus.js.get_stream_no_info(LOGS).await.map_err(|error| unreadable(&error))?;
        let last = match stream.direct_get_last_for_subject(subject).await {
            Ok(message) => message.sequence,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unreadable(&error).into()),
        };
        let mut follower = self.follower(number);
        loop {
            for message in follower.chunk(WINDOW).await {
                reading.message(&message).await?;
                // Nothing is pending where what was the last is gone meanwhile.
                if message.sequence >= last || message.pending == 0 {
                    return Ok(());
                }
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
                return Err(Problem::new(crate::error::Kind::Internal, detail).into());
            }
        }
        Ok(())
    }
}

impl Reading<'_> {
    /// A message of the stream: passed on, but for what was read before.
    async fn message(&mut self, message: &Followed) -> Result<(), Stopped> {
        let headers = message.headers.as_ref();
        let text = |name| headers.and_then(|headers| headers.get(name)).map(async_nats::HeaderValue::as_str);
        let at = text(OFFSET).and_then(|text| text.parse().ok()).unwrap_or(self.offset);
        if at > self.offset {
            send(self.items, Item::Gap(at - self.offset)).await?;
            self.offset = at;
        }
        let known = usize::try_from(self.offset - at).unwrap_or(usize::MAX);
        if known < message.payload.len() {
            self.frames(message.payload.slice(known..)).await?;
        }
        self.complete = self.complete || text(MARK) == Some("end");
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

async fn send(items: &mpsc::Sender<Item>, item: Item) -> Result<(), Stopped> {
    items.send(item).await.map_err(|_| Stopped::Unread)
}
