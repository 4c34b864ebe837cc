//! What the watcher knows: which sessions live, which attempts they hold, and which jobs and batches wait for what.

mod remember;
mod saved;
mod trust;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use bus::{
    ids::{Attempt, EventId, JobId, Queue, SessionId, WorkerId},
    job::LossCause,
    worker::Heartbeat,
};
use chrono::{DateTime, Utc};

pub(crate) use self::saved::Saved;
use crate::{
    connections::Connections,
    observation::{HeldAttempt, Observation, SessionKey},
    timers::Timers,
    windows::Windows,
};

/// The fold of the log and of the heartbeats.
///
/// Every attempt that is live in the log is in here. The reverse need not be so: an attempt in here may have been given up by another
/// watcher, or its claim may be invalid. That shows when it is to be given up, which is decided on the job's own history. So no
/// invalid event can hide a live attempt from the watcher.
#[derive(Debug, Clone)]
pub struct State {
    workers: HashMap<WorkerId, Worker>,
    sessions: HashMap<SessionKey, Session>,
    /// The sessions that hold attempts of each job.
    holders: HashMap<JobId, BTreeSet<(Attempt, SessionKey)>>,
    /// The sessions to plan for: those that live, and those that ended and still hold attempts.
    open: BTreeSet<SessionKey>,
    /// The sessions that ended and hold no attempt, by the sequence of their end: the last ones.
    over: BTreeSet<(u64, SessionKey)>,
    /// Silence before this moment does not count.
    trusted_since: Instant,
    /// When the last of the watcher's own heartbeats was sent that came back.
    canary: Option<Instant>,
    /// When the watcher last checked whether its own heartbeats come back.
    listened: Instant,
    connections: Connections,
    /// The end of a connection before this moment does not count.
    connections_since: Instant,
    pub(crate) timers: Timers,
    pub(crate) windows: Windows,
    /// What the wall clock showed at a moment. Without it, no timer is due.
    clock: Option<(Instant, DateTime<Utc>)>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Worker {
    /// The sequence of its last event, behind which the next one must be appended.
    pub(crate) sequence: u64,
    /// Its sessions that have not ended: one, unless a registration could not be read.
    live: BTreeSet<SessionId>,
    queues: Vec<Queue>,
    /// How many of its sessions are known, live or ended.
    sessions: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Whether its registration was read. If not, a newer program wrote it, or there is none.
    pub(crate) registered: bool,
    pub(crate) ended: Option<Ended>,
    /// When its last heartbeat came in, or when it was first known.
    heard: Instant,
    /// How long after its last heartbeat the next one is to come, as that heartbeat says.
    next: Duration,
    /// When it last claimed a job while it held none: from then on, it sends a heartbeat each second.
    busy_since: Option<Instant>,
    /// When its last heartbeat was sent, by the worker's clock.
    pub(crate) last_beat: Option<DateTime<Utc>>,
    /// After how long without an acknowledged heartbeat its runner ends its attempts on its own.
    pub(crate) self_fence: Option<Duration>,
    /// Until when its silence is excused by an announced restart.
    away_until: Option<DateTime<Utc>>,
    pub(crate) held: BTreeMap<(JobId, Attempt), Held>,
}

#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) cause: LossCause,
    pub(crate) event: EventId,
    /// The sequence of that event.
    pub(crate) sequence: u64,
}

impl Session {
    /// When it last showed that it lives: by a heartbeat, or by a claim while it held no attempt.
    pub(super) fn last_sign_of_life(&self) -> Instant {
        self.busy_since.map_or(self.heard, |since| since.max(self.heard))
    }

    /// How much longer it may be silent than a session that sends a heartbeat each second, as those do that hold attempts or fence
    /// themselves.
    pub(crate) fn allowance(&self) -> Duration {
        if self.held.is_empty() && self.self_fence.is_none() {
            self.next - Heartbeat::PERIOD
        } else {
            Duration::ZERO
        }
    }
}

/// An attempt that a session claimed and did not finish.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// The sequence of the claim.
    pub(crate) claimed: u64,
    pub(crate) absence: Option<Absence>,
}

/// Consecutive heartbeats that do not list an attempt which the session claimed before they were sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Absence {
    pub(crate) first: Instant,
    pub(crate) last: Instant,
}

