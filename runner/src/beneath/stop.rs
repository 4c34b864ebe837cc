//! Ending work on a thread that nobody can cancel.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether a walk or a removal is to end early. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

/// Stops the work when it is dropped.
#[derive(Debug)]
pub(crate) struct StopGuard(Stop);

impl Stop {
    /// Ends the work at its next step.
    pub(crate) fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the work is to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// What ends the work when it is dropped.
    pub(crate) fn guard(&self) -> StopGuard {
        StopGuard(self.clone())
    }
}

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.0.stop();
    }
}
