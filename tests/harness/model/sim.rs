//! Time, messages, faults.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bus::{
    envelope::{Actor, Envelope},
    ids::JobId,
    job::{Command, decide},
    spec::{
        JobSpec,
        policy::{Retry, Start},
    },
};
use chrono::{DateTime, Utc};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    RUNNERS, WATCHERS,
    broker::{Answer, Broker},
    runner::Runner,
    watcher::Watcher,
};
use crate::{chaos::ledger::Ledger, writer::spec};

/// Jobs are handed in until then, in milliseconds.
const SUBMITTING: u64 = 40_000;
/// All faults are over by then, and from then on everything must come to its end by itself.
const PEACE: u64 = 60_000;
const END: u64 = 160_000;
/// When a message that was not answered is sent again.
const PATIENCE: u64 = 5_000;
const JOBS: usize = 30;

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trouble {
    CrashRunner(usize),
    FreezeRunner(usize),
    /// Between a runner and the broker.
    Cut(usize),
    /// A runner loses track of an attempt.
    Forget(usize),
    CrashWatcher(usize),
    FreezeWatcher(usize),
    FreezeBroker,
    CrashBroker,
}

/// When, in milliseconds, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) at: u64,
    pub(super) lasts: u64,
    pub(super) trouble: Trouble,
}

/// Somebody at one end of a wire; the broker is at the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Runner(usize),
    Watcher(usize),
    Submitter,
}

/// What is known of the whole, apart from everybody's own view.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) ledger: Ledger,
    /// What must not be.
    pub(super) wrong: Vec<String>,
    /// Results that were not wanted any more.
    pub(super) refused: usize,
}

type Step = Box<dyn FnOnce(&mut Sim)>;

/// The world.
pub(super) struct Sim {
    pub(super) now: u64,
    base: Instant,
    wall: DateTime<Utc>,
    pub(super) random: StdRng,
    agenda: BTreeMap<(u64, u64), Step>,
    steps: u64,
    pub(super) broker: Broker,
    pub(super) runners: Vec<Runner>,
    pub(super) watchers: Vec<Watcher>,
    pub(super) acknowledged: Vec<JobId>,
    pub(super) told: Told,
    /// Whether connections break now and then.
    pub(super) flaky: bool,
}

impl Sim {
    pub(super) fn new(seed: u64) -> Self {
        let base = Instant::now();
        Self {
            now: 0,
            base,
            wall: Utc::now(),
            random: StdRng::seed_from_u64(seed),
            agenda: BTreeMap::new(),
            steps: 0,
            broker: Broker::default(),
            runners: (0..RUNNERS).map(Runner::new).collect(),
            watchers: (0..WATCHERS).map(|_| Watcher::new(base)).collect(),
            acknowledged: Vec::new(),
            told: Told::default(),
            flaky: false,
        }
    }

    /// A moment as the watcher's clock has it.
    pub(super) fn instant(&self, ms: u64) -> Instant {
        self.base + Duration::from_millis(ms)
    }

    /// A moment as the wall clock has it.
    pub(super) fn wall(&self, ms: u64) -> DateTime<Utc> {
        self.wall + Duration::from_millis(ms)
    }

    /// Something to be said now.
    pub(super) fn envelope<E>(&self, actor: Actor, event: E) -> Envelope<E> {
        let time = self.wall(self.now);
        Envelope {
            time,
            ..Envelope::new(actor, event)
        }
    }

    /// Does something at a moment that has not been.
    pub(super) fn at(&mut self, at: u64, step: impl FnOnce(&mut Self) + 'static) {
        self.steps += 1;
        self.agenda.insert((at.max(self.now), self.steps), Box::new(step));
    }

