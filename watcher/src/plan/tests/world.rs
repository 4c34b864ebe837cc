//! Workers that live, fall silent, restart and forget, in any order: the plan against what is so.

use std::collections::{BTreeMap, BTreeSet};

use bus::{
    ids::{Attempt, JobId, SessionId},
    worker::Heartbeat,
};
use proptest::{collection::vec, prelude::*};

use super::{LAPSE, TestWatcher, beat, claimed, ended, given_up, held_attempt, lost, registered, worker};
use crate::{observation::Observation, plan::ORPHAN_AFTER};

const WORKERS: usize = 3;
/// From one heartbeat to the next, with work and without, in milliseconds.
const PERIOD: u64 = 1_000;
const IDLE_PERIOD: u64 = 3_000;
const NAMES: [&str; WORKERS] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    /// Time passes, in milliseconds; workers that live beat each second, or every three while they have nothing.
    Pass(u64),
    Register(usize),
    Leave(usize),
    Lose(usize),
    /// A worker's current session claims a new job.
    Claim(usize),
    /// A session that is over claims a new job.
    ClaimLate(usize),
    Finish(usize),
    /// The runner forgets what it runs.
    Forget(usize),
    /// The worker falls silent, or beats again.
    Hush(usize),
    Wake(usize),
}

#[derive(Default)]
struct Model {
    /// The session of each worker that is not over.
    live: [Option<SessionId>; WORKERS],
    over: [Vec<SessionId>; WORKERS],
    /// Attempts that are not finished: whose, and whether that one lists them.
    held: BTreeMap<(JobId, SessionId), (usize, bool)>,
    hushed: [bool; WORKERS],
    last_claim: [u64; WORKERS],
    beat_at: [u64; WORKERS],
    /// In how many milliseconds the last heartbeat of its session says that the next one comes, if there was one.
    next: [Option<u64>; WORKERS],
    /// When it last took up work while its session had none.
    busy_since: [u64; WORKERS],
    now: u64,
}

impl Model {
    fn holds(&self, who: usize) -> bool {
        self.held.keys().any(|(_, of)| self.live[who] == Some(*of))
    }

    /// What it lists of its own.
    fn listed(&self, session: SessionId) -> Vec<(JobId, Attempt)> {
        let listed = self.held.iter().filter(|((_, of), (_, listed))| *of == session && *listed);
        listed.map(|((job, _), _)| (*job, Attempt::FIRST)).collect()
    }

    /// Whether it was silent for too long: longer where it said so and has no work, and not before it last took some up.
    fn is_silent(&self, who: usize) -> bool {
        let lapse = u64::try_from(LAPSE.as_millis()).expect("short");
        if self.holds(who) {
            self.now - self.beat_at[who].max(self.busy_since[who]) > lapse
        } else {
            let allowance = self.next[who].unwrap_or(IDLE_PERIOD) - PERIOD;
            self.now - self.beat_at[who].max(self.busy_since[who]) > lapse + allowance
        }
    }

