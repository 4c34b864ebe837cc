//! Reaps what ended, clears away what it left behind, and tells the runner.

use std::{os::unix::process::ExitStatusExt as _, time::Duration};

use nix::{
    errno::Errno,
    sys::wait::{Id, WaitPidFlag, WaitStatus, waitid},
};
use rustix::process::{Pid, Signal};
use wait4::try_wait4_pid;

use super::{Running, Shared, State, orphans};
use crate::executor::process::{proc, wire::Report};

/// Runs until the process ends.
pub(super) fn run(shared: &Shared) {
    loop {
        let seen = shared.state.lock().spawned;
        // The dead stay in place (WNOWAIT), and their numbers theirs, until what they left behind has been looked for.
        match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => shared.ended(pid.as_raw()),
            Err(Errno::ECHILD) => shared.wait_for_a_spawn(seen),
            // nix does not know real-time signals, and then does not say whose end it saw.
            Ok(_) | Err(Errno::EINVAL) => orphans::all_children()
                .into_iter()
                .filter(|&pid| proc::Stat::of(pid).is_some_and(|stat| stat.zombie))
                .for_each(|pid| shared.ended(pid)),
            Err(_) => {}
        }
    }
}

impl Shared {
    /// Waits until something was spawned since `seen`.
    fn wait_for_a_spawn(&self, seen: u64) {
        let mut state = self.state.lock();
        while state.spawned == seen {
            self.changed.wait(&mut state);
        }
    }

    /// A child ended: a command, or what one left behind.
    fn ended(&self, pid: i32) {
        let mut state = self.state.lock();
        if let Some(at) = state
            .commands
            .iter()
            .position(|command| command.pid == pid && command.ended.is_none())
        {
            self.command_ended(&mut state, at);
        } else if state.spawning {
            // Perhaps it is the one being spawned, and is known in a moment. It is still there then.
            self.changed.wait_for(&mut state, Duration::from_millis(10));
            return;
        } else {
            try_wait4_pid(pid.unsigned_abs()).ok();
            self.orphans.forget(pid);
        }
        self.settle(&mut state);
    }

    fn command_ended(&self, state: &mut State, at: usize) {
        let (id, pid) = (state.commands[at].id, state.commands[at].pid);
        let orphans = self.orphans.list(&state.commands);
        if !orphans.is_empty()
            && let Some(group) = Pid::from_raw(pid)
        {
            // Its group's number is still its own: the dead leader has not been reaped.
            rustix::process::kill_process_group(group, Signal::KILL).ok();
        }
        let report = match try_wait4_pid(pid.unsigned_abs()) {
            Ok(Some(used)) => Report::Ended {
                id,
                status: used.status.into_raw(),
                cpu_micros: micros(used.rusage.utime + used.rusage.stime),
                // Never less than this helper's own few MiB, whose memory the command shared until it executed its program.
                memory_bytes: used.rusage.maxrss,
            },
            Ok(None) => return,
            Err(error) => Report::Failed {
                id,
                errno: error.raw_os_error().unwrap_or_default(),
            },
        };
        if orphans.is_empty() {
            state.forget(at);
            self.report(&report);
        } else {
            state.commands[at].ended = Some(report);
        }
    }

    /// Kills what ended commands left behind, and reports those that have nothing left. Called again at every orphan's end.
    fn settle(&self, state: &mut State) {
        if state.commands.iter().all(|command| command.ended.is_none()) {
            return;
        }
        let orphans = self.orphans.list(&state.commands);
        let has_left = |command: &Running| {
            let left = orphans
                .iter()
                .filter(|&&orphan| self.orphans.is_left_by(orphan, command, &state.commands));
            // An orphan is our unreaped child: its number cannot be another's.
            left.map(|&orphan| proc::kill(orphan)).count() > 0
        };
        let settled: Vec<u64> = state
            .commands
            .iter()
            .filter(|command| command.ended.is_some() && !has_left(command))
            .map(|command| command.id)
            .collect();
        for id in settled {
            let at = state.commands.iter().position(|command| command.id == id);
            if let Some(report) = at.and_then(|at| state.forget(at).ended) {
                self.report(&report);
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
