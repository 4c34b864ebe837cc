//! The part of the state that is the fold of the log, as a snapshot stores it.
//!
//! Heartbeats are not in it: every silence counts from the start, as after reading the whole log.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bus::{
    batch::{BatchSubmitted, Phase},
    ids::{Attempt, BatchId, Digest, EventId, JobId, Namespace, Queue, SessionId, WorkerId},
    job::LossCause,
    worker::Heartbeat,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Ended, Held, Session, State, Worker};
use crate::{
    observation::SessionKey,
    timers::{Conditions, Timer},
    windows::{Slot, Window, Windows},
};

/// A state without heartbeats and connections.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Saved {
    workers: Vec<SavedWorker>,
    sessions: Vec<SavedSession>,
    timers: Vec<SavedTimer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    batches: Vec<SavedBatch>,
}

/// A member, the attempt that may be claimed, and the attempt that a session holds.
type SavedSlot = (u32, Option<Attempt>, Option<(Attempt, WorkerId, SessionId)>);

/// A tracked batch. Its members are known by their numbers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedBatch {
    id: BatchId,
    namespace: Namespace,
    sequence: u64,
    submitted: BatchSubmitted,
    phase: Phase,
    next: u32,
    gone: BTreeSet<u32>,
    slots: Vec<SavedSlot>,
    pausing: BTreeSet<u32>,
    again: BTreeSet<u32>,
    ended: u32,
    failures: u32,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedWorker {
    id: WorkerId,
    sequence: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    queues: Vec<Queue>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedSession {
    worker: WorkerId,
    id: SessionId,
    registered: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<(LossCause, EventId, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_beat: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    self_fence: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    away_until: Option<DateTime<Utc>>,
    /// Attempts, and the sequences of their claims.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held: Vec<(JobId, Attempt, u64)>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedTimer {
    job: JobId,
    sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Attempt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<(Attempt, WorkerId, SessionId)>,
    /// The jobs that it still depends on, and when it may start after them. They are checked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<(Vec<JobId>, Option<DateTime<Utc>>)>,
}

impl State {
    pub(crate) fn saved(&self) -> Saved {
        let mut saved = Saved {
            workers: self.workers.iter().map(|(id, worker)| saved_worker(id, worker)).collect(),
            sessions: self.sessions.iter().map(|(key, session)| saved_session(key, session)).collect(),
            timers: self.timers.all().map(|(job, timer)| saved_timer(*job, timer)).collect(),
            batches: self.windows.all().map(|(id, window)| saved_batch(*id, window)).collect(),
        };
        // Sorted, so that equal states have equal snapshots.
        saved.workers.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        saved.sessions.sort_unstable_by(|a, b| (&a.worker, a.id).cmp(&(&b.worker, b.id)));
        saved.timers.sort_unstable_by_key(|timer| timer.job);
        saved.batches.sort_unstable_by_key(|batch| batch.id);
        saved
    }

    /// A state from a snapshot. Every silence counts from now.
    pub(crate) fn restored(saved: Saved, now: Instant) -> Self {
        let mut state = Self::new(now);
        for worker in saved.workers {
            let known = state.workers.entry(worker.id).or_default();
            (known.sequence, known.queues) = (worker.sequence, worker.queues);
        }
        for session in saved.sessions {
            state.restore(session, now);
        }
        for timer in saved.timers {
            let conditions = timer.after.map(|(open, not_before)| Box::new(Conditions::new(open, not_before)));
            let holder = timer
                .holder
                .map(|(attempt, worker, session)| Box::new((attempt, (worker, session))));
            let (sequence, at, next) = (timer.sequence, timer.at, timer.next);
            state.timers.set(
                timer.job,
                Timer {
                    sequence,
                    at,
                    next,
                    holder,
                    conditions,
                },
            );
        }
        for batch in saved.batches {
            state.windows.insert(batch.id, restored_batch(batch));
        }
        state
    }

    fn restore(&mut self, saved: SavedSession, now: Instant) {
        let key = (saved.worker, saved.id);
        for (job, attempt, _) in &saved.held {
            self.holders.entry(*job).or_default().insert((*attempt, key.clone()));
        }
        let worker = self.workers.entry(key.0.clone()).or_default();
        worker.sessions += 1;
        if saved.ended.is_none() {
            worker.live.insert(key.1);
        }
        match &saved.ended {
            Some((_, _, sequence)) if saved.held.is_empty() => drop(self.over.insert((*sequence, key.clone()))),
            _ => drop(self.open.insert(key.clone())),
        }
        let held = saved.held.into_iter().map(|(job, attempt, claimed)| {
            let held = Held { claimed, absence: None };
            ((job, attempt), held)
        });
        let session = Session {
            registered: saved.registered,
            ended: saved.ended.map(|(cause, event, sequence)| Ended { cause, event, sequence }),
            heard: now,
            next: Heartbeat::IDLE_PERIOD,
            busy_since: None,
            last_beat: saved.last_beat,
            self_fence: saved.self_fence,
            away_until: saved.away_until,
            held: held.collect(),
        };
        self.sessions.insert(key, session);
    }
}

fn saved_worker(id: &WorkerId, worker: &Worker) -> SavedWorker {
    SavedWorker {
        id: id.clone(),
        sequence: worker.sequence,
        queues: worker.queues.clone(),
    }
}

fn saved_session((worker, id): &SessionKey, session: &Session) -> SavedSession {
    let held = session.held.iter().map(|((job, attempt), held)| (*job, *attempt, held.claimed));
    SavedSession {
        worker: worker.clone(),
        id: *id,
        registered: session.registered,
        ended: session
            .ended
            .as_ref()
            .map(|ended| (ended.cause.clone(), ended.event, ended.sequence)),
        last_beat: session.last_beat,
        self_fence: session.self_fence,
        away_until: session.away_until,
        held: held.collect(),
    }
}

fn saved_timer(job: JobId, timer: &Timer) -> SavedTimer {
    let holder = timer.holder.as_deref().cloned();
    let conditions = timer.conditions.as_deref();
    SavedTimer {
        job,
        sequence: timer.sequence,
        at: timer.at,
        next: timer.next,
        holder: holder.map(|(attempt, (worker, session))| (attempt, worker, session)),
        after: conditions.map(|conditions| (conditions.open.keys().copied().collect(), conditions.not_before)),
    }
}

fn saved_batch(id: BatchId, window: &Window) -> SavedBatch {
    let slot = |(index, slot): (&u32, &Slot)| {
        let holder = slot.holder.clone();
        (
            *index,
            slot.next,
            holder.map(|(attempt, (worker, session))| (attempt, worker, session)),
        )
    };
    SavedBatch {
        id,
        namespace: window.namespace.clone(),
        sequence: window.sequence,
        // Only what the window needs.
        submitted: BatchSubmitted {
            name: String::new(),
            total: window.total,
            parallel: window.parallel,
            max_failures: window.max_failures,
            fail_fast: window.fail_fast,
            retry_of: None,
            sha256: Digest::of(b""),
        },
        phase: window.phase.clone(),
        next: window.next,
        gone: window.gone.clone(),
        slots: window.slots.iter().map(slot).collect(),
        pausing: window.pausing.clone(),
        again: window.again.clone(),
        ended: window.ended,
        failures: window.failures,
    }
}

fn restored_batch(saved: SavedBatch) -> Window {
    let slot = |(index, next, holder): SavedSlot| {
        let holder = holder.map(|(attempt, worker, session)| (attempt, (worker, session)));
        (index, Slot { next, holder })
    };
    Window {
        phase: saved.phase,
        next: saved.next,
        gone: saved.gone,
        slots: saved.slots.into_iter().map(slot).collect(),
        pausing: saved.pausing,
        again: saved.again,
        ended: saved.ended,
        failures: saved.failures,
        ..Windows::blank(saved.namespace, saved.sequence, &saved.submitted)
    }
}
