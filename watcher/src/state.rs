//! What the watcher knows: which sessions live, and which attempts they hold.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use bus::{
    ids::{Attempt, EventId, JobId, Queue, SessionId, WorkerId},
    job::LossCause,
    worker::Beat,
};
use chrono::{DateTime, Utc};

use crate::seen::{Seen, Try};

/// The watcher hears nothing if its own last heartbeat that came back is older than this.
pub(crate) const DEAF_AFTER: Duration = Duration::from_secs(1);

/// The fold of the log and of the heartbeats.
///
/// Every attempt that is live by the log is held in here; the reverse need not be so. An attempt in here that is not live
/// (given up by another watcher, or claimed by one who may not) is found out when it is to be given up, because that is
/// decided on the job's own history. So no wrong word of anybody can hide a live attempt from the watcher.
#[derive(Debug, Clone)]
pub struct State {
    workers: HashMap<WorkerId, Worker>,
    sessions: HashMap<SessionId, Session>,
    /// The sessions of each attempt that is held.
    holders: BTreeSet<(JobId, Attempt, SessionId)>,
    /// The sessions that may ask for something: those that live, and those that are over and still hold attempts.
    open: BTreeSet<SessionId>,
    /// No silence counts from before this.
    trusted_since: Instant,
    /// When the last heartbeat of the watcher itself was sent that came back to it.
    canary: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Worker {
    /// Its last event, behind which the next one must be appended.
    pub(crate) sequence: u64,
    /// Its sessions that are not over: one, unless registrations were not read.
    live: BTreeSet<SessionId>,
    queues: Vec<Queue>,
}

#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) worker: WorkerId,
    /// Whether its registration was read. One that was not is that of a newer program, or of none.
    pub(crate) registered: bool,
    pub(crate) ended: Option<Ended>,
    /// When it was last heard, or first heard of.
    heard: Instant,
    /// When it last beat, by its own clock.
    pub(crate) last_beat: Option<DateTime<Utc>>,
    pub(crate) held: BTreeMap<(JobId, Attempt), Held>,
}

