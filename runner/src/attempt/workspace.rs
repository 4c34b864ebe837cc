//! Workspaces: the private directories of attempts. An unchanged workspace is used again: creating and removing three directories costs a
//! short job as much as its fork does, and so does listing them. A directory's `ctime`, which no process can set, changes with every name
//! that is added or removed and with its permissions, so a look at that is enough for most.

use std::{
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    attempt::leftovers::Leftovers,
    executor::RunAs,
    inputs::Inputs,
    spread::made_anywhere,
    users::{User, Users},
};

/// The most unused workspaces that are kept.
const KEPT: usize = 256;
/// From this number of files on, a workspace is placed far from others on the disk.
const MANY: u64 = 1000;
/// A change shows in a status only if what it is compared with was read a tick of the file system's clock before (a kernel's: at most
/// 10 ms).
const TICKS: Duration = Duration::from_millis(100);

/// What a command reads from standard input, in its attempt's directory.
pub(crate) const STDIN: &str = "stdin";

/// The workspaces of a worker. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Workspaces(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: PathBuf,
    users: Option<Users>,
    unused: Mutex<Vec<Dirs>>,
    next: AtomicU64,
    leftovers: Leftovers,
}

/// An attempt's directories.
#[derive(Debug)]
struct Dirs {
    root: PathBuf,
    work: PathBuf,
    scratch: PathBuf,
    /// The owner of the command's directories, where that is not the runner's own user.
    user: Option<User>,
    /// Their status when they were given to the attempt, where that is known, and since when.
    given: Option<(Instant, [Status; 3])>,
    /// Whether any change since they were given shows in their status.
    telling: bool,
}

/// The status of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status {
    /// Owner, group and mode.
    rights: (u32, u32, u32),
    /// When it changed last, in seconds since 1970, and nanoseconds.
    changed: (i64, i64),
}

/// An attempt's private directories, until it is dropped.
#[derive(Debug)]
pub(crate) struct Workspace {
    workspaces: Workspaces,
    dirs: Option<Dirs>,
    /// The command's current directory.
    pub(crate) work: PathBuf,
    /// Its `TMPDIR` and `HOME`.
    pub(crate) scratch: PathBuf,
    /// The directory above both, for files that are not the command's: its spooled log.
    pub(crate) root: PathBuf,
    /// The inputs that were staged into its work directory, until the command has started.
    pub(crate) inputs: Inputs,
}

impl Workspaces {
    /// Workspaces below a work directory, each owned by another of these users if there are any, and readable by no other user. The
    /// workspaces of an earlier runner are removed in the background, except those in `left`. New workspaces have new names, so a directory
    /// that cannot be removed prevents nothing.
    ///
    /// # Errors
    /// If the directory cannot be written to.
    pub(crate) fn below(work_dir: &Path, left: &[PathBuf], users: Option<Users>, leftovers: Leftovers) -> io::Result<Self> {
        let base = work_dir.join("attempts");
        std::fs::create_dir_all(&base)?;
        let base = base.canonicalize()?;
        // A job with a user of its own must reach its workspace, and must not see others.
        let mode = if users.as_ref().is_some_and(Users::are_for_processes) {
            0o711
        } else {
            0o700
        };
        std::fs::set_permissions(&base, std::fs::Permissions::from_mode(mode))?;
        let mut last = 0;
        for entry in std::fs::read_dir(&base)? {
            let path = entry?.path();
            let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            last = number.unwrap_or(0).max(last);
            if !left.contains(&path) {
                leftovers.remove_behind(path);
            }
        }
        Ok(Self(Arc::new(Inner {
            base,
            users,
            unused: Mutex::new(Vec::new()),
            next: AtomicU64::new(last + 1),
            leftovers,
        })))
    }

    /// A workspace that an earlier runner left to this one.
    pub(crate) fn take_up(&self, root: &Path) -> Workspace {
        let (work, scratch) = (root.join("work"), root.join("tmp"));
        let dirs = Dirs {
            root: root.to_owned(),
            user: self.0.users.as_ref().and_then(|users| users.of_directory(&work)),
            work: work.clone(),
            scratch: scratch.clone(),
            given: None,
            telling: false,
        };
        Workspace {
            workspaces: self.clone(),
            work,
            scratch,
            root: root.to_owned(),
            inputs: Inputs::default(),
            dirs: Some(dirs),
        }
    }