impl State {
    /// An empty state. Every silence counts from now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            workers: HashMap::new(),
            sessions: HashMap::new(),
            holders: HashMap::new(),
            open: BTreeSet::new(),
            over: BTreeSet::new(),
            trusted_since: now,
            canary: None,
            listened: now,
            connections: Connections::default(),
            connections_since: now,
            timers: Timers::default(),
            windows: Windows::default(),
            clock: None,
        }
    }

    /// Folds an event at this sequence.
    pub fn fold(&mut self, sequence: u64, observation: &Observation, now: Instant) {
        match observation {
            Observation::Claimed(claim) => {
                self.claimed(sequence, claim, now);
                self.timers.claimed(sequence, claim);
                self.windows.claimed(claim);
            }
            Observation::Finished(end, ending) => {
                self.release(end.job, end.attempt, &end.key());
                self.timers.finished(end);
                self.windows.finished(end, *ending);
            }
            Observation::Failed(end) => {
                self.release(end.job, end.attempt, &end.key());
                self.timers.failed(sequence, end.job);
                self.windows.failed(end);
            }
            Observation::Returned { job } => self.timers.failed(sequence, *job),
            Observation::Waits(waits) => {
                if let Some(next) = waits.next {
                    self.close(waits.job, |attempt| attempt.next() == next);
                }
                self.timers.waits(sequence, waits);
                self.windows.waits(waits);
            }
            Observation::Closed { job, attempt, failed } => {
                self.windows.closed(*job, *attempt, *failed);
                self.close(*job, |held| attempt.is_none_or(|attempt| attempt == held));
                self.timers.forget(*job);
            }
            Observation::Batch { namespace, batch, event } => self.windows.batch(sequence, namespace, *batch, event),
            Observation::Registered {
                worker,
                session,
                queues,
                self_fence,
                event,
            } => {
                let known = self.workers.entry(worker.clone()).or_default();
                known.sequence = sequence;
                known.queues.clone_from(queues);
                self.registered(worker, *session, (*event, sequence), now);
                let session = self.session(&(worker.clone(), *session), now);
                session.self_fence = *self_fence;
                // A registration after an announced restart counts as a heartbeat.
                if session.away_until.take().is_some() {
                    session.heard = now;
                }
            }
            Observation::Restarting { worker, session, until } => {
                self.worker_changed(worker, sequence);
                if let Some(session) = self.sessions.get_mut(&(worker.clone(), *session)) {
                    session.away_until = Some(*until);
                }
            }
            Observation::WorkerChanged { worker } => self.worker_changed(worker, sequence),
            Observation::BatchChanged { batch } => self.windows.batch_changed(sequence, *batch),
            Observation::SessionEnded {
                worker,
                session,
                lost,
                event,
            } => {
                self.workers.entry(worker.clone()).or_default().sequence = sequence;
                let key = (worker.clone(), *session);
                self.session(&key, now);
                let worker = worker.clone();
                let cause = if *lost {
                    LossCause::WorkerLost { worker }
                } else {
                    LossCause::SessionEnded { worker, orderly: true }
                };
                let event = *event;
                self.end(&key, Ended { cause, event, sequence });
            }
        }
        if let Some(job) = observation.ended_job() {
            self.timers.job_may_have_ended(job, sequence);
        }
    }

    fn claimed(&mut self, sequence: u64, claim: &HeldAttempt, now: Instant) {
        let key = (claim.worker.clone(), claim.session);
        let session = self.session(&key, now);
        let ended_at = session.ended.as_ref().map(|ended| ended.sequence);
        if session.held.is_empty() {
            session.busy_since = Some(now);
        }
        session.held.entry((claim.job, claim.attempt)).or_insert(Held {
            claimed: sequence,
            absence: None,
        });
        if let Some(ended_at) = ended_at {
            self.over.remove(&(ended_at, key.clone()));
        }
        self.open.insert(key.clone());
        self.holders.entry(claim.job).or_default().insert((claim.attempt, key));
    }

    fn close(&mut self, job: JobId, which: impl Fn(Attempt) -> bool) {
        let holders = self.holders.get(&job).cloned().unwrap_or_default();
        for (held, key) in holders.into_iter().filter(|(held, _)| which(*held)) {
            self.release(job, held, &key);
        }
    }

    /// By the log, a member of a batch waits for a slot, and its attempts up to this one are over.
    pub(crate) fn waits_for_slot(&mut self, job: JobId, over: Option<Attempt>) {
        self.close(job, |attempt| over.is_some_and(|over| attempt <= over));
        self.windows.waits_for_slot(job, over);
    }

    /// A session begins, and every other session of its worker ends.
    fn registered(&mut self, worker: &WorkerId, session: SessionId, (event, sequence): (EventId, u64), now: Instant) {
        let live = self.workers.get(worker).map(|known| known.live.clone()).unwrap_or_default();
        for other in live.into_iter().filter(|other| *other != session) {
            let cause = LossCause::SessionEnded {
                worker: worker.clone(),
                orderly: false,
            };
            self.end(&(worker.clone(), other), Ended { cause, event, sequence });
        }
        self.session(&(worker.clone(), session), now).registered = true;
    }

    /// A known session, or a new one.
    fn session(&mut self, key: &SessionKey, now: Instant) -> &mut Session {
        self.sessions.entry(key.clone()).or_insert_with(|| {
            self.open.insert(key.clone());
            let worker = self.workers.entry(key.0.clone()).or_default();
            worker.live.insert(key.1);
            worker.sessions += 1;
            Session {
                registered: false,
                ended: None,
                heard: now,
                // Its last heartbeat may not be folded yet.
                next: Heartbeat::IDLE_PERIOD,
                busy_since: None,
                last_beat: None,
                self_fence: None,
                away_until: None,
                held: BTreeMap::new(),
            }
        })
    }

    fn end(&mut self, key: &SessionKey, ended: Ended) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.ended.get_or_insert(ended);
            self.connections.forget(key);
            self.not_live(key);
            self.settle(key);
        }
    }

    fn not_live(&mut self, (worker, session): &SessionKey) {
        if let Some(known) = self.workers.get_mut(worker) {
            known.live.remove(session);
        }
    }

    /// Removes an attempt that its session does not hold, or no longer.
    pub(crate) fn release(&mut self, job: JobId, attempt: Attempt, key: &SessionKey) {
        if let Entry::Occupied(mut holders) = self.holders.entry(job) {
            holders.get_mut().remove(&(attempt, key.clone()));
            if holders.get().is_empty() {
                holders.remove();
            }
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.held.remove(&(job, attempt));
            self.settle(key);
        }
    }

    /// An ended session that holds no attempt is remembered for a while, so that a late claim by it is recognised; it is not planned
    /// for.
    fn settle(&mut self, key: &SessionKey) {
        let Some(session) = self.sessions.get(key) else { return };
        if let (true, Some(ended)) = (session.held.is_empty(), &session.ended) {
            let at = ended.sequence;
            self.open.remove(key);
            self.remember(at, key);
        } else if session.held.is_empty() && !session.registered {
            self.not_live(key);
            self.open.remove(key);
            self.forget(key);
        }
    }

    /// Folds a heartbeat. One of an unknown or an ended session changes nothing.
    pub fn fold_heartbeat(&mut self, worker: &WorkerId, beat: &Heartbeat, now: Instant) {
        let key = (worker.clone(), beat.session);
        let Some(session) = self.sessions.get_mut(&key).filter(|session| session.ended.is_none()) else {
            return;
        };
        session.heard = now;
        session.next = beat.next();
        session.last_beat = Some(beat.time);
        if session.held.is_empty() {
            return;
        }
        let listed = beat.attempts.iter().copied().collect::<BTreeSet<_>>();
        for (attempt, held) in &mut session.held {
            if listed.contains(attempt) {
                held.absence = None;
            } else if held.claimed <= beat.last_claim {
                held.absence.get_or_insert(Absence { first: now, last: now }).last = now;
            }
        }
    }

    /// The sessions to plan for.
    pub(crate) fn open(&self) -> impl Iterator<Item = (&SessionKey, &Session)> {
        self.open.iter().filter_map(|key| Some((key, self.sessions.get(key)?)))
    }

    pub(crate) fn worker(&self, worker: &WorkerId) -> Option<&Worker> {
        self.workers.get(worker)
    }

    /// The queues that live workers serve.
    #[must_use]
    pub fn queues(&self) -> BTreeSet<Queue> {
        self.workers
            .values()
            .filter(|worker| !worker.live.is_empty())
            .flat_map(|worker| worker.queues.iter().cloned())
            .collect()
    }
}
