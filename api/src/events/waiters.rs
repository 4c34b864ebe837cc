//! One subscription to all stored facts, which wakes the requests that wait for a job or follow all facts.
//!
//! Facts arrive over plain NATS, which may lose messages. A gap in the sequences or a new connection makes every waiter read the log again:
//! the log is authoritative, and the subscription only saves polling it.

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

/// How many facts a follower of all facts may lag behind before it reads from the log instead.
const ALL_CAPACITY: usize = 4_096;
/// How many facts of one job a waiter may lag behind before it reads the job again.
const JOB_CAPACITY: usize = 8;
/// How often the connection is checked for a reconnect.
const RECONNECT_CHECK: Duration = Duration::from_millis(250);
/// The pause before subscribing again.
const PAUSE: Duration = Duration::from_millis(500);
/// The sequence that a stored event's writer expected to be the job's last one.
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// An event that was stored just now.
#[derive(Debug)]
pub(crate) struct Fact {
    /// The subject that it was republished on.
    pub(crate) subject: String,
    /// Its sequence in the log.
    pub(crate) sequence: u64,
    /// The sequence of the job's event before it.
    pub(crate) previous: u64,
    /// The event.
    pub(crate) payload: Bytes,
}

/// Why a waiter wakes.
#[derive(Debug, Clone)]
pub(crate) enum WakeUp {
    /// An event was stored.
    Fact(Arc<Fact>),
    /// Events may have been missed: read the log again.
    Reset,
}

/// The requests that wait for events.
#[derive(Debug)]
pub(crate) struct Waiters {
    jobs: Mutex<HashMap<JobId, broadcast::Sender<WakeUp>>>,
    all: broadcast::Sender<WakeUp>,
    /// The sequence of the last fact.
    last: AtomicU64,
    /// The last sequence of the log at the start.
    begin: u64,
    /// The last sequence of the log at the last look.
    stored: AtomicU64,
    /// Counted up whenever facts may have been missed.
    resets: watch::Sender<u64>,
    /// Notified by every event of a worker.
    pub(crate) workers: Notify,
}

/// A subscription to the facts of one job.
#[derive(Debug)]
pub(crate) struct Waiter {
    id: JobId,
    facts: broadcast::Receiver<WakeUp>,
    waiters: Arc<Waiters>,
}

impl Waiters {
    /// No waiters yet. `begin` is the last sequence of the log.
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

    /// Registers a waiter for a job, which every event from now on wakes: register first, then read the job.
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

    /// All facts from now on, and a sequence that all of them come after.
    pub(crate) fn everything(&self) -> (broadcast::Receiver<WakeUp>, u64) {
        let facts = self.all.subscribe();
        (facts, self.last.load(Ordering::Acquire).max(self.begin))
    }

    /// Changes whenever facts may have been missed.
    pub(crate) fn resets(&self) -> watch::Receiver<u64> {
        self.resets.subscribe()
    }

    /// Takes the last sequence of the log, from one look for all waiters. If facts up to the previous look have not arrived since, they were
    /// lost, and every waiter reads again.
    pub(crate) fn looked(&self, stored: u64) {
        let before = self.stored.swap(stored, Ordering::AcqRel);
        let received = self.last.load(Ordering::Acquire).max(self.begin);
        if before > received {
            debug!("the log holds event {before}, and the last fact received is {received}; waking all waiters");
            self.last.fetch_max(before, Ordering::AcqRel);
            self.reset();
        }
    }

    /// Receives facts until `stop`, at first from a subscription that exists already.
    pub(crate) async fn listen(self: Arc<Self>, client: Client, first: Subscriber, stop: CancellationToken) {
        let mut facts = Some(first);
        while !stop.is_cancelled() {
            if let Some(facts) = facts.take() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.receive(&client, facts) => {}
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

    /// Dispatches facts until the subscription ends.
    async fn receive(&self, client: &Client, mut facts: Subscriber) {
        let mut connects = client.statistics().connects.load(Ordering::Acquire);
        self.reset();
        let mut check = tokio::time::interval(RECONNECT_CHECK);
        loop {
            tokio::select! {
                biased;
                message = facts.next() => match message {
                    Some(message) => self.dispatch(&message),
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

    /// Wakes the waiters that a fact concerns.
    fn dispatch(&self, message: &async_nats::Message) {
        let number = |name| header(message, name).and_then(|text| text.parse::<u64>().ok());
        // Only the stream's republished messages have this header.
        let Some(sequence) = number("Nats-Sequence") else { return };
        let last = self.last.swap(sequence, Ordering::AcqRel);
        if last != 0 && sequence != last + 1 {
            debug!("the facts between {last} and {sequence} were missed; waking all waiters");
            self.reset();
        }
        let subject = message.subject.as_str();
        let waiters_of_job = job_of(subject).and_then(|id| self.jobs.lock().get(&id).cloned());
        if waiters_of_job.is_some() || self.all.receiver_count() > 0 {
            let fact = WakeUp::Fact(Arc::new(Fact {
                subject: subject.to_owned(),
                sequence,
                previous: number(EXPECTED).unwrap_or(0),
                payload: message.payload.clone(),
            }));
            if let Some(waiters) = waiters_of_job {
                let _no_receiver = waiters.send(fact.clone());
            }
            let _no_receiver = self.all.send(fact);
        }
        if matches!(EventSubject::parse(subject), Some(EventSubject::Worker(_))) {
            self.workers.notify_one();
        }
    }

    fn reset(&self) {
        self.resets.send_modify(|resets| *resets += 1);
        for waiters in self.jobs.lock().values() {
            let _no_receiver = waiters.send(WakeUp::Reset);
        }
        let _no_receiver = self.all.send(WakeUp::Reset);
        self.workers.notify_one();
    }
}

/// The job in the subject of a fact. The rest of the subject is not parsed: every fact passes here.
fn job_of(subject: &str) -> Option<JobId> {
    let mut tokens = subject.split('.').skip(3);
    (tokens.next()? == "job").then_some(())?;
    tokens.next()?.parse().ok()
}

impl Waiter {
    /// Waits for the next wake-up. May be dropped half-way without losing one.
    pub(crate) async fn next(&mut self) -> WakeUp {
        match self.facts.recv().await {
            Ok(wake_up) => wake_up,
            // The sender lives as long as this waiter. A waiter that lags behind reads again.
            Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => WakeUp::Reset,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut jobs = self.waiters.jobs.lock();
        // The receiver of this waiter is still counted.
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
    fn an_event_whose_fact_was_lost_wakes_all_waiters_once() {
        let waiters = Waiters::new(5);
        let mut facts = waiters.everything().0;
        waiters.looked(5);
        waiters.looked(7);
        assert!(facts.try_recv().is_err(), "they may be on their way");
        waiters.looked(7);
        assert!(matches!(facts.try_recv(), Ok(WakeUp::Reset)));
        waiters.looked(7);
        assert!(facts.try_recv().is_err(), "they have been read");
        assert_eq!(waiters.everything().1, 7);
    }

    #[test]
    fn the_last_waiter_removes_its_entry() {
        let (waiters, id) = (Waiters::new(0), JobId::new());
        let (first, second) = (waiters.register(id), waiters.register(id));
        drop(first);
        assert_eq!(waiters.jobs.lock().len(), 1);
        drop(second);
        assert_eq!(waiters.jobs.lock().len(), 0);
    }
}
