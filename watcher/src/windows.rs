//! Batches that limit how many of their members run at once, or how many may fail.
//!
//! A member holds a slot from the moment that it is given one until its attempt ends: while it is ready, claimed, running, or
//! rescheduled. One that failed and pauses, or was given back, holds none, and waits for its turn again. Slots are only ever taken by
//! `batch.advanced`, which is appended behind the batch's last event: who knows less than the log sees too few free slots, or is
//! refused. So the limit holds whatever is believed in here; a slot that is wrongly believed to be held is only lost time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bus::{
    batch::{BatchEvent, BatchStopped, BatchSubmitted, MAX_MEMBERS, Phase},
    ids::{Attempt, BatchId, JobId, Namespace},
};
use tracing::error;

use crate::seen::{Ending, Try, Waits};
pub(crate) use crate::window::{Slot, Want, Window};

/// Every batch that is minded, until all of its members have ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Windows {
    batches: HashMap<BatchId, Window>,
    members: HashMap<JobId, (BatchId, u32)>,
    /// Those for which something is to be done.
    restless: BTreeSet<BatchId>,
}

impl Windows {
    /// Folds an event of a batch that stands at this sequence; one that is known already changes nothing.
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
        window.doom();
        self.settle(id);
    }

    /// Notes that what stands at this sequence is the last that was said of a batch, whatever it means.
    pub(crate) fn said(&mut self, sequence: u64, id: BatchId) {
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
                "batch {id} says that it has {} members, and may have {MAX_MEMBERS}; it is not minded",
                submitted.total
            );
            return;
        }
        self.insert(id, Window::new(namespace.clone(), sequence, submitted));
    }

    /// Minds a batch from now on.
    pub(crate) fn insert(&mut self, id: BatchId, mut window: Window) {
        window.doom();
        self.members
            .extend(window.open().map(|index| (JobId::of_member(id, index), (id, index))));
        self.batches.insert(id, window);
        self.settle(id);
    }

    /// Forgets a batch of which nothing more can come, and notes whether something is to be done for it.
    fn settle(&mut self, id: BatchId) {
        let Some(window) = self.batches.get(&id) else { return };
        if window.is_done() && window.phase != Phase::Submitting {
            self.batches.remove(&id);
            self.restless.remove(&id);
        } else if window.want().is_some() {
            self.restless.insert(id);
        } else {
            self.restless.remove(&id);
        }
    }

    /// Changes the window that a job is a member of, if it is one of one.
    fn change(&mut self, job: JobId, change: impl FnOnce(&mut Window, u32)) {
        let Some((id, index)) = self.members.get(&job).copied() else {
            return;
        };
        if let Some(window) = self.batches.get_mut(&id) {
            change(window, index);
            self.settle(id);
        }
    }

    /// A job waits for a worker: it holds a slot, as whoever made it ready must have given it one.
    pub(crate) fn waits(&mut self, waits: &Waits) {
        let Some(next) = waits.next else { return };
        self.change(waits.job, |window, index| {
            if index < window.next {
                let holder = None;
                window.again.remove(&index);
                window.pausing.remove(&index);
                window.slots.insert(index, Slot { next: Some(next), holder });
                window.doom_one(index);
            }
        });
    }

    /// A worker took it.
    pub(crate) fn claimed(&mut self, claim: &Try) {
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
                    window.doomed.remove(&index);
                }
            }
        });
    }

    /// Its worker says that it ended.
    pub(crate) fn finished(&mut self, end: &Try, ending: Ending) {
        if self.is_held_by(end) {
            self.change(end.job, |window, index| window.end(index, ending == Ending::Badly));
            self.members.remove(&end.job);
        }
    }

    /// Its worker says that it failed, and is to be tried again.
    pub(crate) fn failed(&mut self, end: &Try) {
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
            window.doom_one(index);
        });
    }

    /// It ended without its worker, or this attempt was its last.
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

    fn is_held_by(&self, end: &Try) -> bool {
        let holder = self.slot(end.job).and_then(|slot| slot.holder.as_ref());
        holder.is_some_and(|(attempt, key)| *attempt == end.attempt && *key == end.key())
    }

    /// Its pause is over, or its worker gave it back, by what the log says of this attempt: it is its turn as soon as there is a slot.
    pub(crate) fn turn(&mut self, job: JobId, over: Option<Attempt>) {
        self.change(job, |window, index| {
            let holder = window
                .slots
                .get(&index)
                .and_then(|slot| slot.holder.as_ref())
                .map(|holder| holder.0);
            let given_back = holder.is_some() && holder == over && window.slots.remove(&index).is_some();
            if window.pausing.remove(&index) || given_back {
                window.again.insert(index);
                window.doom_one(index);
            }
        });
    }

    /// By our word at this sequence, these members have a slot for this attempt.
    pub(crate) fn given(&mut self, id: BatchId, sequence: u64, members: &[(u32, Attempt)]) {
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

    /// By our word at this sequence, a batch is stopped.
    pub(crate) fn stopped(&mut self, id: BatchId, sequence: u64, failures: u32) {
        let event = BatchEvent::Stopped(BatchStopped { failures });
        if let Some(namespace) = self.batches.get(&id).map(|window| window.namespace.clone()) {
            self.batch(sequence, &namespace, id, &event);
        }
    }

    /// It was seen to that a doomed member ends, or there is nothing to end.
    pub(crate) fn seen_to(&mut self, job: JobId, absent: bool) {
        self.change(job, |window, index| {
            window.doomed.remove(&index);
            if absent {
                window.end(index, false);
            }
        });
    }

    /// What is to be done.
    pub(crate) fn wants(&self) -> impl Iterator<Item = (BatchId, &Window, Want)> {
        self.restless.iter().filter_map(|id| {
            let window = self.batches.get(id)?;
            Some((*id, window, window.want()?))
        })
    }

    /// Whether something is to be done.
    pub(crate) fn is_restless(&self) -> bool {
        !self.restless.is_empty()
    }

    /// Whether somebody waits for slots to become free.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&BatchId, &Window)> {
        self.batches.iter()
    }

    /// A batch as it was saved.
    pub(crate) fn blank(namespace: Namespace, sequence: u64, submitted: &BatchSubmitted) -> Window {
        Window {
            slots: BTreeMap::new(),
            ..Window::new(namespace, sequence, submitted)
        }
    }
}

#[cfg(test)]
#[path = "windows_tests.rs"]
mod tests;
