//! The log of one job, in memory.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    envelope::{Actor, Envelope},
    ids::{Attempt, JobId, SessionId, WorkerId, default_token},
    job::{Command, Job, JobEvent, LossCause, Outcome, Recorded, Rejection, State, Usage, decide},
    spec::{ExecutorKind, JobSpec},
};

/// The events of one job, as in the log.
#[derive(Debug, Clone)]
pub(super) struct History {
    pub(super) id: JobId,
    pub(super) events: Vec<Recorded>,
}

/// A worker in one session.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) session: SessionId,
}

pub(super) fn spec() -> JobSpec {
    JobSpec::new(vec!["report.py".to_owned()])
}

impl History {
    pub(super) fn submitted() -> Self {
        Self::of(spec())
    }

    pub(super) fn of(spec: JobSpec) -> Self {
        let mut history = Self {
            id: JobId::new(),
            events: Vec::new(),
        };
        let spec = Box::new(spec);
        history.apply(&Actor::Api, Command::Submit { spec }).expect("it is not there yet");
        history
    }

    pub(super) fn job(&self) -> Job {
        Job::replay(&self.events).expect("it was submitted")
    }

    pub(super) fn state(&self) -> State {
        self.job().state()
    }

    pub(super) fn last(&self) -> u64 {
        self.events.last().map_or(0, |recorded| recorded.sequence)
    }

    /// Decides on the job's current state, and records the event as an append would.
    pub(super) fn apply(&mut self, actor: &Actor, command: Command) -> Result<(), Rejection> {
        let job = Job::replay(&self.events);
        let event = decide(job.as_ref(), command)?;
        self.push(publisher(actor, &event), event);
        Ok(())
    }

    pub(super) fn apply_as_permitted_actor(&mut self, worker: &Worker, command: Command) -> Result<(), Rejection> {
        let actor = match command {
            Command::Submit { .. } | Command::Cancel { .. } | Command::Requeue { .. } => Actor::Api,
            Command::GiveUp { .. } | Command::Release | Command::Expire { .. } => Actor::Watcher,
            Command::Claim { .. } | Command::Start { .. } | Command::Finish { .. } | Command::Return { .. } => worker.actor(),
        };
        self.apply(&actor, command)
    }

    /// Records an event without a decision. Sequences have gaps, because other jobs' events are in between; times ascend.
    pub(super) fn push(&mut self, publisher: Option<Actor>, event: JobEvent) {
        let sequence = self.last() + 3;
        let envelope = Envelope {
            time: DateTime::<Utc>::UNIX_EPOCH + TimeDelta::microseconds(i64::try_from(sequence).expect("small")),
            ..Envelope::new(publisher.clone().unwrap_or(Actor::Api), event)
        };
        self.events.push(Recorded {
            namespace: default_token(),
            job: self.id,
            publisher,
            sequence,
            envelope,
        });
    }
}

/// The publisher that the subject names: none on a ready subject.
pub(super) fn publisher(actor: &Actor, event: &JobEvent) -> Option<Actor> {
    match event {
        JobEvent::Submitted(event) if event.spec.start.is_none() => None,
        JobEvent::Rescheduled(_) | JobEvent::Released(_) | JobEvent::Requeued(_) => None,
        _ => Some(actor.clone()),
    }
}

impl Worker {
    pub(super) fn new(name: &str) -> Self {
        Self {
            id: name.parse().expect("a token"),
            session: SessionId::new(),
        }
    }

    pub(super) fn actor(&self) -> Actor {
        Actor::Worker(self.id.clone())
    }

    pub(super) fn claim(&self, attempt: u32) -> Command {
        Command::Claim {
            attempt: Attempt(attempt),
            worker: self.id.clone(),
            session: self.session,
        }
    }

    pub(super) fn start(&self, attempt: u32) -> Command {
        Command::Start {
            attempt: Attempt(attempt),
            session: self.session,
            executor: ExecutorKind::Process,
            environment: None,
        }
    }

    pub(super) fn finish(&self, attempt: u32, outcome: Outcome) -> Command {
        Command::Finish {
            attempt: Attempt(attempt),
            session: self.session,
            outcome,
            manifest: None,
            usage: Usage::default(),
        }
    }

    /// Returns the job, because the worker has no room for it.
    pub(super) fn give_back(&self, attempt: u32) -> Command {
        Command::Return {
            attempt: Attempt(attempt),
            session: self.session,
            interrupted: false,
        }
    }

    /// Returns the job, because the worker's shutdown interrupted the command.
    pub(super) fn interrupt(&self, attempt: u32) -> Command {
        Command::Return {
            attempt: Attempt(attempt),
            session: self.session,
            interrupted: true,
        }
    }

    /// The watcher's command when this worker is lost.
    pub(super) fn give_up(&self, attempt: u32) -> Command {
        Command::GiveUp {
            attempt: Attempt(attempt),
            cause: LossCause::WorkerLost { worker: self.id.clone() },
        }
    }
}