    fn close(&mut self, who: usize) {
        if let Some(session) = self.live[who].take() {
            self.over[who].push(session);
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..WORKERS;
    prop_oneof![
        6 => (1..3_000_u64).prop_map(Step::Pass),
        2 => who.clone().prop_map(Step::Register),
        1 => who.clone().prop_map(Step::Leave),
        1 => who.clone().prop_map(Step::Lose),
        4 => who.clone().prop_map(Step::Claim),
        1 => who.clone().prop_map(Step::ClaimLate),
        2 => who.clone().prop_map(Step::Finish),
        1 => who.clone().prop_map(Step::Forget),
        1 => who.clone().prop_map(Step::Hush),
        1 => who.prop_map(Step::Wake),
    ]
}

/// Lets time pass in ticks as the watcher's own, with every heartbeat that is due in between.
fn pass(watcher: &mut TestWatcher, model: &mut Model, ms: u64) -> Result<(), TestCaseError> {
    let end = model.now + ms;
    while model.now < end {
        model.now = (model.now + 250).min(end);
        for (who, name) in NAMES.into_iter().enumerate() {
            let Some(session) = model.live[who].filter(|_| !model.hushed[who]) else {
                continue;
            };
            let attempts = model.listed(session);
            let period = if attempts.is_empty() { IDLE_PERIOD } else { PERIOD };
            if model.now - model.beat_at[who] >= period.min(model.next[who].unwrap_or(PERIOD)) {
                model.beat_at[who] = model.now;
                model.next[who] = Some(period);
                let beat = Heartbeat {
                    next_ms: u32::try_from(period).ok(),
                    ..beat(session, model.last_claim[who], &attempts)
                };
                let now = watcher.at(model.now);
                watcher.state.fold_heartbeat(&worker(name), &beat, now);
            }
        }
        check(watcher, model)?;
    }
    Ok(())
}

fn apply(watcher: &mut TestWatcher, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    let now = model.now;
    match *step {
        Step::Pass(ms) => return pass(watcher, model, ms),
        Step::Register(who) => {
            let session = SessionId::new();
            model.close(who);
            model.live[who] = Some(session);
            model.last_claim[who] = 0;
            model.beat_at[who] = now;
            model.next[who] = None;
            watcher.fold(now, &registered(NAMES[who], session));
        }
        Step::Leave(who) | Step::Lose(who) => {
            if let Some(session) = model.live[who] {
                model.close(who);
                watcher.fold(now, &ended(NAMES[who], session, matches!(step, Step::Lose(_))));
            }
        }
        Step::Claim(who) | Step::ClaimLate(who) => {
            let late = matches!(step, Step::ClaimLate(_));
            let session = if late { model.over[who].last().copied() } else { model.live[who] };
            if let Some(session) = session {
                let job = JobId::new();
                if !late && !model.holds(who) {
                    model.busy_since[who] = now;
                }
                let sequence = watcher.fold(now, &claimed(NAMES[who], session, job, 1));
                model.held.insert((job, session), (who, true));
                if !late {
                    model.last_claim[who] = sequence;
                }
            }
        }
        Step::Finish(who) => {
            let mine = model.held.iter().find(|(_, (of, _))| *of == who).map(|(key, _)| *key);
            if let Some((job, session)) = mine {
                model.held.remove(&(job, session));
                watcher.fold(
                    now,
                    &Observation::Finished(held_attempt(NAMES[who], session, job, 1), crate::Ending::Succeeded),
                );
            }
        }
        Step::Forget(who) => {
            for (of, listed) in model.held.values_mut() {
                *listed &= *of != who;
            }
        }
        Step::Hush(who) => model.hushed[who] = true,
        Step::Wake(who) => model.hushed[who] = false,
    }
    check(watcher, model)
}

/// What may be planned, and what must be.
fn check(watcher: &mut TestWatcher, model: &Model) -> Result<(), TestCaseError> {
    let plan = watcher.plan(model.now);
    let should = (0..WORKERS).filter(|who| model.is_silent(*who)).filter_map(|who| model.live[who]);
    let should = should.collect::<BTreeSet<_>>();
    prop_assert_eq!(
        lost(&plan).into_iter().collect::<BTreeSet<_>>(),
        should,
        "the silent sessions are lost, and no others"
    );

    let given_up = given_up(&plan).into_iter().map(|(job, ..)| job).collect::<BTreeSet<_>>();
    for ((job, session), (who, listed)) in &model.held {
        let alive = model.live[*who] == Some(*session);
        if !alive {
            prop_assert!(given_up.contains(job), "an attempt of a session that is over is given up");
        } else if *listed {
            prop_assert!(!given_up.contains(job), "an attempt that its living worker lists is never given up");
        }
    }
    let known = model.held.keys().map(|(job, _)| *job).collect::<BTreeSet<_>>();
    prop_assert!(given_up.is_subset(&known), "only what is held is given up");
    Ok(())
}

/// A worker that beats and lists nothing loses what it held within the time of an orphan and two heartbeats more.
fn check_orphans(watcher: &mut TestWatcher, model: &mut Model) -> Result<(), TestCaseError> {
    model.hushed = [false; WORKERS];
    for (_, listed) in model.held.values_mut() {
        *listed = false;
    }
    pass(
        watcher,
        model,
        u64::try_from(ORPHAN_AFTER.as_millis()).expect("short") + 2 * IDLE_PERIOD,
    )?;
    let given_up = given_up(&watcher.plan(model.now))
        .into_iter()
        .map(|(job, ..)| job)
        .collect::<BTreeSet<_>>();
    for (job, session) in model.held.keys() {
        prop_assert!(given_up.contains(job), "orphan {job} of {session} is not given up");
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_dead_are_found_and_the_living_left_alone(steps in vec(step(), 1..80)) {
        let (mut watcher, mut model) = (TestWatcher::new(), Model::default());
        for step in &steps {
            apply(&mut watcher, &mut model, step)?;
        }
        check_orphans(&mut watcher, &mut model)?;
    }
}
