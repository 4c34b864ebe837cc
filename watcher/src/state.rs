//! What the watcher knows: which sessions live, and which attempts they hold.

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
    seen::{Seen, Try},
    timers::Timers,
    windows::Windows,
};

/// A session, and whose it says it is. Nobody can speak for another's by naming it.
pub(crate) type Key = (WorkerId, SessionId);

/// The fold of the log and of the heartbeats.
///
/// Every attempt that is live by the log is held in here; the reverse need not be so. An attempt in here that is not live
/// (given up by another watcher, or claimed by one who may not) is found out when it is to be given up, because that is
/// decided on the job's own history. So no wrong word of anybody can hide a live attempt from the watcher.
#[derive(Debug, Clone)]
pub struct State {
    workers: HashMap<WorkerId, Worker>,
    sessions: HashMap<Key, Session>,
    /// Who holds attempts at each job.
    holders: HashMap<JobId, BTreeSet<(Attempt, Key)>>,
    /// The sessions that may ask for something: those that live, and those that are over and still hold attempts.
    open: BTreeSet<Key>,
    /// The sessions that are over and hold nothing, by where they ended: those that ended last.
    over: BTreeSet<(u64, Key)>,
    /// No silence counts from before this.
    trusted_since: Instant,
    /// When the last heartbeat of the watcher itself was sent that came back to it.
    canary: Option<Instant>,
    /// When it was last looked whether the watcher hears itself.
    listened: Instant,
    connections: Connections,
    /// No connection's end counts from before this.
    connections_since: Instant,
    pub(crate) timers: Timers,
    pub(crate) windows: Windows,
    /// What the wall clock showed at a moment; without it, nothing is ever due.
    clock: Option<(Instant, DateTime<Utc>)>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Worker {
    /// Its last event, behind which the next one must be appended.
    pub(crate) sequence: u64,
    /// Its sessions that are not over: one, unless registrations were not read.
    live: BTreeSet<SessionId>,
    queues: Vec<Queue>,
    /// How many of its sessions are known, whether they are over or not.
    sessions: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Whether its registration was read. One that was not is that of a newer program, or of none.
    pub(crate) registered: bool,
    pub(crate) ended: Option<Ended>,
    /// When it was last heard, or first heard of.
    heard: Instant,
    /// In how long its last heartbeat says that the next one comes.
    next: Duration,
    /// When it was last seen to take up work while it had none: from then on, it beats each second.
    busy_since: Option<Instant>,
    /// When it last beat, by its own clock.
    pub(crate) last_beat: Option<DateTime<Utc>>,
    /// After how long without an acknowledged heartbeat it ends its attempts by itself.
    pub(crate) self_fence: Option<Duration>,
    /// Until when its silence is that of a restart.
    away_until: Option<DateTime<Utc>>,
    pub(crate) held: BTreeMap<(JobId, Attempt), Held>,
}

#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) cause: LossCause,
    pub(crate) event: EventId,
    /// Where that event stands in the log.
    pub(crate) sequence: u64,
}

impl Session {
    /// When it last showed that it lives: by a heartbeat, or by taking up work while it had none.
    pub(super) fn told_of_at(&self) -> Instant {
        self.busy_since.map_or(self.heard, |since| since.max(self.heard))
    }

    /// How much longer than one that beats each second it may be silent. One that has work beats each second, and so does one that
    /// fences itself.
    pub(crate) fn allowance(&self) -> Duration {
        if self.held.is_empty() && self.self_fence.is_none() {
            self.next - Heartbeat::PERIOD
        } else {
            Duration::ZERO
        }
    }
}

/// An attempt that a session claimed, and did not finish.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// Where the claim stands in the log.
    pub(crate) claimed: u64,
    pub(crate) absence: Option<Absence>,
}

/// Heartbeats, one after the other, that do not list an attempt which they should.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Absence {
    pub(crate) first: Instant,
    pub(crate) last: Instant,
}

impl State {
    /// Knows nothing yet; every silence is counted from now.
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

