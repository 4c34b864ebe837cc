use bus::{
    batch::{BatchAdvanced, BatchCancelled, BatchSealed},
    ids::{Digest, SessionId, default_token},
};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::seen::SessionKey;

/// A batch that does what its windows want.
struct Told {
    windows: Windows,
    id: BatchId,
    sequence: u64,
    key: SessionKey,
}

impl Told {
    fn new(total: u32, parallel: Option<u32>, max_failures: Option<u32>, fail_fast: bool) -> Self {
        let mut told = Self {
            windows: Windows::default(),
            id: BatchId::new(),
            sequence: 0,
            key: (default_token(), SessionId::new()),
        };
        told.say(&BatchEvent::Submitted(BatchSubmitted {
            name: String::new(),
            total,
            parallel,
            max_failures,
            fail_fast,
            retry_of: None,
            sha256: Digest::of(b""),
        }));
        told
    }

    fn say(&mut self, event: &BatchEvent) {
        self.sequence += 1;
        self.windows.batch(self.sequence, &default_token(), self.id, event);
    }

    fn job(&self, index: u32) -> JobId {
        JobId::of_member(self.id, index)
    }

    fn want(&self) -> Option<Want> {
        self.windows.wants().next().map(|(_, _, want)| want)
    }

    fn ready(&mut self, index: u32, attempt: u32) {
        self.windows.waits(&Waits {
            job: self.job(index),
            next: Some(Attempt(attempt)),
            due: None,
            after: Vec::new(),
            not_before: None,
        });
    }

    fn a_try(&self, index: u32, attempt: u32) -> Try {
        Try {
            job: self.job(index),
            attempt: Attempt(attempt),
            worker: self.key.0.clone(),
            session: self.key.1,
        }
    }

