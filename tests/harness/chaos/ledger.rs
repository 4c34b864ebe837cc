//! A job's life by the checker's own rules, written apart from `bus::job`: were the fence there broken, this one would say so.

use std::collections::BTreeMap;

use bus::ids::{Attempt, JobId, SessionId, WorkerId};

use super::{
    Micros,
    log::{Event, What, Word},
};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// It waits for a condition, or for its pause after a failure to be over; this attempt is the next.
    Waiting(Attempt),
    /// It waits for a worker; this attempt is the next.
    Queued(Attempt),
    /// A worker has it.
    Live,
    /// It ended.
    Ended,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// An attempt committed, and its command ended with 0.
    Succeeded,
    /// An attempt committed, and its command did not.
    Failed,
    /// A user wanted that.
    Cancelled,
    /// Its attempts are used up.
    Dead,
    /// It waited longer than it may.
    Expired,
}

/// One try at a job, as the log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// Which.
    pub number: Attempt,
    /// Whose.
    pub worker: WorkerId,
    /// In which session.
    pub session: SessionId,
    /// When it was claimed.
    pub claimed: Micros,
    /// When it was said that its command runs.
    pub started: Option<Micros>,
    /// When it committed.
    pub finished: Option<Micros>,
    /// When it was given up.
    pub given_up: Option<Micros>,
    /// When its worker gave it back, unrun.
    pub returned: Option<Micros>,
}

impl Try {
    /// When it was over.
    #[must_use]
    pub fn closed(&self) -> Option<Micros> {
        self.finished.or(self.given_up).or(self.returned)
    }
}

/// A job, as the log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tale {
    /// When it was accepted.
    pub submitted: Micros,
    /// Where it stands.
    pub stand: Stand,
    /// Every try at it.
    pub tries: Vec<Try>,
    /// Its ends: one, if all is well.
    pub ends: Vec<(Micros, End)>,
    /// What counted and must not have: where it stands in the log, and why.
    pub wrongs: Vec<(u64, &'static str)>,
    /// Words that were stored and did not count: late ones, which the fence refused.
    pub refused: u64,
}

impl Tale {
    const fn new(submitted: Micros) -> Self {
        Self {
            submitted,
            stand: Stand::Queued(Attempt::FIRST),
            tries: Vec::new(),
            ends: Vec::new(),
            wrongs: Vec::new(),
            refused: 0,
        }
    }

    /// When it ended.
    #[must_use]
    pub fn ended(&self) -> Option<Micros> {
        self.ends.first().map(|(at, _)| *at)
    }

    fn fold(&mut self, at: Micros, word: &Word) -> Result<(), &'static str> {
        match word {
            Word::Submitted { .. } => Err("it was submitted twice"),
            Word::CancelRequested => Ok(()),
            Word::Claimed(attempt, worker, session) => {
                let fits = self.stand == Stand::Queued(*attempt);
                self.stand = Stand::Live;
                self.tries.push(Try {
                    number: *attempt,
                    worker: worker.clone(),
                    session: *session,
                    claimed: at,
                    started: None,
                    finished: None,
                    given_up: None,
                    returned: None,
                });
                fits.then_some(()).ok_or("it was claimed while it was not queued for this attempt")
            }
            Word::Started(attempt, session) => {
                let live = self.live(*attempt, Some(*session));
                let known = live.is_some();
                if let Some(live) = live {
                    live.started.get_or_insert(at);
                }
                known.then_some(()).ok_or("an attempt that is not the live one started")
            }
            Word::Finished {
                attempt,
                session,
                succeeded,
                again,
            } => {
                let live = self.live(*attempt, Some(*session)).map(|live| live.finished = Some(at));
                match (succeeded, again) {
                    (true, _) => self.end(at, End::Succeeded),
                    (false, true) => self.stand = Stand::Waiting(attempt.next()),
                    (false, false) => self.end(at, End::Failed),
                }
                live.ok_or("an attempt committed that is not the live one")
            }
            Word::Released(attempt) => {
                let waited = self.stand == Stand::Waiting(*attempt);
                self.stand = Stand::Queued(*attempt);
                waited.then_some(()).ok_or("it was released while it waited for nothing")
            }
            Word::Requeued(attempt) => {
                let revivable = matches!(self.ends.pop(), Some((_, End::Dead | End::Expired)));
                self.stand = Stand::Queued(*attempt);
                revivable.then_some(()).ok_or("it was revived, and was neither dead nor expired")
            }
            Word::Expired => {
                let waits = self.stand != Stand::Live;
                self.end(at, End::Expired);
                waits.then_some(()).ok_or("it expired while a worker had it")
            }
            Word::Returned(attempt, session) => {
                let unrun = self.live(*attempt, Some(*session)).filter(|live| live.started.is_none());
                let unrun = unrun.map(|live| live.returned = Some(at));
                self.stand = Stand::Waiting(attempt.next());
                unrun.ok_or("an attempt was given back that is not the live one, or that ran")
            }
            Word::Interrupted(attempt, session) => {
                let live = self.live(*attempt, Some(*session)).map(|live| live.given_up = Some(at));
                self.stand = Stand::Waiting(attempt.next());
                live.ok_or("an attempt was given back that is not the live one")
            }
            Word::Rescheduled(attempt) => {
                let live = self.live(*attempt, None).map(|live| live.given_up = Some(at));
                self.stand = Stand::Queued(attempt.next());
                live.ok_or("an attempt was given up that is not the live one")
            }
            Word::Died(attempt) => {
                let live = self.live(*attempt, None).map(|live| live.given_up = Some(at));
                self.end(at, End::Dead);
                live.ok_or("it died of an attempt that is not the live one")
            }
            Word::Cancelled => {
                if self.stand == Stand::Live
                    && let Some(live) = self.tries.last_mut()
                {
                    live.given_up = Some(at);
                }
                self.end(at, End::Cancelled);
                Ok(())
            }
        }
    }

    fn live(&mut self, attempt: Attempt, session: Option<SessionId>) -> Option<&mut Try> {
        let live = self.tries.last_mut().filter(|_| self.stand == Stand::Live)?;
        (live.number == attempt && session.is_none_or(|session| live.session == session)).then_some(live)
    }

    fn end(&mut self, at: Micros, end: End) {
        self.ends.push((at, end));
        self.stand = Stand::Ended;
    }
}

