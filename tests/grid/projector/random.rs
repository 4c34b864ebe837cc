//! Random events, most of them possible where the job stands, many of them not.

use std::collections::BTreeMap;

use anyhow::Result;
use bus::{
    envelope::{Actor, Envelope, Event},
    ids::{Attempt, JobId, SessionId, WorkerId},
    job::{
        CancelRequested, Cancelled, Claimed, Command, Died, Finished, Job, JobEvent, LossCause, Outcome, Phase, Recorded, Rescheduled,
        Returned, Started, Submitted, Usage, decide,
    },
    spec::{
        ExecutorKind, JobSpec,
        policy::{Clock, Start},
    },
    subjects,
};
use grid_tests::writer::{Writer, namespace, spec};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::batches::Batches;

/// Says random things about a few jobs, and batches, at a time.
pub(super) struct Babbler {
    dice: StdRng,
    workers: Vec<(WorkerId, SessionId)>,
    jobs: Vec<(JobId, Option<Job>)>,
    batches: Batches,
}

impl Babbler {
    pub(super) fn new(seed: u64) -> Result<Self> {
        let workers = ["a", "a", "b"].iter().map(|name| Ok((name.parse()?, SessionId::new())));
        Ok(Self {
            dice: StdRng::seed_from_u64(seed),
            workers: workers.collect::<Result<_>>()?,
            jobs: (0..20).map(|_| (JobId::new(), None)).collect(),
            batches: Batches::new(),
        })
    }

    /// Says so many things, whatever the log holds already.
    pub(super) async fn say(&mut self, writer: &Writer, count: usize) -> Result<()> {
        let mut stored = Vec::new();
        for _ in 0..count {
            if self.dice.random_bool(0.15) {
                let (subject, envelope) = self.batches.next(&mut self.dice);
                stored.push(writer.bus.js.send_publish(subject, message(&envelope)).await?);
                continue;
            }
            let which = self.dice.random_range(0..self.jobs.len());
            let (publisher, event) = self.next(which);
            let (id, job) = &mut self.jobs[which];
            let actor = publisher.clone().unwrap_or(Actor::Api);
            let envelope = Envelope::new(actor, event);
            let subject = match &publisher {
                None => subjects::job_ready(&namespace(), *id, &spec().queue, spec().class()),
                Some(actor) => subjects::job_by(&namespace(), *id, actor),
            };
            stored.push(writer.bus.js.send_publish(subject, message(&envelope)).await?);
            *job = Job::evolve(
                job.take(),
                &Recorded {
                    namespace: namespace(),
                    job: *id,
                    publisher,
                    sequence: 1,
                    envelope,
                },
            );
            // Some jobs are left behind, so that others are begun; now and then one that ended is still spoken of.
            if job.as_ref().is_some_and(|job| job.state().is_end()) && self.dice.random_bool(0.5) {
                self.jobs[which] = (JobId::new(), None);
            }
        }
        for ack in stored {
            ack.await?;
        }
        Ok(())
    }

    fn next(&mut self, which: usize) -> (Option<Actor>, JobEvent) {
        let job = self.jobs[which].1.as_ref();
        if self.dice.random_bool(0.25) {
            return self.anything();
        }
        let Some(job) = job else { return self.submitted() };
        let live = job.live_attempt().map(|live| (live.number, live.worker.clone(), live.session));
        match (&job.phase, live) {
            (Phase::Queued { next }, _) => {
                let (attempt, worker) = (*next, self.dice.random_range(0..self.workers.len()));
                if self.dice.random_bool(0.1) {
                    (Some(Actor::Api), cancelled(&mut self.dice))
                } else {
                    self.claimed(attempt, worker)
                }
            }
            (_, Some((attempt, worker, session))) => self.lived(attempt, worker, session),
            (Phase::Held { .. } | Phase::Retrying { .. }, None) if self.dice.random_bool(0.8) => {
                let job = job.clone();
                self.decided(&job, &[Command::Release, Command::Expire { clock: Clock::Total }])
            }
            (Phase::Ended(_), None) if self.dice.random_bool(0.5) => {
                let job = job.clone();
                self.decided(&job, &[Command::Requeue { reason: None }])
            }
            (_, None) => self.anything(),
        }
    }

    /// What one of these commands comes to; anything, where it comes to nothing.
    fn decided(&mut self, job: &Job, commands: &[Command]) -> (Option<Actor>, JobEvent) {
        let command = commands.choose(&mut self.dice).cloned();
        match command.and_then(|command| decide(Some(job), command).ok()) {
            Some(event @ JobEvent::Expired(_)) => (Some(Actor::Watcher), event),
            Some(event) => (None, event),
            None => self.anything(),
        }
    }