    pub(super) fn play(&mut self, faults: &[Fault]) {
        for number in 0..RUNNERS {
            self.begin_session(number);
        }
        for number in 0..WATCHERS {
            self.watch(number);
        }
        for _ in 0..JOBS {
            let at = self.random.random_range(0..SUBMITTING);
            self.at(at, Self::submit);
        }
        self.flaky = !faults.is_empty();
        for fault in faults.iter().copied() {
            self.at(fault.at, move |sim| sim.strike(fault));
        }
        while let Some(((at, _), step)) = self.agenda.pop_first() {
            if at > END {
                return;
            }
            self.now = at;
            step(self);
        }
    }

    fn strike(&mut self, fault: Fault) {
        let until = (self.now + fault.lasts).min(PEACE);
        match fault.trouble {
            Trouble::CrashRunner(number) => self.crash_runner(number, until),
            Trouble::FreezeRunner(number) => {
                let runner = &mut self.runners[number];
                runner.frozen_until = runner.frozen_until.max(until);
                runner.disturb(self.now, until);
            }
            Trouble::Cut(number) => {
                let runner = &mut self.runners[number];
                runner.cut_until = runner.cut_until.max(until);
                runner.disturb(self.now, until);
            }
            Trouble::Forget(number) => self.runners[number].forget(),
            Trouble::CrashWatcher(number) => self.crash_watcher(number, until),
            Trouble::FreezeWatcher(number) => {
                let watcher = &mut self.watchers[number];
                watcher.frozen_until = watcher.frozen_until.max(until);
            }
            Trouble::FreezeBroker => self.broker.frozen_until = self.broker.frozen_until.max(until),
            Trouble::CrashBroker => self.crash_broker(until),
        }
    }

    /// What is under way is lost, asked for or answered; whoever had a connection makes it again.
    fn crash_broker(&mut self, until: u64) {
        self.broker.frozen_until = self.broker.frozen_until.max(until);
        self.broker.life += 1;
        for number in 0..RUNNERS {
            // It does not beat before it knows that it is registered, and that it may learn late now.
            if !self.runners[number].beats {
                self.disturb(Who::Runner(number), self.now, until + PATIENCE);
            }
        }
        for number in 0..WATCHERS {
            let now = self.instant(until);
            self.at(until, move |sim| sim.watchers[number].state.restart_silences(now));
        }
    }

    /// Until when somebody does nothing.
    fn asleep(&self, who: Who) -> u64 {
        match who {
            Who::Runner(number) => self.runners[number].frozen_until,
            Who::Watcher(number) => self.watchers[number].frozen_until,
            Who::Submitter => 0,
        }
    }

    fn life(&self, who: Who) -> u64 {
        match who {
            Who::Runner(number) => self.runners[number].life,
            Who::Watcher(number) => self.watchers[number].life,
            Who::Submitter => 0,
        }
    }

    fn disturb(&mut self, who: Who, from: u64, until: u64) {
        if let Who::Runner(number) = who {
            self.runners[number].disturb(from, until);
        }
    }

    /// How long a message is under way: mostly not at all, now and then long.
    fn delay(&mut self) -> u64 {
        if self.random.random_bool(0.05) {
            self.random.random_range(0..400)
        } else {
            self.random.random_range(0..8)
        }
    }

    /// When a message between somebody and the broker arrives, sent now.
    fn arrival(&mut self, who: Who) -> u64 {
        let cut_until = if let Who::Runner(number) = who {
            self.runners[number].cut_until
        } else {
            0
        };
        let sent = self.now.max(cut_until);
        sent + self.delay()
    }

    /// Does something as somebody does it: not while frozen, and not after its death.
    pub(super) fn as_one(&mut self, who: Who, at: u64, step: impl FnOnce(&mut Self) + 'static) {
        let life = self.life(who);
        self.at(at, move |sim| sim.awake(who, life, step));
    }

    fn awake(&mut self, who: Who, life: u64, step: impl FnOnce(&mut Self) + 'static) {
        if self.life(who) != life {
            return;
        }
        let asleep = self.asleep(who);
        if asleep > self.now {
            self.at(asleep, move |sim| sim.awake(who, life, step));
        } else {
            step(self);
        }
    }