#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) cause: LossCause,
    pub(crate) event: EventId,
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
            holders: BTreeSet::new(),
            open: BTreeSet::new(),
            trusted_since: now,
            canary: None,
        }
    }

    /// Folds an event that stands at this sequence.
    pub fn see(&mut self, sequence: u64, seen: &Seen, now: Instant) {
        match seen {
            Seen::Claimed(claim) => self.claimed(sequence, claim, now),
            Seen::Finished(end) => {
                if self.sessions.get(&end.session).is_some_and(|session| session.worker == end.worker) {
                    self.release(end.job, end.attempt, end.session);
                }
            }
            Seen::Closed { job, attempt } => self.closed(*job, *attempt),
            Seen::Registered {
                worker,
                session,
                queues,
                event,
            } => {
                let known = self.workers.entry(worker.clone()).or_default();
                known.sequence = sequence;
                known.queues.clone_from(queues);
                self.registered(worker, *session, *event, now);
            }
            Seen::Ended {
                worker,
                session,
                lost,
                event,
            } => {
                self.workers.entry(worker.clone()).or_default().sequence = sequence;
                self.session(*session, worker, now);
                let worker_name = worker.clone();
                let cause = if *lost {
                    LossCause::WorkerLost { worker: worker_name }
                } else {
                    LossCause::SessionEnded { worker: worker_name }
                };
                self.end(*session, worker, Ended { cause, event: *event });
            }
        }
    }

    fn claimed(&mut self, sequence: u64, claim: &Try, now: Instant) {
        let session = self.session(claim.session, &claim.worker, now);
        if session.worker != claim.worker {
            return;
        }
        session.held.entry((claim.job, claim.attempt)).or_insert(Held {
            claimed: sequence,
            absence: None,
        });
        self.holders.insert((claim.job, claim.attempt, claim.session));
        self.open.insert(claim.session);
    }

    fn closed(&mut self, job: JobId, attempt: Option<Attempt>) {
        let least = SessionId::from(uuid::Uuid::nil());
        let all = self
            .holders
            .range((job, Attempt(0), least)..)
            .take_while(|(of, ..)| *of == job)
            .filter(|(_, held, _)| attempt.is_none_or(|attempt| attempt == *held))
            .copied()
            .collect::<Vec<_>>();
        for (job, attempt, session) in all {
            self.release(job, attempt, session);
        }
    }

    /// A session begins, and every other one of its worker is over.
    fn registered(&mut self, worker: &WorkerId, session: SessionId, event: EventId, now: Instant) {
        let live = self.workers.get(worker).map(|known| known.live.clone()).unwrap_or_default();
        for other in live.into_iter().filter(|other| *other != session) {
            let cause = LossCause::SessionEnded { worker: worker.clone() };
            self.end(other, worker, Ended { cause, event });
        }
        self.session(session, worker, now).registered = true;
    }

    /// A session, as it is known or as a new one.
    fn session(&mut self, id: SessionId, worker: &WorkerId, now: Instant) -> &mut Session {
        self.sessions.entry(id).or_insert_with(|| {
            self.open.insert(id);
            self.workers.entry(worker.clone()).or_default().live.insert(id);
            Session {
                worker: worker.clone(),
                registered: false,
                ended: None,
                heard: now,
                last_beat: None,
                held: BTreeMap::new(),
            }
        })
    }

    fn end(&mut self, id: SessionId, worker: &WorkerId, ended: Ended) {
        if let Some(session) = self.sessions.get_mut(&id)
            && session.worker == *worker
        {
            session.ended.get_or_insert(ended);
            if let Some(known) = self.workers.get_mut(worker) {
                known.live.remove(&id);
            }
            self.settle(id);
        }
    }

    /// Lets an attempt go that is not, or no longer, its session's to hold.
    pub fn release(&mut self, job: JobId, attempt: Attempt, id: SessionId) {
        self.holders.remove(&(job, attempt, id));
        if let Some(session) = self.sessions.get_mut(&id) {
            session.held.remove(&(job, attempt));
            self.settle(id);
        }
    }

    /// A session that is over is remembered, so that a late claim of it is known for what it is; but it need not be looked at.
    fn settle(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        if session.held.is_empty() && session.ended.is_some() {
            self.open.remove(&id);
        } else if session.held.is_empty() && !session.registered {
            if let Some(known) = self.workers.get_mut(&session.worker) {
                known.live.remove(&id);
            }
            self.open.remove(&id);
            self.sessions.remove(&id);
        }
    }

    /// Folds a heartbeat; one of a session that is unknown, over, or another worker's says nothing.
    pub fn hear(&mut self, worker: &WorkerId, beat: &Beat, now: Instant) {
        let Some(session) = self.sessions.get_mut(&beat.session) else {
            return;
        };
        if session.worker != *worker || session.ended.is_some() {
            return;
        }
        session.heard = now;
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

    /// A heartbeat of the watcher itself, sent at this moment, was acknowledged and came back.
    pub fn hear_self(&mut self, sent: Instant) {
        self.canary = self.canary.max(Some(sent));
    }

    /// Counts every silence from now, since what is heard cannot be trusted until now.
    pub fn distrust(&mut self, now: Instant) {
        self.trusted_since = now;
    }

    /// Looks whether the watcher hears itself, and distrusts every silence if it does not.
    pub fn listen(&mut self, now: Instant) {
        if !self.hears(now) {
            self.distrust(now);
        }
    }

    /// Whether the broker carries heartbeats, our own for one.
    #[must_use]
    pub fn hears(&self, now: Instant) -> bool {
        self.canary.is_some_and(|sent| now.saturating_duration_since(sent) <= DEAF_AFTER)
    }

    /// For how long a session has been silent, as far as that can be told.
    pub(crate) fn silence(&self, session: &Session, now: Instant) -> Duration {
        now.saturating_duration_since(session.heard.max(self.trusted_since))
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.open.iter().filter_map(|id| Some((*id, self.sessions.get(id)?)))
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
