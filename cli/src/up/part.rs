//! The parts of an embedded grid: what each needs to start, and how each is asked to end.

use std::{fmt, time::Duration};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

/// One process of an embedded grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part {
    /// The private nats-server.
    Nats,
    /// The private `PostgreSQL`.
    Postgres,
    /// `rgrid projector`
    Projector,
    /// `rgrid api`
    Api,
    /// `rgrid watcher`
    Watcher,
    /// `rgrid runner`
    Runner,
}

/// A signal, and how long it may take before the next one follows; `None` waits without a limit.
pub(super) type Rung = (Signal, Option<Duration>);

/// How long a job that runs may go on when the grid goes down.
pub(super) const WORKER_GRACE: Duration = Duration::from_secs(10);

const KILL: Rung = (Signal::KILL, None);

const fn within(signal: Signal, seconds: u64) -> Rung {
    (signal, Some(Duration::from_secs(seconds)))
}

impl Part {
    /// Every part, in the order they are shown.
    pub(crate) const ALL: [Self; 6] = [Self::Nats, Self::Postgres, Self::Projector, Self::Api, Self::Watcher, Self::Runner];

    /// How many steps taking a grid down has; see [`Self::stop_stage`].
    pub(super) const STOP_STAGES: u8 = 4;

    /// Its name, also that of its log; for rgrid's own services the verb that starts it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Postgres => "postgres",
            Self::Projector => "projector",
            Self::Api => "api",
            Self::Watcher => "watcher",
            Self::Runner => "runner",
        }
    }

    /// What must answer before it is started. What lapses later is waited for by the part itself.
    pub(super) const fn needs(self) -> &'static [Self] {
        match self {
            Self::Nats | Self::Postgres => &[],
            Self::Projector | Self::Api => &[Self::Nats, Self::Postgres],
            Self::Watcher | Self::Runner => &[Self::Nats],
        }
    }

    /// When it is stopped: the runner first, so that it can still commit what it finishes, and the log last.
    pub(super) const fn stop_stage(self) -> u8 {
        match self {
            Self::Runner => 0,
            Self::Projector | Self::Api | Self::Watcher => 1,
            Self::Postgres => 2,
            Self::Nats => 3,
        }
    }

    /// The signals that end it, the gentlest first. Together over all stages less than [`super::down::PATIENCE`].
    pub(super) const fn stop_ladder(self) -> &'static [Rung] {
        match self {
            // After its grace it kills what still runs, and says good-bye.
            Self::Runner => const { &[within(Signal::TERM, WORKER_GRACE.as_secs() + 15), KILL] },
            Self::Projector | Self::Api | Self::Watcher | Self::Nats => const { &[within(Signal::TERM, 5), KILL] },
            // INT is the fast shutdown, which rolls back and says good-bye; QUIT the immediate one, which takes the
            // backends along as KILL does not.
            Self::Postgres => const { &[within(Signal::INT, 10), within(Signal::QUIT, 6), KILL] },
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
