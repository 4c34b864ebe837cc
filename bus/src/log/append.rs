//! Appending to the log: with an expected sequence, idempotent, and with a time limit.

#![allow(clippy::disallowed_methods, reason = "this is how the writer appends")]

use std::time::{Duration, Instant};

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        context::{PublishAckFuture, PublishError, PublishErrorKind},
        message::PublishMessage,
        publish::PublishAck,
    },
};
use bytes::Bytes;
use rand::Rng as _;
use tracing::warn;

use super::{
    EVENTS, EXPECTED_FILTER, EXPECTED_SEQUENCE,
    connect::{connection, unless_reconnected},
    read,
    room::OVERHEAD,
};
use crate::{
    batch::BatchEvent,
    envelope::{Envelope, Event},
    grid::{
        image::{ImageEvent, ImageName},
        runtimes::RuntimesEvent,
    },
    ids::{BatchId, EventId, JobId, Namespace, WorkerId},
    job::JobEvent,
    subjects,
    worker::WorkerEvent,
};

/// The shortest and the longest pause between two tries.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why an event is not in the log, or may not be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another writer was first. The caller must read and decide again.
    #[error("another writer moved {filter} past sequence {expected}")]
    Conflict {
        /// The subjects for which the sequence was expected.
        filter: String,
        /// The sequence that was expected to be the last one.
        expected: u64,
    },
    /// The log is full.
    #[error("the log is full ({reason}); raise its bound: `rgrid log --bound …`")]
    Full {
        /// The server's error message.
        reason: String,
    },
    /// No acknowledgement came within the time limit. The event may be in the log or not.
    #[error("NATS did not acknowledge {subject} within {:.1} s", tried.as_secs_f32())]
    Unacknowledged {
        /// The subject of the event.
        subject: String,
        /// How long it was tried.
        tried: Duration,
        /// The last error.
        #[source]
        source: PublishError,
    },
    /// No acknowledgement for an atomic batch came within the time limit. Its events may be in the log or not.
    #[error("NATS did not commit the events up to {subject} within {:.1} s: {reason}", tried.as_secs_f32())]
    Uncommitted {
        /// The subject of the last event.
        subject: String,
        /// How long it was tried.
        tried: Duration,
        /// The last error.
        reason: String,
    },
}

/// An event to append: its subject, its content, and the sequence that is expected to be the last one.
#[derive(Debug, Clone)]
pub struct Append {
    pub(super) subject: String,
    id: EventId,
    pub(super) expected: Option<(String, u64)>,
    pub(super) payload: Bytes,
}

impl Append {
    /// An event of a job, after the event at `after` (0: the first event).
    ///
    /// An event that makes the job ready goes to the subject of its queue and class. All other events go to the subject of their actor.
    #[must_use]
    pub fn job(namespace: &Namespace, job: JobId, after: u64, envelope: &Envelope<JobEvent>) -> Self {
        let ready = |spec: &crate::spec::JobSpec| subjects::job_ready(namespace, job, &spec.queue, spec.class());
        let subject = match &envelope.event {
            JobEvent::Submitted(event) if event.spec.start.is_none() => ready(&event.spec),
            JobEvent::Rescheduled(event) => ready(&event.spec),
            JobEvent::Released(event) => ready(&event.spec),
            JobEvent::Requeued(event) => ready(&event.spec),
            JobEvent::Submitted(_)
            | JobEvent::Claimed(_)
            | JobEvent::Started(_)
            | JobEvent::Finished(_)
            | JobEvent::Returned(_)
            | JobEvent::CancelRequested(_)
            | JobEvent::Cancelled(_)
            | JobEvent::Died(_)
            | JobEvent::Expired(_) => subjects::job_by(namespace, job, &envelope.actor),
        };
        Self::new(subject, Some((subjects::job_filter(namespace, job), after)), envelope)
    }

