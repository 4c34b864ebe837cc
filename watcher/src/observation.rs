//! What the watcher decodes of an event. It reads every event of the grid, so it decodes no more than it needs.

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

/// How a stored submission begins. It contains the whole job specification, and most submissions change nothing here, so they are
/// not decoded.
const SUBMITTED: &[u8] = br#"{"type":"job.submitted.v1""#;
/// What a submission contains that matters here: a start condition, or a time limit that counts while the job waits.
static RELEVANT: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| [Finder::new(br#""start":"#), Finder::new(br#"_timeout_ms":"#)]);
/// The longest that a runner may be away for a restart.
const AWAY_MAX: TimeDelta = TimeDelta::hours(1);

/// A session, and the worker that it belongs to. A worker cannot report for another worker's session by naming it.
pub(crate) type SessionKey = (WorkerId, SessionId);

/// What an event changes for the watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// A worker claimed a job.
    Claimed(HeldAttempt),
    /// A worker ended its attempt, and with it the job.
    Finished(HeldAttempt, Ending),
    /// An attempt failed, and the job is to be tried again.
    Failed(HeldAttempt),
    /// A worker gave its attempt back. Whether it still held the attempt is decided on the log; until then it counts as held.
    Returned {
        /// Which job.
        job: JobId,
    },
    /// A job waits for a worker, or for a condition.
    Waits(Box<WaitingJob>),
    /// An attempt was given up, or the job ended without its worker.
    Closed {
        /// Which job.
        job: JobId,
        /// Which attempt; none for every attempt.
        attempt: Option<Attempt>,
        /// Whether that counts as a failure: no user requested it.
        failed: bool,
    },
    /// Something happened to a batch.
    Batch {
        /// The batch's namespace.
        namespace: Namespace,
        /// Which batch.
        batch: BatchId,
        /// What happened.
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
        /// After how long without an acknowledged heartbeat the runner ends its attempts on its own, if it does.
        self_fence: Option<Duration>,
        /// The event.
        event: EventId,
    },
    /// A session's runner announced a restart; the session goes on after it.
    Restarting {
        /// Which worker.
        worker: WorkerId,
        /// The session that goes on after that.
        session: SessionId,
        /// Until when its silence does not count.
        until: DateTime<Utc>,
    },
    /// Another event of a worker. It only matters as that worker's last one.
    WorkerChanged {
        /// Which worker.
        worker: WorkerId,
    },
    /// An event of a batch that cannot be read. It only matters as that batch's last one.
    BatchChanged {
        /// Which batch.
        batch: BatchId,
    },
    /// A session was declared lost, or ended on its own.
    SessionEnded {
        /// Which worker.
        worker: WorkerId,
        /// The session that is over.
        session: SessionId,
        /// Whether it was declared lost.
        lost: bool,
        /// The event.
        event: EventId,
    },
}

impl Observation {
    /// Whether a session began or ended.
    pub(crate) const fn is_session_change(&self) -> bool {
        matches!(self, Self::Registered { .. } | Self::SessionEnded { .. })
    }

    /// The job that this event may have ended.
    pub(crate) const fn ended_job(&self) -> Option<JobId> {
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
    /// With success.
    Succeeded,
    /// With a failure.
    Failed,
    /// Because a user cancelled it.
    Cancelled,
}

/// A job that waits until a worker claims it, or until a condition is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingJob {
    /// Which job.
    pub job: JobId,
    /// The attempt that a worker may claim, the one before it being over; none while it is held.
    pub next: Option<Attempt>,
    /// When its next time limit or delay is over.
    pub due: Option<DateTime<Utc>>,
    /// The jobs that it depends on.
    pub after: Vec<JobId>,
    /// When it may start once these have ended.
    pub not_before: Option<DateTime<Utc>>,
}

/// An attempt, and the session that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldAttempt {
    /// The job.
    pub job: JobId,
    /// Which attempt.
    pub attempt: Attempt,
    /// The worker that runs it.
    pub worker: WorkerId,
    /// That worker's session.
    pub session: SessionId,
}

