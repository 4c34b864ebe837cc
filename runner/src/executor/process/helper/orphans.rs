//! What commands left behind: the processes that became the helper's children because their parents ended.

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt as _};

use parking_lot::Mutex;

use super::Running;
use crate::executor::process::proc;

/// Finds orphans, and whose they are.
pub(super) struct Orphans {
    /// The kernel's list of the reaping thread's children. Without it (`CONFIG_PROC_CHILDREN`), all of `/proc` is looked through.
    children: Option<File>,
    owners: Mutex<HashMap<i32, Owner>>,
}

/// Whose an orphan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// The command's, as its group or its environment says.
    Command(u64),
    /// It wiped its environment. It descends from a command that started no later than it did.
    Unknown { start_ticks: u64 },
}

impl Orphans {
    /// Of the calling thread, which must be the process's first: the kernel gives orphans to that one.
    pub(super) fn of_this_thread() -> Self {
        let pid = rustix::process::getpid().as_raw_nonzero();
        Self {
            children: File::open(format!("/proc/self/task/{pid}/children")).ok(),
            owners: Mutex::default(),
        }
    }

    /// The orphans there are, ended ones that wait to be reaped included.
    pub(super) fn list(&self, commands: &[Running]) -> Vec<i32> {
        match &self.children {
            Some(file) => children_in(file),
            None => children_of_this_process()
                .filter(|&pid| commands.iter().all(|command| command.pid != pid))
                .collect(),
        }
    }

    /// Whether an orphan must go now that `ended` has: it is its own, or nobody's who still runs.
    pub(super) fn is_left_by(&self, orphan: i32, ended: &Running, commands: &[Running]) -> bool {
        let runs = |command: &&Running| command.ended.is_none();
        match self.owner(orphan, commands) {
            Some(Owner::Command(id)) => id == ended.id || commands.iter().all(|command| command.id != id),
            Some(Owner::Unknown { start_ticks }) => !commands
                .iter()
                .filter(runs)
                .any(|other| proc::Stat::of(other.pid).is_some_and(|stat| stat.start_ticks <= start_ticks)),
            None => false,
        }
    }

    /// Forgets an orphan that was reaped: its number may be given to another process.
    pub(super) fn forget(&self, orphan: i32) {
        self.owners.lock().remove(&orphan);
    }

    /// Whose an orphan is; `None` if it ended, and only waits to be reaped.
    fn owner(&self, orphan: i32, commands: &[Running]) -> Option<Owner> {
        if let Some(&owner) = self.owners.lock().get(&orphan) {
            return Some(owner);
        }
        let stat = proc::Stat::of(orphan)?;
        let by_group = commands.iter().find(|command| command.pid == stat.group).map(|command| command.id);
        let owner = match by_group.or_else(|| proc::mark_of(orphan).map(|mark| mark.id)) {
            Some(id) => Owner::Command(id),
            None if stat.zombie => return None,
            None => Owner::Unknown {
                start_ticks: stat.start_ticks,
            },
        };
        self.owners.lock().insert(orphan, owner);
        Some(owner)
    }
}

/// The children of all threads of this process.
pub(super) fn all_children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists: Option<Vec<Vec<i32>>> = tasks
        .map(|task| File::open(task.path().join("children")).ok().map(|file| children_in(&file)))
        .collect();
    lists.map_or_else(|| children_of_this_process().collect(), |lists| lists.concat())
}

fn children_of_this_process() -> impl Iterator<Item = i32> {
    let this = rustix::process::getpid().as_raw_nonzero().get();
    proc::pids().filter(move |&pid| proc::Stat::of(pid).is_some_and(|stat| stat.parent == this))
}

/// Reads a `children` file from its start: numbers, each followed by a space. Nearly always there are none.
fn children_in(file: &File) -> Vec<i32> {
    let mut text = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(read @ 1..) = file.read_at(&mut chunk, text.len() as u64) {
        text.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&text)
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
