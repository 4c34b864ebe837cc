//! What the watcher reads of an event. It sees every one of the grid, so it reads no more than it needs.

use std::{borrow::Cow, sync::LazyLock, time::Duration};

use bus::{
    batch::BatchEvent,
    envelope::{Actor, DecodeError, Envelope},
    ids::{Attempt, BatchId, EventId, JobId, Namespace, Queue, SessionId, WorkerId},
    job::{self, Job, Phase},
    subjects::EventSubject,
    worker::WorkerEvent,
};
use chrono::{DateTime, TimeDelta, Utc};
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

/// How a submission begins, as it is stored. It carries what is to be run, and most mean nothing here, so they are not read
/// further.
const SUBMITTED: &[u8] = br#"{"type":"job.submitted.v1""#;
/// What stands in a submission that does mean something: a condition, or the limit of a clock that runs while it waits.
static CLOCKED: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| [Finder::new(br#""start":"#), Finder::new(br#"_timeout_ms":"#)]);
/// The longest that a runner may be away for a restart.
const AWAY_MAX: TimeDelta = TimeDelta::hours(1);

/// What an event means to the watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A worker took a job.
    Claimed(Try),
    /// A worker ended its attempt, and with it the job.
    Finished(Try, Ending),
    /// A worker ended its attempt badly, and another is to be made.
    Failed(Try),
    /// A worker says that it gave its attempt back. Only the log tells whether it still could; until then it holds it.
    Returned {
        /// Which job.
        job: JobId,
    },
    /// A job waits for a worker, or for something to become true.
    Waits(Box<Waits>),
    /// An attempt was given up, or the whole job ended without its worker.
    Closed {
        /// Which job.
        job: JobId,
        /// Which try at it; none for every one.
        attempt: Option<Attempt>,
        /// Whether that counts as a failure: no user asked for it.
        failed: bool,
    },
    /// Something happened to a batch.
    Batch {
        /// Whose batch.
        namespace: Namespace,
        /// Which batch.
        batch: BatchId,
        /// What.
        event: BatchEvent,
    },
    /// A worker began a session; any other session of it is over.
    Registered {
        /// Which worker.
        worker: WorkerId,
        /// The session that began.
        session: SessionId,
        /// The queues that it serves.
        queues: Vec<Queue>,
        /// After how long without an acknowledged heartbeat it ends its attempts by itself, where it does.
        self_fence: Option<Duration>,
        /// The event.
        event: EventId,
    },
    /// A session's runner is about to be away, and comes back to what it left running.
    Restarting {
        /// Which worker.
        worker: WorkerId,
        /// The session that goes on after that.
        session: SessionId,
        /// Until when its silence does not count.
        until: DateTime<Utc>,
    },
    /// Something was said of a worker that changes nothing here, but for its being the last event of that worker.
    Said {
        /// Which worker.
        worker: WorkerId,
    },
    /// Something was said of a batch that cannot be read, and is its last event all the same.
    SaidOfBatch {
        /// Which batch.
        batch: BatchId,
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

    /// The job of which this may be the end.
    pub(crate) const fn may_end(&self) -> Option<JobId> {
        match self {
            Self::Finished(end, _) => Some(end.job),
            Self::Closed { job, .. } => Some(*job),
            _ => None,
        }
    }
}

/// How a job ended on its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Well.
    Well,
    /// Otherwise.
    Badly,
    /// Because that was asked for.
    Cancelled,
}

/// A job that stands in the log until a worker takes it, or something becomes true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// Which job.
    pub job: JobId,
    /// The attempt that a worker may claim, the one before it being over; none while it is held.
    pub next: Option<Attempt>,
    /// When time alone makes something true of it.
    pub due: Option<DateTime<Utc>>,
    /// The jobs whose end it waits for.
    pub after: Vec<JobId>,
    /// When it may start once these have ended.
    pub not_before: Option<DateTime<Utc>>,
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

impl Try {
    /// Whose it is.
    pub(crate) fn key(&self) -> (WorkerId, SessionId) {
        (self.worker.clone(), self.session)
    }
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
    #[serde(default)]
    retry_after_ms: Option<u64>,
    #[serde(default, borrow)]
    outcome: Option<Outcome<'a>>,
}

#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct GivenUp {
    attempt: Attempt,
}

/// What an event that cannot be read means: the next event of that worker or batch must stand behind it. What is
/// said of a job is read from the log before anything is appended.
pub(crate) fn unreadable(subject: &str) -> Option<Seen> {
    match EventSubject::parse(subject)? {
        EventSubject::Worker(worker) => Some(Seen::Said { worker }),
        EventSubject::Batch { batch, .. } => Some(Seen::SaidOfBatch { batch }),
        EventSubject::Job { .. } | EventSubject::Runtimes | EventSubject::Image(_) => None,
    }
}