    /// An event of a batch, after the event at `after` (0: the first event).
    #[must_use]
    pub fn batch(namespace: &Namespace, batch: BatchId, after: u64, envelope: &Envelope<BatchEvent>) -> Self {
        let subject = subjects::batch(namespace, batch);
        Self::new(subject.clone(), Some((subject, after)), envelope)
    }

    /// An event of a worker, after the event at `after`; `None`: after any event.
    #[must_use]
    pub fn worker(worker: &WorkerId, after: Option<u64>, envelope: &Envelope<WorkerEvent>) -> Self {
        let subject = subjects::worker(worker);
        Self::new(subject.clone(), after.map(|after| (subject, after)), envelope)
    }

    /// An event of the deployment's runtimes, after the event at `after` (0: the first event).
    #[must_use]
    pub fn runtimes(after: u64, envelope: &Envelope<RuntimesEvent>) -> Self {
        let subject = subjects::RUNTIMES.to_owned();
        Self::new(subject.clone(), Some((subject, after)), envelope)
    }

    /// An event of an image that the grid stores, after the event at `after` (0: the first event).
    #[must_use]
    pub fn image(name: &ImageName, after: u64, envelope: &Envelope<ImageEvent>) -> Self {
        let subject = subjects::image(name);
        Self::new(subject.clone(), Some((subject, after)), envelope)
    }

    fn new<E: Event>(subject: String, expected: Option<(String, u64)>, envelope: &Envelope<E>) -> Self {
        Self {
            subject,
            id: envelope.id,
            expected,
            payload: envelope.to_json().into(),
        }
    }

    /// The approximate size of the event in the log, in bytes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.payload.len() as u64 + OVERHEAD
    }

    /// The headers of the event's message.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, self.id.to_string());
        if let Some((filter, sequence)) = &self.expected {
            headers.insert(EXPECTED_SEQUENCE, sequence.to_string());
            headers.insert(EXPECTED_FILTER, filter.as_str());
        }
        headers
    }

    fn message(&self) -> PublishMessage {
        PublishMessage::build().headers(self.headers()).payload(self.payload.clone())
    }
}

/// The connection over which events are appended to the log.
#[derive(Debug, Clone)]
pub struct Log {
    pub(super) js: jetstream::Context,
    pub(super) patience: Duration,
}

/// An append that has been sent.
#[derive(Debug)]
#[must_use = "an append counts once it is stored"]
pub struct Pending {
    log: Log,
    append: Append,
    ack: Result<PublishAckFuture, PublishError>,
    /// The number of the connection over which the append was sent.
    connection: u64,
    since: Instant,
}

impl Log {
    /// Appends over this context. An append without an acknowledgement is tried again for as long as `patience`.
    #[must_use]
    pub const fn new(js: jetstream::Context, patience: Duration) -> Self {
        Self { js, patience }
    }

    /// The JetStream context, to read from.
    #[must_use]
    pub const fn js(&self) -> &jetstream::Context {
        &self.js
    }

    /// Appends an event, and returns its sequence once it is stored.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn append(&self, append: Append) -> Result<u64, Error> {
        self.send(append).await.stored().await
    }

    /// Sends an event without waiting, so that several appends can be in progress. They are stored in the order in which they were sent.
    pub async fn send(&self, append: Append) -> Pending {
        let connection = connection(&self.js.client());
        let ack = self.publish(&append).await;
        Pending {
            log: self.clone(),
            append,
            ack,
            connection,
            since: Instant::now(),
        }
    }

    async fn publish(&self, append: &Append) -> Result<PublishAckFuture, PublishError> {
        self.js.send_publish(append.subject.clone(), append.message()).await
    }

    /// Whether the event of this append is already in the log, although the server reports that the expected sequence is passed. An
    /// earlier try of this append may have been stored without a received acknowledgement.
    ///
    /// `last` is the sequence that the server compared with. The answer must reach it; otherwise it came from a replica that lags behind.
    pub(super) async fn find_own(&self, append: &Append, last: u64) -> Result<Option<u64>, Indeterminate> {
        let Some((filter, expected)) = &append.expected else {
            return Ok(None);
        };
        let stored = read::back_to(&self.js, EVENTS, filter, *expected).await?;
        let known = stored.last().map_or(0, |message| message.sequence);
        let id = append.id.to_string();
        match stored.into_iter().find(|message| message.message_id() == Some(id.as_str())) {
            Some(own) => Ok(Some(own.sequence)),
            // If the log holds less than we remember, for example after a power failure, waiting does not help.
            None if known < last && *expected < last => Err(Indeterminate::Behind { known, last }),
            None => Ok(None),
        }
    }
}

