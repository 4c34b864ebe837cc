//! One batch's window: which of its members hold a slot, and which action follows.

use std::collections::{BTreeMap, BTreeSet};

use bus::{
    batch::{BatchSubmitted, Phase},
    ids::{Attempt, Namespace},
};

use crate::observation::SessionKey;

/// How many members are given a slot, or are ended, at once. With the batch's own event, that is fewer than an atomic batch takes.
const AT_ONCE: usize = 250;

/// One batch.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) namespace: Namespace,
    /// The sequence of its last event.
    pub(crate) sequence: u64,
    pub(crate) total: u32,
    pub(crate) parallel: Option<u32>,
    pub(crate) max_failures: Option<u32>,
    pub(crate) fail_fast: bool,
    pub(crate) phase: Phase,
    /// No member from this number on was given a slot yet.
    pub(crate) next: u32,
    /// The members from there on that ended nevertheless.
    pub(crate) gone: BTreeSet<u32>,
    /// The members that hold a slot.
    pub(crate) slots: BTreeMap<u32, Slot>,
    /// The members that failed, and pause before the next attempt.
    pub(crate) pausing: BTreeSet<u32>,
    /// The members that wait for a slot again.
    pub(crate) again: BTreeSet<u32>,
    pub(crate) ended: u32,
    pub(crate) failures: u32,
    /// The members that are to be ended, because the batch was stopped or cancelled.
    pub(crate) to_end: BTreeSet<u32>,
}

/// A member's slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The attempt that a worker may claim; nothing while it is not known.
    pub(crate) next: Option<Attempt>,
    /// The attempt that was claimed, and by which session.
    pub(crate) holder: Option<(Attempt, SessionKey)>,
}

/// What is due for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BatchAction {
    /// Give slots to these members.
    Advance(Vec<u32>),
    /// Stop it: so many members have failed.
    Stop(u32),
    /// End these members, for this reason; and whether also those that run.
    End(Vec<u32>, String, bool),
}

impl Window {
    pub(super) fn new(namespace: Namespace, sequence: u64, submitted: &BatchSubmitted) -> Self {
        // Without a limit, all members are ready from the beginning.
        let (next, slots) = match submitted.parallel {
            Some(_) => (0, BTreeMap::new()),
            None => {
                let next = Some(Attempt::FIRST);
                let slot = |index| (index, Slot { next, holder: None });
                (submitted.total, (0..submitted.total).map(slot).collect())
            }
        };
        Self {
            namespace,
            sequence,
            total: submitted.total,
            parallel: submitted.parallel,
            max_failures: submitted.max_failures,
            fail_fast: submitted.fail_fast,
            phase: Phase::Submitting,
            next,
            gone: BTreeSet::new(),
            slots,
            pausing: BTreeSet::new(),
            again: BTreeSet::new(),
            ended: 0,
            failures: 0,
            to_end: BTreeSet::new(),
        }
    }

    /// Whether running members are ended as well.
    pub(super) const fn ends_running(&self) -> bool {
        self.fail_fast || matches!(self.phase, Phase::Cancelled { .. })
    }

    /// Whether the batch was stopped or cancelled.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::Cancelled { .. })
    }

    /// The members that have not ended.
    pub(crate) fn open(&self) -> impl Iterator<Item = u32> {
        let waiting = (self.next..self.total).filter(|index| !self.gone.contains(index));
        let others = self.slots.keys().chain(&self.pausing).chain(&self.again).copied();
        others.chain(waiting)
    }

    /// Marks the members that are to be ended, if the batch is over.
    pub(super) fn mark_all_to_end(&mut self) {
        if !self.is_over() {
            return;
        }
        let spared = |index: &u32| !self.ends_running() && self.slots.get(index).is_some_and(|slot| slot.holder.is_some());
        self.to_end = self.open().filter(|index| !spared(index)).collect();
    }

    /// Marks a member that gave up its slot, or got a new one, although the batch is over.
    pub(super) fn mark_to_end(&mut self, index: u32) {
        if self.is_over() {
            self.to_end.insert(index);
        }
    }

    /// What is due, if anything is.
    pub(super) fn action(&self) -> Option<BatchAction> {
        match &self.phase {
            Phase::Submitting => None,
            Phase::Sealed if self.max_failures.is_some_and(|most| self.failures >= most) => Some(BatchAction::Stop(self.failures)),
            Phase::Sealed => {
                let held = self.slots.len();
                let free = usize::try_from(self.parallel?).unwrap_or(usize::MAX).saturating_sub(held);
                let waiting = (self.next..self.total).filter(|index| !self.gone.contains(index));
                let turn = self
                    .again
                    .iter()
                    .copied()
                    .chain(waiting)
                    .take(free.min(AT_ONCE))
                    .collect::<Vec<_>>();
                (!turn.is_empty()).then_some(BatchAction::Advance(turn))
            }
            Phase::Stopped | Phase::Cancelled { .. } if self.to_end.is_empty() => None,
            phase => {
                let why = match phase {
                    Phase::Cancelled { reason: Some(reason) } => format!("its batch was cancelled: {reason}"),
                    Phase::Cancelled { reason: None } => "its batch was cancelled".to_owned(),
                    _ => format!("its batch was stopped after {} failed", members(self.failures)),
                };
                let some = self.to_end.iter().copied().take(AT_ONCE).collect();
                Some(BatchAction::End(some, why, self.ends_running()))
            }
        }
    }

    /// Gives slots to these members.
    pub(super) fn advanced(&mut self, released: &[u32]) {
        for index in released.iter().copied().filter(|index| *index < self.total) {
            self.again.remove(&index);
            self.pausing.remove(&index);
            self.slots.entry(index).or_default();
            if index >= self.next {
                // The members that were passed over wait for a slot again.
                let passed = (self.next..index).filter(|passed| !self.gone.contains(passed));
                self.again.extend(passed.collect::<Vec<_>>());
                self.gone.retain(|gone| *gone > index);
                self.next = index + 1;
            }
        }
    }

    /// Removes a member that has ended.
    pub(super) fn end(&mut self, index: u32, failed: bool) {
        let known = self.slots.remove(&index).is_some() | self.pausing.remove(&index) | self.again.remove(&index);
        if known || (index >= self.next && self.gone.insert(index)) {
            self.ended += 1;
            self.failures += u32::from(failed);
        }
        self.to_end.remove(&index);
    }

    /// Whether all members have ended.
    pub(super) const fn is_done(&self) -> bool {
        self.ended >= self.total
    }
}

fn members(number: u32) -> String {
    if number == 1 {
        "1 member".to_owned()
    } else {
        format!("{number} members")
    }
}
