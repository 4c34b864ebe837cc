//! What holds a limited command, and says afterwards whether it hit its limit.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::{cgroup::Group, wire::Command};
use crate::executor::Exit;

/// Enters control groups, then becomes the command: so that the command is limited from its first instruction on. Only limited
/// commands pay for the shell.
const ENTER: &str = r#"while [ "$1" != -- ]; do echo $$ >"$1" || exit 125; shift; done; shift; exec "$@""#;

/// The same for a command of another user, who may enter no group: our own program enters it, and gives its rights up.
const SELF: &str = "/proc/self/exe";

/// The limits of one command.
pub(super) struct Guard {
    group: Mutex<Option<Group>>,
    sampled: Option<Arc<AtomicBool>>,
    out_of_memory: AtomicBool,
}

impl Guard {
    /// Of a command in a group, or one whose memory is sampled.
    pub(super) fn new(group: Option<Group>, sampled: Option<Arc<AtomicBool>>) -> Self {
        Self {
            group: Mutex::new(group),
            sampled,
            out_of_memory: AtomicBool::new(false),
        }
    }

    /// The group, if nobody has judged the end yet.
    pub(super) fn take_group(&self) -> Option<Group> {
        self.group.lock().take()
    }

    /// Judges an end, and has the group removed. May be called again.
    pub(super) fn judge(&self, exit: Exit, tasks: &TaskTracker) -> Exit {
        let mut group = self.group.lock();
        if let Some(mut group) = group.take() {
            self.out_of_memory.store(group.ran_out_of_memory(), Ordering::Release);
            if !group.try_remove() {
                tasks.spawn(group.remove());
            }
        }
        let sampled = self.sampled.as_ref().is_some_and(|over| over.load(Ordering::Acquire));
        // A command that got over a child's death by memory did what it was asked.
        if exit != Exit::Code(0) && (sampled || self.out_of_memory.load(Ordering::Acquire)) {
            Exit::OutOfMemory
        } else {
            exit
        }
    }
}

/// The command, made to enter the group first.
///
/// # Errors
/// If this machine has no `/bin/sh`.
pub(super) fn inside(group: &Group, command: Command) -> io::Result<Command> {
    if command.user != 0 {
        let doors = group.doors().map(PathBuf::into_os_string);
        let (name, arguments) = command.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let argv = ["rgrid".into(), super::helper::ENTER.into(), command.user.to_string().into()]
            .into_iter()
            .chain(doors)
            .chain(["--".into(), command.program, name.clone()])
            .chain(arguments.iter().cloned())
            .collect();
        return Ok(Command {
            program: SELF.into(),
            argv,
            user: 0,
            ..command
        });
    }
    let shell = PathBuf::from("/bin/sh");
    shell.metadata()?;
    let doors = group.doors().map(PathBuf::into_os_string);
    let argv = ["sh", "-c", ENTER, "rgrid"]
        .map(Into::into)
        .into_iter()
        .chain(doors)
        .chain(["--".into(), command.program])
        .chain(command.argv.into_iter().skip(1))
        .collect();
    Ok(Command {
        program: shell.into_os_string(),
        argv,
        ..command
    })
}