impl HeldAttempt {
    /// The session that holds it.
    pub(crate) fn key(&self) -> SessionKey {
        (self.worker.clone(), self.session)
    }
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct AttemptData<'a> {
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
struct DiedData {
    attempt: Attempt,
}

/// What an event that cannot be read changes: the next event of that worker or batch must be appended behind it. A job's events
/// are read from the log before anything is appended to it.
pub(crate) fn unreadable(subject: &str) -> Option<Observation> {
    match EventSubject::parse(subject)? {
        EventSubject::Worker(worker) => Some(Observation::WorkerChanged { worker }),
        EventSubject::Batch { batch, .. } => Some(Observation::BatchChanged { batch }),
        EventSubject::Job { .. } | EventSubject::Runtimes | EventSubject::Image(_) => None,
    }
}

/// Decodes an event; nothing if it changes nothing for the watcher, or if its actor may not publish it.
///
/// # Errors
/// If it is not an event, or of a type that this program does not know.
pub fn observe(subject: &str, payload: &[u8]) -> Result<Option<Observation>, DecodeError> {
    match EventSubject::parse(subject) {
        Some(EventSubject::Job { namespace, job, publisher }) if payload.starts_with(SUBMITTED) => {
            if RELEVANT.iter().all(|finder| finder.find(payload).is_none()) {
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
                .map(Observation::Waits))
        }
        Some(EventSubject::Job { namespace, job, publisher }) => {
            let raw: RawEvent<'_> = serde_json::from_slice(payload).map_err(DecodeError::Envelope)?;
            match (&*raw.r#type, &publisher) {
                ("job.rescheduled.v1" | "job.released.v1" | "job.requeued.v1", None) => Ok(waits(job::Recorded {
                    namespace,
                    job,
                    publisher,
                    sequence: 0,
                    envelope: Envelope::from_json(payload)?,
                })
                .map(Observation::Waits)),
                _ => observe_job(job, publisher, &raw),
            }
        }
        Some(EventSubject::Batch { namespace, batch }) => {
            let event = Envelope::from_json(payload)?.event;
            Ok(Some(Observation::Batch { namespace, batch, event }))
        }
        Some(EventSubject::Worker(worker)) => observe_worker(worker, payload).map(Some),
        Some(EventSubject::Runtimes | EventSubject::Image(_)) | None => Ok(None),
    }
}

/// What a job waits for after an event that contains its specification.
#[allow(clippy::needless_pass_by_value, reason = "it is made for this")]
fn waits(recorded: job::Recorded) -> Option<Box<WaitingJob>> {
    let job = Job::from_ready(&recorded)?;
    let (next, not_before) = match job.phase {
        Phase::Queued { next } => (Some(next), None),
        Phase::Held { until } => (None, until),
        _ => (None, None),
    };
    Some(Box::new(WaitingJob {
        job: job.id,
        next,
        due: job.due().map(|due| due.at),
        after: job.dependencies().iter().map(|dependency| dependency.job).collect(),
        not_before,
    }))
}

fn observe_job(job: JobId, publisher: Option<Actor>, raw: &RawEvent<'_>) -> Result<Option<Observation>, DecodeError> {
    Ok(match (&*raw.r#type, publisher) {
        ("job.claimed.v1", Some(Actor::Worker(worker))) => {
            let claimed: AttemptData<'_> = raw.data()?;
            (claimed.worker.as_deref() == Some(worker.as_str())).then(|| Observation::Claimed(claimed.of(job, worker)))
        }
        ("job.finished.v1", Some(Actor::Worker(worker))) => {
            let finished = raw.data::<AttemptData<'_>>()?;
            let end = finished.of(job, worker);
            Some(match finished.retry_after_ms {
                Some(_) => Observation::Failed(end),
                None => Observation::Finished(end, finished.ending()),
            })
        }
        ("job.returned.v1", Some(Actor::Worker(_))) => Some(Observation::Returned { job }),
        ("job.cancelled.v1", Some(Actor::Api | Actor::Watcher)) => Some(Observation::Closed {
            job,
            attempt: None,
            failed: false,
        }),
        ("job.expired.v1", Some(Actor::Watcher)) => Some(Observation::Closed {
            job,
            attempt: None,
            failed: true,
        }),
        ("job.died.v1", Some(Actor::Watcher)) => Some(Observation::Closed {
            job,
            attempt: Some(raw.data::<DiedData>()?.attempt),
            failed: true,
        }),
        // The first three change nothing here, and the others were published by an actor that may not publish them.
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

impl<'a> RawEvent<'a> {
    fn data<T: Deserialize<'a>>(&self) -> Result<T, DecodeError> {
        serde_json::from_str(self.data.get()).map_err(|source| DecodeError::Data {
            kind: self.r#type.clone().into_owned(),
            source,
        })
    }
}

impl AttemptData<'_> {
    fn ending(&self) -> Ending {
        match self.outcome.as_ref().map(|outcome| &*outcome.kind) {
            Some("succeeded") => Ending::Succeeded,
            Some("cancelled") => Ending::Cancelled,
            Some(_) | None => Ending::Failed,
        }
    }

    fn of(&self, job: JobId, worker: WorkerId) -> HeldAttempt {
        HeldAttempt {
            job,
            attempt: self.attempt,
            worker,
            session: self.session,
        }
    }
}

fn observe_worker(worker: WorkerId, payload: &[u8]) -> Result<Observation, DecodeError> {
    let envelope = Envelope::<WorkerEvent>::from_json(payload)?;
    let (event, time) = (envelope.id, envelope.time);
    Ok(match envelope.event {
        WorkerEvent::Registered(registered) => Observation::Registered {
            worker,
            session: registered.session,
            queues: registered.queues,
            self_fence: registered.self_fence_ms.map(Duration::from_millis),
            event,
        },
        WorkerEvent::Lost(lost) => Observation::SessionEnded {
            worker,
            session: lost.session,
            lost: true,
            event,
        },
        WorkerEvent::Left(left) => Observation::SessionEnded {
            worker,
            session: left.session,
            lost: false,
            event,
        },
        WorkerEvent::Restarting(restarting) => Observation::Restarting {
            worker,
            session: restarting.session,
            until: restarting.deadline.min(time.checked_add_signed(AWAY_MAX).unwrap_or(time)),
        },
        WorkerEvent::Cordoned(_) | WorkerEvent::Uncordoned(_) | WorkerEvent::Equipped(_) => Observation::WorkerChanged { worker },
    })
}
