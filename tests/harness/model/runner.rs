//! A runner, as the real one goes about it: it enters what it claims before the claim is stored, beats, runs, commits, and gives up what is
//! not its own any more as soon as it hears of that.

use std::collections::BTreeMap;

use bus::{
    ids::{Attempt, JobId, SessionId, WorkerId},
    job::{Command, Job, JobEvent, Outcome, Phase, Recorded, Rejection, Usage, decide},
    worker::{Heartbeat, Registered, WorkerEvent},
};
use chrono::Utc;
use rand::Rng as _;

use super::{
    broker::{Answer, Pulse},
    sim::{Sim, Who},
};

const BEAT: u64 = 1_000;
const IDLE_BEAT: u64 = 3_000;
const ROOM: usize = 4;
const TRIES: u32 = 10;

/// An attempt that it executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    attempt: Attempt,
}

#[derive(Debug)]
pub(super) struct Runner {
    pub(super) id: WorkerId,
    pub(super) session: SessionId,
    entries: BTreeMap<JobId, Entry>,
    last_claim: u64,
    /// Whether it knows that it is registered.
    pub(super) beats: bool,
    /// When its next heartbeat comes at the latest.
    next_beat: u64,
    pub(super) frozen_until: u64,
    pub(super) cut_until: u64,
    /// Its process: one more after each crash and each new session.
    pub(super) life: u64,
    /// When something was done to it, so that it may count as silent: from, until.
    disturbed: Vec<(u64, u64)>,
}

impl Runner {
    pub(super) fn new(number: usize) -> Self {
        Self {
            id: Sim::worker_id(number),
            session: SessionId::new(),
            entries: BTreeMap::new(),
            last_claim: 0,
            beats: false,
            next_beat: 0,
            frozen_until: 0,
            cut_until: 0,
            life: 0,
            disturbed: Vec::new(),
        }
    }

    pub(super) fn disturb(&mut self, from: u64, until: u64) {
        self.disturbed.push((from, until));
    }

    /// Whether this session lived and could be heard all the time between these moments.
    pub(super) fn was_well(&self, session: SessionId, from: u64, until: u64) -> bool {
        self.session == session && !self.disturbed.iter().any(|(begin, end)| *begin <= until && *end >= from)
    }

    fn now(&self, period: u64) -> Heartbeat {
        Heartbeat {
            session: self.session,
            time: Utc::now(),
            last_claim: self.last_claim,
            cpu_milli_free: 0,
            memory_bytes_free: 0,
            load: 0.0,
            attempts: self.entries.iter().map(|(job, entry)| (*job, entry.attempt)).collect(),
            next_ms: u32::try_from(period).ok(),
            leftovers: Vec::new(),
        }
    }

    pub(super) fn forget(&mut self) {
        self.entries.pop_first();
    }
}

/// What somebody waits for who speaks of a job: where it was stored, or why it may not be said.
type Then = Box<dyn FnOnce(&mut Sim, Result<(u64, Job), Rejection>)>;

impl Sim {
    pub(super) fn begin_session(&mut self, number: usize) {
        let runner = &mut self.runners[number];
        runner.session = SessionId::new();
        runner.entries.clear();
        runner.last_claim = 0;
        runner.beats = false;
        runner.next_beat = 0;
        runner.life += 1;
        let (id, session) = (runner.id.clone(), runner.session);
        let registered = WorkerEvent::Registered(Registered {
            session,
            cpu_milli: 1_000,
            memory_bytes: 1 << 30,
            queues: vec![bus::ids::default_token()],
            executors: Vec::new(),
            labels: BTreeMap::new(),
            versions: BTreeMap::new(),
            host: "model".to_owned(),
            pid: 1,
            self_fence_ms: None,
        });
        let envelope = self.envelope(Self::actor(number), registered);
        self.ask(
            Who::Runner(number),
            move |sim| sim.append_of_worker(&id, None, &envelope),
            move |sim, _| {
                sim.runners[number].beats = true;
                sim.beat(number);
                sim.pull(number);
            },
        );
    }

    pub(super) fn crash_runner(&mut self, number: usize, until: u64) {
        let now = self.now;
        let runner = &mut self.runners[number];
        runner.entries.clear();
        runner.life += 1;
        runner.frozen_until = 0;
        runner.disturb(now, until);
        let life = runner.life;
        // Unless it is killed again meanwhile.
        self.at(until, move |sim| {
            if sim.runners[number].life == life {
                sim.begin_session(number);
            }
        });
    }

    /// Beats each second, or as often as the last heartbeat promised while there is nothing to execute.
    fn beat(&mut self, number: usize) {
        let (now, runner) = (self.now, &mut self.runners[number]);
        let period = if runner.entries.is_empty() { IDLE_BEAT } else { BEAT };
        if period == BEAT || runner.next_beat <= now {
            runner.next_beat = now + period;
            let (id, beat) = (runner.id.clone(), runner.now(period));
            self.tell(Who::Runner(number), move |sim| sim.pulse(Pulse::Of(id, beat)));
        }
        self.as_one(Who::Runner(number), now + BEAT, move |sim| sim.beat(number));
    }

    fn pull(&mut self, number: usize) {
        if self.runners[number].entries.len() < ROOM {
            self.tell(Who::Runner(number), move |sim| {
                let twice = sim.random.random_bool(0.1);
                let Some(recorded) = sim.broker.hand_out(sim.now, twice) else {
                    return;
                };
                let at = sim.now.max(sim.runners[number].cut_until) + sim.random.random_range(0..5);
                sim.as_one(Who::Runner(number), at, move |sim| sim.offered(number, &recorded));
            });
        }
        let next = self.now + self.random.random_range(100..500);
        self.as_one(Who::Runner(number), next, move |sim| sim.pull(number));
    }

