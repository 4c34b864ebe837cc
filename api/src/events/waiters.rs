//! One subscription to all stored facts, which wakes whoever waits for a job, and feeds whoever follows everything.
//!
//! Facts come by plain NATS: at once, and without a promise. A missing one shows as a gap in the sequences, a broken
//! connection as a new one; both make every waiter read again. So the log stays what counts, and this only saves asking.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, Subscriber};
use bus::{
    ids::JobId,
    log::puller::header,
    subjects::{self, EventSubject},
};
use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Facts that one follower of everything may be behind before it reads from the log instead.
const ALL_CAPACITY: usize = 4_096;
/// Facts of one job that a waiter may be behind before it reads the job again.
const JOB_CAPACITY: usize = 8;
/// How often it is checked whether the connection is still the same.
const CHECK: Duration = Duration::from_millis(250);
/// The pause before the facts are subscribed to again.
const PAUSE: Duration = Duration::from_millis(500);
/// The sequence that a stored event's writer expected to be the job's last one.
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// An event that was stored just now.
#[derive(Debug)]
pub(crate) struct Fact {
    /// The subject that it is told on.
    pub(crate) subject: String,
    /// Where it stands in the log.
    pub(crate) sequence: u64,
    /// Where the event before it, of the same job, stands.
    pub(crate) previous: u64,
    /// The event.
    pub(crate) payload: Bytes,
}

/// What wakes a waiter.
#[derive(Debug, Clone)]
pub(crate) enum Woken {
    /// Something happened.
    Fact(Arc<Fact>),
    /// Something may have happened: read again.
    Reset,
}

#[derive(Debug)]
pub(crate) struct Waiters {
    jobs: Mutex<HashMap<JobId, broadcast::Sender<Woken>>>,
    all: broadcast::Sender<Woken>,
    /// The sequence of the last fact.
    last: AtomicU64,
    /// What the log held when this began.
    begin: u64,
    /// What the log held when it was last looked at.
    stored: AtomicU64,
    /// Counted up whenever something may have been missed.
    resets: watch::Sender<u64>,
    /// Something happened to a worker.
    pub(crate) workers: Notify,
}

/// A registered interest in one job.
#[derive(Debug)]
pub(crate) struct Waiter {
    id: JobId,
    facts: broadcast::Receiver<Woken>,
    waiters: Arc<Waiters>,
}

impl Waiters {
    /// Nobody waits yet; the log holds events up to sequence `begin`.
    pub(crate) fn new(begin: u64) -> Arc<Self> {
        Arc::new(Self {
            jobs: Mutex::new(HashMap::new()),
            all: broadcast::Sender::new(ALL_CAPACITY),
            last: AtomicU64::new(0),
            begin,
            stored: AtomicU64::new(0),
            resets: watch::Sender::new(0),
            workers: Notify::new(),
        })
    }

    /// Registers an interest in a job. Whatever is stored from now on wakes it; so register first, then read.
    pub(crate) fn register(self: &Arc<Self>, id: JobId) -> Waiter {
        let mut jobs = self.jobs.lock();
        let facts = jobs.entry(id).or_insert_with(|| broadcast::Sender::new(JOB_CAPACITY)).subscribe();
        drop(jobs);
        Waiter {
            id,
            facts,
            waiters: Arc::clone(self),
        }
    }

    /// Everything that is stored from now on, and a sequence behind which all of that stands.
    pub(crate) fn everything(&self) -> (broadcast::Receiver<Woken>, u64) {
        let facts = self.all.subscribe();
        (facts, self.last.load(Ordering::Acquire).max(self.begin))
    }

    /// Changes whenever something that was published may have been missed.
    pub(crate) fn resets(&self) -> watch::Receiver<u64> {
        self.resets.subscribe()
    }

    /// The log holds events up to this sequence: one look for everybody who waits. What stood in it at the look before and was not told
    /// since is missing, and makes every waiter read again.
    pub(crate) fn looked(&self, stored: u64) {
        let before = self.stored.swap(stored, Ordering::AcqRel);
        let told = self.last.load(Ordering::Acquire).max(self.begin);
        if before > told {
            debug!("the log holds {before}, and {told} is the last that was told; waking everybody");
            self.last.fetch_max(before, Ordering::AcqRel);
            self.reset();
        }
    }

