//! Jobs that wait for a time, or for the end of other jobs.
//!
//! A timer is only a hint to check a job at some time. Whether something is due is decided on the job's events in the log at that
//! moment ([`bus::job::Job::due`]). So a timer too many costs one read, and only a missing timer would be wrong: a timer is dropped
//! only for an event of the API, of a watcher, or of the attempt that was claimed validly.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bus::ids::{Attempt, JobId};
use chrono::{DateTime, Utc};

use crate::observation::{HeldAttempt, SessionKey, WaitingJob};

/// How many checks are planned at once; the rest follow when these are done.
const AT_ONCE: usize = 10_000;

/// A time in the past.
const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;
/// Times from the year 10,000 on count as never: not every format can represent them. In seconds since 1970.
const NEVER: i64 = 253_402_300_800;

/// The timers of all waiting jobs, by time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timers {
    jobs: HashMap<JobId, Timer>,
    due: BTreeSet<(DateTime<Utc>, JobId)>,
    /// The jobs that depend on each job.
    followers: HashMap<JobId, BTreeSet<JobId>>,
    /// The jobs whose dependencies are to be checked, because one of them may have ended.
    to_check: BTreeSet<JobId>,
}

/// A job that waits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timer {
    /// The sequence of its last known event.
    pub(crate) sequence: u64,
    /// When to check it.
    pub(crate) at: Option<DateTime<Utc>>,
    /// The attempt that a worker may claim.
    pub(crate) next: Option<Attempt>,
    /// The attempt that was claimed, and by which session.
    pub(crate) holder: Option<Box<(Attempt, SessionKey)>>,
    pub(crate) conditions: Option<Box<Conditions>>,
}

/// The jobs that a job depends on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    /// Those that are not known to have ended as the job requires.
    pub(crate) open: BTreeMap<JobId, News>,
    /// When the job may start once they have.
    pub(crate) not_before: Option<DateTime<Utc>>,
}

/// What is known of a job that another one depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct News {
    /// The sequence of the last event that may have ended it; 0: none.
    pub(crate) sequence: u64,
    /// Whether it is to be read from the log.
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
    /// A job waits for a worker, a time or other jobs; what it waited for before does not matter any more.
    pub(crate) fn waits(&mut self, sequence: u64, waits: &WaitingJob) {
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

    /// Sets the timer of a job, or removes it if the job waits for nothing.
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
                self.to_check.insert(job);
            }
        }
        self.jobs.insert(job, timer);
    }

    /// A session claimed it: only that session reports the end of the attempt.
    pub(crate) fn claimed(&mut self, sequence: u64, claim: &HeldAttempt) {
        if let Some(timer) = self.jobs.get_mut(&claim.job) {
            timer.sequence = sequence;
            if timer.next == Some(claim.attempt) {
                timer.next = None;
                timer.holder = Some(Box::new((claim.attempt, claim.key())));
            }
        }
    }

    /// A session reports that an attempt ended, and with it the job.
    pub(crate) fn finished(&mut self, end: &HeldAttempt) {
        let by_its_holder = |timer: &Timer| timer.holder.as_deref().is_some_and(|holder| *holder == (end.attempt, end.key()));
        if self.jobs.get(&end.job).is_some_and(by_its_holder) {
            self.forget(end.job);
        }
    }

    /// An attempt failed and is to be tried again, or was given back: the job is checked at once, to learn its next time from the log.
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
        self.to_check.remove(&job);
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

    /// A job may have ended: the jobs that depend on it are to check.
    pub(crate) fn job_may_have_ended(&mut self, of: JobId, sequence: u64) {
        let Some(followers) = self.followers.get(&of) else { return };
        for job in followers {
            let conditions = self.jobs.get_mut(job).and_then(|timer| timer.conditions.as_mut());
            if let Some(news) = conditions.and_then(|conditions| conditions.open.get_mut(&of)) {
                *news = News { sequence, fresh: true };
                self.to_check.insert(*job);
            }
        }
    }

    /// The job was checked: this is its last sequence, and when to check it again, if ever.
    pub(crate) fn checked(&mut self, job: JobId, sequence: u64, again: Option<DateTime<Utc>>) {
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

    /// What was due was appended at this sequence. What the job waits for after that follows from that event.
    pub(crate) fn appended(&mut self, job: JobId, sequence: u64) {
        if self.jobs.get(&job).is_some_and(|timer| timer.sequence < sequence) {
            self.forget(job);
        }
    }

    /// Dependencies of a job were read: which, the last sequence that was known of each, and whether each ended as the job requires. Once
    /// all have, the job is to be checked as soon as it may start.
    pub(crate) fn dependencies_checked(&mut self, job: JobId, answers: &[(JobId, u64, bool)]) {
        let Some(mut timer) = self.jobs.get(&job).cloned() else { return };
        let Some(conditions) = timer.conditions.as_mut() else { return };
        for (dependency, known, met) in answers {
            if *met {
                conditions.open.remove(dependency);
            } else if let Some(news) = conditions.open.get_mut(dependency) {
                // An event came in while it was read, so that it is to be read again.
                news.fresh = news.sequence != *known;
            }
        }
        if conditions.open.is_empty() {
            let start = conditions.not_before.unwrap_or(NOW);
            timer.at = Some(timer.at.map_or(start, |at| at.min(start)));
        }
        self.set(job, timer);
    }

    /// The jobs to check by now: each with the sequence of its last known event, and whether all that it depends on ended as it requires.
    pub(crate) fn due(&self, now: DateTime<Utc>) -> impl Iterator<Item = (JobId, u64, bool)> {
        let due = self.due.iter().take_while(move |(at, _)| *at <= now).take(AT_ONCE);
        due.filter_map(|(_, job)| {
            let timer = self.jobs.get(job)?;
            let met = timer.conditions.as_ref().is_some_and(|conditions| conditions.open.is_empty());
            Some((*job, timer.sequence, met))
        })
    }

    /// The jobs whose dependencies are to be read: each with the sequence of its last known event, and with those dependencies and
    /// theirs.
    pub(crate) fn to_check(&self) -> impl Iterator<Item = (JobId, u64, Vec<(JobId, u64)>)> {
        self.to_check.iter().take(AT_ONCE).filter_map(|job| {
            let timer = self.jobs.get(job)?;
            let open = timer.conditions.as_ref()?.open.iter();
            let fresh = open
                .filter(|(_, news)| news.fresh)
                .map(|(dependency, news)| (*dependency, news.sequence));
            Some((*job, timer.sequence, fresh.collect()))
        })
    }

    /// When the next check is due after this time.
    pub(crate) fn next_due(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let last = JobId::from(uuid::Uuid::max());
        self.due.range((Excluded((after, last)), Unbounded)).next().map(|(at, _)| *at)
    }

    /// Whether a check is due now.
    pub(crate) fn is_due(&self, now: DateTime<Utc>) -> bool {
        !self.to_check.is_empty() || self.due.first().is_some_and(|(at, _)| *at <= now)
    }

    /// Every waiting job.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&JobId, &Timer)> {
        self.jobs.iter()
    }
}
