//! Mount namespaces for commands: what a command mounts is seen by itself alone, and is gone with it.
//!
//! A thread enters a namespace before it starts a command and leaves it afterwards; the command inherits it, so that nothing need be
//! done between fork and exec. Making and destroying one costs more than entering one: a namespace in which nothing was mounted or
//! unmounted, as the kernel tells by `poll`, serves the next command too.

use std::{fs::File, io, os::fd::AsFd as _};

use nix::sched::{CloneFlags, setns, unshare};
use parking_lot::Mutex;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::stat,
    mount::{MountPropagationFlags, mount_change},
};

/// Unused namespaces that are kept.
const KEPT: usize = 32;

/// The namespaces of one helper.
pub(super) struct Mounts {
    own: Namespace,
    unused: Mutex<Vec<Namespace>>,
}

/// A mount namespace.
pub(super) struct Namespace {
    space: File,
    /// Its list of mounts, which is ready for [`PollFlags::PRI`] once it has changed.
    list: File,
}

impl Mounts {
    /// For the thread that starts commands; nothing where this process may not make namespaces, or where entering one would lead out of
    /// its root directory.
    pub(super) fn of_this_thread() -> Option<Self> {
        let root = || stat("/").ok().map(|root| (root.st_dev, root.st_ino));
        let mounts = Self {
            own: Namespace::current().ok()?,
            unused: Mutex::default(),
        };
        let before = root()?;
        let first = mounts.enter().ok()?;
        mounts.leave().ok()?;
        let same = root()? == before;
        mounts.give_back(first);
        same.then_some(mounts)
    }

    /// Has the calling thread enter a namespace in which all is as in its own.
    pub(super) fn enter(&self) -> io::Result<Namespace> {
        if self.own.has_changed() {
            self.forget();
        }
        while let Some(unused) = self.unused.lock().pop() {
            if !unused.has_changed() {
                setns(&unused.space, CloneFlags::CLONE_NEWNS)?;
                return Ok(unused);
            }
        }
        unshare(CloneFlags::CLONE_NEWNS)?;
        // What is mounted outside later shows inside too, where the machine shares its mounts; nothing goes the other way.
        let made = mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)
            .map_err(io::Error::from)
            .and_then(|()| Namespace::current());
        if made.is_err() {
            self.leave()?;
        }
        made
    }

    /// Has the calling thread leave the namespace that it entered.
    pub(super) fn leave(&self) -> io::Result<()> {
        Ok(setns(&self.own.space, CloneFlags::CLONE_NEWNS)?)
    }

    /// Takes back the namespace of a command that has ended.
    pub(super) fn give_back(&self, namespace: Namespace) {
        let mut unused = self.unused.lock();
        if unused.len() < KEPT {
            unused.push(namespace);
        }
    }

    /// The list of mounts outside, to be waited for: see [`Self::forget`].
    pub(super) const fn list(&self) -> &File {
        &self.own.list
    }

    /// Forgets unused namespaces. Once something was mounted or unmounted outside, none is as that any more: each would show what was
    /// before, and would keep a device busy that was unmounted.
    pub(super) fn forget(&self) {
        self.unused.lock().clear();
    }
}

impl Namespace {
    fn current() -> io::Result<Self> {
        Ok(Self {
            space: File::open("/proc/thread-self/ns/mnt")?,
            list: File::open("/proc/thread-self/mountinfo")?,
        })
    }

    /// Whether something was mounted or unmounted there since the last look.
    fn has_changed(&self) -> bool {
        let mut list = [PollFd::from_borrowed_fd(self.list.as_fd(), PollFlags::PRI)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut list, Some(&now)).is_err() || !list[0].revents().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    /// Runs a shell script in a namespace, and gives that back.
    fn run(mounts: &Mounts, script: &str) -> String {
        let namespace = mounts.enter().expect("a namespace");
        let output = Command::new("/bin/sh").args(["-c", script]).output();
        mounts.leave().expect("back");
        mounts.give_back(namespace);
        String::from_utf8(output.expect("a shell").stdout).expect("text")
    }

    #[test]
    fn what_a_command_mounts_is_its_own_and_a_namespace_is_used_again_where_nothing_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().display();
        // A thread of its own: it is the one that changes namespaces.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let Some(mounts) = Mounts::of_this_thread() else { return };
                let first = run(&mounts, "readlink /proc/self/ns/mnt");
                let own = fs::read_link("/proc/thread-self/ns/mnt").expect("a namespace");
                assert_ne!(first.trim(), own.to_string_lossy());
                assert_eq!(run(&mounts, "readlink /proc/self/ns/mnt"), first, "nothing was mounted there");
                let seen = run(&mounts, &format!("mount -t tmpfs none {at} && touch {at}/inside && ls {at}"));
                assert_eq!(seen, "inside\n");
                assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "it is not seen outside");
                assert_eq!(
                    run(&mounts, &format!("ls {at}; readlink /proc/self/ns/mnt >&2")),
                    "",
                    "nor by the next command"
                );
            });
        });
    }
}
