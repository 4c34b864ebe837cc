//! Processes that this program did not necessarily start: who they are, whether they live, how they are ended.

use std::{fs, os::fd::OwnedFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    process::{Pid, PidfdFlags, Signal},
};
use serde::{Deserialize, Serialize};

/// Who a process is. A process id alone is used again; with the time it started at, and the boot, it is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) pid: u32,
    /// In the kernel's ticks since boot.
    started_ticks: u64,
    boot: String,
}

impl Identity {
    /// The identity of a process that lives; a zombie does not.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self {
            pid,
            started_ticks: started_ticks(&stat)?,
            boot: boot.trim().to_owned(),
        })
    }

    /// The process, if it still lives.
    pub(super) fn open(&self) -> Option<Process> {
        let fd = rustix::process::pidfd_open(Pid::from_raw(self.pid.try_into().ok()?)?, PidfdFlags::NONBLOCK).ok()?;
        // Compared after it was opened: the descriptor means this process even if it ends now.
        (Self::of(self.pid).as_ref() == Some(self)).then_some(Process { fd })
    }

    /// Whether the process still lives.
    pub(super) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// When a process started, from its `/proc/<pid>/stat`; `None` if it is a zombie. The second field is the program's name in
/// parentheses, which may hold anything, also parentheses: count from the last one.
fn started_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

/// A process that is held by a descriptor, so that a signal can never reach another.
#[derive(Debug)]
pub(super) struct Process {
    fd: OwnedFd,
}

impl Process {
    /// Sends a signal; one that has ended needs none.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.fd, signal);
    }

    /// Waits for its end, at most for `patience`; says whether it ended.
    pub(super) async fn ended_within(&self, patience: Duration) -> bool {
        let Ok(fd) = self.fd.try_clone() else { return false };
        // A thread waits for the descriptor: tokio's `AsyncFd` can no longer be made without unsafe code.
        let poll = move || {
            let patience = Timespec::try_from(patience).ok();
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            retry_on_intr(|| poll(&mut fds, patience.as_ref())).is_ok_and(|ready| ready > 0)
        };
        tokio::task::spawn_blocking(poll).await.unwrap_or(false)
    }
}

/// The memory that a process and, if wanted, its descendants use, in bytes, shared pages counted by share (PSS). `None` if
/// it may not be read.
pub(super) fn memory(pid: u32, descendants: bool) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let own = pss(&rollup)?;
    let children = if descendants {
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?
    } else {
        String::new()
    };
    let theirs = children
        .split_ascii_whitespace()
        .filter_map(|child| memory(child.parse().ok()?, true));
    Some(own + theirs.sum::<u64>())
}

fn pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_named_like_a_stat_line_is_read_right() {
        let stat = "42 (a) Z 1 (b)) S 1 42 42 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 987654 1000 100 18446744073709551615";
        assert_eq!(started_ticks(stat), Some(987_654));
        assert_eq!(started_ticks(&stat.replace(")) S", ")) Z")), None);
        assert_eq!(started_ticks("42 (short) S 1"), None);
    }

    #[test]
    fn the_memory_is_read_from_the_rollup() {
        let rollup =
            "55d0-7ffd ---p 00000000 00:00 0  [rollup]\nRss:            4000 kB\nPss:            1234 kB\nPss_Dirty:       99 kB\n";
        assert_eq!(pss(rollup), Some(1234 << 10));
    }

    #[tokio::test]
    async fn only_the_very_process_is_opened() -> anyhow::Result<()> {
        let mut child = std::process::Command::new("sleep").arg("60").spawn()?;
        let identity = Identity::of(child.id()).expect("it lives");
        let other = Identity {
            started_ticks: identity.started_ticks + 1,
            ..identity.clone()
        };
        assert!(other.open().is_none());
        assert!(!other.is_alive());
        let process = identity.open().expect("it lives");
        assert!(!process.ended_within(Duration::from_millis(1)).await);
        process.signal(Signal::KILL);
        assert!(process.ended_within(Duration::from_secs(10)).await);
        assert!(!identity.is_alive(), "a zombie does not live");
        child.wait()?;
        Ok(())
    }
}
