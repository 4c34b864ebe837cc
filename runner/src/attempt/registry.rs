//! The attempts of one session: what a beat lists, and what a cancel or a fence must reach.

use std::{collections::HashMap, sync::Arc};

use bus::ids::{Attempt, JobId};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Why an attempt must end before its command does. What comes later in this list overrides what comes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// A user asked for it.
    Cancel,
    /// The runner restarts: a container goes on for the next one, and everything else has a moment to end by itself.
    Leave,
    /// The session is ending, and has no more time for it: it is made again elsewhere.
    Shutdown,
    /// It is not ours any more: another attempt may run, and nothing of this one counts.
    Fenced,
}

/// Where an attempt hears that it must end.
type Bell = watch::Sender<Option<Stop>>;

/// The attempts that a session is executing. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attempts(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    live: HashMap<JobId, (Attempt, Bell)>,
    last_claim: u64,
    /// What every attempt was told, and those that come after must hear too.
    all: Option<Stop>,
}

/// One attempt in the list; it leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    attempts: Attempts,
    job: JobId,
    attempt: Attempt,
    stop: watch::Receiver<Option<Stop>>,
}

impl Attempts {
    /// Enters an attempt, before its claim is stored: a beat that lists it too early says nothing wrong, one that lists it
    /// too late makes an orphan of it.
    ///
    /// # Errors
    /// Where the job is being executed already: which attempt at it that is.
    pub(crate) fn enter(&self, job: JobId, attempt: Attempt) -> Result<Entry, Attempt> {
        let (sender, stop) = watch::channel(None);
        let mut inner = self.0.lock();
        if let Some((known, _)) = inner.live.get(&job) {
            return Err(*known);
        }
        if let Some(why) = inner.all {
            ring(&sender, why);
        }
        inner.live.insert(job, (attempt, sender));
        Ok(Entry {
            attempts: self.clone(),
            job,
            attempt,
            stop,
        })
    }

    /// Notes the sequence of a stored claim.
    pub(crate) fn claimed(&self, sequence: u64) {
        let mut inner = self.0.lock();
        inner.last_claim = inner.last_claim.max(sequence);
    }

    /// Tells one attempt to end.
    pub(crate) fn stop(&self, job: JobId, why: Stop) {
        if let Some((_, bell)) = self.0.lock().live.get(&job) {
            ring(bell, why);
        }
    }

    /// Tells every attempt to end, and every one that is entered later.
    pub(crate) fn stop_all(&self, why: Stop) {
        let mut inner = self.0.lock();
        inner.all = inner.all.max(Some(why));
        for (_, bell) in inner.live.values() {
            ring(bell, why);
        }
    }

    /// Whether nothing is being executed.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().live.is_empty()
    }

    /// What a beat says: the last stored claim, and what is being executed.
    #[must_use]
    pub(crate) fn snapshot(&self) -> (u64, Vec<(JobId, Attempt)>) {
        let inner = self.0.lock();
        (
            inner.last_claim,
            inner.live.iter().map(|(job, (attempt, _))| (*job, *attempt)).collect(),
        )
    }
}

/// A stronger reason overrides a weaker one, never the other way round: nothing takes a fence back.
fn ring(bell: &Bell, why: Stop) {
    bell.send_if_modified(|stop| {
        let raised = *stop < Some(why);
        if raised {
            *stop = Some(why);
        }
        raised
    });
}

impl Entry {
    /// Which attempt it is.
    #[must_use]
    pub(crate) const fn which(&self) -> (JobId, Attempt) {
        (self.job, self.attempt)
    }

    /// What was asked of the attempt, if anything.
    #[must_use]
    pub(crate) fn stopped(&self) -> Option<Stop> {
        *self.stop.borrow()
    }

    /// Waits until the attempt is told to end, or told so again for a stronger reason.
    pub(crate) async fn stop(&mut self) -> Stop {
        loop {
            // The sender lives as long as the entry does.
            if self.stop.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(stop) = *self.stop.borrow_and_update() {
                return stop;
            }
        }
    }
}

impl Entry {
    /// Waits until the attempt is not ours any more.
    pub(crate) async fn fenced(&mut self) -> Stop {
        loop {
            if self.stopped() == Some(Stop::Fenced) {
                return Stop::Fenced;
            }
            self.stop().await;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.attempts.0.lock().live.remove(&self.job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stronger_reason_overrides_a_weaker_one_and_nothing_takes_a_fence_back() {
        let (attempts, job) = (Attempts::default(), JobId::new());
        let mut entry = attempts.enter(job, Attempt::FIRST).expect("an entry");
        assert_eq!(
            attempts.enter(job, Attempt::FIRST.next()).err(),
            Some(Attempt::FIRST),
            "it is being executed"
        );
        attempts.stop(job, Stop::Cancel);
        assert_eq!(entry.stop().await, Stop::Cancel);
        attempts.stop(job, Stop::Fenced);
        attempts.stop(job, Stop::Cancel);
        assert_eq!((entry.stop().await, entry.stopped()), (Stop::Fenced, Some(Stop::Fenced)));
    }

    #[tokio::test]
    async fn what_all_were_told_is_told_to_those_who_come_later() {
        let attempts = Attempts::default();
        attempts.stop_all(Stop::Fenced);
        let mut late = attempts.enter(JobId::new(), Attempt::FIRST).expect("an entry");
        assert_eq!(late.stop().await, Stop::Fenced);
        drop(late);
        assert!(attempts.is_empty());
    }
}
