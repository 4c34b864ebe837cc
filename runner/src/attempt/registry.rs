//! The attempts of one session: a heartbeat lists them, and a cancellation or a fence must reach them.

use std::{collections::HashMap, sync::Arc};

use bus::ids::{Attempt, JobId};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Why an attempt must end before its command does. A later variant overrides an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StopReason {
    /// The job is cancelled.
    Cancel,
    /// The runner restarts: a container continues for the next runner, and any other command has a moment to end on its own.
    Leave,
    /// The session is ending, and its time is over: the attempt is rescheduled.
    Shutdown,
    /// It is no longer the job's current attempt: another one may run, and the result of this one does not count.
    Fenced,
}

/// Tells an attempt that it must end.
type StopSender = watch::Sender<Option<StopReason>>;

/// The attempts that a session is executing. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attempts(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    live: HashMap<JobId, (Attempt, StopSender)>,
    last_claim: u64,
    /// Why all attempts must end, also those that are entered later.
    all: Option<StopReason>,
}

/// One attempt of the list; dropping the entry removes the attempt.
#[derive(Debug)]
pub(crate) struct Entry {
    attempts: Attempts,
    job: JobId,
    attempt: Attempt,
    stop: watch::Receiver<Option<StopReason>>,
}

impl Attempts {
    /// Enters an attempt, before its claim is stored: a heartbeat may list an attempt too early, but the watcher takes a claimed attempt
    /// that is not listed for an orphan.
    ///
    /// # Errors
    /// The attempt at the job that is being executed already.
    pub(crate) fn enter(&self, job: JobId, attempt: Attempt) -> Result<Entry, Attempt> {
        let (sender, stop) = watch::channel(None);
        let mut inner = self.0.lock();
        if let Some((known, _)) = inner.live.get(&job) {
            return Err(*known);
        }
        if let Some(why) = inner.all {
            raise(&sender, why);
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

    /// Asks one attempt to end.
    pub(crate) fn stop(&self, job: JobId, why: StopReason) {
        if let Some((_, sender)) = self.0.lock().live.get(&job) {
            raise(sender, why);
        }
    }

    /// Asks every attempt to end, also those that are entered later.
    pub(crate) fn stop_all(&self, why: StopReason) {
        let mut inner = self.0.lock();
        inner.all = inner.all.max(Some(why));
        for (_, sender) in inner.live.values() {
            raise(sender, why);
        }
    }

    /// Whether nothing is being executed.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().live.is_empty()
    }

    /// What a heartbeat lists: the last stored claim, and the attempts that are being executed.
    #[must_use]
    pub(crate) fn snapshot(&self) -> (u64, Vec<(JobId, Attempt)>) {
        let inner = self.0.lock();
        (
            inner.last_claim,
            inner.live.iter().map(|(job, (attempt, _))| (*job, *attempt)).collect(),
        )
    }
}

/// A stronger reason overrides a weaker one, never the other way round: a fence is final.
fn raise(sender: &StopSender, why: StopReason) {
    sender.send_if_modified(|stop| {
        let raised = *stop < Some(why);
        if raised {
            *stop = Some(why);
        }
        raised
    });
}

impl Entry {
    /// The job and the attempt.
    #[must_use]
    pub(crate) const fn which(&self) -> (JobId, Attempt) {
        (self.job, self.attempt)
    }

    /// Why the attempt must end, if it must.
    #[must_use]
    pub(crate) fn stopped(&self) -> Option<StopReason> {
        *self.stop.borrow()
    }

    /// Waits until the attempt is asked to end, or asked again for a stronger reason.
    pub(crate) async fn stop(&mut self) -> StopReason {
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
    /// Waits until the attempt is fenced.
    pub(crate) async fn fenced(&mut self) -> StopReason {
        loop {
            if self.stopped() == Some(StopReason::Fenced) {
                return StopReason::Fenced;
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
    async fn a_stronger_reason_overrides_a_weaker_one_and_a_fence_is_final() {
        let (attempts, job) = (Attempts::default(), JobId::new());
        let mut entry = attempts.enter(job, Attempt::FIRST).expect("an entry");
        assert_eq!(
            attempts.enter(job, Attempt::FIRST.next()).err(),
            Some(Attempt::FIRST),
            "it is being executed"
        );
        attempts.stop(job, StopReason::Cancel);
        assert_eq!(entry.stop().await, StopReason::Cancel);
        attempts.stop(job, StopReason::Fenced);
        attempts.stop(job, StopReason::Cancel);
        assert_eq!(
            (entry.stop().await, entry.stopped()),
            (StopReason::Fenced, Some(StopReason::Fenced))
        );
    }

    #[tokio::test]
    async fn an_attempt_that_is_entered_later_is_stopped_like_all_others() {
        let attempts = Attempts::default();
        attempts.stop_all(StopReason::Fenced);
        let mut late = attempts.enter(JobId::new(), Attempt::FIRST).expect("an entry");
        assert_eq!(late.stop().await, StopReason::Fenced);
        drop(late);
        assert!(attempts.is_empty());
    }
}
