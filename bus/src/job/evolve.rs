//! From events to the state of a job.

use chrono::{DateTime, Utc};

use super::{AttemptEnd, AttemptRecord, Cancelled, Claimed, End, Finished, Job, JobEvent, LossCause, Phase, Recorded, Returned, Started};
use crate::{
    envelope::Actor,
    ids::{Attempt, SessionId},
    spec::{JobSpec, policy::later},
};

impl Job {
    /// Folds one recorded event into a job; `None` before the job's first event.
    ///
    /// An event that its publisher is not permitted to publish, or that does not follow from the job's phase, changes only the sequence.
    /// The log has many writers, and a wrong event from one of them must not break the fold for all readers.
    #[must_use]
    pub fn evolve(job: Option<Self>, recorded: &Recorded) -> Option<Self> {
        let Some(mut job) = job else { return Self::create(recorded) };
        job.sequence = recorded.sequence;
        if is_permitted(recorded) {
            job.apply(recorded);
        }
        Some(job)
    }

    /// Folds a whole history, oldest event first.
    #[must_use]
    pub fn replay<'a>(history: impl IntoIterator<Item = &'a Recorded>) -> Option<Self> {
        history.into_iter().fold(None, Self::evolve)
    }

    /// The job as a worker receives it: from an event on a ready subject, which is the only kind of event that carries the spec.
    ///
    /// The earlier attempts of a rescheduled job are missing. No decision of a worker needs them.
    #[must_use]
    pub fn from_ready(recorded: &Recorded) -> Option<Self> {
        let (spec, next, failures, deadline) = match &recorded.envelope.event {
            JobEvent::Submitted(_) => return Self::create(recorded),
            JobEvent::Rescheduled(event) => (&event.spec, event.attempt.next(), event.failures, event.deadline),
            JobEvent::Released(event) => (&event.spec, event.attempt, event.failures, event.deadline),
            JobEvent::Requeued(event) => (&event.spec, event.attempt, 0, deadline(&event.spec, recorded)),
            _ => return None,
        };
        Some(Self {
            phase: Phase::Queued { next },
            failures,
            deadline,
            ..Self::new(spec, recorded)
        })
    }

    fn new(spec: &JobSpec, recorded: &Recorded) -> Self {
        let time = recorded.envelope.time;
        let phase = match &spec.start {
            Some(start) => Phase::Held {
                until: start.not_before(time),
            },
            None => Phase::Queued { next: Attempt::FIRST },
        };
        Self {
            id: recorded.job,
            namespace: recorded.namespace.clone(),
            spec: spec.clone(),
            submitted_at: time,
            cancel_requested: None,
            phase,
            ready_at: time,
            deadline: deadline(spec, recorded),
            failures: 0,
            losses: 0,
            attempts: Vec::new(),
            ended_at: None,
            sequence: recorded.sequence,
        }
    }

    fn create(recorded: &Recorded) -> Option<Self> {
        let JobEvent::Submitted(submitted) = &recorded.envelope.event else {
            return None;
        };
        is_permitted(recorded).then(|| Self::new(&submitted.spec, recorded))
    }

    fn apply(&mut self, recorded: &Recorded) {
        match &recorded.envelope.event {
            JobEvent::Submitted(_) => {}
            JobEvent::Claimed(event) => self.apply_claimed(event, recorded),
            JobEvent::Started(event) => self.apply_started(event, recorded),
            JobEvent::Finished(event) => self.apply_finished(event, recorded),
            JobEvent::Returned(event) => self.apply_returned(event, recorded),
            JobEvent::Rescheduled(event) => {
                if self.apply_loss(event.attempt, &event.cause, recorded) {
                    self.losses += u32::from(event.cause.counts());
                    self.ready(event.attempt.next(), recorded);
                }
            }
            JobEvent::CancelRequested(event) => {
                if !matches!(self.phase, Phase::Ended(_)) {
                    self.note_cancel_request(event.reason.as_ref(), recorded);
                }
            }
            JobEvent::Cancelled(event) => self.apply_cancelled(event, recorded),
            JobEvent::Died(event) => {
                if self.apply_loss(event.attempt, &event.cause, recorded) {
                    self.losses += 1;
                    self.end(End::Dead(event.cause.clone()), recorded);
                }
            }
            JobEvent::Released(event) => {
                let next = match self.phase {
                    Phase::Held { .. } => Attempt::FIRST,
                    Phase::Retrying { next, .. } => next,
                    _ => return,
                };
                if event.attempt == next {
                    self.ready(next, recorded);
                }
            }
            JobEvent::Expired(event) => {
                if matches!(self.phase, Phase::Held { .. } | Phase::Queued { .. } | Phase::Retrying { .. }) {
                    let (clock, limit_ms) = (event.clock, event.limit_ms);
                    self.end(End::Expired { clock, limit_ms }, recorded);
                }
            }
            JobEvent::Requeued(event) => {
                let next = self.attempts.last().map_or(Attempt::FIRST, |last| last.number.next());
                if matches!(self.phase, Phase::Ended(End::Dead(_) | End::Expired { .. })) && event.attempt == next {
                    (self.failures, self.losses, self.ended_at) = (0, 0, None);
                    self.deadline = deadline(&event.spec, recorded);
                    self.ready(next, recorded);
                }
            }
        }
    }

    fn apply_claimed(&mut self, event: &Claimed, recorded: &Recorded) {
        if matches!(self.phase, Phase::Queued { next } if next == event.attempt) {
            self.phase = Phase::Claimed { attempt: event.attempt };
            self.attempts.push(AttemptRecord {
                number: event.attempt,
                worker: event.worker.clone(),
                session: event.session,
                claimed_at: recorded.envelope.time,
                started_at: None,
                executor: None,
                environment: None,
                ended_at: None,
                end: None,
            });
        }
    }

    fn apply_started(&mut self, event: &Started, recorded: &Recorded) {
        if matches!(self.phase, Phase::Claimed { .. })
            && let Some(attempt) = self.reported_attempt(event.attempt, Some(event.session), recorded)
        {
            attempt.started_at = Some(recorded.envelope.time);
            attempt.executor = Some(event.executor);
            attempt.environment.clone_from(&event.environment);
            self.phase = Phase::Running { attempt: event.attempt };
        }
    }

    fn apply_finished(&mut self, event: &Finished, recorded: &Recorded) {
        let time = recorded.envelope.time;
        if let Some(attempt) = self.reported_attempt(event.attempt, Some(event.session), recorded) {
            attempt.ended_at = Some(time);
            let next = attempt.number.next();
            attempt.end = Some(AttemptEnd::Finished(Box::new(event.clone())));
            if let Some(pause) = event.retry_after_ms {
                self.failures = self.failures.saturating_add(1);
                let due = later(time, pause);
                self.phase = Phase::Retrying { next, due: Some(due) };
            } else {
                self.end(End::Finished(event.outcome.clone()), recorded);
            }
        }
    }

    fn apply_returned(&mut self, event: &Returned, recorded: &Recorded) {
        // A job that is to be cancelled cannot be returned: it would run again.
        if (event.interrupted || matches!(self.phase, Phase::Claimed { .. }))
            && self.cancel_requested.is_none()
            && let Some(attempt) = self.reported_attempt(event.attempt, Some(event.session), recorded)
        {
            attempt.ended_at = Some(recorded.envelope.time);
            attempt.end = Some(match event.interrupted {
                false => AttemptEnd::Returned,
                true => AttemptEnd::Interrupted,
            });
            let next = attempt.number.next();
            self.phase = Phase::Retrying { next, due: None };
        }
    }

    /// Ends the current attempt as lost, if the event names it, and returns whether it does.
    fn apply_loss(&mut self, attempt: Attempt, cause: &LossCause, recorded: &Recorded) -> bool {
        let Some(attempt) = self.reported_attempt(attempt, None, recorded) else {
            return false;
        };
        attempt.ended_at = Some(recorded.envelope.time);
        attempt.end = Some(AttemptEnd::Lost(cause.clone()));
        true
    }

    fn apply_cancelled(&mut self, event: &Cancelled, recorded: &Recorded) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        if let Some(live) = self.live_attempt().map(|live| live.number) {
            for attempt in self.attempts.iter_mut().filter(|attempt| attempt.number == live) {
                attempt.ended_at = Some(recorded.envelope.time);
                attempt.end = Some(AttemptEnd::Cancelled);
            }
        }
        self.note_cancel_request(event.reason.as_ref(), recorded);
        self.end(End::Cancelled, recorded);
    }

    /// Keeps the first request to cancel the job.
    fn note_cancel_request(&mut self, reason: Option<&String>, recorded: &Recorded) {
        self.cancel_requested
            .get_or_insert_with(|| (recorded.envelope.time, reason.cloned()));
    }

    fn ready(&mut self, next: Attempt, recorded: &Recorded) {
        self.phase = Phase::Queued { next };
        self.ready_at = recorded.envelope.time;
    }

    /// The current attempt, if the event names it and, where the event names a session, if that session's worker published it.
    fn reported_attempt(&mut self, attempt: Attempt, session: Option<SessionId>, recorded: &Recorded) -> Option<&mut AttemptRecord> {
        if !matches!(self.phase, Phase::Claimed { .. } | Phase::Running { .. }) {
            return None;
        }
        let live = self.attempts.last_mut()?;
        let is_from_its_worker = match (session, &recorded.publisher) {
            (None, _) => true,
            (Some(session), Some(Actor::Worker(worker))) => live.session == session && live.worker == *worker,
            (Some(_), _) => false,
        };
        (live.number == attempt && is_from_its_worker).then_some(live)
    }

    fn end(&mut self, end: End, recorded: &Recorded) {
        self.phase = Phase::Ended(end);
        self.ended_at = Some(recorded.envelope.time);
    }
}

