//! The directories that attempts have to themselves. One that was left as it was given is given again: making and removing three
//! directories costs a short job as much as its fork does.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

/// Unused directories that are kept.
const KEPT: usize = 256;

/// Where attempts have their directories. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: PathBuf,
    unused: Mutex<Vec<Dirs>>,
    next: AtomicU64,
}

/// An attempt's directories.
#[derive(Debug)]
struct Dirs {
    root: PathBuf,
    work: PathBuf,
    scratch: PathBuf,
    /// Owner and mode that they were given with, where that is known.
    given: Option<[(u32, u32, u32); 2]>,
}

/// A private directory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    dirs: Option<Dirs>,
    /// The command's current directory.
    pub(crate) work: PathBuf,
    /// Its `TMPDIR` and `HOME`.
    pub(crate) scratch: PathBuf,
    /// For what is not the command's: its spooled log.
    pub(crate) root: PathBuf,
}

impl Places {
    /// Places below a work directory; what an earlier runner left there is removed, but for those that it left to us.
    ///
    /// # Errors
    /// If the directory cannot be written to.
    pub(crate) fn below(work_dir: &Path, left: &[PathBuf]) -> io::Result<Self> {
        let base = work_dir.join("attempts");
        std::fs::create_dir_all(&base)?;
        let base = base.canonicalize()?;
        let mut last = 0;
        for entry in std::fs::read_dir(&base)? {
            let entry = entry?;
            if left.contains(&entry.path()) {
                last = entry.file_name().to_str().and_then(|name| name.parse().ok()).unwrap_or(0).max(last);
            } else if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self(Arc::new(Inner {
            base,
            unused: Mutex::new(Vec::new()),
            next: AtomicU64::new(last + 1),
        })))
    }

    /// A place that an earlier runner left to us.
    pub(crate) fn take_up(&self, root: &Path) -> Place {
        let (work, scratch) = (root.join("work"), root.join("tmp"));
        let dirs = Dirs {
            root: root.to_owned(),
            work: work.clone(),
            scratch: scratch.clone(),
            given: None,
        };
        Place {
            places: self.clone(),
            work,
            scratch,
            root: root.to_owned(),
            dirs: Some(dirs),
        }
    }

    /// An empty place.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub(crate) fn take(&self) -> io::Result<Place> {
        let unused = self.0.unused.lock().pop();
        let dirs = match unused {
            Some(dirs) => dirs,
            None => self.make()?,
        };
        Ok(Place {
            places: self.clone(),
            work: dirs.work.clone(),
            scratch: dirs.scratch.clone(),
            root: dirs.root.clone(),
            dirs: Some(dirs),
        })
    }

    fn make(&self) -> io::Result<Dirs> {
        let root = self.0.base.join(self.0.next.fetch_add(1, Ordering::Relaxed).to_string());
        let (work, scratch) = (root.join("work"), root.join("tmp"));
        std::fs::create_dir(&root)?;
        std::fs::create_dir(&work)?;
        std::fs::create_dir(&scratch)?;
        let given = Some([rights(&work)?, rights(&scratch)?]);
        Ok(Dirs {
            root,
            work,
            scratch,
            given,
        })
    }
}

impl Dirs {
    /// Whether the next attempt would find nothing of the last one.
    fn is_as_given(&self) -> bool {
        let holds = |path: &Path, names: usize| std::fs::read_dir(path).is_ok_and(|entries| entries.count() == names);
        let as_given = |path: &Path, given: (u32, u32, u32)| rights(path).is_ok_and(|now| now == given) && holds(path, 0);
        self.given
            .is_some_and(|[work, scratch]| as_given(&self.work, work) && as_given(&self.scratch, scratch) && holds(&self.root, 2))
    }
}

impl Place {
    /// Where what the command reads from standard input is kept, if it reads any: beside its work directory.
    pub(crate) fn stdin(&self) -> PathBuf {
        self.root.join("stdin")
    }

    /// Leaves it, with all that is in it, to the next runner.
    pub(crate) fn leave(mut self) -> PathBuf {
        self.dirs = None;
        self.root.clone()
    }
}

/// Removes a tree, also where something is still being written into it for a moment.
fn remove(root: &Path) {
    for _ in 0..10 {
        match std::fs::remove_dir_all(root) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => std::thread::sleep(Duration::from_millis(20)),
            _ => return,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(dirs) = self.dirs.take() else { return };
        if dirs.is_as_given() {
            let mut unused = self.places.0.unused.lock();
            if unused.len() < KEPT {
                return unused.push(dirs);
            }
        }
        // A tree of ten thousand files takes a while; nobody waits for it. What cannot be removed goes at the next start.
        let remove = move || remove(&dirs.root);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

fn rights(path: &Path) -> io::Result<(u32, u32, u32)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.uid(), metadata.gid(), metadata.mode()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_an_earlier_runner_left_to_us_stays_and_the_rest_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let places = Places::below(dir.path(), &[]).expect("places");
        let (left, lost) = (places.take().expect("a place"), places.take().expect("a place"));
        std::fs::write(left.work.join("made"), "").expect("a file");
        let (left, lost) = (left.leave(), lost.leave());
        let places = Places::below(dir.path(), std::slice::from_ref(&left)).expect("places");
        assert!(left.join("work/made").exists() && !lost.exists());
        let taken_up = places.take_up(&left);
        assert_ne!(places.take().expect("a place").root, left, "its name is not given again");
        drop(taken_up);
        assert!(!left.exists());
    }

    #[test]
    fn only_a_place_that_is_as_it_was_given_is_given_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let places = Places::below(dir.path(), &[]).expect("places");
        let first = places.take().expect("a place").root.clone();
        let second = places.take().expect("a place");
        assert_eq!(second.root, first, "nothing was done there");
        std::fs::write(second.work.join("secret"), "of the last job").expect("a file");
        drop(second);
        let third = places.take().expect("a place");
        assert_ne!(third.root, first);
        std::fs::set_permissions(&third.work, std::fs::Permissions::from_mode(0o700)).expect("rights");
        let root = third.root.clone();
        drop(third);
        assert_ne!(places.take().expect("a place").root, root, "its rights were changed");
        assert!(!first.exists(), "what was used is removed");
    }
}