    /// Has the broker do something when word of it arrives there; lost if it dies meanwhile.
    pub(super) fn tell(&mut self, who: Who, work: impl FnOnce(&mut Self) + 'static) {
        let (arrival, life) = (self.arrival(who), self.broker.life);
        self.at(arrival, move |sim| sim.at_broker(life, work));
    }

    fn at_broker(&mut self, life: u64, work: impl FnOnce(&mut Self) + 'static) {
        let frozen = self.broker.frozen_until;
        if self.broker.life != life {
            return;
        }
        if frozen > self.now {
            self.at(frozen, move |sim| sim.at_broker(life, work));
        } else {
            work(self);
        }
    }

    /// Asks the broker, and goes on with its answer. Word and answer may be late or get lost; then it is asked again.
    pub(super) fn ask<T: 'static>(
        &mut self,
        who: Who,
        work: impl Fn(&mut Self) -> T + Clone + 'static,
        then: impl FnOnce(&mut Self, T) + 'static,
    ) {
        let asked = std::rc::Rc::new(std::cell::RefCell::new(Some(then)));
        let again = (work.clone(), std::rc::Rc::clone(&asked));
        self.tell(who, move |sim| {
            let answer = work(sim);
            let lost = sim.flaky && sim.random.random_bool(0.02);
            let (arrival, life) = (sim.arrival(who), sim.broker.life);
            if lost {
                // Only a connection that broke loses an answer.
                sim.disturb(who, sim.now, sim.now + PATIENCE);
            } else {
                sim.as_one(who, arrival, move |sim| {
                    if sim.broker.life == life
                        && let Some(then) = asked.take()
                    {
                        then(sim, answer);
                    }
                });
            }
        });
        self.as_one(who, self.now + PATIENCE, move |sim| {
            if let Some(then) = again.1.take() {
                sim.ask(who, again.0, then);
            }
        });
    }

    /// A user hands a job in, and goes on until that is acknowledged; some think better of it later.
    fn submit(&mut self) {
        let id = JobId::new();
        let spec = Box::new(self.a_spec());
        let event = decide(None, Command::Submit { spec }).expect("it is new");
        let envelope = self.envelope(Actor::Api, event);
        self.ask(
            Who::Submitter,
            move |sim| sim.append(id, 0, &envelope),
            move |sim, answer| {
                assert!(matches!(answer, Answer::Stored(_)), "nobody else has its id");
                sim.acknowledged.push(id);
                if sim.random.random_bool(0.2) {
                    let at = sim.now + sim.random.random_range(0..8_000);
                    sim.at(at, move |sim| sim.cancel(id));
                }
            },
        );
    }

    /// A job with a few of the things that time brings.
    fn a_spec(&mut self) -> JobSpec {
        let mut spec = spec();
        let random = &mut self.random;
        spec.max_losses = Some(random.random_range(1..5));
        let mut some = |ms: std::ops::Range<u64>, odds| random.random_bool(odds).then(|| random.random_range(ms));
        spec.start = some(100..10_000, 0.2).map(|delay| Start {
            delay_ms: Some(delay),
            ..Start::default()
        });
        spec.retry = some(200..5_000, 0.3).map(|backoff_ms| Retry {
            max: 3,
            backoff_ms,
            ..Retry::default()
        });
        spec.queue_timeout_ms = some(1_000..8_000, 0.1);
        spec.total_timeout_ms = some(5_000..30_000, 0.1);
        spec
    }

    fn cancel(&mut self, id: JobId) {
        self.ask(
            Who::Submitter,
            move |sim| sim.broker.job(id),
            move |sim, job| {
                let Ok(event) = decide(job.as_ref(), Command::Cancel { reason: None }) else {
                    return;
                };
                let (after, envelope) = (job.map_or(0, |job| job.sequence), sim.envelope(Actor::Api, event));
                sim.ask(
                    Who::Submitter,
                    move |sim| sim.append(id, after, &envelope),
                    move |sim, answer| {
                        if let Answer::Conflict = answer {
                            sim.cancel(id);
                        }
                    },
                );
            },
        );
    }
}
