//! What this machine has, or the container that we are in.

use std::{fs, num::NonZero, thread};

/// CPUs.
pub(crate) fn cpus() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Memory, in bytes: the machine's, or what its control group allows.
pub(crate) fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = u64::from(info.mem_unit).saturating_mul(info.totalram as u64);
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .min();
    limit.unwrap_or(u64::MAX).min(machine)
}