    /// An empty workspace for so many files. A workspace for many files is placed far from others: removing the files slows down the creation
    /// of files nearby for minutes.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub(crate) fn take(&self, files: u64) -> io::Result<Workspace> {
        let unused = if files < MANY { self.0.unused.lock().pop() } else { None };
        let mut dirs = match unused {
            Some(dirs) => dirs,
            None => self.make(files >= MANY)?,
        };
        let long_since = |(since, given): (Instant, [Status; 3])| since.elapsed() > TICKS && given.into_iter().all(Status::is_fine);
        dirs.telling = dirs.given.is_some_and(long_since);
        Ok(Workspace {
            workspaces: self.clone(),
            work: dirs.work.clone(),
            scratch: dirs.scratch.clone(),
            root: dirs.root.clone(),
            inputs: Inputs::default(),
            dirs: Some(dirs),
        })
    }

    fn make(&self, anywhere: bool) -> io::Result<Dirs> {
        let root = self.0.base.join(self.0.next.fetch_add(1, Ordering::Relaxed).to_string());
        let (work, scratch) = (root.join("work"), root.join("tmp"));
        let user = self.0.users.as_ref().map(Users::take).transpose()?;
        let make = || std::fs::DirBuilder::new().mode(0o700).create(&root);
        if anywhere {
            made_anywhere(&self.0.base, make)?;
        } else {
            make()?;
        }
        std::fs::create_dir(&work)?;
        std::fs::create_dir(&scratch)?;
        if let Some(RunAs { user, plain }) = user.as_ref().map(User::run_as) {
            std::os::unix::fs::lchown(&work, Some(user), Some(user))?;
            std::os::unix::fs::lchown(&scratch, Some(user), Some(user))?;
            if plain {
                // To pass through, for this user alone.
                std::os::unix::fs::lchown(&root, None, Some(user))?;
                std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o710))?;
            }
        }
        let mut dirs = Dirs {
            root,
            work,
            scratch,
            user,
            given: None,
            telling: false,
        };
        let status = dirs.status()?;
        dirs.given = Some((Instant::now(), status));
        Ok(dirs)
    }
}

impl Dirs {
    fn status(&self) -> io::Result<[Status; 3]> {
        Ok([Status::of(&self.work)?, Status::of(&self.scratch)?, Status::of(&self.root)?])
    }

    /// Their status, and since when, where the next attempt would find nothing of the last one.
    fn as_given(&self) -> Option<(Instant, [Status; 3])> {
        let (since, given) = self.given?;
        let now = self.status().ok()?;
        let since = if given == now { since } else { Instant::now() };
        let holds = |path: &Path, names: usize| std::fs::read_dir(path).is_ok_and(|entries| entries.take(names + 1).count() == names);
        let untouched = self.telling && given == now;
        let emptied = || {
            let rights = |of: &[Status; 3]| [of[0].rights, of[1].rights];
            rights(&given) == rights(&now) && holds(&self.work, 0) && holds(&self.scratch, 0) && holds(&self.root, 2)
        };
        (untouched || emptied()).then_some((since, now))
    }
}

impl Status {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self {
            rights: (metadata.uid(), metadata.gid(), metadata.mode()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether the time is finer than seconds, as it is not on old file systems.
    const fn is_fine(self) -> bool {
        self.changed.1 != 0
    }
}

impl Workspace {
    /// The path of the command's standard input, if it has one: beside its work directory.
    pub(crate) fn stdin(&self) -> PathBuf {
        self.root.join(STDIN)
    }

    /// The user that its command runs as, where that is a user of its own.
    pub(crate) fn run_as(&self) -> Option<RunAs> {
        self.dirs.as_ref()?.user.as_ref().map(User::run_as)
    }

    /// Whether the work directory is known never to have held a file.
    pub(crate) fn is_untouched(&self) -> bool {
        let given = self.dirs.as_ref().filter(|dirs| dirs.telling).and_then(|dirs| dirs.given);
        given.is_some_and(|(_, [work, ..])| Status::of(&self.work).is_ok_and(|now| now == work))
    }

