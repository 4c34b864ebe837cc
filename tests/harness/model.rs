//! The grid as a model: submitters, runners and two watchers over a log in memory, with messages that are late, doubled or lost, and
//! every one of them crashing, freezing or cut off at random moments. What decides is real: `bus::job::decide` and `evolve`,
//! `watcher::State` and `plan`. What holds it together (time, messages, the broker's rules) is the model's.
//!
//! Properties: every acknowledged job ends, once (promises 1 and 2), nothing of an attempt counts that was given up (2), and no worker
//! is given up that is alive and was not cut off, whatever the broker does (3). The checker's own ledger of the log decides on the first three.

mod broker;
mod runner;
mod sim;
mod watcher;

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use self::sim::{Fault, Sim, Trouble};
use crate::chaos::ledger::End;

const RUNNERS: usize = 3;
const WATCHERS: usize = 2;

fn trouble() -> impl Strategy<Value = Trouble> {
    let runner = 0..RUNNERS;
    let watcher = 0..WATCHERS;
    prop_oneof![
        3 => runner.clone().prop_map(Trouble::CrashRunner),
        3 => runner.clone().prop_map(Trouble::FreezeRunner),
        3 => runner.clone().prop_map(Trouble::Cut),
        1 => runner.prop_map(Trouble::Forget),
        1 => watcher.clone().prop_map(Trouble::CrashWatcher),
        1 => watcher.prop_map(Trouble::FreezeWatcher),
        2 => Just(Trouble::FreezeBroker),
        1 => Just(Trouble::CrashBroker),
    ]
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = (0..40_000_u64, 50..12_000_u64, trouble()).prop_map(|(at, lasts, trouble)| Fault { at, lasts, trouble });
    vec(fault, 0..20)
}

fn holds(seed: u64, faults: &[Fault]) -> Result<BTreeMap<&'static str, usize>, TestCaseError> {
    let mut sim = Sim::new(seed);
    sim.play(faults);
    let told = &sim.told;
    prop_assert!(told.wrong.is_empty(), "{:#?}", told.wrong);
    for (job, tale) in &told.ledger.jobs {
        prop_assert!(tale.wrongs.is_empty(), "{job}: {:#?}", tale);
        prop_assert_eq!(tale.ends.len(), 1, "{} has no end: {:#?}", job, tale);
    }
    for job in &sim.acknowledged {
        prop_assert!(told.ledger.jobs.contains_key(job), "{job} was acknowledged, and is not in the log");
    }
    let tales = told.ledger.jobs.values();
    let ends = |end: End| tales.clone().filter(|tale| tale.ends[0].1 == end).count();
    let moved = tales
        .clone()
        .filter(|tale| tale.tries.iter().any(|one| one.given_up.is_some()))
        .count();
    let retried = tales
        .clone()
        .filter(|tale| tale.tries.iter().filter(|one| one.finished.is_some()).count() > 1)
        .count();
    Ok(BTreeMap::from([
        ("succeeded", ends(End::Succeeded)),
        ("dead", ends(End::Dead)),
        ("cancelled", ends(End::Cancelled)),
        ("failed", ends(End::Failed)),
        ("expired", ends(End::Expired)),
        ("moved", moved),
        ("retried", retried),
        ("lost workers", told.ledger.losses.len()),
        ("late results refused", told.refused),
    ]))
}

/// More of them are tried with `MODEL_CASES=5000 cargo test -p grid-tests --lib model`.
fn cases() -> u32 {
    std::env::var("MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_job_ends_once_whatever_happens(seed: u64, faults in faults()) {
        holds(seed, &faults)?;
    }
}

/// The model is worth something only if it gets somewhere.
#[test]
fn the_model_reaches_what_it_is_about() {
    use proptest::strategy::ValueTree as _;
    let mut runner = TestRunner::deterministic();
    let mut reached = BTreeMap::<&str, usize>::new();
    for seed in 0..60 {
        let faults = faults().new_tree(&mut runner).expect("a strategy").current();
        for (what, times) in holds(seed, &faults).expect("it holds") {
            *reached.entry(what).or_default() += times;
        }
    }
    assert!(reached.values().all(|times| *times >= 5), "{reached:?}");
}

/// Nothing happens: nobody is lost, and no attempt is given up.
#[test]
fn without_faults_nothing_is_given_up() {
    for seed in 0..10 {
        let reached = holds(seed, &[]).expect("it holds");
        assert_eq!(
            (reached["moved"], reached["lost workers"], reached["dead"]),
            (0, 0, 0),
            "{reached:?}"
        );
    }
}
