//! Room: the CPUs and the memory of a machine, and how much of them a job takes.

use bus::spec::{Resources, Size};

/// An amount of CPUs and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Room {
    /// CPUs, in thousandths.
    pub(crate) cpu_milli: u32,
    /// Memory, in bytes.
    pub(crate) memory_bytes: u64,
}

impl Room {
    /// The room that a job takes.
    #[must_use]
    pub(crate) fn of(resources: &Resources) -> Self {
        Self {
            cpu_milli: resources.cpu_milli,
            memory_bytes: resources.memory_bytes.unwrap_or(0),
        }
    }

    /// The most room that a job of this size takes.
    pub(crate) const fn ceiling(size: Size) -> Self {
        let (cpu_milli, memory_bytes) = size.ceiling();
        Self { cpu_milli, memory_bytes }
    }

    /// Whether some job of this size may fit; a job that needs less is of a smaller size.
    pub(crate) const fn may_hold(self, size: Size) -> bool {
        let smaller = match size {
            Size::S => return self.cpu_milli > 0,
            Size::M => Self::ceiling(Size::S),
            Size::L => Self::ceiling(Size::M),
            Size::Xl => Self::ceiling(Size::L),
        };
        self.cpu_milli > smaller.cpu_milli || (self.cpu_milli > 0 && self.memory_bytes > smaller.memory_bytes)
    }

    /// Whether the other fits into this.
    #[must_use]
    pub(crate) const fn holds(self, other: Self) -> bool {
        other.cpu_milli <= self.cpu_milli && other.memory_bytes <= self.memory_bytes
    }

    /// How often the other fits into this.
    pub(crate) fn times(self, other: Self) -> usize {
        let times = |have: u64, need: u64| usize::try_from(have.checked_div(need).unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        times(self.cpu_milli.into(), other.cpu_milli.into()).min(times(self.memory_bytes, other.memory_bytes))
    }

    /// The larger of each.
    pub(crate) fn most(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.max(other.cpu_milli),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
        }
    }

    /// The smaller of each.
    pub(crate) const fn least(self, other: Self) -> Self {
        Self {
            cpu_milli: if self.cpu_milli < other.cpu_milli {
                self.cpu_milli
            } else {
                other.cpu_milli
            },
            memory_bytes: if self.memory_bytes < other.memory_bytes {
                self.memory_bytes
            } else {
                other.memory_bytes
            },
        }
    }
}
