//! The runner's end of the socket to its spawn helper.

use std::{
    collections::HashMap,
    ffi::OsString,
    io::{self, IoSlice, Seek as _, Write as _},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    process::Stdio,
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::{
    fs::{MemfdFlags, memfd_create},
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recv, sendmsg,
        shutdown, socketpair,
    },
};
use tokio::{
    io::Interest,
    net::UnixDatagram,
    process::{Child, Command},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

use super::{
    ending::{End, Ending},
    mark::ProcessId,
    proc,
    wire::{INLINE_MAX, Report, signal_packet, spawn_packet},
};

/// One helper, as long as it lives.
pub(super) struct Link {
    /// A packet socket (`SOCK_SEQPACKET`): tokio knows it as a datagram socket, and it also reports its end.
    socket: UnixDatagram,
    /// The commands whose end is not known yet; `None` once the helper is gone.
    commands: Mutex<Option<HashMap<u64, Arc<Ending>>>>,
}

impl Link {
    /// Starts a helper: `argv` is its program and arguments. A task of `tasks` listens to it until `stop`, or until it dies;
    /// `runner` is this process, by which its commands are found when a dead helper left them behind.
    ///
    /// # Errors
    /// If the helper cannot be started.
    pub(super) fn start(argv: &[OsString], runner: ProcessId, tasks: &TaskTracker, stop: &CancellationToken) -> io::Result<Arc<Self>> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        // Nothing of the runner's environment: it holds credentials, and the helper's is there for its commands to read.
        // A group of its own: a Ctrl-C in the runner's terminal is for the runner.
        let helper = Command::new(program)
            .arg0("rgrid-spawn-helper")
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        let link = Arc::new(Self {
            socket: UnixDatagram::from_std(ours.into())?,
            commands: Mutex::new(Some(HashMap::new())),
        });
        tasks.spawn(Arc::clone(&link).listen(helper, runner, stop.clone()));
        Ok(link)
    }

    /// Whether the helper is gone.
    pub(super) fn is_broken(&self) -> bool {
        self.commands.lock().is_none()
    }

    /// How many commands it has; as many as can be once it is gone.
    pub(super) fn load(&self) -> usize {
        self.commands.lock().as_ref().map_or(usize::MAX, HashMap::len)
    }

    /// Takes a command on, which is to be started then; with `alone`, only if it has no other one.
    pub(super) fn enter(self: &Arc<Self>, id: u64, alone: bool) -> Option<Entered> {
        let mut commands = self.commands.lock();
        let commands = commands.as_mut().filter(|commands| !alone || commands.is_empty())?;
        let ending = Arc::new(Ending::default());
        commands.insert(id, Arc::clone(&ending));
        Some(Entered {
            link: Arc::clone(self),
            id,
            ending,
            started: false,
        })
    }

    /// Sends a signal to a command's group. If the helper is gone, so is the group.
    pub(super) async fn signal(&self, id: u64, signal: i32) {
        self.send(&signal_packet(id, signal), &[]).await.ok();
    }

    /// As [`Self::signal`], where waiting is impossible; returns whether the helper has it.
    pub(super) fn try_signal(&self, id: u64, signal: i32) -> bool {
        rustix::net::send(&self.socket, &signal_packet(id, signal), SendFlags::NOSIGNAL).is_ok()
    }

    async fn send(&self, packet: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !files.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(files));
            }
            Ok(sendmsg(&self.socket, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL)?)
        };
        self.socket.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    async fn listen(self: Arc<Self>, mut helper: Child, runner: ProcessId, stop: CancellationToken) {
        let lost = tokio::select! {
            lost = self.take_reports() => lost,
            () = stop.cancelled() => None,
        };
        shutdown(&self.socket, Shutdown::Both).ok();
        let left = self.commands.lock().take().unwrap_or_default();
        let status = helper.wait().await;
        let sentence = match lost {
            None => "the runner stopped its process executor".to_owned(),
            Some(why) => {
                let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                let sentence = format!("the runner's spawn helper is gone ({how}; {why}), and its commands with it");
                error!(commands = left.len(), "{sentence}; the next command starts a new one");
                sentence
            }
        };
        kill_left(&left, runner).await;
        for ending in left.values() {
            ending.tell(End::Lost(sentence.clone()));
        }
    }

    /// Hands reports to the commands they are about, until the helper is gone; says what was seen then.
    async fn take_reports(&self) -> Option<String> {
        let mut packet = [0; 64];
        loop {
            let receive = || Ok(recv(&self.socket, &mut packet, RecvFlags::empty())?.1);
            match self.socket.async_io(Interest::READABLE, receive).await {
                Ok(0) => return Some("its socket closed".to_owned()),
                Ok(len) => match Report::decode(&packet[..len]) {
                    Some(report) => self.take(report),
                    None => warn!("a report of {len} bytes from the spawn helper could not be read"),
                },
                Err(error) => return Some(error.to_string()),
            }
        }
    }

    fn take(&self, report: Report) {
        let (Report::Started { id, .. } | Report::Failed { id, .. } | Report::Ended { id, .. }) = report;
        let mut commands = self.commands.lock();
        let Some(ending) = commands.as_ref().and_then(|commands| commands.get(&id)) else {
            return;
        };
        if ending.take(report) {
            commands.as_mut().and_then(|commands| commands.remove(&id));
        }
    }

    fn forget(&self, id: u64) {
        if let Some(commands) = self.commands.lock().as_mut() {
            commands.remove(&id);
        }
    }
}

/// A command that a helper was taken for; it is the helper's no longer if this is dropped before it was started.
pub(super) struct Entered {
    pub(super) link: Arc<Link>,
    id: u64,
    ending: Arc<Ending>,
    started: bool,
}

impl Entered {
    /// Has the command started: `body` is an encoded [`super::wire::Command`].
    ///
    /// # Errors
    /// If the helper is gone.
    pub(super) async fn spawn(mut self, tell_pid: bool, body: &[u8], stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Arc<Ending>> {
        let packet = spawn_packet(self.id, tell_pid, body);
        let file = if body.len() > INLINE_MAX { Some(in_memory(body)?) } else { None };
        let files: Vec<BorrowedFd<'_>> = [&stdout, &stderr].into_iter().chain(&file).map(|file| file.as_fd()).collect();
        self.link.send(&packet, &files).await?;
        self.started = true;
        Ok(Arc::clone(&self.ending))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if !self.started {
            self.link.forget(self.id);
        }
    }
}

/// Kills what a dead helper did not: found by its mark, which only a process that wiped its environment has lost.
async fn kill_left(left: &HashMap<u64, Arc<Ending>>, runner: ProcessId) {
    if left.is_empty() {
        return;
    }
    let ids: Vec<u64> = left.keys().copied().collect();
    let killed = tokio::task::spawn_blocking(move || proc::kill_marked(|mark| mark.runner == runner && ids.contains(&mark.id)));
    if let Ok(killed @ 1..) = killed.await {
        warn!("killed {killed} processes that the spawn helper left behind");
    }
}

/// A file that lives in memory only.
fn in_memory(content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("rgrid-command", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file.into())
}