    /// Does what is wanted, as the log would tell it.
    fn advance(&mut self) -> Vec<u32> {
        let Some(Want::Advance(released)) = self.want() else {
            return Vec::new();
        };
        self.say(&BatchEvent::Advanced(BatchAdvanced {
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
    let mut told = Told::new(5, Some(2), None, false);
    assert_eq!(told.want(), None, "not all of it is in the log");
    told.say(&BatchEvent::Sealed(BatchSealed {}));
    assert_eq!(told.advance(), [0, 1]);
    assert_eq!(told.want(), None);
    // Who did not claim it cannot end it, and a late word of a lost attempt frees nothing.
    let late = told.a_try(0, 1);
    told.windows.finished(&late, Ending::Well);
    told.windows.claimed(&late);
    told.ready(0, 2);
    told.windows.finished(&late, Ending::Well);
    assert_eq!(told.want(), None, "it was rescheduled, and holds its slot");
    told.run(0, 2, Ending::Well);
    assert_eq!(told.advance(), [2]);
    // A pause holds no slot, and after it comes a turn.
    let failed = told.a_try(1, 1);
    told.windows.claimed(&failed);
    told.windows.failed(&failed);
    assert_eq!(told.advance(), [3]);
    told.windows.turn(told.job(1), Some(Attempt(1)));
    told.run(2, 1, Ending::Badly);
    assert_eq!(told.want(), Some(Want::Advance(vec![1])));
    assert_eq!(told.advance(), [1]);
}

#[test]
fn a_slot_that_was_given_back_is_free_once_the_log_says_so() {
    let mut told = Told::new(2, Some(1), None, false);
    told.say(&BatchEvent::Sealed(BatchSealed {}));
    assert_eq!(told.advance(), [0]);
    told.windows.claimed(&told.a_try(0, 1));
    told.windows.turn(told.job(0), Some(Attempt(1)));
    assert_eq!(told.advance(), [0], "it goes before those that had no turn yet");
    told.ready(0, 2);
    told.windows.claimed(&told.a_try(0, 2));
    // What was read of it before that is out of date.
    told.windows.turn(told.job(0), Some(Attempt(1)));
    assert_eq!(told.want(), None);
}

#[test]
fn what_was_cancelled_while_it_waited_is_passed_over() {
    let mut told = Told::new(3, Some(1), None, false);
    told.say(&BatchEvent::Sealed(BatchSealed {}));
    told.windows.closed(told.job(0), None, false);
    assert_eq!(told.advance(), [1]);
    told.run(1, 1, Ending::Well);
    assert_eq!(told.advance(), [2]);
    told.run(2, 1, Ending::Well);
    assert!(told.windows.is_empty(), "it is over, and forgotten");
}

#[test]
fn too_many_failures_stop_a_batch_and_spare_those_that_run_unless_it_fails_fast() {
    for (parallel, fail_fast) in [(Some(3), false), (Some(3), true), (None, false), (None, true)] {
        let mut told = Told::new(6, parallel, Some(1), fail_fast);
        told.say(&BatchEvent::Sealed(BatchSealed {}));
        told.advance();
        let running = told.a_try(1, 1);
        told.windows.claimed(&running);
        told.run(0, 1, Ending::Cancelled);
        assert!(!matches!(told.want(), Some(Want::Stop(_))), "a user's word is no failure");
        told.run(2, 1, Ending::Badly);
        assert_eq!(told.want(), Some(Want::Stop(1)));
        told.say(&BatchEvent::Stopped(BatchStopped { failures: 1 }));
        let Some(Want::End(mut doomed, _, running)) = told.want() else {
            panic!("{:?}", told.want())
        };
        doomed.sort_unstable();
        let expected: &[u32] = if fail_fast { &[1, 3, 4, 5] } else { &[3, 4, 5] };
        assert_eq!((doomed.as_slice(), running), (expected, fail_fast), "{parallel:?}");
        for index in doomed {
            told.windows.seen_to(told.job(index), false);
        }
        assert_eq!(told.want(), None);
    }
}

#[test]
fn the_end_of_a_batch_that_was_cut_off_half_way_does_not_wait_for_members_that_never_came() {
    let mut told = Told::new(3, Some(1), None, false);
    told.say(&BatchEvent::Cancelled(BatchCancelled { reason: None }));
    let Some(Want::End(doomed, ..)) = told.want() else {
        panic!("{:?}", told.want())
    };
    assert_eq!(doomed.len(), 3);
    told.windows.seen_to(told.job(2), true);
    for index in 0..2 {
        told.windows.seen_to(told.job(index), false);
        told.windows.closed(told.job(index), None, false);
    }
    assert!(told.windows.is_empty());
}

proptest! {
    /// Whatever happens to whom: never more members than slots are ready or held, and all of them get their turn.
    #[test]
    fn slots_are_never_exceeded_and_everybody_gets_one(
        total in 1_u32..40, parallel in 1_u32..6, steps in vec((0_u32..40, 0_u8..6), 0..300)
    ) {
        let mut told = Told::new(total, Some(parallel), None, false);
        told.say(&BatchEvent::Sealed(BatchSealed {}));
        // What the log would say of each: the attempt that is ready, and whether it is claimed; nothing while it holds no slot.
        let mut held: BTreeMap<u32, (u32, bool)> = BTreeMap::new();
        let mut tries: BTreeMap<u32, u32> = BTreeMap::new();
        let (mut pausing, mut ended) = (BTreeSet::new(), BTreeSet::new());
        let endless = (0..10_000).map(|step: u32| (step % total, 1 + u8::from(step / total % 2 == 1)));
        for (index, what) in steps.into_iter().chain(endless) {
            if let Some(Want::Advance(released)) = told.want() {
                told.say(&BatchEvent::Advanced(BatchAdvanced { released: released.clone() }));
                for index in released {
                    prop_assert!(!ended.contains(&index) && !pausing.contains(&index));
                    let attempt = tries.entry(index).and_modify(|tries| *tries += 1).or_insert(1);
                    prop_assert!(held.insert(index, (*attempt, false)).is_none());
                    told.ready(index, held[&index].0);
                }
            }
            prop_assert!(held.len() <= parallel as usize);
            let index = index % total;
            let live = held.get(&index).copied();
            match (what, live) {
                (0 | 1, Some((attempt, false))) => {
                    told.windows.claimed(&told.a_try(index, attempt));
                    held.insert(index, (attempt, true));
                }
                (2, Some((attempt, true))) => {
                    told.windows.finished(&told.a_try(index, attempt), Ending::Well);
                    held.remove(&index);
                    ended.insert(index);
                }
                (3, Some((attempt, true))) => {
                    told.windows.failed(&told.a_try(index, attempt));
                    held.remove(&index);
                    pausing.insert(index);
                }
                (4, Some((attempt, true))) => {
                    tries.insert(index, attempt + 1);
                    held.insert(index, (attempt + 1, false));
                    told.ready(index, attempt + 1);
                }
                (5, None) if !ended.contains(&index) && !pausing.contains(&index) => {
                    told.windows.closed(told.job(index), None, false);
                    ended.insert(index);
                }
                (1, None) if pausing.remove(&index) => told.windows.turn(told.job(index), None),
                _ => {}
            }
            if ended.len() == total as usize {
                break;
            }
        }
        prop_assert_eq!(ended.len(), total as usize);
        prop_assert!(told.windows.is_empty());
    }
}
