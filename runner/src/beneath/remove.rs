//! Removing a tree, however deep it is, with a bounded number of open files and without recursion.
//!
//! No more than [`DEPTH`] directories are open at a time. What stands deeper is first moved up to the tree's top, so that nothing has to
//! be found again by a path that somebody may change meanwhile.

use std::{
    ffi::{CStr, OsStr},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fchmod, openat, renameat, statat, unlinkat},
    io::Errno,
};

use super::{mounts, open, stop::Stop};

/// How many levels of directories are open at once.
const DEPTH: usize = 48;
/// How often, and after which pause, a tree is tried again into which something is still being written for a moment.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Why a tree was not removed, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something is mounted in it. Nothing of it was removed.
    #[error("{} is mounted in it", .0.display())]
    Mounted(PathBuf),
    /// Something of it stays.
    #[error("cannot remove {}: {source}", path.display())]
    Stays {
        /// The first thing that stays.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The removal was stopped.
    #[error("its removal was stopped")]
    Stopped,
}

/// Removes what stands at a path, a whole tree too, and read-only directories. What is gone is gone, also where another removes the same.
/// Nothing is removed while something is mounted there.
///
/// # Errors
/// If something stays. Everything else of the tree is removed then, unless something is mounted in it.
pub(crate) fn remove(path: &Path, stop: &Stop) -> Result<(), Error> {
    let stays = |errno: Errno| Error::Stays {
        path: path.to_owned(),
        source: errno.into(),
    };
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(stays(Errno::INVAL));
    };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let parent = match openat(CWD, above, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(stays(errno)),
    };
    match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(stays(errno)),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
            return unless_gone(unlinkat(&parent, name, AtFlags::empty())).map_err(stays);
        }
        Ok(_) => {}
    }
    // Where `/proc` is not there, the opening of directories still enters no mount.
    let real = above
        .canonicalize()
        .map(|above| above.join(name))
        .unwrap_or_else(|_| path.to_owned());
    if let Some(point) = mounts::below(&real).unwrap_or_default().into_iter().next() {
        return Err(Error::Mounted(point));
    }
    let mut removal = Removal {
        top: path,
        stop,
        first: None,
    };
    for _ in 0..TRIES {
        removal.first = None;
        removal.pass(&parent, name)?;
        match unless_gone(unlinkat(&parent, name, AtFlags::REMOVEDIR)) {
            Ok(()) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if removal.first.is_none() => std::thread::sleep(PAUSE),
            Err(errno) => return Err(removal.first.take().unwrap_or_else(|| stays(errno))),
        }
    }
    Err(stays(Errno::NOTEMPTY))
}

fn unless_gone(done: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// A directory that is being emptied.
struct Level {
    name: Box<CStr>,
    dir: Dir,
}

struct Removal<'a> {
    top: &'a Path,
    stop: &'a Stop,
    /// Why the first thing that stays does.
    first: Option<Error>,
}

impl Removal<'_> {
    /// Empties the directory `name` of `parent`, as far as that goes.
    fn pass(&mut self, parent: &OwnedFd, name: &OsStr) -> Result<(), Error> {
        let top = match enter(parent.as_fd(), name) {
            Ok(top) => top,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => {
                self.keeps(&[], name.as_bytes(), errno);
                return Ok(());
            }
        };
        let mut levels = vec![top];
        let mut moved_up = 0_u64;
        loop {
            if self.stop.is_stopped() {
                return Err(Error::Stopped);
            }
            let depth = levels.len();
            let Some(level) = levels.last_mut() else { return Ok(()) };
            match level.dir.read() {
                Some(Ok(entry)) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Some(Ok(entry)) => {
                    if let Err(errno) = self.take(&mut levels, entry.file_name(), entry.file_type(), &mut moved_up) {
                        self.keeps(&levels, entry.file_name().to_bytes(), errno);
                    }
                }
                // What was moved up meanwhile may not have been listed.
                None if depth == 1 && moved_up > 0 => {
                    level.dir.rewind();
                    moved_up = 0;
                }
                // A directory that another removed lists nothing.
                None | Some(Err(Errno::NOENT)) => self.leave(&mut levels),
                Some(Err(errno)) => {
                    self.keeps(&levels, b"", errno);
                    self.leave(&mut levels);
                }
            }
        }
    }

    /// Removes one entry of the last level; a directory becomes the last level, or is moved up to the first.
    fn take(&self, levels: &mut Vec<Level>, name: &CStr, kind: FileType, moved_up: &mut u64) -> rustix::io::Result<()> {
        let (Some(first), Some(last)) = (levels.first(), levels.last()) else {
            return Ok(());
        };
        let here = last.dir.fd()?;
        let is_dir = match kind {
            FileType::Unknown => match statat(here, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
                Err(errno) => return unless_gone(Err(errno)),
            },
            kind => kind == FileType::Directory,
        };
        if !is_dir {
            return permitted(here, || unless_gone(unlinkat(here, name, AtFlags::empty())));
        }
        if levels.len() >= DEPTH {
            let top = first.dir.fd()?;
            let up = format!("rgrid-{}", uuid::Uuid::now_v7().simple());
            permitted(here, || unless_gone(renameat(here, name, top, &up)))?;
            *moved_up += 1;
            return Ok(());
        }
        match enter(here, OsStr::from_bytes(name.to_bytes())) {
            Ok(level) => levels.push(level),
            Err(errno) => return unless_gone(Err(errno)),
        }
        Ok(())
    }

    /// Removes the last level's directory, which was emptied. The first one is the caller's.
    fn leave(&mut self, levels: &mut Vec<Level>) {
        let Some(level) = levels.pop() else { return };
        let Some(above) = levels.last() else { return };
        let removed = above
            .dir
            .fd()
            .and_then(|here| permitted(here, || unless_gone(unlinkat(here, &*level.name, AtFlags::REMOVEDIR))));
        match removed {
            // It is looked through once more, by the next try.
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => self.keeps(levels, level.name.to_bytes(), errno),
        }
    }

    /// Notes that something stays.
    fn keeps(&mut self, levels: &[Level], name: &[u8], errno: Errno) {
        if self.first.is_none() {
            let within = levels.iter().skip(1).map(|level| OsStr::from_bytes(level.name.to_bytes()));
            let mut path: PathBuf = std::iter::once(self.top.as_os_str()).chain(within).collect();
            if !levels.is_empty() && !name.is_empty() {
                path.push(OsStr::from_bytes(name));
            }
            self.first = Some(if errno == Errno::XDEV {
                Error::Mounted(path)
            } else {
                Error::Stays {
                    path,
                    source: errno.into(),
                }
            });
        }
    }
}

/// Opens a directory to empty it; one that its owner may not read is made readable.
fn enter(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Level> {
    let path = Path::new(name);
    let opened = match open::directory(parent, path) {
        Err(Errno::ACCESS) => {
            let place = open::place(parent, path)?;
            rustix::fs::chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), Mode::RWXU)?;
            open::directory(parent, path)?
        }
        opened => opened?,
    };
    Ok(Level {
        name: std::ffi::CString::new(name.as_bytes())
            .map_err(|_| Errno::INVAL)?
            .into_boxed_c_str(),
        dir: Dir::new(opened)?,
    })
}

/// Changes a directory; one that its owner may not write to is made writable.
fn permitted(dir: BorrowedFd<'_>, change: impl Fn() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    match change() {
        Err(Errno::ACCESS) => {
            fchmod(dir, Mode::RWXU)?;
            change()
        }
        done => done,
    }
}

#[cfg(test)]
pub(crate) mod tests;