    fn offered(&mut self, number: usize, recorded: &Recorded) {
        let Some(job) = Job::from_ready(recorded) else { return };
        let (id, ready, session) = (job.id, recorded.sequence, self.runners[number].session);
        let Phase::Queued { next: attempt } = job.phase else { return };
        let acknowledge = move |sim: &mut Self| sim.tell(Who::Runner(number), move |sim| sim.broker.acknowledge(ready));
        match self.runners[number].entries.get(&id) {
            // We do not know yet that ours was given up. This one comes back, to us or to another.
            Some(known) if known.attempt < attempt => {
                self.runners[number].entries.remove(&id);
                return;
            }
            // Our own claim, delivered again because its acknowledgement was late.
            Some(_) => return acknowledge(self),
            None => {}
        }
        self.runners[number].entries.insert(id, Entry { attempt });
        let worker = self.runners[number].id.clone();
        let claim = Command::Claim { attempt, worker, session };
        self.say(
            number,
            job,
            claim,
            TRIES,
            Box::new(move |sim, said| {
                acknowledge(sim);
                match said {
                    Ok((sequence, job)) => sim.claimed(number, sequence, job, attempt),
                    Err(_) => sim.leave(number, id, attempt),
                }
            }),
        );
    }

    fn claimed(&mut self, number: usize, sequence: u64, job: Job, attempt: Attempt) {
        let claimed = job.attempts.last().map(|last| last.number);
        if claimed != Some(attempt) {
            self.told
                .wrong
                .push(format!("{} claimed attempt {claimed:?} and executes {attempt}", job.id));
        }
        let runner = &mut self.runners[number];
        runner.last_claim = runner.last_claim.max(sequence);
        if self.random.random_bool(0.1) {
            let waited = self.now + self.random.random_range(1..200);
            return self.as_one(Who::Runner(number), waited, move |sim| sim.give_back(number, job, attempt));
        }
        let ends = self.now + self.random.random_range(100..9_000);
        self.as_one(Who::Runner(number), ends, move |sim| sim.done(number, job, attempt));
    }

    /// There is no room for it after all.
    fn give_back(&mut self, number: usize, job: Job, attempt: Attempt) {
        let (id, session) = (job.id, self.runners[number].session);
        if self.runners[number].entries.get(&id) == Some(&Entry { attempt }) {
            // Nothing interrupts a run where nothing goes wrong.
            let interrupted = self.flaky && self.random.random_bool(0.5);
            let give_back = Command::Return {
                attempt,
                session,
                interrupted,
            };
            let leave: Then = Box::new(move |sim, _| sim.leave(number, id, attempt));
            self.say(number, job, give_back, TRIES, leave);
        }
    }

    /// Its command has ended.
    fn done(&mut self, number: usize, job: Job, attempt: Attempt) {
        let (id, session) = (job.id, self.runners[number].session);
        if self.runners[number].entries.get(&id) != Some(&Entry { attempt }) {
            return;
        }
        let failed = self.random.random_bool(0.3);
        let outcome = if failed {
            Outcome::Failed { exit_code: 1 }
        } else {
            Outcome::Succeeded
        };
        let finish = Command::Finish {
            attempt,
            session,
            outcome,
            manifest: None,
            usage: Usage::default(),
        };
        self.say(
            number,
            job,
            finish,
            TRIES,
            Box::new(move |sim, said| {
                sim.told.refused += usize::from(said.is_err());
                sim.leave(number, id, attempt);
            }),
        );
    }

    fn leave(&mut self, number: usize, id: JobId, attempt: Attempt) {
        let entries = &mut self.runners[number].entries;
        if entries.get(&id) == Some(&Entry { attempt }) {
            entries.remove(&id);
        }
    }

    /// Decides on what is known, and appends behind that; where somebody else was first, reads and decides again.
    fn say(&mut self, number: usize, job: Job, command: Command, tries: u32, then: Then) {
        let event: JobEvent = match decide(Some(&job), command.clone()) {
            Ok(event) => event,
            Err(rejection) => return then(self, Err(rejection)),
        };
        let (id, after, envelope) = (job.id, job.sequence, self.envelope(Self::actor(number), event));
        let stored = envelope.clone();
        self.ask(
            Who::Runner(number),
            move |sim| sim.append(id, after, &envelope),
            move |sim, answer| match answer {
                Answer::Stored(sequence) => {
                    let recorded = Recorded {
                        namespace: job.namespace.clone(),
                        job: id,
                        publisher: Some(Self::actor(number)),
                        sequence,
                        envelope: stored,
                    };
                    let job = Job::evolve(Some(job), &recorded).expect("it was one before");
                    then(sim, Ok((sequence, job)));
                }
                Answer::Conflict if tries > 0 => sim.ask(
                    Who::Runner(number),
                    move |sim| sim.broker.job(id),
                    move |sim, again| match again {
                        Some(again) => sim.say(number, again, command, tries - 1, then),
                        None => then(sim, Err(Rejection::Absent)),
                    },
                ),
                Answer::Conflict => then(sim, Err(Rejection::NotQueued)),
            },
        );
    }

    /// Somebody says that this session was given up: whatever it executes is not its own any more.
    pub(super) fn lost(&mut self, number: usize, session: SessionId) {
        if self.runners[number].session == session {
            self.begin_session(number);
        }
    }
}
