//! What the watcher reads of an event. It sees every one of the grid, so it reads no more than it needs.

use std::borrow::Cow;

use bus::{
    envelope::{Actor, DecodeError, Envelope},
    ids::{Attempt, EventId, JobId, Queue, SessionId, WorkerId},
    subjects::EventSubject,
    worker::WorkerEvent,
};
use serde::Deserialize;
use serde_json::value::RawValue;

/// How a submission begins, as it is stored. It carries what is to be run, and means nothing here, so it is not read further.
const SUBMITTED: &[u8] = br#"{"type":"job.submitted.v1""#;

/// What an event means to the watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A worker took a job.
    Claimed(Try),
    /// A worker ended its attempt.
    Finished(Try),
    /// An attempt was given up, or the whole job ended without its worker.
    Closed {
        /// Which job.
        job: JobId,
        /// Which try at it; none for every one.
        attempt: Option<Attempt>,
    },
    /// A worker began a session; any other session of it is over.
    Registered {
        /// Which worker.
        worker: WorkerId,
        /// The session that began.
        session: SessionId,
        /// The queues that it serves.
        queues: Vec<Queue>,
        /// The event.
        event: EventId,
    },
    /// A session was given up, or ended in good order.
    Ended {
        /// Which worker.
        worker: WorkerId,
        /// The session that is over.
        session: SessionId,
        /// Whether it was given up.
        lost: bool,
        /// The event.
        event: EventId,
    },
}

impl Seen {
    pub(crate) const fn is_of_worker(&self) -> bool {
        matches!(self, Self::Registered { .. } | Self::Ended { .. })
    }
}

/// One attempt, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// The job.
    pub job: JobId,
    /// Which try at it.
    pub attempt: Attempt,
    /// The worker that makes it.
    pub worker: WorkerId,
    /// That worker's session.
    pub session: SessionId,
}

#[derive(Deserialize)]
struct Slim<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Named<'a> {
    attempt: Attempt,
    session: SessionId,
    #[serde(default, borrow)]
    worker: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct GivenUp {
    attempt: Attempt,
}

/// Reads an event; nothing where it means nothing to the watcher, or where its speaker may not say it.
///
/// # Errors
/// If it is not an event, or of a type that this program does not know.
pub fn read(subject: &str, payload: &[u8]) -> Result<Option<Seen>, DecodeError> {
    match EventSubject::parse(subject) {
        Some(EventSubject::Job { .. }) if payload.starts_with(SUBMITTED) => Ok(None),
        Some(EventSubject::Job { job, speaker, .. }) => of_job(job, speaker, payload),
        Some(EventSubject::Worker(worker)) => of_worker(worker, payload),
        None => Ok(None),
    }
}

fn of_job(job: JobId, speaker: Option<Actor>, payload: &[u8]) -> Result<Option<Seen>, DecodeError> {
    let slim: Slim<'_> = serde_json::from_slice(payload).map_err(DecodeError::Envelope)?;
    Ok(match (&*slim.r#type, speaker) {
        ("job.claimed.v1", Some(Actor::Worker(worker))) => {
            let claimed: Named<'_> = slim.data()?;
            (claimed.worker.as_deref() == Some(worker.as_str())).then(|| Seen::Claimed(claimed.of(job, worker)))
        }
        ("job.finished.v1", Some(Actor::Worker(worker))) => Some(Seen::Finished(slim.data::<Named<'_>>()?.of(job, worker))),
        ("job.cancelled.v1", Some(Actor::Api | Actor::Watcher)) | ("job.expired.v1", Some(Actor::Watcher)) => {
            Some(Seen::Closed { job, attempt: None })
        }
        ("job.died.v1", Some(Actor::Watcher)) | ("job.rescheduled.v1", None) => Some(Seen::Closed {
            job,
            attempt: Some(slim.data::<GivenUp>()?.attempt),
        }),
        // These change nothing here, and what stands below was said by one who may not.
        (
            "job.started.v1"
            | "job.cancel_requested.v1"
            | "job.submitted.v1"
            | "job.rescheduled.v1"
            | "job.released.v1"
            | "job.requeued.v1"
            | "job.claimed.v1"
            | "job.finished.v1"
            | "job.cancelled.v1"
            | "job.died.v1"
            | "job.expired.v1",
            _,
        ) => None,
        (unknown, _) => return Err(DecodeError::UnknownType { kind: unknown.to_owned() }),
    })
}

impl<'a> Slim<'a> {
    fn data<T: Deserialize<'a>>(&self) -> Result<T, DecodeError> {
        serde_json::from_str(self.data.get()).map_err(|source| DecodeError::Data {
            kind: self.r#type.clone().into_owned(),
            source,
        })
    }
}

impl Named<'_> {
    fn of(&self, job: JobId, worker: WorkerId) -> Try {
        Try {
            job,
            attempt: self.attempt,
            worker,
            session: self.session,
        }
    }
}

fn of_worker(worker: WorkerId, payload: &[u8]) -> Result<Option<Seen>, DecodeError> {
    let envelope = Envelope::<WorkerEvent>::from_json(payload)?;
    let event = envelope.id;
    Ok(Some(match envelope.event {
        WorkerEvent::Registered(registered) => Seen::Registered {
            worker,
            session: registered.session,
            queues: registered.queues,
            event,
        },
        WorkerEvent::Lost(lost) => Seen::Ended {
            worker,
            session: lost.session,
            lost: true,
            event,
        },
        WorkerEvent::Left(left) => Seen::Ended {
            worker,
            session: left.session,
            lost: false,
            event,
        },
        WorkerEvent::Restarting(_) | WorkerEvent::Cordoned(_) | WorkerEvent::Uncordoned(_) => return Ok(None),
    }))
}
