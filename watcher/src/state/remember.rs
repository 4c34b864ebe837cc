//! What is remembered of workers and sessions that are over, so that the state does not grow with the age of the grid.

use bus::ids::WorkerId;

use super::State;
use crate::seen::SessionKey;

/// Sessions that are remembered after they ended and let go of all that they held.
///
/// A claim of one that is remembered is given up at once. One that is forgotten counts as new, as every session does whose
/// registration was not read: it is given up when it is silent, which a dead one is.
pub(crate) const REMEMBERED: usize = 1_000;

impl State {
    /// Takes note of a worker's last event; of one of whom nothing else is known, it means nothing.
    pub(super) fn said(&mut self, worker: &WorkerId, sequence: u64) {
        if let Some(known) = self.workers.get_mut(worker) {
            known.sequence = sequence;
        }
    }

    /// Remembers a session that is over, and that holds nothing, and forgets the one that ended first where they are too many.
    pub(super) fn remember(&mut self, ended_at: u64, key: &SessionKey) {
        self.over.insert((ended_at, key.clone()));
        while self.over.len() > REMEMBERED
            && let Some((_, key)) = self.over.pop_first()
        {
            self.forget(&key);
        }
    }

    /// Forgets a session, and with the last one of a worker the worker.
    pub(super) fn forget(&mut self, key: &SessionKey) {
        if self.sessions.remove(key).is_none() {
            return;
        }
        if let Some(worker) = self.workers.get_mut(&key.0) {
            worker.sessions = worker.sessions.saturating_sub(1);
            if worker.sessions == 0 {
                self.workers.remove(&key.0);
            }
        }
    }
}
