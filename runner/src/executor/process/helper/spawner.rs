//! Reads the runner's requests, and starts commands.

use std::{
    fs::File,
    io::{self, IoSliceMut, Read as _},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{Pid, Signal},
};

use super::{
    Running, Shared,
    mounts::{Mounts, Namespace},
    orphans::all_children,
};
use crate::executor::process::{
    proc,
    wire::{Command, PACKET_MAX, Report, Request},
};

/// How long the helper goes on killing after the runner's end; what survives that is stuck in the kernel.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves requests until the runner is gone, then kills everything and ends the process.
pub(super) fn run(shared: &Shared) {
    let mut packet = vec![0; PACKET_MAX];
    let mounts = Mounts::of_this_thread().map(Arc::new);
    shared.state.lock().mounts.clone_from(&mounts);
    // An unreadable socket is a lost runner too.
    while let Ok((len @ 1.., files)) = receive(&shared.socket, mounts.as_deref(), &mut packet) {
        match Request::decode(&packet[..len]) {
            Some(Request::Spawn { id, tell_pid, command }) => shared.spawn(id, tell_pid, command, files, mounts.as_deref()),
            Some(Request::Signal { id, signal }) => shared.signal(id, signal),
            None => eprintln!("spawn helper: a request of {len} bytes could not be read"),
        }
    }
    shared.close();
    std::process::exit(0);
}

/// The next packet, and the files that came with it: standard output, standard error and, for a large command, its body.
fn receive(socket: &OwnedFd, mounts: Option<&Mounts>, packet: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    loop {
        if let Some(mounts) = mounts {
            wait(socket, mounts);
        }
        let mut control = RecvAncillaryBuffer::new(&mut space);
        match recvmsg(socket, &mut [IoSliceMut::new(packet)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => {
                let files = control
                    .drain()
                    .filter_map(|message| match message {
                        RecvAncillaryMessage::ScmRights(files) => Some(files),
                        _ => None,
                    })
                    .flatten()
                    .collect();
                return Ok((received.bytes, files));
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for a packet; forgets namespaces meanwhile that became outdated.
fn wait(socket: &OwnedFd, mounts: &Mounts) {
    loop {
        let mut ready = [PollFd::new(socket, PollFlags::IN), PollFd::new(mounts.list(), PollFlags::PRI)];
        // Whatever goes wrong, receiving says it.
        let failed = poll(&mut ready, None).is_err();
        if !ready[1].revents().is_empty() {
            mounts.forget();
        }
        if failed || !ready[0].revents().is_empty() {
            return;
        }
    }
}

/// Starts a command in a mount namespace, where one can be made.
fn start_apart(command: Option<Command>, files: Vec<OwnedFd>, mounts: Option<&Mounts>) -> io::Result<(i32, Option<Namespace>)> {
    let Some(mounts) = mounts else {
        return Ok((start(command, files)?, None));
    };
    let namespace = mounts.enter()?;
    let started = start(command, files);
    mounts.leave()?;
    match started {
        Ok(pid) => Ok((pid, Some(namespace))),
        Err(error) => {
            mounts.give_back(namespace);
            Err(error)
        }
    }
}

impl Shared {
    fn spawn(&self, id: u64, tell_pid: bool, command: Option<Command>, files: Vec<OwnedFd>, mounts: Option<&Mounts>) {
        self.state.lock().spawning = true;
        let spawned = start_apart(command, files, mounts);
        let mut state = self.state.lock();
        state.spawning = false;
        state.spawned += 1;
        match spawned {
            Ok((pid, namespace)) => {
                if tell_pid {
                    self.report(&Report::Started { id, pid });
                }
                state.commands.push(Running {
                    id,
                    namespace,
                    pid,
                    ended: None,
                });
            }
            Err(error) => self.report(&Report::Failed {
                id,
                errno: error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error()),
            }),
        }
        self.changed.notify_one();
    }

    /// A command that ended meanwhile has nothing to be signalled.
    fn signal(&self, id: u64, signal: i32) {
        let state = self.state.lock();
        let running = state.commands.iter().find(|command| command.id == id && command.ended.is_none());
        if let Some((group, signal)) = running.and_then(|running| Pid::from_raw(running.pid).zip(Signal::from_named_raw(signal))) {
            rustix::process::kill_process_group(group, signal).ok();
        }
    }

    /// Kills every command, its group and all that descends from it, until there is nothing. The reaper buries them meanwhile.
    fn close(&self) {
        let end = Instant::now() + CLOSE_TIMEOUT;
        loop {
            // Under the lock nothing is reaped, so no number can become another's.
            let state = self.state.lock();
            let children = all_children();
            if children.is_empty() || Instant::now() > end {
                break;
            }
            for group in state.commands.iter().filter(|command| command.ended.is_none()) {
                if let Some(group) = Pid::from_raw(group.pid) {
                    rustix::process::kill_process_group(group, Signal::KILL).ok();
                }
            }
            children.into_iter().for_each(proc::kill);
            drop(state);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Starts a command in a group of its own, and says its number.
///
/// Nothing here needs code between fork and exec, so that `std` uses `posix_spawn`: the child borrows this process's memory until
/// it executes, and nothing is copied. Only a command of another user is forked, of this small process.
fn start(command: Option<Command>, files: Vec<OwnedFd>) -> io::Result<i32> {
    let invalid = || io::Error::from(Errno::INVAL);
    let mut files = files.into_iter();
    let (stdout, stderr) = files.next().zip(files.next()).ok_or_else(invalid)?;
    let command = match (command, files.next()) {
        (Some(command), _) => command,
        (None, Some(body)) => {
            let mut bytes = Vec::new();
            File::from(body).read_to_end(&mut bytes)?;
            Command::decode(&bytes).ok_or_else(invalid)?
        }
        (None, None) => return Err(invalid()),
    };
    let (name, arguments) = command.argv.split_first().ok_or_else(invalid)?;
    let stdin = match command.stdin.as_os_str() {
        none if none.is_empty() => Stdio::inherit(),
        path => File::open(path)?.into(),
    };
    let mut child = std::process::Command::new(&command.program);
    if command.user != 0 {
        // Root's other groups are given up with it.
        child.uid(command.user).gid(command.user);
    }
    let child = child
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(command.env)
        .current_dir(&command.directory)
        .process_group(0)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()?;
    Ok(child.id().cast_signed())
}