    /// Listens until `stop`, first to a subscription that is there already.
    pub(crate) async fn listen(self: Arc<Self>, client: Client, first: Subscriber, stop: CancellationToken) {
        let mut facts = Some(first);
        while !stop.is_cancelled() {
            if let Some(facts) = facts.take() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.hear(&client, facts) => {}
                }
                tokio::time::sleep(PAUSE).await;
            }
            match client.subscribe(subjects::FACTS).await {
                Ok(again) => facts = Some(again),
                Err(error) => {
                    debug!("cannot subscribe to the facts: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Hands on what comes, until the subscription ends.
    async fn hear(&self, client: &Client, mut facts: Subscriber) {
        let mut connects = client.statistics().connects.load(Ordering::Acquire);
        self.reset();
        let mut check = tokio::time::interval(CHECK);
        loop {
            tokio::select! {
                biased;
                message = facts.next() => match message {
                    Some(message) => self.tell(&message),
                    None => return,
                },
                _ = check.tick() => {
                    let now = client.statistics().connects.load(Ordering::Acquire);
                    if now != connects {
                        connects = now;
                        self.reset();
                    }
                }
            }
        }
    }

    fn tell(&self, message: &async_nats::Message) {
        let number = |name| header(message, name).and_then(|text| text.parse::<u64>().ok());
        // Whoever publishes here without being the stream says nothing.
        let Some(sequence) = number("Nats-Sequence") else { return };
        let last = self.last.swap(sequence, Ordering::AcqRel);
        if last != 0 && sequence != last + 1 {
            debug!("the facts between {last} and {sequence} were missed; waking everybody");
            self.reset();
        }
        let subject = message.subject.as_str();
        let waited_for = job_of(subject).and_then(|id| self.jobs.lock().get(&id).cloned());
        if waited_for.is_some() || self.all.receiver_count() > 0 {
            let fact = Woken::Fact(Arc::new(Fact {
                subject: subject.to_owned(),
                sequence,
                previous: number(EXPECTED).unwrap_or(0),
                payload: message.payload.clone(),
            }));
            if let Some(waiters) = waited_for {
                let _nobody_left = waiters.send(fact.clone());
            }
            let _nobody_follows = self.all.send(fact);
        }
        if matches!(EventSubject::parse(subject), Some(EventSubject::Worker(_))) {
            self.workers.notify_one();
        }
    }

    fn reset(&self) {
        self.resets.send_modify(|resets| *resets += 1);
        for waiters in self.jobs.lock().values() {
            let _nobody_left = waiters.send(Woken::Reset);
        }
        let _nobody_follows = self.all.send(Woken::Reset);
        self.workers.notify_one();
    }
}

/// The job that a fact's subject names. Read without the rest of the subject, since every fact passes here.
fn job_of(subject: &str) -> Option<JobId> {
    let mut tokens = subject.split('.').skip(3);
    (tokens.next()? == "job").then_some(())?;
    tokens.next()?.parse().ok()
}

impl Waiter {
    /// Waits for what happens next. Loses nothing when dropped half-way.
    pub(crate) async fn woken(&mut self) -> Woken {
        match self.facts.recv().await {
            Ok(woken) => woken,
            // The sender lives as long as this waiter; being behind means to read again.
            Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => Woken::Reset,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut jobs = self.waiters.jobs.lock();
        // This one still counts.
        if jobs.get(&self.id).is_some_and(|waiters| waiters.receiver_count() <= 1) {
            jobs.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_facts_subject_names_its_job() {
        let (namespace, id) = (bus::ids::default_token(), JobId::new());
        let subject = subjects::job_facts(&namespace, id).replace('>', "by.api");
        assert_eq!(job_of(&subject), Some(id));
        assert_eq!(job_of("rgrid.fact.sys.worker.w"), None);
        assert_eq!(job_of("rgrid.fact"), None);
    }

    #[test]
    fn what_is_in_the_log_and_was_not_told_wakes_everybody_once() {
        let waiters = Waiters::new(5);
        let mut facts = waiters.everything().0;
        waiters.looked(5);
        waiters.looked(7);
        assert!(facts.try_recv().is_err(), "they may be on their way");
        waiters.looked(7);
        assert!(matches!(facts.try_recv(), Ok(Woken::Reset)));
        waiters.looked(7);
        assert!(facts.try_recv().is_err(), "they have been read");
        assert_eq!(waiters.everything().1, 7);
    }

    #[test]
    fn the_last_waiter_takes_its_entry_along() {
        let (waiters, id) = (Waiters::new(0), JobId::new());
        let (first, second) = (waiters.register(id), waiters.register(id));
        drop(first);
        assert_eq!(waiters.jobs.lock().len(), 1);
        drop(second);
        assert_eq!(waiters.jobs.lock().len(), 0);
    }
}
