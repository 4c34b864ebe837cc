//! What the supervisor does about what happens to its parts: a pure state machine, with no clock and no process in it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::part::Part;

/// The first wait before a part that ended is started again.
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
/// The longest such wait.
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// A part that ran this long before it ended starts from the shortest wait again.
const STEADY: Duration = Duration::from_secs(30);
/// How often a part may end before the grid was up once. Then starting is given up: it would not get better.
const START_ATTEMPTS: u32 = 3;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A part's process answers, or lives, if it has nothing to answer with.
    Ready(Part),
    /// A part's process ended, or could not be started at all.
    Ended(Part),
    /// The time that [`Action::Wake`] asked for is over.
    Due(Part, Epoch),
    /// The grid should end, in good order. Saying it again changes nothing.
    Stop,
    /// The grid should end at once.
    Kill,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Start a part's process, and say when it is ready.
    Start(Part),
    /// Say [`Event::Due`] after this time.
    Wake(Part, Epoch, Duration),
    /// Send a signal to a part's process.
    Signal(Part, Signal),
    /// Every part is ready, for the first time.
    Up,
    /// A part keeps ending before the grid was ever up: say so. The grid is being taken down.
    GiveUp(Part),
    /// Every part has ended.
    Done,
}

/// Which stay in a state a timer was set for; a timer of an earlier one is void.
pub(super) type Epoch = u32;

/// What a part is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It waits for what it needs.
    Waiting,
    /// Its process was started and does not answer yet.
    Starting,
    /// It is up.
    Running,
    /// It ended, and is started again after a while.
    BackOff,
    /// It was asked to end, by this rung of its ladder.
    Stopping(usize),
    /// It has ended, and stays so.
    Stopped,
}

#[derive(Debug)]
struct Slot {
    state: State,
    started: Instant,
    failures: u32,
    restarts: u32,
    epoch: Epoch,
}

/// The supervisor's state.
#[derive(Debug)]
pub(super) struct Supervisor {
    slots: BTreeMap<Part, Slot>,
    was_up: bool,
    stopping: Option<u8>,
}

impl Supervisor {
    /// A grid of which nothing runs, and what to do first.
    pub(super) fn begin(now: Instant) -> (Self, Vec<Action>) {
        let slot = || Slot {
            state: State::Waiting,
            started: now,
            failures: 0,
            restarts: 0,
            epoch: 0,
        };
        let mut supervisor = Self {
            slots: Part::ALL.into_iter().map(|part| (part, slot())).collect(),
            was_up: false,
            stopping: None,
        };
        let actions = supervisor.start_what_can(now);
        (supervisor, actions)
    }

    /// What a part is doing.
    pub(super) fn state(&self, part: Part) -> State {
        self.slots.get(&part).map_or(State::Stopped, |slot| slot.state)
    }

    /// How often a part was started again.
    pub(super) fn restarts(&self, part: Part) -> u32 {
        self.slots.get(&part).map_or(0, |slot| slot.restarts)
    }

    /// Whether the grid is being taken down.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Takes in what happened, and says what to do. `jitter`, from 0 to 1, spreads the waits.
    pub(super) fn step(&mut self, now: Instant, jitter: f64, event: Event) -> Vec<Action> {
        match event {
            Event::Ready(part) => self.ready(part, now),
            Event::Ended(part) => self.ended(part, now, jitter),
            Event::Due(part, epoch) => self.due(part, epoch, now),
            Event::Stop if self.stopping.is_some() => Vec::new(),
            Event::Stop => self.stop(),
            Event::Kill => self.kill(),
        }
    }

    fn ready(&mut self, part: Part, now: Instant) -> Vec<Action> {
        if self.state(part) != State::Starting {
            return Vec::new();
        }
        self.enter(part, State::Running);
        let mut actions = self.start_what_can(now);
        if !self.was_up && self.slots.values().all(|slot| slot.state == State::Running) {
            self.was_up = true;
            actions.push(Action::Up);
        }
        actions
    }

    fn ended(&mut self, part: Part, now: Instant, jitter: f64) -> Vec<Action> {
        if self.stopping.is_some() {
            self.enter(part, State::Stopped);
            return self.stop_next_stage();
        }
        let Some(slot) = self.slots.get_mut(&part) else { return Vec::new() };
        slot.failures = if now.duration_since(slot.started) >= STEADY {
            1
        } else {
            slot.failures + 1
        };
        let failures = slot.failures;
        if !self.was_up && failures >= START_ATTEMPTS {
            self.enter(part, State::Stopped);
            let mut actions = vec![Action::GiveUp(part)];
            actions.extend(self.stop());
            return actions;
        }
        let epoch = self.enter(part, State::BackOff);
        vec![Action::Wake(part, epoch, back_off(failures, jitter))]
    }

