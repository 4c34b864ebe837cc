//! The backup directory of replaced files: `.rgrid/replaced/<job>/` in the directory that outputs are saved in.
//!
//! A file is there before another takes its name: at no moment is neither version anywhere. Nothing is reached through a link.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use bus::ids::JobId;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, mkdirat, openat, renameat_with, statat, unlinkat},
    io::Errno,
};

/// The directory of rgrid's own files. It is never sent along, and no output is saved there.
pub(crate) const DIR: &str = ".rgrid";
const REPLACED: &str = "replaced";
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How often one job may replace what stands at one path.
const VERSIONS: u32 = 100;

/// Where a file from below `base` is kept that this job replaced, from `base` on.
pub(crate) fn place(job: JobId, path: &str) -> PathBuf {
    [DIR, REPLACED, &job.to_string(), path].iter().collect()
}

/// Keeps what stands at a path below `base`, by a second name. Returns by which path, from `base` on.
///
/// # Errors
/// If the directory cannot be made, or a link is in the way.
pub(crate) fn keep(base: &Path, job: JobId, path: &str) -> io::Result<String> {
    let (from, from_name) = parent(base, Path::new(path), false)?;
    own_ignore(base)?;
    for version in 1..=VERSIONS {
        let numbered = if version == 1 {
            path.to_owned()
        } else {
            format!("{path}.{version}")
        };
        let kept = place(job, &numbered);
        let (to, to_name) = parent(base, &kept, true)?;
        match linkat(&from, &from_name, &to, &to_name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::EXIST) if is_same(&from, &from_name, &to, &to_name) => {}
            Err(Errno::EXIST) => continue,
            // Another file system, or one without hard links.
            Err(Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK | Errno::NOSYS) => {
                match copy((&from, &from_name), (&to, &to_name)) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    copied => copied?,
                }
            }
            Err(error) => return Err(error.into()),
        }
        return Ok(numbered);
    }
    Err(io::Error::other("it was replaced too often by the same job"))
}

/// Exchanges what stands at a path below `base` and what is kept of it, at once.
///
/// # Errors
/// If one of them is not there, or the file system cannot do it.
pub(crate) fn exchange(base: &Path, job: JobId, path: &str, kept: &str) -> io::Result<()> {
    let (one, one_name) = parent(base, Path::new(path), false)?;
    let (other, other_name) = parent(base, &place(job, kept), false)?;
    Ok(renameat_with(one, one_name, other, other_name, RenameFlags::EXCHANGE)?)
}

/// Puts back what is kept where nothing stands.
///
/// # Errors
/// If something stands there.
pub(crate) fn put_back(base: &Path, job: JobId, path: &str, kept: &str) -> io::Result<()> {
    let target = base.join(path);
    if let Some(dir) = target.parent() {
        fs::create_dir_all(dir)?;
    }
    let (to, to_name) = parent(base, Path::new(path), false)?;
    let (from, from_name) = parent(base, &place(job, kept), false)?;
    Ok(renameat_with(from, from_name, to, to_name, RenameFlags::NOREPLACE)?)
}