/// Every job and every loss, as the log tells them.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The jobs.
    pub jobs: BTreeMap<JobId, Tale>,
    /// When which worker was given up.
    pub losses: Vec<(Micros, WorkerId)>,
    /// When which worker began a session.
    pub sessions: Vec<(Micros, WorkerId, SessionId)>,
    /// Messages that cannot be read.
    pub unreadable: Vec<(u64, String)>,
}

impl Ledger {
    /// Folds events in their order.
    #[must_use]
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut ledger = Self::default();
        for event in events {
            ledger.see(event);
        }
        ledger
    }

    /// Folds one event.
    pub fn see(&mut self, event: &Event) {
        let at = event.at;
        match &event.what {
            What::Job { job, word, counted } => self.of_job(*job, event, word, *counted),
            What::Lost(worker, _) => self.losses.push((at, worker.clone())),
            What::Registered(worker, session) => self.sessions.push((at, worker.clone(), *session)),
            What::Left(..) | What::OfWorker(_) | What::OfBatch(_) => {}
            What::Unreadable(why) => self.unreadable.push((event.sequence, why.clone())),
        }
    }

    fn of_job(&mut self, job: JobId, event: &Event, word: &Word, counted: bool) {
        let Some(tale) = self.jobs.get_mut(&job) else {
            let mut tale = Tale::new(event.at);
            match word {
                Word::Submitted { held: true } => tale.stand = Stand::Waiting(Attempt::FIRST),
                Word::Submitted { held: false } => {}
                _ => tale.wrongs.push((event.sequence, "its first word is not that it was submitted")),
            }
            self.jobs.insert(job, tale);
            return;
        };
        if !counted {
            tale.refused += 1;
            return;
        }
        if tale.stand == Stand::Ended && !matches!(word, Word::Requeued(_)) {
            tale.wrongs.push((event.sequence, "something counted after its end"));
        }
        if let Err(why) = tale.fold(event.at, word) {
            tale.wrongs.push((event.sequence, why));
        }
    }

    /// The attempts that a worker had at a moment.
    #[must_use]
    pub fn held(&self, worker: &str, at: Micros) -> Vec<(JobId, &Tale, &Try)> {
        let held = |one: &Try| one.worker.as_str() == worker && one.claimed < at && one.closed().is_none_or(|closed| closed >= at);
        let tries = self
            .jobs
            .iter()
            .flat_map(|(job, tale)| tale.tries.iter().map(move |one| (*job, tale, one)));
        tries.filter(|(_, _, one)| held(one)).collect()
    }

    /// How many jobs have ended.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.jobs.values().filter(|tale| tale.stand == Stand::Ended).count()
    }
}
