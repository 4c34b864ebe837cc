//! The mark in the environment of every process that a runner started: whose it is.
//!
//! It finds what left its group and its session (`setsid`), and what outlived a helper that was killed.

use std::{fmt, str::FromStr};

use bus::ids::WorkerId;

/// The environment variable that carries the mark.
pub(crate) const VARIABLE: &str = "RGRID_PROCESS_OF";

/// A process of this machine, not mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessId {
    /// Its number.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since the machine's start.
    pub(crate) start_ticks: u64,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.pid, self.start_ticks)
    }
}

impl FromStr for ProcessId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (pid, start_ticks) = text.split_once('.').ok_or(())?;
        Ok(Self {
            pid: pid.parse().map_err(|_| ())?,
            start_ticks: start_ticks.parse().map_err(|_| ())?,
        })
    }
}

/// Whose a process is: `worker/runner/command`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The worker it works for.
    pub(crate) worker: WorkerId,
    /// The runner that had it started.
    pub(crate) runner: ProcessId,
    /// The command's number within that runner.
    pub(crate) id: u64,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.worker, self.runner, self.id)
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '/');
        let mut part = || parts.next().ok_or(());
        Ok(Self {
            worker: part()?.parse().map_err(|_| ())?,
            runner: part()?.parse()?,
            id: part()?.parse().map_err(|_| ())?,
        })
    }
}

impl Mark {
    /// The mark in an environment as `/proc/<pid>/environ` shows it.
    pub(crate) fn in_environ(environ: &[u8]) -> Option<Self> {
        environ.split(|&byte| byte == 0).find_map(|variable| {
            let value = variable.strip_prefix(VARIABLE.as_bytes())?.strip_prefix(b"=")?;
            std::str::from_utf8(value).ok()?.parse().ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_in_an_environment() {
        let mark = Mark {
            worker: bus::ids::default_token(),
            runner: ProcessId { pid: 4, start_ticks: 500 },
            id: 6,
        };
        let environ = format!("PATH=/bin\0{VARIABLE}={mark}\0HOME=/\0");
        assert_eq!(Mark::in_environ(environ.as_bytes()), Some(mark));
        assert_eq!(Mark::in_environ(b"PATH=/bin\0"), None);
    }
}
