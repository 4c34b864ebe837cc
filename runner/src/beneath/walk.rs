//! Looking through a tree in the order of its names, by as few open files as two.

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use bus::spec::RelPath;
use rustix::{
    fs::{AtFlags, Dir, FileType, Stat, statat},
    io::{Errno, Result},
};

use super::{open, stop::Stop};

/// How many bytes the names take up together that wait to be looked at.
const NAMES: usize = 256 << 20;
/// The memory that a name takes in addition to its own bytes.
const NAME: usize = 40;

/// What a walk came by. Paths are relative to its top.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Something is there.
    Entry(PathBuf, Stat),
    /// A directory cannot be looked into.
    Unreadable(PathBuf, Errno),
    /// A directory is so deep that nothing in it can be named, or holds more names than can be looked at.
    TooMuch(PathBuf),
}

/// A walk through a tree; a directory comes before what is in it.
#[derive(Debug)]
pub(crate) struct Walk {
    top: Arc<OwnedFd>,
    levels: Vec<Level>,
    /// The last level's directory, if it is open.
    here: Option<OwnedFd>,
    /// What the last level's directory, which was just begun, is to be told of.
    pending: Option<Seen>,
    waiting: usize,
    stop: Stop,
}

#[derive(Debug)]
struct Level {
    path: PathBuf,
    names: std::vec::IntoIter<OsString>,
}

impl Walk {
    /// A walk through what is below this directory, which ends early when it is told to stop.
    pub(crate) fn new(top: Arc<OwnedFd>, stop: Stop) -> Self {
        let mut walk = Self {
            top,
            levels: Vec::new(),
            here: None,
            pending: None,
            waiting: 0,
            stop,
        };
        walk.enter(PathBuf::new());
        walk
    }

    fn open(&self, path: &Path) -> Result<OwnedFd> {
        if path.as_os_str().is_empty() {
            return rustix::io::fcntl_dupfd_cloexec(&self.top, 0);
        }
        open::directory(self.top.as_fd(), path)
    }

    /// Reads a directory's names; what cannot be read comes next.
    fn enter(&mut self, path: PathBuf) {
        let listed = self.open(&path).and_then(|dir| Ok((self.names(&dir)?, dir)));
        match listed {
            Ok(((mut names, whole), dir)) => {
                names.sort_unstable();
                self.pending = (!whole).then(|| Seen::TooMuch(path.clone()));
                self.levels.push(Level {
                    path,
                    names: names.into_iter(),
                });
                self.here = Some(dir);
            }
            Err(errno) => self.pending = Some(Seen::Unreadable(path, errno)),
        }
    }

    /// The names in a directory, and whether these are all.
    fn names(&mut self, dir: &OwnedFd) -> Result<(Vec<OsString>, bool)> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if self.waiting + name.len() + NAME > NAMES || self.stop.is_stopped() {
                return Ok((names, false));
            }
            self.waiting += name.len() + NAME;
            names.push(OsString::from_vec(name.to_vec()));
        }
        Ok((names, true))
    }

    fn look(&mut self, parent: &Path, name: &OsStr) -> Option<Seen> {
        if self.here.is_none() {
            match self.open(parent) {
                Ok(dir) => self.here = Some(dir),
                Err(Errno::NOENT) => return None,
                Err(errno) => return Some(Seen::Unreadable(parent.join(name), errno)),
            }
        }
        let path = parent.join(name);
        match statat(self.here.as_ref()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(Seen::Entry(path, stat)),
            Err(Errno::NOENT) => None,
            Err(errno) => Some(Seen::Unreadable(path, errno)),
        }
    }
}

impl Iterator for Walk {
    type Item = Seen;

    fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some(pending) = self.pending.take() {
                return Some(pending);
            }
            if self.stop.is_stopped() {
                return None;
            }
            let level = self.levels.last_mut()?;
            let Some(name) = level.names.next() else {
                self.levels.pop();
                self.here = None;
                continue;
            };
            self.waiting -= name.len() + NAME;
            let parent = level.path.clone();
            let Some(seen) = self.look(&parent, &name) else { continue };
            if let Seen::Entry(path, stat) = &seen
                && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            {
                let path = path.clone();
                if path.as_os_str().as_bytes().len() < RelPath::MAX_LEN {
                    self.enter(path);
                } else {
                    self.pending = Some(Seen::TooMuch(path));
                }
            }
            return Some(seen);
        }
    }
}
