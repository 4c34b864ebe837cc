//! The resources that a job needs, and the class of work that follows from them.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_false;

/// The resources that a job needs on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPUs, in thousandths. Used for placement; enforced as a limit only if `cpu_limit` is set.
    #[serde(default = "one_cpu")]
    pub cpu_milli: u32,
    /// Memory in bytes; absent: no limit, and 0 for placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Whether the number of CPUs is enforced as a limit. Set if the user gave it (`--cpu`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub cpu_limit: bool,
    /// The size of `/dev/shm` in the job's container, in bytes; absent: half of the job's memory, or of the machine's if the job has no
    /// memory limit.
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

/// The order of work within a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before all other work.
    High,
    /// The default.
    #[default]
    Normal,
    /// Only when no other work waits.
    Low,
}

/// The size of a job, by the CPUs and memory that it needs. Workers pull only sizes that fit their free capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Size {
    /// Up to 1 CPU and 2 GiB.
    S,
    /// Up to 4 CPUs and 16 GiB.
    M,
    /// Up to 16 CPUs and 64 GiB.
    L,
    /// Everything larger.
    Xl,
}

impl Size {
    /// The largest job of this size: CPU thousandths and bytes of memory.
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

/// Priority and size of a job. Each queue has one work queue per class; `normal-s` in subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// The order of work within the queue.
    pub priority: Priority,
    /// The capacity that the job needs.
    pub size: Size,
}

impl Class {
    /// Every class: the most urgent first, and the smallest first within a priority.
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

    /// The class as one token of a subject.
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
