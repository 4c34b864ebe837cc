//! Batches that limit how many of their members run at once, or how many may fail.
//!
//! A member holds a slot from its release until its attempt ends: while it is ready, claimed, running, or rescheduled. A member that
//! failed and pauses, or whose attempt was given back, holds none, and waits for a slot again. Only `batch.advanced` gives slots, and it
//! is appended behind the batch's last event: a watcher that is behind the log sees too few free slots, or its append is rejected. So
//! the limit holds even if this state is wrong; a slot that wrongly counts as held only costs time.

#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bus::{
    batch::{BatchEvent, BatchStopped, BatchSubmitted, MAX_MEMBERS, Phase},
    ids::{Attempt, BatchId, JobId, Namespace},
};
use tracing::error;

pub(crate) use self::window::{BatchAction, Slot, Window};
use crate::observation::{Ending, HeldAttempt, WaitingJob};

/// Every tracked batch, until all of its members have ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Windows {
    batches: HashMap<BatchId, Window>,
    members: HashMap<JobId, (BatchId, u32)>,
    /// The batches with an action.
    with_actions: BTreeSet<BatchId>,
}

impl Windows {
    /// Folds an event of a batch at this sequence. An event that is folded already changes nothing.
    pub(crate) fn batch(&mut self, sequence: u64, namespace: &Namespace, id: BatchId, event: &BatchEvent) {
        if let BatchEvent::Submitted(submitted) = event {
            self.submitted(sequence, namespace, id, submitted);
            return;
        }
        let Some(window) = self.batches.get_mut(&id).filter(|window| window.sequence < sequence) else {
            return;
        };
        window.sequence = sequence;
        match event {
            BatchEvent::Submitted(_) => {}
            BatchEvent::Sealed(_) if window.phase == Phase::Submitting => window.phase = Phase::Sealed,
            BatchEvent::Sealed(_) => {}
            BatchEvent::Advanced(event) => window.advanced(&event.released),
            BatchEvent::Stopped(_) if window.is_over() => {}
            BatchEvent::Stopped(_) => window.phase = Phase::Stopped,
            BatchEvent::Cancelled(event) => {
                window.phase = Phase::Cancelled {
                    reason: event.reason.clone(),
                };
            }
        }
        window.mark_all_to_end();
        self.settle(id);
    }

    /// Notes the sequence of a batch's last event.
    pub(crate) fn batch_changed(&mut self, sequence: u64, id: BatchId) {
        if let Some(window) = self.batches.get_mut(&id) {
            window.sequence = window.sequence.max(sequence);
        }
    }

    fn submitted(&mut self, sequence: u64, namespace: &Namespace, id: BatchId, submitted: &BatchSubmitted) {
        if !submitted.has_limits() || self.batches.contains_key(&id) {
            return;
        }
        if submitted.total > MAX_MEMBERS {
            error!(
                "batch {id} says that it has {} members, and may have {MAX_MEMBERS}; it is ignored",
                submitted.total
            );
            return;
        }
        self.insert(id, Window::new(namespace.clone(), sequence, submitted));
    }

    /// Tracks a batch from now on.
    pub(crate) fn insert(&mut self, id: BatchId, mut window: Window) {
        window.mark_all_to_end();
        self.members
            .extend(window.open().map(|index| (JobId::of_member(id, index), (id, index))));
        self.batches.insert(id, window);
        self.settle(id);
    }

    /// Forgets a batch if all its members have ended, and otherwise notes whether it has an action.
    fn settle(&mut self, id: BatchId) {
        let Some(window) = self.batches.get(&id) else { return };
        if window.is_done() && window.phase != Phase::Submitting {
            self.batches.remove(&id);
            self.with_actions.remove(&id);
        } else if window.action().is_some() {
            self.with_actions.insert(id);
        } else {
            self.with_actions.remove(&id);
        }
    }

    /// Changes the window that a job is a member of, if it is a member.
    fn change(&mut self, job: JobId, change: impl FnOnce(&mut Window, u32)) {
        let Some((id, index)) = self.members.get(&job).copied() else {
            return;
        };
        if let Some(window) = self.batches.get_mut(&id) {
            change(window, index);
            self.settle(id);
        }
    }

    /// A job waits for a worker. A member holds a slot then: it was given one when it was released.
    pub(crate) fn waits(&mut self, waits: &WaitingJob) {
        let Some(next) = waits.next else { return };
        self.change(waits.job, |window, index| {
            if index < window.next {
                let holder = None;
                window.again.remove(&index);
                window.pausing.remove(&index);
                window.slots.insert(index, Slot { next: Some(next), holder });
                window.mark_to_end(index);
            }
        });
    }

