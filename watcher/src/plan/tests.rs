//! The plan, for states that a test makes.

mod attempts;
mod deaf;
mod disconnects;
mod excused;
mod fold;
mod sessions;
mod waiting;
mod world;

use std::time::{Duration, Instant};

use bus::{
    ids::{Attempt, EventId, JobId, SessionId, WorkerId, default_token},
    job::LossCause,
    worker::Heartbeat,
};
use chrono::Utc;

use super::{Command, plan};
use crate::{
    observation::{HeldAttempt, Observation},
    state::State,
};

const LAPSE: Duration = Duration::from_secs(4);

/// A state that folds events and heartbeats at moments of the test's choosing.
struct TestWatcher {
    state: State,
    start: Instant,
    sequence: u64,
    /// Until when it listened.
    now: u64,
}

impl TestWatcher {
    fn new() -> Self {
        let start = Instant::now();
        let state = State::new(start);
        Self {
            state,
            start,
            sequence: 0,
            now: 0,
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn fold(&mut self, ms: u64, observation: &Observation) -> u64 {
        self.sequence += 10;
        self.state.fold(self.sequence, observation, self.at(ms));
        self.sequence
    }

    fn fold_heartbeat(&mut self, ms: u64, name: &str, session: SessionId, last_claim: u64, attempts: &[(JobId, Attempt)]) {
        let (worker, now) = (worker(name), self.at(ms));
        self.state.fold_heartbeat(&worker, &beat(session, last_claim, attempts), now);
    }

    /// Lets the watcher tick until then; it hears itself, or not.
    fn tick(&mut self, ms: u64, hears: bool) {
        while self.now < ms {
            self.now = (self.now + 250).min(ms);
            let now = self.at(self.now);
            if hears {
                self.state.own_heartbeat_received(now);
            }
            self.state.check_hearing(now);
        }
    }

    /// The plan at this moment, of a watcher that hears itself.
    fn plan(&mut self, ms: u64) -> Vec<Command> {
        self.tick(ms, true);
        let now = self.at(ms);
        self.state.own_heartbeat_received(now);
        plan(&self.state, now, LAPSE)
    }

    /// One that does not.
    fn plan_deaf(&mut self, ms: u64) -> Vec<Command> {
        self.tick(ms, false);
        plan(&self.state, self.at(ms), LAPSE)
    }
}

fn worker(name: &str) -> WorkerId {
    name.parse().expect("a token")
}

fn beat(session: SessionId, last_claim: u64, attempts: &[(JobId, Attempt)]) -> Heartbeat {
    Heartbeat {
        session,
        time: Utc::now(),
        last_claim,
        cpu_milli_free: 0,
        memory_bytes_free: 0,
        load: 0.0,
        attempts: attempts.to_vec(),
        next_ms: None,
        leftovers: Vec::new(),
    }
}

fn registered(name: &str, session: SessionId) -> Observation {
    Observation::Registered {
        worker: worker(name),
        session,
        queues: vec![default_token()],
        self_fence: None,
        event: EventId::new(),
    }
}

fn ended(name: &str, session: SessionId, lost: bool) -> Observation {
    Observation::SessionEnded {
        worker: worker(name),
        session,
        lost,
        event: EventId::new(),
    }
}

fn held_attempt(name: &str, session: SessionId, job: JobId, attempt: u32) -> HeldAttempt {
    HeldAttempt {
        job,
        attempt: Attempt(attempt),
        worker: worker(name),
        session,
    }
}

fn claimed(name: &str, session: SessionId, job: JobId, attempt: u32) -> Observation {
    Observation::Claimed(held_attempt(name, session, job, attempt))
}

/// What is to be given up, and why.
fn given_up(plan: &[Command]) -> Vec<(JobId, Attempt, LossCause)> {
    let given_up = plan.iter().filter_map(|command| match command {
        Command::GiveUp { job, attempt, cause, .. } => Some((*job, *attempt, cause.clone())),
        _ => None,
    });
    given_up.collect()
}

fn lost(plan: &[Command]) -> Vec<SessionId> {
    let lost = plan.iter().filter_map(|command| match command {
        Command::DeclareLost { session, .. } => Some(*session),
        _ => None,
    });
    lost.collect()
}
