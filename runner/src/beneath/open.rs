//! Opening what is below a directory, and nothing else: no link is followed, and no mount entered.

use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2},
    io::{Errno, Result},
};

/// How often an open is tried that somebody's renaming disturbed.
const TRIES: u32 = 16;

/// Opens a directory below `top`. The path is relative and not empty.
///
/// # Errors
/// [`Errno::XDEV`] where something is mounted on the way, [`Errno::LOOP`] or [`Errno::NOTDIR`] where a link is; others as of `openat`.
pub(crate) fn directory(top: impl AsFd, path: &Path) -> Result<OwnedFd> {
    open(top.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens a regular file below `top` for reading; waits for nobody, as a pipe's opening would.
///
/// # Errors
/// As of [`directory`]; [`Errno::INVAL`] where it is no regular file.
pub(crate) fn file(top: impl AsFd, path: &Path) -> Result<File> {
    let file = open(top.as_fd(), path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok(file.into())
}

/// Opens only the place of a directory, which needs no right to it.
pub(super) fn place(top: impl AsFd, path: &Path) -> Result<OwnedFd> {
    open(top.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY)
}

fn open(top: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    for _ in 0..TRIES {
        match openat2(top, path.as_os_str().as_bytes(), flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Before Linux 5.6 there is no such call, and the filters of some container runtimes refuse what they do not know.
            Err(Errno::NOSYS | Errno::PERM) => return step_by_step(top, path, flags),
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

/// The same without `openat2`: every part of the path by itself, each on the mount of the first.
fn step_by_step(top: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let mount = mount_of(top)?;
    let mut opened: Option<OwnedFd> = None;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(Errno::XDEV) };
        let from = opened.as_ref().map_or(top, AsFd::as_fd);
        let flags = if parts.peek().is_some() {
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW
        } else {
            flags
        };
        let next = openat(from, name.as_bytes(), flags, Mode::empty())?;
        if mount_of(next.as_fd())? != mount {
            return Err(Errno::XDEV);
        }
        opened = Some(next);
    }
    opened.ok_or(Errno::INVAL)
}

/// Which mount something that is open is on, and on which device; only the device where there is no `/proc`.
fn mount_of(open: BorrowedFd<'_>) -> Result<(u64, Option<String>)> {
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", open.as_raw_fd())).unwrap_or_default();
    let mount = about.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    Ok((fstat(open)?.st_dev, mount.map(|id| id.trim().to_owned())))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::beneath::remove::tests::Mounted;

    #[test]
    fn no_link_is_followed_and_no_mount_entered_with_and_without_openat2() {
        let dir = tempfile::tempdir().expect("a directory");
        for path in ["top/a/b", "top/mnt", "outside/x"] {
            fs::create_dir_all(dir.path().join(path)).expect("a directory");
        }
        symlink("../outside", dir.path().join("top/link")).expect("a link");
        // Of the same device: only the mount tells them apart.
        let Some(_mounted) = Mounted::bind(&dir.path().join("outside"), &dir.path().join("top/mnt")) else {
            return;
        };
        let top = File::open(dir.path().join("top")).expect("a directory");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        type Way<'a> = &'a dyn Fn(&str) -> Result<OwnedFd>;
        let ways: [Way<'_>; 2] = [&|path| directory(&top, Path::new(path)), &|path| {
            step_by_step(top.as_fd(), Path::new(path), flags)
        }];
        for open in ways {
            assert!(open("a/b").is_ok());
            assert_eq!(open("mnt/x").expect_err("a mount"), Errno::XDEV);
            assert_eq!(open("mnt").expect_err("a mount"), Errno::XDEV);
            assert_eq!(open("../outside").expect_err("outside"), Errno::XDEV);
            assert!(open("link/x").is_err() && open("link").is_err());
            assert_eq!(open("none").expect_err("nothing"), Errno::NOENT);
        }
    }

    #[test]
    fn opening_a_pipe_fails_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let top = File::open(dir.path()).expect("a directory");
        assert_eq!(file(&top, Path::new("pipe")).expect_err("a pipe"), Errno::INVAL);
    }
}