/// Reads an event; nothing where it means nothing to the watcher, or where its publisher may not say it.
///
/// # Errors
/// If it is not an event, or of a type that this program does not know.
pub fn read(subject: &str, payload: &[u8]) -> Result<Option<Seen>, DecodeError> {
    match EventSubject::parse(subject) {
        Some(EventSubject::Job { namespace, job, publisher }) if payload.starts_with(SUBMITTED) => {
            if CLOCKED.iter().all(|finder| finder.find(payload).is_none()) {
                return Ok(None);
            }
            let waits = waits(job::Recorded {
                namespace,
                job,
                publisher,
                sequence: 0,
                envelope: Envelope::from_json(payload)?,
            });
            Ok(waits
                .filter(|waits| waits.due.is_some() || !waits.after.is_empty())
                .map(Seen::Waits))
        }
        Some(EventSubject::Job { namespace, job, publisher }) => {
            let slim: Slim<'_> = serde_json::from_slice(payload).map_err(DecodeError::Envelope)?;
            match (&*slim.r#type, &publisher) {
                ("job.rescheduled.v1" | "job.released.v1" | "job.requeued.v1", None) => Ok(waits(job::Recorded {
                    namespace,
                    job,
                    publisher,
                    sequence: 0,
                    envelope: Envelope::from_json(payload)?,
                })
                .map(Seen::Waits)),
                _ => of_job(job, publisher, &slim),
            }
        }
        Some(EventSubject::Batch { namespace, batch }) => {
            let event = Envelope::from_json(payload)?.event;
            Ok(Some(Seen::Batch { namespace, batch, event }))
        }
        Some(EventSubject::Worker(worker)) => of_worker(worker, payload).map(Some),
        Some(EventSubject::Runtimes | EventSubject::Image(_)) | None => Ok(None),
    }
}

/// What a job waits for after an event that tells what is to be run.
#[allow(clippy::needless_pass_by_value, reason = "it is made for this")]
fn waits(recorded: job::Recorded) -> Option<Box<Waits>> {
    let job = Job::from_ready(&recorded)?;
    let (next, not_before) = match job.phase {
        Phase::Queued { next } => (Some(next), None),
        Phase::Held { until } => (None, until),
        _ => (None, None),
    };
    Some(Box::new(Waits {
        job: job.id,
        next,
        due: job.due().map(|due| due.at),
        after: job.dependencies().iter().map(|dependency| dependency.job).collect(),
        not_before,
    }))
}

fn of_job(job: JobId, publisher: Option<Actor>, slim: &Slim<'_>) -> Result<Option<Seen>, DecodeError> {
    Ok(match (&*slim.r#type, publisher) {
        ("job.claimed.v1", Some(Actor::Worker(worker))) => {
            let claimed: Named<'_> = slim.data()?;
            (claimed.worker.as_deref() == Some(worker.as_str())).then(|| Seen::Claimed(claimed.of(job, worker)))
        }
        ("job.finished.v1", Some(Actor::Worker(worker))) => {
            let finished = slim.data::<Named<'_>>()?;
            let end = finished.of(job, worker);
            Some(match finished.retry_after_ms {
                Some(_) => Seen::Failed(end),
                None => Seen::Finished(end, finished.ending()),
            })
        }
        ("job.returned.v1", Some(Actor::Worker(_))) => Some(Seen::Returned { job }),
        ("job.cancelled.v1", Some(Actor::Api | Actor::Watcher)) => Some(Seen::Closed {
            job,
            attempt: None,
            failed: false,
        }),
        ("job.expired.v1", Some(Actor::Watcher)) => Some(Seen::Closed {
            job,
            attempt: None,
            failed: true,
        }),
        ("job.died.v1", Some(Actor::Watcher)) => Some(Seen::Closed {
            job,
            attempt: Some(slim.data::<GivenUp>()?.attempt),
            failed: true,
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
            | "job.returned.v1"
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
    fn ending(&self) -> Ending {
        match self.outcome.as_ref().map(|outcome| &*outcome.kind) {
            Some("succeeded") => Ending::Well,
            Some("cancelled") => Ending::Cancelled,
            Some(_) | None => Ending::Badly,
        }
    }

    fn of(&self, job: JobId, worker: WorkerId) -> Try {
        Try {
            job,
            attempt: self.attempt,
            worker,
            session: self.session,
        }
    }
}

fn of_worker(worker: WorkerId, payload: &[u8]) -> Result<Seen, DecodeError> {
    let envelope = Envelope::<WorkerEvent>::from_json(payload)?;
    let (event, time) = (envelope.id, envelope.time);
    Ok(match envelope.event {
        WorkerEvent::Registered(registered) => Seen::Registered {
            worker,
            session: registered.session,
            queues: registered.queues,
            self_fence: registered.self_fence_ms.map(Duration::from_millis),
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
        WorkerEvent::Restarting(restarting) => Seen::Restarting {
            worker,
            session: restarting.session,
            until: restarting.deadline.min(time.checked_add_signed(AWAY_MAX).unwrap_or(time)),
        },
        WorkerEvent::Cordoned(_) | WorkerEvent::Uncordoned(_) | WorkerEvent::Equipped(_) => Seen::Said { worker },
    })
}
