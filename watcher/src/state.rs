//! What the watcher knows: which sessions live, and which attempts they hold.

mod saved;

pub(crate) use self::saved::Saved;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use bus::{
    ids::{Attempt, EventId, JobId, Queue, SessionId, WorkerId},
    job::LossCause,
    worker::Beat,
};
use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    connections::{Connection, Connections, SETTLED},
    seen::{Seen, Try},
    timers::Timers,
};

/// A session, and whose it says it is. Nobody can speak for another's by naming it.
pub(crate) type Key = (WorkerId, SessionId);

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
    sessions: HashMap<Key, Session>,
    /// Who holds attempts at each job.
    holders: HashMap<JobId, BTreeSet<(Attempt, Key)>>,
    /// The sessions that may ask for something: those that live, and those that are over and still hold attempts.
    open: BTreeSet<Key>,
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
}

#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Whether its registration was read. One that was not is that of a newer program, or of none.
    pub(crate) registered: bool,
    pub(crate) ended: Option<Ended>,
    /// When it was last heard, or first heard of.
    heard: Instant,
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
            trusted_since: now,
            canary: None,
            listened: now,
            connections: Connections::default(),
            connections_since: now,
            timers: Timers::default(),
            clock: None,
        }
    }

    /// Takes note of what the wall clock shows now.
    pub const fn tell_time(&mut self, now: Instant, wall: DateTime<Utc>) {
        self.clock = Some((now, wall));
    }

    /// What the wall clock shows at a moment, as far as is known.
    pub(crate) fn wall(&self, now: Instant) -> Option<DateTime<Utc>> {
        let (at, wall) = self.clock?;
        let (ahead, behind) = (now.saturating_duration_since(at), at.saturating_duration_since(now));
        let shift = |duration| TimeDelta::from_std(duration).ok();
        wall.checked_add_signed(shift(ahead)?)?.checked_sub_signed(shift(behind)?)
    }

    /// Folds an event that stands at this sequence.
    pub fn see(&mut self, sequence: u64, seen: &Seen, now: Instant) {
        match seen {
            Seen::Claimed(claim) => {
                self.claimed(sequence, claim, now);
                self.timers.claimed(sequence, claim);
            }
            Seen::Finished(end) => {
                self.release(end.job, end.attempt, &end.key());
                self.timers.finished(end);
            }
            Seen::Failed(end) => {
                self.release(end.job, end.attempt, &end.key());
                self.timers.failed(sequence, end.job);
            }
            Seen::Waits(waits) => {
                if let Some(attempt) = waits.instead_of {
                    self.closed(waits.job, Some(attempt));
                }
                self.timers.waits(sequence, waits);
            }
            Seen::Closed { job, attempt } => {
                self.closed(*job, *attempt);
                self.timers.forget(*job);
            }
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
                self.registered(worker, *session, *event, now);
                let session = self.session(&(worker.clone(), *session), now);
                session.self_fence = *self_fence;
                // After a restart, it counts as heard.
                if session.away_until.take().is_some() {
                    session.heard = now;
                }
            }
            Seen::Restarting { worker, session, until } => {
                self.workers.entry(worker.clone()).or_default().sequence = sequence;
                if let Some(session) = self.sessions.get_mut(&(worker.clone(), *session)) {
                    session.away_until = Some(*until);
                }
            }
            Seen::Said { worker } => self.workers.entry(worker.clone()).or_default().sequence = sequence,
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
                self.end(&key, Ended { cause, event: *event });
            }
        }
        if let Some(job) = seen.may_end() {
            self.timers.news(job, sequence);
        }
    }

    fn claimed(&mut self, sequence: u64, claim: &Try, now: Instant) {
        let key = (claim.worker.clone(), claim.session);
        self.session(&key, now).held.entry((claim.job, claim.attempt)).or_insert(Held {
            claimed: sequence,
            absence: None,
        });
        self.open.insert(key.clone());
        self.holders.entry(claim.job).or_default().insert((claim.attempt, key));
    }

    fn closed(&mut self, job: JobId, attempt: Option<Attempt>) {
        let holders = self.holders.get(&job).cloned().unwrap_or_default();
        for (held, key) in holders {
            if attempt.is_none_or(|attempt| attempt == held) {
                self.release(job, held, &key);
            }
        }
    }

    /// A session begins, and every other one of its worker is over.
    fn registered(&mut self, worker: &WorkerId, session: SessionId, event: EventId, now: Instant) {
        let live = self.workers.get(worker).map(|known| known.live.clone()).unwrap_or_default();
        for other in live.into_iter().filter(|other| *other != session) {
            let cause = LossCause::SessionEnded {
                worker: worker.clone(),
                orderly: false,
            };
            self.end(&(worker.clone(), other), Ended { cause, event });
        }
        self.session(&(worker.clone(), session), now).registered = true;
    }

    /// A session, as it is known or as a new one.
    fn session(&mut self, key: &Key, now: Instant) -> &mut Session {
        self.sessions.entry(key.clone()).or_insert_with(|| {
            self.open.insert(key.clone());
            self.workers.entry(key.0.clone()).or_default().live.insert(key.1);
            Session {
                registered: false,
                ended: None,
                heard: now,
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

    /// A session that is over is remembered, so that a late claim of it is known for what it is; but it need not be looked at.
    fn settle(&mut self, key: &Key) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.held.is_empty() && session.ended.is_some() {
            self.open.remove(key);
        } else if session.held.is_empty() && !session.registered {
            self.not_live(key);
            self.open.remove(key);
            self.sessions.remove(key);
        }
    }

    /// Folds a heartbeat; one of a session that is unknown, or over, says nothing.
    pub fn hear(&mut self, worker: &WorkerId, beat: &Beat, now: Instant) {
        let key = (worker.clone(), beat.session);
        let Some(session) = self.sessions.get_mut(&key).filter(|session| session.ended.is_none()) else {
            return;
        };
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
        self.connections.forgive();
    }

    /// Looks whether the watcher hears itself, and distrusts every silence if it does not, or could not look for as long: it
    /// was stopped itself.
    pub fn listen(&mut self, now: Instant) {
        let stopped = now.saturating_duration_since(self.listened) > DEAF_AFTER;
        self.listened = now;
        if stopped || !self.hears(now) {
            self.distrust(now);
        }
        self.connections.listen(now);
    }

    /// What the broker says of connections may be wanting until now.
    pub fn doubt_connections(&mut self, now: Instant) {
        self.connections_since = now;
        self.connections.forgive();
    }

    /// The broker is heard on its clients' connections from now on, and was not before.
    pub fn listen_to_connections(&mut self, now: Instant) {
        self.connections = Connections::default();
        self.doubt_connections(now);
    }

    /// The broker says that a session has a connection, since then by its server's clock. One that finds another server, after
    /// its own fell silent, shows that it lives.
    pub fn connected(&mut self, key: &Key, connection: Connection, start: DateTime<Utc>, now: Instant) {
        let mut lives = true;
        if let Some(session) = self.sessions.get_mut(key) {
            lives = session.ended.is_none();
            let server_deaf_until = self.connections.excused_until(key);
            if server_deaf_until.is_some_and(|until| now.saturating_duration_since(until) <= SETTLED) {
                session.heard = session.heard.max(now);
            }
        }
        if lives {
            self.connections.made(key, connection, start);
        }
    }

    /// The broker says that a session's connection ended, for a reason that may be its runner's death. Whether that is
    /// something to wait for: the session lives, and the broker has been well for long enough to be believed.
    pub fn disconnected(&mut self, key: &Key, connection: &Connection, telling: bool, now: Instant) -> bool {
        let well_since = self.trusted_since.max(self.connections_since);
        let well = self.hears(now) && now.saturating_duration_since(well_since) >= SETTLED;
        let lives = self.sessions.get(key).is_some_and(|session| session.ended.is_none());
        self.connections.ended(key, connection, telling && well && lives, now)
    }

    /// When the session's runner died by the broker's word: its connection went, it made no other, and the broker carried a
    /// heartbeat of ours that was sent after that.
    pub(crate) fn dead_since(&self, key: &Key, session: &Session, now: Instant) -> Option<Instant> {
        let gone = self.connections.dead_since(key, session.heard, now)?;
        (self.hears(now) && self.canary > Some(gone)).then_some(gone)
    }

    /// When something may be to be done next that is not to wait for the next tick.
    #[must_use]
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let timer = || {
            let wall = self.wall(now)?;
            let ahead = (self.timers.next_due(wall)? - wall).to_std().ok()?;
            now.checked_add(ahead)
        };
        self.connections.next_due(now).into_iter().chain(timer()).min()
    }

    /// Whether something is to be done for a job that waits.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.wall(now).is_some_and(|wall| self.timers.is_due(wall))
    }

    /// Whether the broker carries heartbeats, our own for one.
    #[must_use]
    pub fn hears(&self, now: Instant) -> bool {
        self.canary.is_some_and(|sent| now.saturating_duration_since(sent) <= DEAF_AFTER)
    }

    /// A server of the broker answered a question that was sent at this moment.
    pub fn server_answered(&mut self, server: &str, sent: Instant) {
        self.connections.answered(server, sent);
    }

    /// For how long a session has been silent, as far as that can be told: not while it was its broker that was.
    pub(crate) fn silence(&self, key: &Key, session: &Session, now: Instant) -> Duration {
        let since = session.heard.max(self.trusted_since);
        let since = self.connections.excused_until(key).map_or(since, |until| since.max(until));
        now.saturating_duration_since(since)
    }

    /// Whether a session's runner said that it restarts, and has the time for that still.
    pub(crate) fn is_away(&self, session: &Session, now: Instant) -> bool {
        session
            .away_until
            .is_some_and(|until| self.wall(now).is_none_or(|wall| wall < until))
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
