use bus::{
    batch::{BatchAdvanced, BatchCancelled, BatchSealed},
    ids::{Digest, SessionId, default_token},
};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::observation::SessionKey;

/// A batch whose events a test makes.
struct TestBatch {
    windows: Windows,
    id: BatchId,
    sequence: u64,
    key: SessionKey,
}

impl TestBatch {
    fn new(total: u32, parallel: Option<u32>, max_failures: Option<u32>, fail_fast: bool) -> Self {
        let mut batch = Self {
            windows: Windows::default(),
            id: BatchId::new(),
            sequence: 0,
            key: (default_token(), SessionId::new()),
        };
        batch.append(&BatchEvent::Submitted(BatchSubmitted {
            name: String::new(),
            total,
            parallel,
            max_failures,
            fail_fast,
            retry_of: None,
            sha256: Digest::of(b""),
        }));
        batch
    }

    fn append(&mut self, event: &BatchEvent) {
        self.sequence += 1;
        self.windows.batch(self.sequence, &default_token(), self.id, event);
    }

    fn job(&self, index: u32) -> JobId {
        JobId::of_member(self.id, index)
    }

    fn action(&self) -> Option<BatchAction> {
        self.windows.actions().next().map(|(_, _, action)| action)
    }

    fn ready(&mut self, index: u32, attempt: u32) {
        self.windows.waits(&WaitingJob {
            job: self.job(index),
            next: Some(Attempt(attempt)),
            due: None,
            after: Vec::new(),
            not_before: None,
        });
    }

    fn a_try(&self, index: u32, attempt: u32) -> HeldAttempt {
        HeldAttempt {
            job: self.job(index),
            attempt: Attempt(attempt),
            worker: self.key.0.clone(),
            session: self.key.1,
        }
    }

    /// Does what is wanted, as the log would tell it.
    fn advance(&mut self) -> Vec<u32> {
        let Some(BatchAction::Advance(released)) = self.action() else {
            return Vec::new();
        };
        self.append(&BatchEvent::Advanced(BatchAdvanced {
            released: released.clone(),
        }));
        for index in &released {
            self.ready(*index, 1);
        }
        released
    }

    fn run(&mut self, index: u32, attempt: u32, ending: Ending) {
        let attempt = self.a_try(index, attempt);
        self.windows.claimed(&attempt);
        self.windows.finished(&attempt, ending);
    }
}

#[test]
fn a_window_moves_only_once_the_batch_is_whole_and_only_as_far_as_slots_are_free() {
    let mut batch = TestBatch::new(5, Some(2), None, false);
    assert_eq!(batch.action(), None, "not all of it is in the log");
    batch.append(&BatchEvent::Sealed(BatchSealed {}));
    assert_eq!(batch.advance(), [0, 1]);
    assert_eq!(batch.action(), None);
    // Only the session that claimed it can end it, and a late event of a lost attempt frees no slot.
    let late = batch.a_try(0, 1);
    batch.windows.finished(&late, Ending::Succeeded);
    batch.windows.claimed(&late);
    batch.ready(0, 2);
    batch.windows.finished(&late, Ending::Succeeded);
    assert_eq!(batch.action(), None, "it was rescheduled, and holds its slot");
    batch.run(0, 2, Ending::Succeeded);
    assert_eq!(batch.advance(), [2]);
    // A pause holds no slot, and after it comes a turn.
    let failed = batch.a_try(1, 1);
    batch.windows.claimed(&failed);
    batch.windows.failed(&failed);
    assert_eq!(batch.advance(), [3]);
    batch.windows.waits_for_slot(batch.job(1), Some(Attempt(1)));
    batch.run(2, 1, Ending::Failed);
    assert_eq!(batch.action(), Some(BatchAction::Advance(vec![1])));
    assert_eq!(batch.advance(), [1]);
}

#[test]
fn a_slot_that_was_given_back_is_free_once_the_log_says_so() {
    let mut batch = TestBatch::new(2, Some(1), None, false);
    batch.append(&BatchEvent::Sealed(BatchSealed {}));
    assert_eq!(batch.advance(), [0]);
    batch.windows.claimed(&batch.a_try(0, 1));
    batch.windows.waits_for_slot(batch.job(0), Some(Attempt(1)));
    assert_eq!(batch.advance(), [0], "it goes before those that had no turn yet");
    batch.ready(0, 2);
    batch.windows.claimed(&batch.a_try(0, 2));
    // What was read of it before that is out of date.
    batch.windows.waits_for_slot(batch.job(0), Some(Attempt(1)));
    assert_eq!(batch.action(), None);
}

#[test]
fn what_was_cancelled_while_it_waited_is_passed_over() {
    let mut batch = TestBatch::new(3, Some(1), None, false);
    batch.append(&BatchEvent::Sealed(BatchSealed {}));
    batch.windows.closed(batch.job(0), None, false);
    assert_eq!(batch.advance(), [1]);
    batch.run(1, 1, Ending::Succeeded);
    assert_eq!(batch.advance(), [2]);
    batch.run(2, 1, Ending::Succeeded);
    assert!(batch.windows.is_empty(), "it is over, and forgotten");
}

