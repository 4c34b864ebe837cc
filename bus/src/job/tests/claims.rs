//! Claims: which attempt a worker may take, and whose it is then.

use super::history::{History, Worker};
use crate::{
    envelope::Actor,
    ids::Attempt,
    job::{Rejection, decide},
};

/// The offer of attempt 1 may reach a worker after that attempt was made and lost.
#[test]
fn a_claim_is_for_the_attempt_that_was_offered() {
    let mut history = History::submitted();
    let (first, late) = (Worker::new("first"), Worker::new("late"));
    let offered = history.job();
    history.apply(&first.actor(), first.claim(1)).expect("queued");
    history.apply(&Actor::Watcher, first.give_up(1)).expect("live");
    assert!(decide(Some(&offered), late.claim(1)).is_ok(), "as far as the worker knows");
    assert_eq!(decide(Some(&history.job()), late.claim(1)), Err(Rejection::NotQueued));
    assert!(decide(Some(&history.job()), late.claim(2)).is_ok());
}

#[test]
fn an_attempt_is_held_by_the_session_that_claimed_it_until_it_ends() {
    let mut history = History::submitted();
    let (worker, other) = (Worker::new("w"), Worker::new("w"));
    assert!(!history.job().is_held_by(worker.session, Attempt(1)));
    history.apply(&worker.actor(), worker.claim(1)).expect("queued");
    let held = |history: &History, worker: &Worker, attempt| history.job().is_held_by(worker.session, Attempt(attempt));
    assert!(held(&history, &worker, 1) && !held(&history, &worker, 2) && !held(&history, &other, 1));
    history.apply(&worker.actor(), worker.give_back(1)).expect("claimed");
    assert!(!held(&history, &worker, 1));
}
