//! What `/proc` says about processes.

use std::{fs, io};

use rustix::process::{Pid, Signal};

use super::mark::{Mark, ProcessId};

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Its number.
    pub(crate) pid: i32,
    /// Whether it ended, and waits to be reaped.
    pub(crate) zombie: bool,
    /// Its parent.
    pub(crate) parent: i32,
    /// Its process group.
    pub(crate) group: i32,
    /// When it started, in clock ticks since the machine's start.
    pub(crate) start_ticks: u64,
    /// Its resident memory, in pages; shared ones are counted too.
    pub(crate) resident_pages: u64,
}

impl Stat {
    /// Looks at one process; `None` if there is none with that number.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The fields after the name, which stands in parentheses and may contain anything.
    fn parse(pid: i32, line: &[u8]) -> Option<Self> {
        let name_end = line.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(line.get(name_end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) numbers the fields from 1; the state, the first one here, is its third.
        let field = |number: usize| fields.get(number - 3);
        Some(Self {
            pid,
            zombie: matches!(*field(3)?, "Z" | "X"),
            parent: field(4)?.parse().ok()?,
            group: field(5)?.parse().ok()?,
            start_ticks: field(22)?.parse().ok()?,
            resident_pages: field(24)?.parse().ok()?,
        })
    }
}

/// This very process.
///
/// # Errors
/// If `/proc` is not there.
pub(crate) fn this_process() -> io::Result<ProcessId> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let stat = Stat::of(pid).ok_or_else(|| io::Error::other("/proc/self/stat cannot be read"))?;
    Ok(ProcessId {
        pid,
        start_ticks: stat.start_ticks,
    })
}

/// Whether a process is still there.
pub(crate) fn is_alive(process: ProcessId) -> bool {
    Stat::of(process.pid).is_some_and(|stat| stat.start_ticks == process.start_ticks && !stat.zombie)
}

/// The numbers of all processes that can be seen.
pub(crate) fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Whose a process is, as its environment says.
pub(crate) fn mark_of(pid: i32) -> Option<Mark> {
    Mark::in_environ(&fs::read(format!("/proc/{pid}/environ")).ok()?)
}

/// Ends a process at once. One that is gone already is no error.
pub(crate) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        rustix::process::kill_process(pid, Signal::KILL).ok();
    }
}

/// Ends every process whose mark is one of these, again and again until none is left: a process may fork while it is looked for.
/// Blocks. Returns how many were found.
pub(crate) fn kill_marked(is_one: impl Fn(&Mark) -> bool) -> usize {
    const ROUNDS: usize = 200;
    let mut found = 0;
    for _ in 0..ROUNDS {
        let marked: Vec<i32> = pids()
            .filter(|&pid| mark_of(pid).is_some_and(|mark| is_one(&mark)))
            .filter(|&pid| Stat::of(pid).is_some_and(|stat| !stat.zombie))
            .collect();
        if marked.is_empty() {
            break;
        }
        found += marked.len();
        marked.into_iter().for_each(kill);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = b"42 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1000000 250 18446744073709551615";
        let stat = Stat::parse(42, line).unwrap();
        assert_eq!((stat.parent, stat.group, stat.start_ticks, stat.resident_pages), (1, 7, 12345, 250));
        assert!(!stat.zombie);
    }

    #[test]
    fn this_process_is_alive_and_an_earlier_one_of_its_number_is_not() {
        let this = this_process().unwrap();
        assert!(is_alive(this));
        assert!(!is_alive(ProcessId {
            start_ticks: this.start_ticks - 1,
            ..this
        }));
    }
}