impl Pending {
    /// Waits until the event is stored, and returns its sequence.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stored(mut self) -> Result<u64, Error> {
        let mut pause = PAUSE.0;
        loop {
            let error = match self.ack {
                Ok(ack) => match acknowledged(&self.log.js, ack, self.connection).await {
                    Ok(ack) => return Ok(ack.sequence),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if error.kind() == PublishErrorKind::WrongLastSequence {
                match self.log.find_own(&self.append, last_sequence(&error)).await {
                    Ok(own) => {
                        let (filter, expected) = self.append.expected.unwrap_or_default();
                        return own.ok_or(Error::Conflict { filter, expected });
                    }
                    // It is not known yet whether we won. Treating a stored event as a loss would leave an attempt without a worker.
                    Err(error) => warn!("cannot tell yet whether {} was stored: {error}", self.append.subject),
                }
            }
            if let Some(reason) = full(&error) {
                return Err(Error::Full { reason });
            }
            let tried = self.since.elapsed();
            if tried >= self.log.patience || error.kind() == PublishErrorKind::MaxPayloadExceeded {
                return Err(Error::Unacknowledged {
                    subject: self.append.subject,
                    tried,
                    source: error,
                });
            }
            warn!("no acknowledgement for {} yet ({error}); trying again", self.append.subject);
            let jitter = rand::rng().random_range(0.5..1.0);
            tokio::time::sleep(pause.mul_f32(jitter)).await;
            pause = (pause * 2).min(PAUSE.1);
            self.connection = connection(&self.log.js.client());
            self.ack = self.log.publish(&self.append).await;
        }
    }
}

/// Waits for an acknowledgement, unless the connection of its publish is gone: then no acknowledgement can arrive.
async fn acknowledged(js: &jetstream::Context, ack: PublishAckFuture, connection: u64) -> Result<PublishAck, PublishError> {
    let acknowledged = unless_reconnected(&js.client(), connection, ack.into_future()).await;
    acknowledged.unwrap_or_else(|| Err(PublishErrorKind::BrokenPipe.into()))
}

/// Why it is not known yet which writer was first.
#[derive(Debug, thiserror::Error)]
pub(super) enum Indeterminate {
    #[error(transparent)]
    Read(#[from] read::Error),
    #[error("the server that answered knows sequence {known} as the last one, but it is {last}")]
    Behind { known: u64, last: u64 },
}

/// The last sequence that the server's error message names ("wrong last sequence: 17"); 0 if it names none.
fn last_sequence(error: &PublishError) -> u64 {
    let words = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    sequence_in(&words).unwrap_or(0)
}

pub(super) fn sequence_in(words: &str) -> Option<u64> {
    let (_, rest) = words.split_once("wrong last sequence: ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The server's error message if a stream with `discard: new` is full (error 10077 for bytes, 10076 for resources).
fn full(error: &PublishError) -> Option<String> {
    let source = std::error::Error::source(error)?.downcast_ref::<jetstream::Error>()?;
    let text = source.to_string();
    (text.contains("maximum bytes exceeded") || text.contains("insufficient") || text.contains("resource limits exceeded")).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::sequence_in;

    #[test]
    fn the_last_sequence_is_read_from_the_servers_error() {
        assert_eq!(sequence_in("wrong last sequence: 1704 (code 400, error code 10071)"), Some(1704));
        assert_eq!(sequence_in("wrong last sequence (code 400, error code 10164)"), None);
        assert_eq!(sequence_in("maximum bytes exceeded"), None);
    }
}
