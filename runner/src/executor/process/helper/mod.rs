//! The spawn helper: a small process of its own that starts a runner's commands, reaps them, and takes them all down with the runner.
//!
//! The runner starts one for each command that runs at the same time, up to a bound, as its own binary with a hidden first argument, and
//! talks to it over a socket. That buys two things.
//! The runner's end of the socket closes however the runner dies, `kill -9` included, and then the helper kills everything it
//! started. And it is a child subreaper: whatever a command leaves behind becomes the helper's own child, so that it is found
//! and killed although it changed its group and session.
//!
//! Two threads. The first one, to which the kernel hands orphans, only reaps; the second one reads requests and spawns. So the
//! list of the first thread's children is exactly the list of orphans: one cheap read at a command's end says that nothing is left.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};
use rustix::{
    net::{SendFlags, send},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use self::{
    mounts::{Mounts, Namespace},
    orphans::Orphans,
};
use super::wire::Report;

mod enter;
mod mounts;
mod orphans;
mod reaper;
mod spawner;

/// The first argument that makes the binary a spawn helper. Not for people.
pub const VERB: &str = "__spawn-helper";

/// The first argument that makes the binary enter control groups, become another user and then a command. Not for people.
pub(super) const ENTER: &str = "__enter";

/// Acts as the spawn helper if the command line asks for it, and returns the exit code then.
///
/// A binary that runs a [`super::Process`] calls this first of all in `main`, before it starts threads or a runtime: the helper
/// is to stay small, and reads nothing of the configuration.
#[must_use]
pub fn run_if_asked() -> Option<i32> {
    match std::env::args_os().nth(1)? {
        verb if verb == VERB => Some(main()),
        verb if verb == ENTER => Some(enter::main(std::env::args_os().skip(2))),
        _ => None,
    }
}

/// Serves one runner, whose socket is standard input, until that runner is gone. Returns the exit code.
#[must_use]
pub fn main() -> i32 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            // The runner logs its helper's standard error and its exit code.
            eprintln!("spawn helper: {error}");
            1
        }
    }
}

fn serve() -> io::Result<()> {
    // The runner's death ends the helper, nothing else: a Ctrl-C in the terminal or a service manager's SIGTERM go to the runner,
    // which may want its commands to end in peace. They are caught and not blocked or ignored: a command would inherit that, and
    // could not be asked to end; what is caught is as by default again in what is executed.
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    close_inherited();
    no_core_dumps();
    // What a command makes is as in a container, and as it is for most: whatever the runner was started with.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Standard input becomes /dev/null: every command inherits it from here, at no cost.
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?.as_fd())?;

    let shared = Arc::new(Shared {
        socket,
        orphans: Orphans::of_this_thread(),
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    let spawner = Arc::clone(&shared);
    std::thread::Builder::new()
        .name("spawner".to_owned())
        .stack_size(256 * 1024)
        .spawn(move || spawner::run(&spawner))?;
    reaper::run(&shared);
    Ok(())
}

/// Closes what the runner itself inherited and would hand down, as a shell's redirections: commands are to have three files open,
/// and the helper nothing that keeps a pipe of others alive. Nothing here is open yet but the three standard ones.
fn close_inherited() {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&file| file > 2)
        .collect();
    for file in open {
        // One of them was the list itself, closed by now.
        nix::unistd::close(file).ok();
    }
}

/// A core dump holds the job's variables, secrets too, and what the helper was told: there are none unless a command asks for its own,
/// by raising its soft limit.
fn no_core_dumps() {
    let limit = getrlimit(Resource::Core);
    // Lowering it is never refused.
    setrlimit(Resource::Core, Rlimit { current: Some(0), ..limit }).ok();
}

/// What both threads see.
struct Shared {
    /// The way to the runner.
    socket: OwnedFd,
    /// What commands left behind.
    orphans: Orphans,
    state: Mutex<State>,
    /// Notified when a command was spawned, or was not.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The commands that run, or that ended and have something left.
    commands: Vec<Running>,
    /// Whether one is being spawned this moment: its process may exist, unknown yet.
    spawning: bool,
    /// The mount namespaces of commands, once the spawning thread runs and if it may make some.
    mounts: Option<Arc<Mounts>>,
    /// How many spawns were tried.
    spawned: u64,
}

/// A command that was started.
struct Running {
    id: u64,
    /// Where it mounts what it mounts.
    namespace: Option<Namespace>,
    /// Its process, and its group.
    pid: i32,
    /// How it ended, while something that it left behind is still there. Its process is reaped then.
    ended: Option<Report>,
}

impl State {
    /// Forgets a command that is gone with all that it left behind.
    fn forget(&mut self, at: usize) -> Running {
        let mut command = self.commands.swap_remove(at);
        if let Some((mounts, namespace)) = self.mounts.as_ref().zip(command.namespace.take()) {
            mounts.give_back(namespace);
        }
        command
    }
}

impl Shared {
    /// Tells the runner. If it is gone, the spawner notices.
    fn report(&self, report: &Report) {
        send(&self.socket, &report.encode(), SendFlags::NOSIGNAL).ok();
    }
}