    fn submitted(&mut self) -> (Option<Actor>, JobEvent) {
        let labels = (0..self.dice.random_range(0..3)).map(|n| (format!("k{n}"), format!("v \"{n}\" ü")));
        let spec = JobSpec {
            name: self.dice.random_bool(0.5).then(|| "näme".to_owned()),
            labels: labels.collect::<BTreeMap<_, _>>(),
            timeout_ms: self.dice.random_bool(0.3).then_some(5_000),
            total_timeout_ms: self.dice.random_bool(0.5).then_some(9_000),
            max_losses: self.dice.random_bool(0.3).then_some(1),
            start: self.dice.random_bool(0.3).then(|| Start {
                delay_ms: Some(1_000),
                ..Start::default()
            }),
            batch: if self.dice.random_bool(0.3) {
                self.batches.member(&mut self.dice)
            } else {
                None
            },
            ..spec()
        };
        let publisher = spec.start.as_ref().map(|_| Actor::Api);
        (publisher, JobEvent::Submitted(Box::new(Submitted { spec })))
    }

    fn claimed(&mut self, attempt: Attempt, worker: usize) -> (Option<Actor>, JobEvent) {
        let (worker, session) = self.workers[worker].clone();
        let event = JobEvent::Claimed(Claimed {
            attempt,
            worker: worker.clone(),
            session,
        });
        (Some(Actor::Worker(worker)), event)
    }

    /// What may happen to an attempt that a worker has.
    fn lived(&mut self, attempt: Attempt, worker: WorkerId, session: SessionId) -> (Option<Actor>, JobEvent) {
        let cause = LossCause::WorkerLost { worker: worker.clone() };
        let by_worker = Some(Actor::Worker(worker));
        match self.dice.random_range(0..11) {
            10 => {
                let interrupted = self.dice.random_bool(0.5);
                let returned = Returned {
                    attempt,
                    session,
                    interrupted,
                };
                (by_worker, JobEvent::Returned(returned))
            }
            0..4 => (by_worker, started(&mut self.dice, attempt, session)),
            4..7 => (by_worker, finished(&mut self.dice, attempt, session)),
            7 => (
                None,
                JobEvent::Rescheduled(Box::new(Rescheduled {
                    attempt,
                    cause,
                    spec: spec(),
                    failures: 0,
                    deadline: None,
                })),
            ),
            8 => (
                Some(Actor::Api),
                JobEvent::CancelRequested(CancelRequested {
                    reason: self.dice.random_bool(0.5).then(|| "enough".to_owned()),
                }),
            ),
            _ if self.dice.random_bool(0.5) => (Some(Actor::Watcher), JobEvent::Died(Died { attempt, cause })),
            _ => (Some(Actor::Watcher), cancelled(&mut self.dice)),
        }
    }

    /// Any event, by anybody.
    fn anything(&mut self) -> (Option<Actor>, JobEvent) {
        let (worker, session) = self
            .workers
            .choose(&mut self.dice)
            .cloned()
            .unwrap_or_else(|| self.workers[0].clone());
        let attempt = Attempt(self.dice.random_range(1..4));
        let (_, event) = match self.dice.random_range(0..8) {
            0 => self.submitted(),
            1 => self.claimed(attempt, 0),
            _ => self.lived(attempt, worker.clone(), session),
        };
        let publishers = [None, Some(Actor::Api), Some(Actor::Watcher), Some(Actor::Worker(worker))];
        (publishers.choose(&mut self.dice).cloned().flatten(), event)
    }
}

fn message<E: Event>(envelope: &Envelope<E>) -> async_nats::jetstream::message::PublishMessage {
    async_nats::jetstream::message::PublishMessage::build().payload(envelope.to_json().into())
}

fn started(dice: &mut StdRng, attempt: Attempt, session: SessionId) -> JobEvent {
    JobEvent::Started(Started {
        attempt,
        session,
        executor: ExecutorKind::Process,
        environment: dice.random_bool(0.5).then(|| "/usr/bin/python3".to_owned()),
    })
}

fn cancelled(dice: &mut StdRng) -> JobEvent {
    JobEvent::Cancelled(Cancelled {
        reason: dice.random_bool(0.5).then(|| "no more".to_owned()),
    })
}

fn finished(dice: &mut StdRng, attempt: Attempt, session: SessionId) -> JobEvent {
    let outcomes = [
        Outcome::Succeeded,
        Outcome::Succeeded,
        Outcome::Failed { exit_code: 3 },
        Outcome::Signalled { signal: 11 },
        Outcome::TimedOut {
            limit_ms: 5_000,
            clock: Clock::Attempt,
        },
        Outcome::OutOfMemory { limit_bytes: None },
        Outcome::Cancelled,
        Outcome::Error {
            message: "cannot find `pythön`".to_owned(),
            not_found: true,
        },
    ];
    JobEvent::Finished(Box::new(Finished {
        attempt,
        session,
        outcome: outcomes.choose(dice).cloned().unwrap_or(Outcome::Succeeded),
        manifest: None,
        usage: Usage {
            wall_ms: dice.random_range(0..10_000),
            ..Usage::default()
        },
        retry_after_ms: dice.random_bool(0.3).then_some(1_500),
    }))
}
