//! Ended sessions, and workers without a session: how many are remembered, so that the state does not grow with the age of the grid.

use bus::ids::WorkerId;

use super::State;
use crate::observation::SessionKey;

/// How many sessions are remembered that ended and hold no attempt.
///
/// A late claim by a remembered session is given up at once. A forgotten session counts as new, like every session whose registration
/// was not read: its claim is given up once it has been silent for the lapse.
pub(crate) const REMEMBERED: usize = 1_000;

impl State {
    /// Notes the sequence of a known worker's last event.
    pub(super) fn worker_changed(&mut self, worker: &WorkerId, sequence: u64) {
        if let Some(known) = self.workers.get_mut(worker) {
            known.sequence = sequence;
        }
    }

    /// Remembers a session that ended and holds no attempt. If there are too many, forgets the one that ended first.
    pub(super) fn remember(&mut self, ended_at: u64, key: &SessionKey) {
        self.over.insert((ended_at, key.clone()));
        while self.over.len() > REMEMBERED
            && let Some((_, key)) = self.over.pop_first()
        {
            self.forget(&key);
        }
    }

    /// Forgets a session, and its worker with the worker's last session.
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
