//! The attempts of one session: what a beat lists, and what a cancel or a fence must reach.

use std::{collections::HashMap, sync::Arc};

use bus::ids::{Attempt, JobId};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Why an attempt must end before its command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A user asked for it.
    Cancel,
    /// It is not ours any more: another attempt may run, and nothing of this one counts.
    Fenced,
    /// The runner is going down, and its grace is over.
    Shutdown,
}

/// The attempts that a session is executing. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attempts(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    live: HashMap<JobId, (Attempt, watch::Sender<Option<Stop>>)>,
    last_claim: u64,
}

/// One attempt in the list; it leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    attempts: Attempts,
    job: JobId,
    stop: watch::Receiver<Option<Stop>>,
}

impl Attempts {
    /// Enters an attempt, before its claim is stored: a beat that lists it too early says nothing wrong, one that lists it
    /// too late makes an orphan of it. Nothing where the job is being executed already.
    #[must_use]
    pub(crate) fn enter(&self, job: JobId, attempt: Attempt) -> Option<Entry> {
        let (sender, stop) = watch::channel(None);
        let mut inner = self.0.lock();
        if inner.live.contains_key(&job) {
            return None;
        }
        inner.live.insert(job, (attempt, sender));
        Some(Entry {
            attempts: self.clone(),
            job,
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
        if let Some((_, sender)) = self.0.lock().live.get(&job) {
            sender.send_if_modified(|stop| stop.replace(why) != Some(why));
        }
    }

    /// Tells every attempt to end.
    pub(crate) fn stop_all(&self, why: Stop) {
        for (_, sender) in self.0.lock().live.values() {
            sender.send_if_modified(|stop| stop.replace(why) != Some(why));
        }
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

impl Entry {
    /// What was asked of the attempt, if anything.
    #[must_use]
    pub(crate) fn stopped(&self) -> Option<Stop> {
        *self.stop.borrow()
    }

    /// Waits until the attempt is told to end, or told so again for another reason.
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

impl Drop for Entry {
    fn drop(&mut self) {
        self.attempts.0.lock().live.remove(&self.job);
    }
}