#[test]
fn too_many_failures_stop_a_batch_and_spare_those_that_run_unless_it_fails_fast() {
    for (parallel, fail_fast) in [(Some(3), false), (Some(3), true), (None, false), (None, true)] {
        let mut batch = TestBatch::new(6, parallel, Some(1), fail_fast);
        batch.append(&BatchEvent::Sealed(BatchSealed {}));
        batch.advance();
        let running = batch.a_try(1, 1);
        batch.windows.claimed(&running);
        batch.run(0, 1, Ending::Cancelled);
        assert!(
            !matches!(batch.action(), Some(BatchAction::Stop(_))),
            "a cancellation is not a failure"
        );
        batch.run(2, 1, Ending::Failed);
        assert_eq!(batch.action(), Some(BatchAction::Stop(1)));
        batch.append(&BatchEvent::Stopped(BatchStopped { failures: 1 }));
        let Some(BatchAction::End(mut to_end, _, running)) = batch.action() else {
            panic!("{:?}", batch.action())
        };
        to_end.sort_unstable();
        let expected: &[u32] = if fail_fast { &[1, 3, 4, 5] } else { &[3, 4, 5] };
        assert_eq!((to_end.as_slice(), running), (expected, fail_fast), "{parallel:?}");
        for index in to_end {
            batch.windows.member_ended(batch.job(index), false);
        }
        assert_eq!(batch.action(), None);
    }
}

#[test]
fn the_end_of_a_batch_that_was_cut_off_half_way_does_not_wait_for_members_that_never_came() {
    let mut batch = TestBatch::new(3, Some(1), None, false);
    batch.append(&BatchEvent::Cancelled(BatchCancelled { reason: None }));
    let Some(BatchAction::End(to_end, ..)) = batch.action() else {
        panic!("{:?}", batch.action())
    };
    assert_eq!(to_end.len(), 3);
    batch.windows.member_ended(batch.job(2), true);
    for index in 0..2 {
        batch.windows.member_ended(batch.job(index), false);
        batch.windows.closed(batch.job(index), None, false);
    }
    assert!(batch.windows.is_empty());
}

proptest! {
    /// Whatever happens to whom: never more members than slots are ready or held, and all of them get their turn.
    #[test]
    fn slots_are_never_exceeded_and_everybody_gets_one(
        total in 1_u32..40, parallel in 1_u32..6, steps in vec((0_u32..40, 0_u8..6), 0..300)
    ) {
        let mut batch = TestBatch::new(total, Some(parallel), None, false);
        batch.append(&BatchEvent::Sealed(BatchSealed {}));
        // Each member in the log: the attempt that is ready, and whether it is claimed; nothing while it holds no slot.
        let mut held: BTreeMap<u32, (u32, bool)> = BTreeMap::new();
        let mut tries: BTreeMap<u32, u32> = BTreeMap::new();
        let (mut pausing, mut ended) = (BTreeSet::new(), BTreeSet::new());
        let endless = (0..10_000).map(|step: u32| (step % total, 1 + u8::from(step / total % 2 == 1)));
        for (index, what) in steps.into_iter().chain(endless) {
            if let Some(BatchAction::Advance(released)) = batch.action() {
                batch.append(&BatchEvent::Advanced(BatchAdvanced { released: released.clone() }));
                for index in released {
                    prop_assert!(!ended.contains(&index) && !pausing.contains(&index));
                    let attempt = tries.entry(index).and_modify(|tries| *tries += 1).or_insert(1);
                    prop_assert!(held.insert(index, (*attempt, false)).is_none());
                    batch.ready(index, held[&index].0);
                }
            }
            prop_assert!(held.len() <= parallel as usize);
            let index = index % total;
            let live = held.get(&index).copied();
            match (what, live) {
                (0 | 1, Some((attempt, false))) => {
                    batch.windows.claimed(&batch.a_try(index, attempt));
                    held.insert(index, (attempt, true));
                }
                (2, Some((attempt, true))) => {
                    batch.windows.finished(&batch.a_try(index, attempt), Ending::Succeeded);
                    held.remove(&index);
                    ended.insert(index);
                }
                (3, Some((attempt, true))) => {
                    batch.windows.failed(&batch.a_try(index, attempt));
                    held.remove(&index);
                    pausing.insert(index);
                }
                (4, Some((attempt, true))) => {
                    tries.insert(index, attempt + 1);
                    held.insert(index, (attempt + 1, false));
                    batch.ready(index, attempt + 1);
                }
                (5, None) if !ended.contains(&index) && !pausing.contains(&index) => {
                    batch.windows.closed(batch.job(index), None, false);
                    ended.insert(index);
                }
                (1, None) if pausing.remove(&index) => batch.windows.waits_for_slot(batch.job(index), None),
                _ => {}
            }
            if ended.len() == total as usize {
                break;
            }
        }
        prop_assert_eq!(ended.len(), total as usize);
        prop_assert!(batch.windows.is_empty());
    }
}