    /// A session claimed it.
    pub(crate) fn claimed(&mut self, claim: &HeldAttempt) {
        self.change(claim.job, |window, index| {
            let spares = !window.ends_running();
            if let Some(slot) = window.slots.get_mut(&index)
                && slot.next == Some(claim.attempt)
            {
                *slot = Slot {
                    next: None,
                    holder: Some((claim.attempt, claim.key())),
                };
                if spares {
                    window.to_end.remove(&index);
                }
            }
        });
    }

    /// A session reports that an attempt ended, and with it the job.
    pub(crate) fn finished(&mut self, end: &HeldAttempt, ending: Ending) {
        if self.is_held_by(end) {
            self.change(end.job, |window, index| window.end(index, ending == Ending::Failed));
            self.members.remove(&end.job);
        }
    }

    /// An attempt failed, and the job is to be tried again.
    pub(crate) fn failed(&mut self, end: &HeldAttempt) {
        if !self.is_held_by(end) {
            return;
        }
        self.change(end.job, |window, index| {
            if window.parallel.is_some() {
                window.slots.remove(&index);
                window.pausing.insert(index);
            } else {
                window.slots.insert(index, Slot::default());
            }
            window.mark_to_end(index);
        });
    }

    /// It ended without its worker, or this attempt was its last one.
    pub(crate) fn closed(&mut self, job: JobId, attempt: Option<Attempt>, failed: bool) {
        let live = || self.slot(job).and_then(|slot| slot.holder.as_ref()).map(|holder| holder.0);
        if attempt.is_none_or(|attempt| live() == Some(attempt)) {
            self.change(job, |window, index| window.end(index, failed));
            self.members.remove(&job);
        }
    }

    fn slot(&self, job: JobId) -> Option<&Slot> {
        let (id, index) = self.members.get(&job)?;
        self.batches.get(id)?.slots.get(index)
    }

    fn is_held_by(&self, end: &HeldAttempt) -> bool {
        let holder = self.slot(end.job).and_then(|slot| slot.holder.as_ref());
        holder.is_some_and(|(attempt, key)| *attempt == end.attempt && *key == end.key())
    }

    /// By the log, its pause is over, or its worker gave this attempt back: it waits for a slot.
    pub(crate) fn waits_for_slot(&mut self, job: JobId, over: Option<Attempt>) {
        self.change(job, |window, index| {
            let holder = window
                .slots
                .get(&index)
                .and_then(|slot| slot.holder.as_ref())
                .map(|holder| holder.0);
            let given_back = holder.is_some() && holder == over && window.slots.remove(&index).is_some();
            if window.pausing.remove(&index) || given_back {
                window.again.insert(index);
                window.mark_to_end(index);
            }
        });
    }

    /// This watcher gave slots to these members, each for this attempt, by an event at this sequence.
    pub(crate) fn slots_given(&mut self, id: BatchId, sequence: u64, members: &[(u32, Attempt)]) {
        let Some(window) = self.batches.get_mut(&id).filter(|window| window.sequence < sequence) else {
            return;
        };
        window.sequence = sequence;
        window.advanced(&members.iter().map(|(index, _)| *index).collect::<Vec<_>>());
        for (index, attempt) in members {
            let slot = window.slots.entry(*index).or_default();
            slot.next.get_or_insert(*attempt);
        }
        self.settle(id);
    }

    /// This watcher stopped a batch, by an event at this sequence.
    pub(crate) fn stopped(&mut self, id: BatchId, sequence: u64, failures: u32) {
        let event = BatchEvent::Stopped(BatchStopped { failures });
        if let Some(namespace) = self.batches.get(&id).map(|window| window.namespace.clone()) {
            self.batch(sequence, &namespace, id, &event);
        }
    }

    /// A member that was to be ended is cancelled, or had ended, or is to go on; or it is absent from the log.
    pub(crate) fn member_ended(&mut self, job: JobId, absent: bool) {
        self.change(job, |window, index| {
            window.to_end.remove(&index);
            if absent {
                window.end(index, false);
            }
        });
    }

    /// The batches with an action.
    pub(crate) fn actions(&self) -> impl Iterator<Item = (BatchId, &Window, BatchAction)> {
        self.with_actions.iter().filter_map(|id| {
            let window = self.batches.get(id)?;
            Some((*id, window, window.action()?))
        })
    }

    /// Whether a batch has an action.
    pub(crate) fn has_actions(&self) -> bool {
        !self.with_actions.is_empty()
    }

    /// Whether no batch is tracked.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Every tracked batch.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&BatchId, &Window)> {
        self.batches.iter()
    }

    /// The window of a batch whose slots are not known yet.
    pub(crate) fn blank(namespace: Namespace, sequence: u64, submitted: &BatchSubmitted) -> Window {
        Window {
            slots: BTreeMap::new(),
            ..Window::new(namespace, sequence, submitted)
        }
    }
}