/// The directory that a path below `base` stands in, opened through no link, and the path's own name; made where that is wanted.
fn parent(base: &Path, path: &Path, make: bool) -> io::Result<(OwnedFd, std::ffi::OsString)> {
    let base = if base.as_os_str().is_empty() { Path::new(".") } else { base };
    let mut dir = openat(CWD, base, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { break };
        if parts.peek().is_none() {
            return Ok((dir, name.to_owned()));
        }
        if make {
            match mkdirat(&dir, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        dir = openat(&dir, name, DIRECTORY, Mode::empty())?;
    }
    Err(io::Error::other("not a path below the directory"))
}

/// Has git leave the directory alone.
fn own_ignore(base: &Path) -> io::Result<()> {
    let (dir, name) = parent(base, &Path::new(DIR).join(".gitignore"), true)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&dir, name, flags, Mode::from_raw_mode(0o666)) {
        Ok(file) => io::Write::write_all(&mut fs::File::from(file), b"*\n"),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_same(one: &OwnedFd, one_name: &std::ffi::OsStr, other: &OwnedFd, other_name: &std::ffi::OsStr) -> bool {
    let id = |dir: &OwnedFd, name: &std::ffi::OsStr| {
        let status = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((status.st_dev, status.st_ino))
    };
    id(one, one_name).is_some_and(|found| id(other, other_name) == Some(found))
}

/// Copies a file to where nothing is, whole or not at all.
fn copy((from, from_name): (&OwnedFd, &std::ffi::OsStr), (to, to_name): (&OwnedFd, &std::ffi::OsStr)) -> io::Result<()> {
    let mut beside = std::ffi::OsString::from(".new-");
    beside.push(format!("{}-", std::process::id()));
    beside.push(bus::ids::Digest::of(to_name.as_encoded_bytes()).to_string());
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut source = fs::File::from(openat(from, from_name, read, Mode::empty())?);
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut target = fs::File::from(openat(to, &beside, write, Mode::from_raw_mode(0o600))?);
    let copied = io::copy(&mut source, &mut target)
        .and_then(|_| target.set_permissions(source.metadata()?.permissions()))
        .and_then(|()| target.sync_all())
        .and_then(|()| Ok(renameat_with(to, &beside, to, to_name, RenameFlags::NOREPLACE)?));
    if copied.is_err() {
        // It may never have come to be.
        let _ = unlinkat(to, &beside, AtFlags::empty());
    }
    copied
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_is_kept_before_it_is_replaced_and_exchanged_back() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (base, job) = (dir.path(), JobId::new());
        fs::create_dir(base.join("d"))?;
        fs::write(base.join("d/stock.db"), "mine")?;
        let inode = fs::metadata(base.join("d/stock.db"))?.ino();
        let kept = keep(base, job, "d/stock.db")?;
        assert_eq!(kept, "d/stock.db");
        let at = base.join(place(job, &kept));
        assert_eq!(
            (fs::metadata(&at)?.ino(), fs::read_to_string(base.join("d/stock.db"))?.as_str()),
            (inode, "mine")
        );
        // Killed here and started again, it is kept once.
        assert_eq!(keep(base, job, "d/stock.db")?, "d/stock.db");
        fs::write(base.join("new"), "the job's")?;
        fs::rename(base.join("new"), base.join("d/stock.db"))?;
        exchange(base, job, "d/stock.db", &kept)?;
        assert_eq!(
            (fs::read_to_string(base.join("d/stock.db"))?, fs::read_to_string(&at)?),
            ("mine".into(), "the job's".into())
        );
        // Another version is kept beside the first one.
        fs::write(base.join("new"), "a third")?;
        fs::rename(base.join("new"), base.join("d/stock.db"))?;
        assert_eq!(keep(base, job, "d/stock.db")?, "d/stock.db.2");
        assert_eq!(fs::read_to_string(base.join(".rgrid/.gitignore"))?, "*\n");
        fs::remove_file(base.join("d/stock.db"))?;
        put_back(base, job, "d/stock.db", "d/stock.db.2")?;
        assert_eq!(fs::read_to_string(base.join("d/stock.db"))?, "a third");
        Ok(())
    }

    #[test]
    fn nothing_is_kept_behind_a_link() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (base, outside) = (dir.path().join("base"), dir.path().join("outside"));
        fs::create_dir_all(&base)?;
        fs::create_dir_all(outside.join("replaced"))?;
        fs::write(base.join("f"), "mine")?;
        symlink(&outside, base.join(DIR))?;
        assert!(keep(&base, JobId::new(), "f").is_err());
        fs::remove_file(base.join(DIR))?;
        fs::create_dir(base.join(DIR))?;
        symlink(&outside, base.join(".rgrid/replaced"))?;
        assert!(keep(&base, JobId::new(), "f").is_err());
        assert_eq!(fs::read_dir(outside)?.count(), 1);
        Ok(())
    }

    #[test]
    fn a_link_is_kept_as_a_link_and_a_copy_is_whole() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (base, job) = (dir.path(), JobId::new());
        symlink("nowhere", base.join("l"))?;
        keep(base, job, "l")?;
        assert_eq!(fs::read_link(base.join(place(job, "l")))?, Path::new("nowhere"));
        fs::write(base.join("f"), "mine")?;
        let (from, name) = parent(base, Path::new("f"), false)?;
        copy((&from, &name), (&from, "copy".as_ref()))?;
        assert!(copy((&from, &name), (&from, "copy".as_ref())).is_err(), "nothing is replaced");
        assert_eq!(
            (fs::read_to_string(base.join("copy"))?.as_str(), fs::read_dir(base)?.count()),
            ("mine", 4)
        );
        Ok(())
    }
}
