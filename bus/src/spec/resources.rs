//! What a job asks of a worker, and the class of work that follows from it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_false;

/// What a job asks of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPUs, in thousandths. Placement counts it; a limit is enforced where `cpu_limit` is set.
    #[serde(default = "one_cpu")]
    pub cpu_milli: u32,
    /// Memory in bytes. Absent: the job is not limited, and counts as none for placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Whether the CPUs are a limit too, as when the user named them (`--cpu`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub cpu_limit: bool,
    /// What may be in `/dev/shm` of its container, in bytes. Absent: half of its memory, or of the machine's where that is not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_bytes: Option<u64>,
}

const fn one_cpu() -> u32 {
    1000
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_milli: one_cpu(),
            memory_bytes: None,
            cpu_limit: false,
            shm_bytes: None,
        }
    }
}

/// Which work goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before everything else.
    High,
    /// Unless another is given.
    #[default]
    Normal,
    /// When nothing else waits.
    Low,
}

/// How big a job is, by the CPUs and memory that it asks for; workers pull only what fits their free room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Size {
    /// Up to 1 CPU and 2 GiB.
    S,
    /// Up to 4 CPUs and 16 GiB.
    M,
    /// Up to 16 CPUs and 64 GiB.
    L,
    /// More.
    Xl,
}

impl Size {
    /// The most that a job of this size asks for: CPU thousandths and bytes of memory.
    #[must_use]
    pub const fn ceiling(self) -> (u32, u64) {
        const GIB: u64 = 1 << 30;
        match self {
            Self::S => (1_000, 2 * GIB),
            Self::M => (4_000, 16 * GIB),
            Self::L => (16_000, 64 * GIB),
            Self::Xl => (u32::MAX, u64::MAX),
        }
    }

    /// The smallest size that holds these resources.
    #[must_use]
    pub fn of(resources: &Resources) -> Self {
        let fits = |size: &Self| {
            let (cpu, memory) = size.ceiling();
            resources.cpu_milli <= cpu && resources.memory_bytes.unwrap_or(0) <= memory
        };
        [Self::S, Self::M, Self::L].into_iter().find(fits).unwrap_or(Self::Xl)
    }
}

/// Priority and size: the work lane of a queue that a job waits in; `normal-s` in subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// Which work goes first.
    pub priority: Priority,
    /// How much room it needs.
    pub size: Size,
}

impl Class {
    /// Every class, the most urgent first, within a priority the smallest first.
    pub const ALL: [Self; 12] = {
        const fn class(priority: Priority, size: Size) -> Class {
            Class { priority, size }
        }
        use Priority::{High, Low, Normal};
        use Size::{L, M, S, Xl};
        [
            class(High, S),
            class(High, M),
            class(High, L),
            class(High, Xl),
            class(Normal, S),
            class(Normal, M),
            class(Normal, L),
            class(Normal, Xl),
            class(Low, S),
            class(Low, M),
            class(Low, L),
            class(Low, Xl),
        ]
    };

    /// The class as a subject's token.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match (self.priority, self.size) {
            (Priority::High, Size::S) => "high-s",
            (Priority::High, Size::M) => "high-m",
            (Priority::High, Size::L) => "high-l",
            (Priority::High, Size::Xl) => "high-xl",
            (Priority::Normal, Size::S) => "normal-s",
            (Priority::Normal, Size::M) => "normal-m",
            (Priority::Normal, Size::L) => "normal-l",
            (Priority::Normal, Size::Xl) => "normal-xl",
            (Priority::Low, Size::S) => "low-s",
            (Priority::Low, Size::M) => "low-m",
            (Priority::Low, Size::L) => "low-l",
            (Priority::Low, Size::Xl) => "low-xl",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}
