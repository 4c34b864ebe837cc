//! The broker: a log with expected sequences, work that is handed out until it is acknowledged, and heartbeats.

use std::collections::BTreeMap;

use bus::{
    envelope::{Actor, Envelope},
    ids::{EventId, JobId, WorkerId, default_token},
    job::{self, Job, JobEvent},
    log::read::{self, Fact},
    subjects,
    worker::{Heartbeat, WorkerEvent},
};

use super::sim::{Sim, Who};
use crate::{
    chaos::log::{Event, Reader, What},
    writer::{namespace, spec},
};

/// How long work is with a runner that does not acknowledge it, in milliseconds.
const ACK_WAIT: u64 = 2_000;

/// What an append comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Stored(u64),
    Conflict,
}

/// A stored event.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) subject: String,
    pub(super) payload: bytes::Bytes,
    id: EventId,
    fact: Fact,
}

/// A heartbeat: of a worker, or a watcher's own, sent at that moment.
#[derive(Debug, Clone)]
pub(super) enum Pulse {
    Of(WorkerId, Heartbeat),
    Canary(usize, u64),
}

#[derive(Debug, Default)]
pub(super) struct Broker {
    /// Sequences count from 1.
    pub(super) log: Vec<Stored>,
    pub(super) pulses: Vec<Pulse>,
    /// Ready events that are not acknowledged, by sequence, and until when somebody has them.
    work: BTreeMap<u64, u64>,
    last: BTreeMap<String, u64>,
    reader: Reader,
    pub(super) frozen_until: u64,
    pub(super) life: u64,
}

impl Broker {
    /// Every event of a job.
    pub(super) fn history(&self, id: JobId) -> Vec<job::Recorded> {
        let of_it = |stored: &Stored| match &stored.fact {
            Fact::Job(recorded) if recorded.job == id => Some((**recorded).clone()),
            Fact::Job(_) | Fact::Batch(_) | Fact::Worker(_) | Fact::Runtimes(_) | Fact::Image(_) => None,
        };
        self.log.iter().filter_map(of_it).collect()
    }

    /// A job as its events tell it.
    pub(super) fn job(&self, id: JobId) -> Option<Job> {
        Job::replay(&self.history(id))
    }

    /// Some work that nobody has.
    pub(super) fn hand_out(&mut self, now: u64, twice: bool) -> Option<job::Recorded> {
        let (sequence, until) = self.work.iter_mut().find(|(_, until)| **until <= now)?;
        *until = if twice { now } else { now + ACK_WAIT };
        let index = usize::try_from(*sequence - 1).ok()?;
        match &self.log.get(index)?.fact {
            Fact::Job(recorded) => Some((**recorded).clone()),
            Fact::Batch(_) | Fact::Worker(_) | Fact::Runtimes(_) | Fact::Image(_) => None,
        }
    }

    /// Whoever acknowledges it, it is gone.
    pub(super) fn acknowledge(&mut self, sequence: u64) {
        self.work.remove(&sequence);
    }
}

impl Sim {
    /// Appends an event of a job behind the one at `after`.
    pub(super) fn append(&mut self, id: JobId, after: u64, envelope: &Envelope<JobEvent>) -> Answer {
        let ready = match &envelope.event {
            JobEvent::Submitted(submitted) => submitted.spec.start.is_none(),
            JobEvent::Rescheduled(_) | JobEvent::Released(_) | JobEvent::Requeued(_) => true,
            _ => false,
        };
        let subject = if ready {
            subjects::job_ready(&namespace(), id, &default_token(), spec().class())
        } else {
            subjects::job_by(&namespace(), id, &envelope.actor)
        };
        let answer = self.store(&id.to_string(), Some(after), subject, envelope.id, envelope.to_json());
        if let (Answer::Stored(sequence), true) = (answer, ready) {
            // Stored twice is once; and what was acknowledged does not come back.
            if sequence == self.broker.log.len() as u64 {
                self.broker.work.entry(sequence).or_insert(0);
            }
        }
        answer
    }

    /// Appends an event of a worker, behind the one at `after` where that matters.
    pub(super) fn append_of_worker(&mut self, id: &WorkerId, after: Option<u64>, envelope: &Envelope<WorkerEvent>) -> Answer {
        let answer = self.store(id.as_str(), after, subjects::worker(id), envelope.id, envelope.to_json());
        if let WorkerEvent::Lost(lost) = &envelope.event {
            self.say_lost(id, lost.session);
        }
        answer
    }

    fn store(&mut self, topic: &str, after: Option<u64>, subject: String, id: EventId, payload: impl Into<bytes::Bytes>) -> Answer {
        let payload = payload.into();
        if let Some(index) = self.broker.log.iter().position(|stored| stored.id == id) {
            return Answer::Stored(index as u64 + 1);
        }
        let last = self.broker.last.get(topic).copied().unwrap_or(0);
        if after.is_some_and(|after| after != last) {
            return Answer::Conflict;
        }
        let sequence = self.broker.log.len() as u64 + 1;
        let fact = read::decode(&subject, sequence, &payload)
            .expect("what we write can be read")
            .expect("it is an event");
        self.record(sequence, &fact);
        self.broker.last.insert(topic.to_owned(), sequence);
        self.broker.log.push(Stored {
            subject,
            payload,
            id,
            fact,
        });
        self.news();
        Answer::Stored(sequence)
    }

    /// What the checker's ledger makes of it.
    fn record(&mut self, sequence: u64, fact: &Fact) {
        let at = i64::try_from(self.now).unwrap_or_default() * 1_000;
        let what = match fact {
            Fact::Job(recorded) => self.broker.reader.of_job(recorded),
            Fact::Batch(recorded) => What::OfBatch(recorded.batch),
            Fact::Runtimes(_) | Fact::Image(_) => return,
            Fact::Worker(recorded) => match &recorded.envelope.event {
                WorkerEvent::Lost(lost) => What::Lost(recorded.worker.clone(), lost.session),
                _ => What::OfWorker(recorded.worker.clone()),
            },
        };
        self.told.ledger.see(&Event { sequence, at, what });
    }

    /// Whoever speaks in a worker's name.
    pub(super) fn actor(number: usize) -> Actor {
        Actor::Worker(Self::worker_id(number))
    }

    pub(super) fn worker_id(number: usize) -> WorkerId {
        format!("worker-{number}").parse().expect("a token")
    }

    /// Tells a runner, some time, that its session was given up.
    fn say_lost(&mut self, id: &WorkerId, session: bus::ids::SessionId) {
        let number = self.runners.iter().position(|runner| runner.id == *id);
        if let Some(number) = number {
            let at = self.now + rand::Rng::random_range(&mut self.random, 0..1_500);
            let at = at.max(self.runners[number].cut_until);
            self.as_one(Who::Runner(number), at, move |sim| sim.lost(number, session));
        }
    }
}
