//! A watcher: the real state and the real plan, in the model's loop.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ::watcher::{Command, Config, State, observe, plan};
use bus::{
    envelope::Actor,
    ids::JobId,
    job::{self, Job, decide},
    worker::{Lost, WorkerEvent},
};
use chrono::{DateTime, Utc};

use super::{
    RUNNERS, WATCHERS,
    broker::{Answer, Pulse},
    sim::{Sim, Who},
};

const TICK: u64 = 250;
const CANARY: u64 = 500;

pub(super) struct Watcher {
    pub(super) state: State,
    /// How far it has read the log and the heartbeats.
    read: (usize, usize),
    pub(super) frozen_until: u64,
    pub(super) life: u64,
    /// What it is saying just now.
    busy: BTreeSet<String>,
}

impl Watcher {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::new(now),
            read: (0, 0),
            frozen_until: 0,
            life: 0,
            busy: BTreeSet::new(),
        }
    }
}

impl Sim {
    pub(super) fn watch(&mut self, number: usize) {
        self.feed(number);
        self.canary(number);
        self.tick(number);
    }

    pub(super) fn crash_watcher(&mut self, number: usize, until: u64) {
        let now = self.instant(until);
        let life = self.watchers[number].life + 1;
        self.watchers[number] = Watcher { life, ..Watcher::new(now) };
        self.at(until, move |sim| {
            if sim.watchers[number].life == life {
                sim.watch(number);
            }
        });
    }

    /// Something new stands in the log or among the heartbeats.
    pub(super) fn news(&mut self) {
        for number in 0..WATCHERS {
            self.feed(number);
        }
    }

    pub(super) fn pulse(&mut self, pulse: Pulse) {
        self.broker.pulses.push(pulse);
        self.news();
    }

    /// Both in their order, each some time after it was stored. A follower reads on from where it is, so that nothing is left out.
    fn feed(&mut self, number: usize) {
        self.tell(Who::Watcher(number), move |sim| {
            let to = (sim.broker.log.len(), sim.broker.pulses.len());
            sim.as_one(Who::Watcher(number), sim.now, move |sim| sim.take_in(number, to));
        });
    }

    fn take_in(&mut self, number: usize, to: (usize, usize)) {
        let now = self.instant(self.now);
        let from = self.watchers[number].read;
        let to = (to.0.max(from.0), to.1.max(from.1));
        for index in from.0..to.0 {
            let stored = &self.broker.log[index];
            let observation = observe(&stored.subject, &stored.payload).expect("what we write can be read");
            if let Some(observation) = observation {
                self.watchers[number].state.fold(index as u64 + 1, &observation, now);
            }
        }
        for index in from.1..to.1 {
            match self.broker.pulses[index].clone() {
                Pulse::Of(worker, beat) => self.watchers[number].state.fold_heartbeat(&worker, &beat, now),
                Pulse::Canary(of, sent) if of == number => {
                    let sent = self.instant(sent);
                    self.watchers[number].state.own_heartbeat_received(sent);
                }
                Pulse::Canary(..) => {}
            }
        }
        self.watchers[number].read = to;
    }

    fn canary(&mut self, number: usize) {
        let sent = self.now;
        self.tell(Who::Watcher(number), move |sim| sim.pulse(Pulse::Canary(number, sent)));
        self.as_one(Who::Watcher(number), sent + CANARY, move |sim| sim.canary(number));
    }

    fn tick(&mut self, number: usize) {
        let (now, wall) = (self.instant(self.now), self.wall(self.now));
        let watcher = &mut self.watchers[number];
        watcher.state.set_clock(now, wall);
        watcher.state.check_hearing(now);
        for command in plan(&watcher.state, now, Config::LAPSE) {
            self.carry_out(number, command);
        }
        self.as_one(Who::Watcher(number), self.now + TICK, move |sim| sim.tick(number));
    }

    fn carry_out(&mut self, number: usize, command: Command) {
        let topic = match &command {
            Command::DeclareLost { session, .. } => session.to_string(),
            Command::GiveUp { job, attempt, session, .. } => format!("{job} {attempt} {session}"),
            Command::CheckJob { job, .. } => format!("look at {job}"),
            // Nobody waits for anybody here.
            Command::CheckDependencies { .. } => return,
            // And no batches are submitted.
            Command::AdvanceWindow { .. } | Command::StopBatch { .. } | Command::EndMember { .. } => return,
        };
        if let Command::DeclareLost { worker, session, .. } = &command {
            self.must_be_unwell(worker, *session);
        }
        if !self.watchers[number].busy.insert(topic.clone()) {
            return;
        }
        match command {
            Command::DeclareLost {
                worker,
                session,
                after,
                last_beat,
                ..
            } => {
                let envelope = self.envelope(Actor::Watcher, WorkerEvent::Lost(Lost { session, last_beat }));
                self.ask(
                    Who::Watcher(number),
                    move |sim| sim.append_of_worker(&worker, Some(after), &envelope),
                    move |sim, _: Answer| {
                        sim.watchers[number].busy.remove(&topic);
                    },
                );
            }
            Command::GiveUp {
                job,
                attempt,
                claimed,
                cause,
                ..
            } => self.decide_on(number, topic, (job, claimed), move |_, _| {
                Some(job::Command::GiveUp { attempt, cause })
            }),
            Command::CheckJob { job, known, .. } => self.decide_on(number, topic, (job, known), |job, wall| {
                job.due().filter(|due| due.at <= wall).map(|due| due.command)
            }),
            Command::CheckDependencies { .. } | Command::AdvanceWindow { .. } | Command::StopBatch { .. } | Command::EndMember { .. } => {}
        }
    }

    /// Reads a job, decides, and appends behind what was read. Whatever is answered, the next plan tells what is left to do.
    fn decide_on(
        &mut self,
        number: usize,
        topic: String,
        (id, known): (JobId, u64),
        what: impl FnOnce(&Job, DateTime<Utc>) -> Option<job::Command> + 'static,
    ) {
        self.ask(
            Who::Watcher(number),
            move |sim| sim.broker.history(id),
            move |sim, history| {
                sim.watchers[number].busy.remove(&topic);
                let wall = sim.wall(sim.now);
                let Some(job) = Job::replay(&history).filter(|job| job.sequence >= known) else {
                    return;
                };
                if let Some(Ok(event)) = what(&job, wall).map(|command| decide(Some(&job), command)) {
                    let envelope = sim.envelope(Actor::Watcher, event);
                    let append = move |sim: &mut Self| sim.append(id, job.sequence, &envelope);
                    sim.ask(Who::Watcher(number), append, |_, _: Answer| ());
                }
            },
        );
    }

    /// Promise 3, the other way round: nobody is given up who lived, and was not cut off, for as long as a silence takes.
    fn must_be_unwell(&mut self, worker: &bus::ids::WorkerId, session: bus::ids::SessionId) {
        let silence = u64::try_from((Config::LAPSE + Duration::from_millis(1_500)).as_millis()).unwrap_or_default();
        let from = self.now.saturating_sub(silence);
        let well = (0..RUNNERS).any(|number| {
            let runner = &self.runners[number];
            runner.id == *worker && runner.was_well(session, from, self.now)
        });
        if well {
            self.told
                .wrong
                .push(format!("at {} ms {worker} is given up, and nothing was done to it", self.now));
        }
    }
}
