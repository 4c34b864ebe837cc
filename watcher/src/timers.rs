//! Jobs that wait for a time, or for the end of other jobs.
//!
//! What is kept of a job is a hint: look at it then. Whether something is due is decided on what the log says at that moment
//! ([`bus::job::Job::due`]), so that a hint too many costs a look, and no hint is trusted. Only one too few would be wrong:
//! so a hint is dropped on the word of the API, of a watcher, or of the very attempt that was claimed as it may be.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bus::ids::{Attempt, JobId};
use chrono::{DateTime, Utc};

use crate::seen::{SessionKey, Try, Waits};

/// Looks that are planned at once; the rest follow when these are done.
const AT_ONCE: usize = 10_000;

/// A time that has come already.
const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;
/// The year 10,000 never comes, and not everybody can write it down. In seconds since 1970.
const NEVER: i64 = 253_402_300_800;

/// What is waited for, in its order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timers {
    jobs: HashMap<JobId, Timer>,
    due: BTreeSet<(DateTime<Utc>, JobId)>,
    /// Who waits for the end of each job.
    followers: HashMap<JobId, BTreeSet<JobId>>,
    /// Those who wait for a job of which there is news.
    asking: BTreeSet<JobId>,
}

/// A job that waits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timer {
    /// Its last event that is known.
    pub(crate) sequence: u64,
    /// When it is to be looked at.
    pub(crate) at: Option<DateTime<Utc>>,
    /// The attempt that a worker may claim.
    pub(crate) next: Option<Attempt>,
    /// Who claimed it.
    pub(crate) holder: Option<Box<(Attempt, SessionKey)>>,
    pub(crate) conditions: Option<Box<Conditions>>,
}

/// The jobs that another one waits for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    /// Those that have not ended as they must, as far as is known.
    pub(crate) open: BTreeMap<JobId, News>,
    /// When it may start once they have.
    pub(crate) not_before: Option<DateTime<Utc>>,
}

/// What is known of a job that another one waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct News {
    /// Its last event that was seen since it is waited for; 0: none.
    pub(crate) sequence: u64,
    /// Whether the log is to be asked about it.
    pub(crate) fresh: bool,
}

impl Conditions {
    pub(crate) fn new(open: impl IntoIterator<Item = JobId>, not_before: Option<DateTime<Utc>>) -> Self {
        let news = News { sequence: 0, fresh: true };
        Self {
            open: open.into_iter().map(|job| (job, news)).collect(),
            not_before,
        }
    }
}

impl Timers {
    /// A job waits for a worker, a time or others; what it waited for before is past.
    pub(crate) fn waits(&mut self, sequence: u64, waits: &Waits) {
        let conditions = (!waits.after.is_empty()).then(|| Box::new(Conditions::new(waits.after.iter().copied(), waits.not_before)));
        self.set(
            waits.job,
            Timer {
                sequence,
                at: waits.due,
                next: waits.next,
                holder: None,
                conditions,
            },
        );
    }

    /// Keeps a job in mind, or forgets it, where it waits for nothing.
    pub(crate) fn set(&mut self, job: JobId, mut timer: Timer) {
        self.forget(job);
        timer.at = timer.at.filter(|at| at.timestamp() < NEVER);
        if timer.at.is_none() && timer.conditions.is_none() {
            return;
        }
        self.due.extend(timer.at.map(|at| (at, job)));
        if let Some(conditions) = &timer.conditions {
            for dependency in conditions.open.keys() {
                self.followers.entry(*dependency).or_default().insert(job);
            }
            if conditions.open.values().any(|news| news.fresh) {
                self.asking.insert(job);
            }
        }
        self.jobs.insert(job, timer);
    }

    /// A worker took it: its end is that one's to say.
    pub(crate) fn claimed(&mut self, sequence: u64, claim: &Try) {
        if let Some(timer) = self.jobs.get_mut(&claim.job) {
            timer.sequence = sequence;
            if timer.next == Some(claim.attempt) {
                timer.next = None;
                timer.holder = Some(Box::new((claim.attempt, claim.key())));
            }
        }
    }

    /// A worker says that it ended.
    pub(crate) fn finished(&mut self, end: &Try) {
        let by_its_holder = |timer: &Timer| timer.holder.as_deref().is_some_and(|holder| *holder == (end.attempt, end.key()));
        if self.jobs.get(&end.job).is_some_and(by_its_holder) {
            self.forget(end.job);
        }
    }

    /// A worker says that it failed, and is to be tried again. When, the log says better: of all its clocks the next.
    pub(crate) fn failed(&mut self, sequence: u64, job: JobId) {
        let mut timer = self.jobs.get(&job).cloned().unwrap_or_default();
        timer.sequence = sequence;
        timer.at = Some(NOW);
        self.set(job, timer);
    }