    /// Folds an event that stands at this sequence.
    pub fn see(&mut self, sequence: u64, seen: &Seen, now: Instant) {
        match seen {
            Seen::Claimed(claim) => {
                self.claimed(sequence, claim, now);
                self.timers.claimed(sequence, claim);
                self.windows.claimed(claim);
            }
            Seen::Finished(end, ending) => {
                self.release(end.job, end.attempt, &end.key());
                self.timers.finished(end);
                self.windows.finished(end, *ending);
            }
            Seen::Failed(end) => {
                self.release(end.job, end.attempt, &end.key());
                self.timers.failed(sequence, end.job);
                self.windows.failed(end);
            }
            Seen::Returned { job } => self.timers.failed(sequence, *job),
            Seen::Waits(waits) => {
                if let Some(next) = waits.next {
                    self.close(waits.job, |attempt| attempt.next() == next);
                }
                self.timers.waits(sequence, waits);
                self.windows.waits(waits);
            }
            Seen::Closed { job, attempt, failed } => {
                self.windows.closed(*job, *attempt, *failed);
                self.close(*job, |held| attempt.is_none_or(|attempt| attempt == held));
                self.timers.forget(*job);
            }
            Seen::Batch { namespace, batch, event } => self.windows.batch(sequence, namespace, *batch, event),
            Seen::Registered {
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
                // After a restart, it counts as heard.
                if session.away_until.take().is_some() {
                    session.heard = now;
                }
            }
            Seen::Restarting { worker, session, until } => {
                self.said(worker, sequence);
                if let Some(session) = self.sessions.get_mut(&(worker.clone(), *session)) {
                    session.away_until = Some(*until);
                }
            }
            Seen::Said { worker } => self.said(worker, sequence),
            Seen::SaidOfBatch { batch } => self.windows.said(sequence, *batch),
            Seen::Ended {
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
        if let Some(job) = seen.may_end() {
            self.timers.news(job, sequence);
        }
    }

    fn claimed(&mut self, sequence: u64, claim: &Try, now: Instant) {
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

    /// The log says that a member of a batch waits for its turn, and that its attempts up to this one are over.
    pub(crate) fn turn(&mut self, job: JobId, over: Option<Attempt>) {
        self.close(job, |attempt| over.is_some_and(|over| attempt <= over));
        self.windows.turn(job, over);
    }

    /// A session begins, and every other one of its worker is over.
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

    /// A session, as it is known or as a new one.
    fn session(&mut self, key: &Key, now: Instant) -> &mut Session {
        self.sessions.entry(key.clone()).or_insert_with(|| {
            self.open.insert(key.clone());
            let worker = self.workers.entry(key.0.clone()).or_default();
            worker.live.insert(key.1);
            worker.sessions += 1;
            Session {
                registered: false,
                ended: None,
                heard: now,
                // Its last heartbeat may not have been read yet.
                next: Heartbeat::IDLE_PERIOD,
                busy_since: None,
                last_beat: None,
                self_fence: None,
                away_until: None,
                held: BTreeMap::new(),
            }
        })
    }

    fn end(&mut self, key: &Key, ended: Ended) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.ended.get_or_insert(ended);
            self.connections.over(key);
            self.not_live(key);
            self.settle(key);
        }
    }

    fn not_live(&mut self, (worker, session): &Key) {
        if let Some(known) = self.workers.get_mut(worker) {
            known.live.remove(session);
        }
    }

    /// Lets an attempt go that is not, or no longer, its session's to hold.
    pub(crate) fn release(&mut self, job: JobId, attempt: Attempt, key: &Key) {
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

    /// A session that is over is remembered for a while, so that a late claim of it is known for what it is; but it need not be
    /// looked at.
    fn settle(&mut self, key: &Key) {
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

    /// Folds a heartbeat; one of a session that is unknown, or over, says nothing.
    pub fn hear(&mut self, worker: &WorkerId, beat: &Heartbeat, now: Instant) {
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

    pub(crate) fn open(&self) -> impl Iterator<Item = (&Key, &Session)> {
        self.open.iter().filter_map(|key| Some((key, self.sessions.get(key)?)))
    }

    pub(crate) fn worker(&self, worker: &WorkerId) -> Option<&Worker> {
        self.workers.get(worker)
    }

    /// The queues that a live worker serves.
    #[must_use]
    pub fn queues(&self) -> BTreeSet<Queue> {
        self.workers
            .values()
            .filter(|worker| !worker.live.is_empty())
            .flat_map(|worker| worker.queues.iter().cloned())
            .collect()
    }
}
