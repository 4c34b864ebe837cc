//! What time alone makes true of a job.

use chrono::{DateTime, Utc};

use super::{Command, Job, Phase};
use crate::spec::policy::{Clock, later};

/// What is to be said of a job, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Not before then.
    pub at: DateTime<Utc>,
    /// [`Command::Release`] or [`Command::Expire`].
    pub command: Command,
}

impl Job {
    /// What the clock alone brings next; nothing where it brings nothing, as while a worker has the job: then its worker
    /// minds the clocks.
    ///
    /// A job that waits for others is released by nobody who only looks at the clock.
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

    /// The time before which the job does not become ready: for a job that its worker gave back, when it was submitted, whatever that
    /// worker's clock shows. Nothing where no time matters, and for a job that does not wait for one.
    #[must_use]
    pub fn ready_not_before(&self) -> Option<DateTime<Utc>> {
        match self.phase {
            Phase::Held { until } => until,
            Phase::Retrying { due, .. } => Some(due.unwrap_or(self.submitted_at)),
            Phase::Queued { .. } | Phase::Claimed { .. } | Phase::Running { .. } | Phase::Ended(_) => None,
        }
    }

    /// Whether it may only become ready where its batch has a free slot for it.
    #[must_use]
    pub fn is_windowed(&self) -> bool {
        self.spec.start.as_ref().is_some_and(|start| start.window)
    }

    /// The jobs that it waits for, while it does.
    #[must_use]
    pub fn dependencies(&self) -> &[crate::spec::policy::Dependency] {
        match (&self.phase, &self.spec.start) {
            (Phase::Held { .. }, Some(start)) => &start.after,
            (_, _) => &[],
        }
    }
}
