//! What becomes due for a job as time passes.

use chrono::{DateTime, Utc};

use super::{Command, Job, Phase};
use crate::spec::policy::{Clock, later};

/// A command that becomes due at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The earliest time to send the command.
    pub at: DateTime<Utc>,
    /// [`Command::Release`] or [`Command::Expire`].
    pub command: Command,
}

impl Job {
    /// The next command that only depends on the clock. `None` if there is no such command, or while a worker has the job: that worker
    /// enforces the time limits.
    ///
    /// The clock does not release a job that waits for other jobs.
    #[must_use]
    pub fn due(&self) -> Option<Due> {
        let release = |at| Due {
            at,
            command: Command::Release,
        };
        let next = match self.phase {
            Phase::Held { .. } => self.ready_not_before().filter(|_| self.dependencies().is_empty()).map(release),
            Phase::Retrying { .. } => self.ready_not_before().map(release),
            Phase::Queued { .. } => self.spec.queue_timeout_ms.map(|limit| Due {
                at: later(self.ready_at, limit),
                command: Command::Expire { clock: Clock::Queue },
            }),
            Phase::Claimed { .. } | Phase::Running { .. } | Phase::Ended(_) => return None,
        };
        let over = self.deadline.map(|at| Due {
            at,
            command: Command::Expire { clock: Clock::Total },
        });
        next.into_iter().chain(over).min_by_key(|due| due.at)
    }

    /// The time before which the job does not become ready; `None` if no time matters, or if the job does not wait for one. For a job
    /// that its worker returned, this is when the job was submitted, whatever the worker's clock shows.
    #[must_use]
    pub fn ready_not_before(&self) -> Option<DateTime<Utc>> {
        match self.phase {
            Phase::Held { until } => until,
            Phase::Retrying { due, .. } => Some(due.unwrap_or(self.submitted_at)),
            Phase::Queued { .. } | Phase::Claimed { .. } | Phase::Running { .. } | Phase::Ended(_) => None,
        }
    }

    /// Whether the job may only become ready when its batch has a free slot for it.
    #[must_use]
    pub fn is_windowed(&self) -> bool {
        self.spec.start.as_ref().is_some_and(|start| start.window)
    }

    /// The jobs that this job still waits for.
    #[must_use]
    pub fn dependencies(&self) -> &[crate::spec::policy::Dependency] {
        match (&self.phase, &self.spec.start) {
            (Phase::Held { .. }, Some(start)) => &start.after,
            (_, _) => &[],
        }
    }
}