    /// Marks it as one that must not be used again, because something may still be written there when it is dropped.
    pub(crate) const fn spoil(&mut self) {
        if let Some(dirs) = &mut self.dirs {
            dirs.given = None;
        }
    }

    /// Leaves it, with all its content, to the next runner.
    pub(crate) fn leave(mut self) -> PathBuf {
        self.dirs = None;
        self.root.clone()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let Some(mut dirs) = self.dirs.take() else { return };
        if let Some(now) = dirs.as_given() {
            dirs.given = Some(now);
            let mut unused = self.workspaces.0.unused.lock();
            if unused.len() < KEPT {
                return unused.push(dirs);
            }
        }
        let user = dirs.user.take();
        // The user is free for another job only when no file of this one is left.
        self.workspaces.0.leftovers.remove_behind_then(dirs.root, move |is_gone| {
            if !is_gone {
                std::mem::forget(user);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn below(work_dir: &Path, left: &[PathBuf]) -> io::Result<Workspaces> {
        Workspaces::below(work_dir, left, None, Leftovers::below(work_dir))
    }

    #[test]
    fn workspaces_that_an_earlier_runner_left_stay_and_others_are_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let workspaces = below(dir.path(), &[]).expect("places");
        let (left, lost) = (workspaces.take(0).expect("a workspace"), workspaces.take(0).expect("a workspace"));
        std::fs::write(left.work.join("made"), "").expect("a file");
        let (left, lost) = (left.leave(), lost.leave());
        let workspaces = below(dir.path(), std::slice::from_ref(&left)).expect("places");
        assert!(left.join("work/made").exists() && !lost.exists());
        let taken_up = workspaces.take_up(&left);
        assert_ne!(workspaces.take(0).expect("a workspace").root, left, "its name is not given again");
        drop(taken_up);
        assert!(!left.exists());
    }

    /// A workspace that was used before, once the clock has moved on since it was created.
    fn telling(workspaces: &Workspaces) -> Workspace {
        for _ in 0..1_000 {
            let place = workspaces.take(0).expect("a workspace");
            if place.is_untouched() {
                return place;
            }
            std::thread::sleep(TICKS / 10);
        }
        panic!("the file system of the temporary directory tells no time below seconds");
    }

    #[test]
    fn every_change_of_a_workspace_shows() {
        let dir = tempfile::tempdir().expect("a directory");
        let workspaces = below(dir.path(), &[]).expect("places");
        let place = telling(&workspaces);
        let root = place.root.clone();
        std::fs::write(place.work.join("made"), "").expect("a file");
        std::fs::remove_file(place.work.join("made")).expect("it is there");
        assert!(!place.is_untouched(), "what was there is gone, and shows all the same");
        drop(place);
        let place = telling(&workspaces);
        assert_eq!(place.root, root, "nothing is left of it");
        std::fs::write(place.scratch.join("left"), "").expect("a file");
        assert!(place.is_untouched(), "that is not where outputs are");
        drop(place);
        assert_ne!(workspaces.take(0).expect("a workspace").root, root);
    }

    #[test]
    fn a_workspace_that_may_still_be_written_to_is_not_used_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let workspaces = below(dir.path(), &[]).expect("places");
        let mut place = workspaces.take(0).expect("a workspace");
        let root = place.root.clone();
        place.spoil();
        drop(place);
        assert_ne!(workspaces.take(0).expect("a workspace").root, root);
    }

    #[test]
    fn only_an_unchanged_workspace_is_used_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let workspaces = below(dir.path(), &[]).expect("places");
        let first = workspaces.take(0).expect("a workspace").root.clone();
        let second = workspaces.take(0).expect("a workspace");
        assert_eq!(second.root, first, "nothing was done there");
        std::fs::write(second.work.join("secret"), "of the last job").expect("a file");
        drop(second);
        let third = workspaces.take(0).expect("a workspace");
        assert_ne!(third.root, first);
        std::fs::set_permissions(&third.work, std::fs::Permissions::from_mode(0o700)).expect("rights");
        let root = third.root.clone();
        drop(third);
        assert_ne!(workspaces.take(0).expect("a workspace").root, root, "its rights were changed");
        assert!(!first.exists(), "what was used is removed");
    }
}