impl Recorded {
    /// Whether this event creates a job.
    #[must_use]
    pub fn begins(&self) -> bool {
        matches!(self.envelope.event, JobEvent::Submitted(_)) && is_permitted(self)
    }
}

/// The deadline of a job that this event accepts or revives.
fn deadline(spec: &JobSpec, recorded: &Recorded) -> Option<DateTime<Utc>> {
    spec.total_timeout_ms.map(|limit| later(recorded.envelope.time, limit))
}

/// Whether the publisher that the subject names is permitted to publish this event.
fn is_permitted(recorded: &Recorded) -> bool {
    match (&recorded.envelope.event, &recorded.publisher) {
        (JobEvent::Submitted(event), publisher) => match event.spec.start {
            None => publisher.is_none(),
            Some(_) => *publisher == Some(Actor::Api),
        },
        (JobEvent::Rescheduled(_) | JobEvent::Released(_) | JobEvent::Requeued(_), None)
        | (JobEvent::CancelRequested(_) | JobEvent::Cancelled(_), Some(Actor::Api | Actor::Watcher))
        | (JobEvent::Died(_) | JobEvent::Expired(_), Some(Actor::Watcher)) => true,
        (JobEvent::Claimed(claimed), Some(Actor::Worker(worker))) => claimed.worker == *worker,
        (JobEvent::Started(_) | JobEvent::Finished(_) | JobEvent::Returned(_), Some(Actor::Worker(_))) => true,
        (
            JobEvent::Claimed(_)
            | JobEvent::Started(_)
            | JobEvent::Finished(_)
            | JobEvent::Returned(_)
            | JobEvent::Rescheduled(_)
            | JobEvent::CancelRequested(_)
            | JobEvent::Cancelled(_)
            | JobEvent::Died(_)
            | JobEvent::Released(_)
            | JobEvent::Expired(_)
            | JobEvent::Requeued(_),
            _,
        ) => false,
    }
}