    fn due(&mut self, part: Part, epoch: Epoch, now: Instant) -> Vec<Action> {
        let Some(slot) = self.slots.get_mut(&part) else { return Vec::new() };
        if slot.epoch != epoch {
            return Vec::new();
        }
        match slot.state {
            State::BackOff => {
                slot.restarts += 1;
                self.enter(part, State::Waiting);
                self.start_what_can(now)
            }
            State::Stopping(rung) => self.climb(part, rung + 1),
            State::Waiting | State::Starting | State::Running | State::Stopped => Vec::new(),
        }
    }

    fn start_what_can(&mut self, now: Instant) -> Vec<Action> {
        let can: Vec<Part> = self
            .slots
            .iter()
            .filter(|(part, slot)| slot.state == State::Waiting && part.needs().iter().all(|need| self.state(*need) == State::Running))
            .map(|(part, _)| *part)
            .collect();
        can.into_iter()
            .map(|part| {
                self.enter(part, State::Starting);
                if let Some(slot) = self.slots.get_mut(&part) {
                    slot.started = now;
                }
                Action::Start(part)
            })
            .collect()
    }

    fn stop(&mut self) -> Vec<Action> {
        for part in Part::ALL {
            if matches!(self.state(part), State::Waiting | State::BackOff) {
                self.enter(part, State::Stopped);
            }
        }
        self.stopping = Some(0);
        let mut actions = self.stop_stage(0);
        actions.extend(self.stop_next_stage());
        actions
    }

    fn stop_stage(&mut self, stage: u8) -> Vec<Action> {
        let parts = Part::ALL.into_iter().filter(|part| part.stop_stage() == stage);
        let alive: Vec<Part> = parts
            .filter(|part| matches!(self.state(*part), State::Starting | State::Running))
            .collect();
        alive.into_iter().flat_map(|part| self.climb(part, 0)).collect()
    }

    /// Goes on to the next stage when everything of the present one has ended.
    fn stop_next_stage(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(stage) = self.stopping.filter(|stage| *stage < Part::STOP_STAGES) {
            let of_stage = |part: &Part| part.stop_stage() == stage;
            if Part::ALL
                .iter()
                .filter(|part| of_stage(part))
                .any(|part| self.state(*part) != State::Stopped)
            {
                return actions;
            }
            self.stopping = Some(stage + 1);
            actions.extend(if stage + 1 == Part::STOP_STAGES {
                vec![Action::Done]
            } else {
                self.stop_stage(stage + 1)
            });
        }
        actions
    }

    /// Sends the signal of one rung of a part's ladder, and waits for the next.
    fn climb(&mut self, part: Part, rung: usize) -> Vec<Action> {
        let Some((signal, patience)) = part.stop_ladder().get(rung) else {
            return Vec::new();
        };
        let epoch = self.enter(part, State::Stopping(rung));
        let mut actions = vec![Action::Signal(part, *signal)];
        actions.extend(patience.map(|patience| Action::Wake(part, epoch, patience)));
        actions
    }

    fn kill(&mut self) -> Vec<Action> {
        let mut actions = if self.stopping.is_none() { self.stop() } else { Vec::new() };
        let alive = |state| matches!(state, State::Starting | State::Running | State::Stopping(_));
        let parts: Vec<Part> = Part::ALL.into_iter().filter(|part| alive(self.state(*part))).collect();
        actions.extend(parts.into_iter().flat_map(|part| self.climb(part, part.stop_ladder().len() - 1)));
        actions
    }

    fn enter(&mut self, part: Part, state: State) -> Epoch {
        self.slots.get_mut(&part).map_or(0, |slot| {
            slot.state = state;
            slot.epoch += 1;
            slot.epoch
        })
    }
}

/// The wait before a part that ended `failures` times in a row is started again: doubled each time, capped, and up to a
/// quarter shorter, so that parts that fell together do not rise together.
fn back_off(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    BACK_OFF_MIN
        .saturating_mul(1 << doublings)
        .min(BACK_OFF_MAX)
        .mul_f64(1.0 - jitter / 4.0)
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
