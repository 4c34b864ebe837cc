//! Removing the workspaces of attempts. A directory that cannot be removed is moved aside, tried again and reported.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::beneath::{self, Error, Stop};

/// How often a failed removal is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// How many leftovers a heartbeat lists.
const TOLD: usize = 5;

/// Directories of earlier attempts that could not be removed. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Leftovers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Where they are moved.
    aside: PathBuf,
    /// Each of them, and why it could not be removed.
    known: Mutex<BTreeMap<PathBuf, String>>,
    removals: TaskTracker,
    stop: Stop,
}

impl Leftovers {
    /// Leftovers below a work directory; those of earlier runners are removed in the background.
    pub(crate) fn below(work_dir: &Path) -> Self {
        let leftovers = Self(Arc::new(Inner {
            aside: work_dir.join("leftovers"),
            known: Mutex::default(),
            removals: TaskTracker::new(),
            stop: Stop::default(),
        }));
        for earlier in fs::read_dir(&leftovers.0.aside).into_iter().flatten().flatten() {
            leftovers.remove_behind(earlier.path());
        }
        leftovers
    }

    /// Removes a tree in the background where there is a runtime, because a tree of a million files takes a while.
    pub(crate) fn remove_behind(&self, path: PathBuf) {
        self.remove_behind_then(path, |_| ());
    }

    /// The same; afterwards, `then` receives whether the tree was removed.
    pub(crate) fn remove_behind_then(&self, path: PathBuf, then: impl FnOnce(bool) + Send + 'static) {
        let leftovers = self.clone();
        let remove = move || then(leftovers.remove(&path));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(self.0.removals.spawn_blocking_on(remove, &runtime)),
            Err(_) => remove(),
        }
    }

    /// Removes a tree. One that cannot be removed is moved aside and reported, unless it contains a mount: then it stays where its user expects
    /// it. Returns whether it was removed.
    fn remove(&self, path: &Path) -> bool {
        let (at, why) = match beneath::remove(path, &self.0.stop) {
            Ok(()) => {
                if self.0.known.lock().remove(path).is_some() {
                    info!("removed {}, which could not be removed before", path.display());
                }
                return true;
            }
            // The next runner continues.
            Err(Error::Stopped) => return false,
            Err(error @ Error::Mounted(_)) => (path.to_owned(), error.to_string()),
            Err(error) => (self.move_aside(path), error.to_string()),
        };
        let mut known = self.0.known.lock();
        if at != path {
            known.remove(path);
        }
        if known.insert(at.clone(), why.clone()).as_ref() != Some(&why) {
            warn!("{} is left, and will be tried again every minute: {why}; {ADVICE}", at.display());
        }
        false
    }

    /// Moves a tree out of the way of later attempts; where that fails too, it stays where it is.
    fn move_aside(&self, path: &Path) -> PathBuf {
        if path.starts_with(&self.0.aside) {
            return path.to_owned();
        }
        let to = self.0.aside.join(uuid::Uuid::now_v7().simple().to_string());
        match fs::create_dir_all(&self.0.aside).and_then(|()| fs::rename(path, &to)) {
            Ok(()) => to,
            Err(error) => {
                warn!("cannot move {} aside: {error}", path.display());
                path.to_owned()
            }
        }
    }

    /// Tries to remove the leftovers again.
    fn retry(&self) {
        let known: Vec<PathBuf> = self.0.known.lock().keys().cloned().collect();
        for path in known {
            self.remove(&path);
        }
    }

    /// Tries to remove the leftovers now and then, for as long as it is polled.
    pub(crate) async fn tend(self) {
        loop {
            tokio::time::sleep(AGAIN).await;
            if !self.0.known.lock().is_empty() {
                let leftovers = self.clone();
                let _tried_again = self.0.removals.spawn_blocking(move || leftovers.retry()).await;
            }
        }
    }

    /// The leftovers and why they stay, a sentence each; of more than a few only the number.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let known = self.0.known.lock();
        let mut sentences: Vec<String> = known
            .iter()
            .take(TOLD)
            .map(|(path, why)| format!("{} is left of an earlier attempt: {why}", path.display()))
            .collect();
        if known.len() > TOLD {
            sentences.push(format!("and {} more", known.len() - TOLD));
        }
        sentences
    }

    /// Waits this long for removals to end; the next runner does the rest.
    pub(crate) async fn settled(&self, patience: Duration) {
        self.0.removals.close();
        let _in_time = tokio::time::timeout(patience, self.0.removals.wait()).await;
        self.0.stop.stop();
    }
}

/// What an operator can do about a leftover.
const ADVICE: &str = "unmount what is mounted there (`umount`), or remove by hand what this user may not remove";

#[cfg(test)]
mod tests {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

    use super::*;

    /// Forbids or allows every change of a directory; `None` where this process or its file system cannot.
    fn immutable(dir: &Path, is: bool) -> Option<()> {
        let dir = fs::File::open(dir).ok()?;
        let mut flags = ioctl_getflags(&dir).ok()?;
        flags.set(IFlags::IMMUTABLE, is);
        ioctl_setflags(&dir, flags).ok()
    }

    #[test]
    fn a_tree_that_cannot_be_removed_is_moved_aside_reported_and_tried_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = dir.path().join("attempts/1");
        fs::create_dir_all(tree.join("work/fast/x")).expect("a directory");
        fs::write(tree.join("work/other"), "").expect("a file");
        if immutable(&tree.join("work/fast"), true).is_none() {
            return;
        }
        let leftovers = Leftovers::below(dir.path());
        leftovers.remove_behind(tree.clone());
        assert!(!tree.exists());
        let told = leftovers.sentences();
        assert!(
            told.len() == 1 && told[0].contains("cannot remove") && told[0].contains("work/fast/x"),
            "{told:?}"
        );
        // The next runner finds it, starts, and says the same.
        let next = Leftovers::below(dir.path());
        assert_eq!(next.sentences().len(), 1);
        let aside = fs::read_dir(dir.path().join("leftovers")).expect("it is there").flatten().next();
        let aside = aside.expect("it was moved there").path();
        assert!(!aside.join("work/other").exists(), "what can go is gone");
        immutable(&aside.join("work/fast"), false).expect("it may change again");
        next.retry();
        assert!(next.sentences().is_empty() && !aside.exists());
    }

    #[test]
    fn only_a_few_leftovers_are_reported() {
        let leftovers = Leftovers::below(Path::new("/nonexistent"));
        let why = |number| (PathBuf::from(format!("/w/{number}")), "why".to_owned());
        leftovers.0.known.lock().extend((0..8).map(why));
        let told = leftovers.sentences();
        assert_eq!((told.len(), told.last().map(String::as_str)), (6, Some("and 3 more")));
    }
}