    /// It waits for nothing any more.
    pub(crate) fn forget(&mut self, job: JobId) {
        let Some(timer) = self.jobs.remove(&job) else { return };
        if let Some(at) = timer.at {
            self.due.remove(&(at, job));
        }
        self.asking.remove(&job);
        for dependency in timer.conditions.iter().flat_map(|conditions| conditions.open.keys()) {
            self.unfollow(*dependency, job);
        }
    }

    fn unfollow(&mut self, dependency: JobId, job: JobId) {
        if let Some(followers) = self.followers.get_mut(&dependency) {
            followers.remove(&job);
            if followers.is_empty() {
                self.followers.remove(&dependency);
            }
        }
    }

    /// A job may have ended: those that wait for it are to ask.
    pub(crate) fn news(&mut self, of: JobId, sequence: u64) {
        let Some(followers) = self.followers.get(&of) else { return };
        for job in followers {
            let conditions = self.jobs.get_mut(job).and_then(|timer| timer.conditions.as_mut());
            if let Some(news) = conditions.and_then(|conditions| conditions.open.get_mut(&of)) {
                *news = News { sequence, fresh: true };
                self.asking.insert(*job);
            }
        }
    }

    /// The log was looked at: the job stands at this sequence, and is to be looked at again then, or never.
    pub(crate) fn looked(&mut self, job: JobId, sequence: u64, again: Option<DateTime<Utc>>) {
        let Some(mut timer) = self.jobs.get(&job).filter(|timer| timer.sequence <= sequence).cloned() else {
            return;
        };
        if again.is_none() {
            self.forget(job);
        } else {
            (timer.sequence, timer.at) = (sequence, again);
            self.set(job, timer);
        }
    }

    /// We said in the log what was due, at this sequence. What the job waits for after that, that event tells.
    pub(crate) fn said(&mut self, job: JobId, sequence: u64) {
        if self.jobs.get(&job).is_some_and(|timer| timer.sequence < sequence) {
            self.forget(job);
        }
    }

    /// The log was asked about the jobs that this one waits for: which, up to what sequence, and whether they ended as they
    /// must. Once all have, it is to be looked at as soon as it may start.
    pub(crate) fn asked(&mut self, job: JobId, answers: &[(JobId, u64, bool)]) {
        let Some(mut timer) = self.jobs.get(&job).cloned() else { return };
        let Some(conditions) = timer.conditions.as_mut() else { return };
        for (dependency, known, met) in answers {
            if *met {
                conditions.open.remove(dependency);
            } else if let Some(news) = conditions.open.get_mut(dependency) {
                // What came while it was asked is to be asked about as well.
                news.fresh = news.sequence != *known;
            }
        }
        if conditions.open.is_empty() {
            let start = conditions.not_before.unwrap_or(NOW);
            timer.at = Some(timer.at.map_or(start, |at| at.min(start)));
        }
        self.set(job, timer);
    }

    /// Those that are to be looked at by now: up to where the log must be known for that, and whether all that they wait for
    /// has ended as it must.
    pub(crate) fn due(&self, now: DateTime<Utc>) -> impl Iterator<Item = (JobId, u64, bool)> {
        let due = self.due.iter().take_while(move |(at, _)| *at <= now).take(AT_ONCE);
        due.filter_map(|(_, job)| {
            let timer = self.jobs.get(job)?;
            let met = timer.conditions.as_ref().is_some_and(|conditions| conditions.open.is_empty());
            Some((*job, timer.sequence, met))
        })
    }

    /// Those who are to ask about others: which, and up to where the log must be known of them.
    pub(crate) fn asking(&self) -> impl Iterator<Item = (JobId, u64, Vec<(JobId, u64)>)> {
        self.asking.iter().take(AT_ONCE).filter_map(|job| {
            let timer = self.jobs.get(job)?;
            let open = timer.conditions.as_ref()?.open.iter();
            let fresh = open
                .filter(|(_, news)| news.fresh)
                .map(|(dependency, news)| (*dependency, news.sequence));
            Some((*job, timer.sequence, fresh.collect()))
        })
    }

    /// When the next look is due after this time.
    pub(crate) fn next_due(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let last = JobId::from(uuid::Uuid::max());
        self.due.range((Excluded((after, last)), Unbounded)).next().map(|(at, _)| *at)
    }

    /// Whether anything is to be done now.
    pub(crate) fn is_due(&self, now: DateTime<Utc>) -> bool {
        !self.asking.is_empty() || self.due.first().is_some_and(|(at, _)| *at <= now)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&JobId, &Timer)> {
        self.jobs.iter()
    }
}
