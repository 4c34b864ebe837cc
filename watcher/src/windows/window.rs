//! One batch's window: which of its members hold a slot, and what is to be done for it.

use std::collections::{BTreeMap, BTreeSet};

use bus::{
    batch::{BatchSubmitted, Phase},
    ids::{Attempt, Namespace},
};

use crate::seen::SessionKey;

/// Members that are given a slot, or are ended, at once; with the event of the batch itself, fewer than an atomic batch takes.
const AT_ONCE: usize = 250;

/// One batch.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) namespace: Namespace,
    /// Its last event.
    pub(crate) sequence: u64,
    pub(crate) total: u32,
    pub(crate) parallel: Option<u32>,
    pub(crate) max_failures: Option<u32>,
    pub(crate) fail_fast: bool,
    pub(crate) phase: Phase,
    /// From this place on, nobody was given a slot yet.
    pub(crate) next: u32,
    /// Those from there on that ended nevertheless.
    pub(crate) gone: BTreeSet<u32>,
    /// Those that hold a slot.
    pub(crate) slots: BTreeMap<u32, Slot>,
    /// Those that failed, and pause.
    pub(crate) pausing: BTreeSet<u32>,
    /// Those whose turn has come again.
    pub(crate) again: BTreeSet<u32>,
    pub(crate) ended: u32,
    pub(crate) failures: u32,
    /// Those that are to be ended, because the batch was.
    pub(crate) doomed: BTreeSet<u32>,
}

/// What a member does with its slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The attempt that a worker may claim; none while it is not known.
    pub(crate) next: Option<Attempt>,
    /// Who claimed it.
    pub(crate) holder: Option<(Attempt, SessionKey)>,
}

/// What is to be done for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Want {
    /// Give slots to these members.
    Advance(Vec<u32>),
    /// Stop it: so many have failed.
    Stop(u32),
    /// End these members, and say why; also those that run.
    End(Vec<u32>, String, bool),
}

impl Window {
    pub(super) fn new(namespace: Namespace, sequence: u64, submitted: &BatchSubmitted) -> Self {
        // Without a limit all are ready from the beginning.
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
            doomed: BTreeSet::new(),
        }
    }

    /// Whether members are ended that run.
    pub(super) const fn ends_running(&self) -> bool {
        self.fail_fast || matches!(self.phase, Phase::Cancelled { .. })
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::Cancelled { .. })
    }

    /// Those that have not ended.
    pub(crate) fn open(&self) -> impl Iterator<Item = u32> {
        let waiting = (self.next..self.total).filter(|index| !self.gone.contains(index));
        let others = self.slots.keys().chain(&self.pausing).chain(&self.again).copied();
        others.chain(waiting)
    }

    pub(super) fn doom(&mut self) {
        if !self.is_over() {
            return;
        }
        let spared = |index: &u32| !self.ends_running() && self.slots.get(index).is_some_and(|slot| slot.holder.is_some());
        self.doomed = self.open().filter(|index| !spared(index)).collect();
    }

    /// One that holds no slot any more, or a new one, although the batch is over.
    pub(super) fn doom_one(&mut self, index: u32) {
        if self.is_over() {
            self.doomed.insert(index);
        }
    }

    /// What is to be done, if anything is.
    pub(super) fn want(&self) -> Option<Want> {
        match &self.phase {
            Phase::Submitting => None,
            Phase::Sealed if self.max_failures.is_some_and(|most| self.failures >= most) => Some(Want::Stop(self.failures)),
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
                (!turn.is_empty()).then_some(Want::Advance(turn))
            }
            Phase::Stopped | Phase::Cancelled { .. } if self.doomed.is_empty() => None,
            phase => {
                let why = match phase {
                    Phase::Cancelled { reason: Some(reason) } => format!("its batch was cancelled: {reason}"),
                    Phase::Cancelled { reason: None } => "its batch was cancelled".to_owned(),
                    _ => format!("its batch was stopped after {} failed", members(self.failures)),
                };
                let some = self.doomed.iter().copied().take(AT_ONCE).collect();
                Some(Want::End(some, why, self.ends_running()))
            }
        }
    }

    pub(super) fn advanced(&mut self, released: &[u32]) {
        for index in released.iter().copied().filter(|index| *index < self.total) {
            self.again.remove(&index);
            self.pausing.remove(&index);
            self.slots.entry(index).or_default();
            if index >= self.next {
                // Those that were passed over come up again.
                let passed = (self.next..index).filter(|passed| !self.gone.contains(passed));
                self.again.extend(passed.collect::<Vec<_>>());
                self.gone.retain(|gone| *gone > index);
                self.next = index + 1;
            }
        }
    }

    /// Lets a member go that has ended.
    pub(super) fn end(&mut self, index: u32, failed: bool) {
        let known = self.slots.remove(&index).is_some() | self.pausing.remove(&index) | self.again.remove(&index);
        if known || (index >= self.next && self.gone.insert(index)) {
            self.ended += 1;
            self.failures += u32::from(failed);
        }
        self.doomed.remove(&index);
    }

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
