//! The inputs that were staged in a work directory, and how to tell whether the command changed them.
//!
//! A file is untouched if its inode is the one that was staged and shows the same times as when the command started. A program can set a
//! file's size and `mtime` back, but not its `ctime`, which the kernel moves with every change of content, names or rights. A clock of
//! the kernel moves in ticks (up to 10 ms): a change within the tick in which a file was staged may show the same `ctime`. So a `ctime` is
//! trusted only where it is older than that of a mark made on the same file system just before the start, as git does with its index;
//! other files are compared by content.

use std::{
    collections::{BTreeSet, HashMap},
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bus::ids::Digest;
use parking_lot::Mutex;
use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

/// From so many bytes on, a start waits for the kernel's clock to tick, rather than having inputs read once more at the end.
const WORTH_WAITING: u64 = 4 << 20;
/// The pause before the clock is looked at again, and how often.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSES: u32 = 10;
/// From so many files on, their status is read by another thread.
const MANY: usize = 256;
/// File systems on which every change moves the `ctime`, also one by a memory map: ext2 to ext4, XFS, Btrfs, F2FS, overlays.
const TELLING: [i64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x794c_7630];

/// A file's identity and state, by its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of this status.
    pub(crate) fn of_stat(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size.cast_unsigned(),
            mode: stat.st_mode,
            modified: (stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
            changed: (stat.st_ctime, stat.st_ctime_nsec.cast_signed()),
        }
    }

    /// The stamp of this metadata.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            mode: metadata.mode(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A staged file, to tell whether the command changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StagedFile {
    /// Its content.
    pub(crate) sha256: Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// When it was last written: for a runner of an earlier version that continues this attempt.
    pub(crate) modified: Option<SystemTime>,
    /// Its permission bits; nothing where an earlier version staged it.
    #[serde(default)]
    pub(crate) mode: Option<u32>,
    /// Its stamp when the command started; nothing where that proves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stamp: Option<Stamp>,
}

impl StagedFile {
    /// Whether it was staged with these permission bits.
    pub(crate) fn has_mode(&self, mode: u32) -> bool {
        self.mode.is_none_or(|staged| staged == mode)
    }

    /// Whether a file with this status now is certainly unchanged.
    pub(crate) fn is_untouched(&self, now: &Stat) -> bool {
        self.stamp == Some(Stamp::of_stat(now)) && self.has_mode(now.st_mode & 0o777)
    }
}

/// What was staged in a work directory, by its path there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StagedInputs {
    /// Files, also by the staged links that lead to them.
    pub(crate) files: HashMap<PathBuf, StagedFile>,
    /// The targets of links.
    pub(crate) links: HashMap<PathBuf, String>,
    /// Directories that were staged by themselves.
    pub(crate) dirs: BTreeSet<PathBuf>,
}

impl StagedInputs {
    /// Every directory that was staged, on its own or as a parent.
    pub(crate) fn all_dirs(&self) -> BTreeSet<&Path> {
        let named = self.files.keys().chain(self.links.keys()).map(PathBuf::as_path);
        let above = named
            .chain(self.dirs.iter().map(PathBuf::as_path))
            .flat_map(|path| path.ancestors().skip(1));
        let all = above.chain(self.dirs.iter().map(PathBuf::as_path));
        all.filter(|dir| !dir.as_os_str().is_empty()).collect()
    }

    /// Reads the status of every file again.
    fn restamp(&mut self, work: &Path) {
        for (path, staged) in &mut self.files {
            staged.stamp = std::fs::metadata(work.join(path)).ok().as_ref().map(Stamp::of);
        }
    }

    /// How many bytes the files have whose status proves nothing beside a mark of this time.
    fn racy(&self, mark: (i64, i64)) -> u64 {
        let racy = self
            .files
            .values()
            .filter(|staged| staged.stamp.is_some_and(|stamp| stamp.changed >= mark));
        racy.map(|staged| staged.size).sum()
    }

    /// Forgets each status that proves nothing beside a mark of this time; all of them where there is none.
    fn distrust(&mut self, mark: Option<(i64, i64)>) {
        for staged in self.files.values_mut() {
            staged.stamp = staged.stamp.filter(|stamp| mark.is_some_and(|mark| stamp.changed < mark));
        }
    }
}

/// The inputs of an attempt whose command is about to start. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Inputs(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The attempt's directory, in which its work directory is.
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    layout: StagedInputs,
    starts: u32,
}

impl Inputs {
    /// Inputs that were staged in `work`, in the attempt's directory `root`.
    pub(crate) fn new(layout: StagedInputs, root: &Path) -> Self {
        let state = Mutex::new(State { layout, starts: 0 });
        Self(Arc::new(Inner {
            root: root.to_owned(),
            state,
        }))
    }

    /// What was staged, as it was when the command started.
    pub(crate) fn into_staged(self) -> StagedInputs {
        std::mem::take(&mut self.0.state.lock().layout)
    }

    /// Notes how the inputs are, immediately before the command can touch them. Every executor calls it: `changed` if it changed their
    /// owners. After a start that did not succeed (and perhaps did, unheard), no status proves anything.
    pub(crate) async fn about_to_start(&self, work: &Path, changed: bool) {
        let files = {
            let mut state = self.0.state.lock();
            state.starts += 1;
            if state.starts > 1 {
                state.layout.distrust(None);
                return;
            }
            state.layout.files.len()
        };
        if files == 0 {
            return;
        }
        if changed || files > MANY {
            let (inner, work) = (Arc::clone(&self.0), work.to_owned());
            // Where the thread fails, the old status does not match, and files are compared by content.
            let _failed = tokio::task::spawn_blocking(move || inner.state.lock().layout.restamp(&work)).await;
        }
        let mut mark = tells_all(work).then(|| self.mark()).flatten();
        for _ in 0..PAUSES {
            let waits = mark.is_some_and(|mark| self.0.state.lock().layout.racy(mark) >= WORTH_WAITING);
            if !waits {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            mark = self.mark();
        }
        self.0.state.lock().layout.distrust(mark);
    }

    /// A time of the file system's clock: that of a change just now.
    fn mark(&self) -> Option<(i64, i64)> {
        let touch = || -> io::Result<(i64, i64)> {
            let rights = std::fs::metadata(&self.0.root)?.permissions();
            std::fs::set_permissions(&self.0.root, rights)?;
            Ok(Stamp::of(&std::fs::metadata(&self.0.root)?).changed)
        };
        touch().ok()
    }
}

/// Whether every change of a file shows on the file system of this directory.
pub(crate) fn tells_all(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|status| is_telling(i128::from(status.f_type)))
}

fn is_telling(kind: i128) -> bool {
    TELLING.iter().any(|telling| i128::from(*telling) == kind)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn staged(content: &str, path: &Path) -> StagedFile {
        let metadata = fs::metadata(path).expect("a status");
        StagedFile {
            sha256: Digest::of(content.as_bytes()),
            size: metadata.len(),
            modified: metadata.modified().ok(),
            mode: Some(metadata.mode() & 0o777),
            stamp: Some(Stamp::of(&metadata)),
        }
    }

    fn at(changed: (i64, i64), size: u64) -> StagedFile {
        StagedFile {
            sha256: Digest::of(b""),
            size,
            modified: None,
            mode: None,
            stamp: Some(Stamp {
                device: 1,
                inode: 2,
                size,
                mode: 0o100_644,
                modified: changed,
                changed,
            }),
        }
    }

    #[test]
    fn a_status_proves_something_only_where_it_is_older_than_the_mark() {
        let files = [("old", (5, 1), 10), ("same", (5, 2), 20), ("later", (6, 0), 40)];
        let mut layout = StagedInputs {
            files: files.map(|(name, changed, size)| (name.into(), at(changed, size))).into(),
            ..StagedInputs::default()
        };
        assert_eq!((layout.racy((5, 2)), layout.racy((7, 0))), (60, 0));
        layout.distrust(Some((5, 2)));
        let trusted = |layout: &StagedInputs, name: &str| layout.files[Path::new(name)].stamp.is_some();
        assert!(trusted(&layout, "old") && !trusted(&layout, "same") && !trusted(&layout, "later"));
        layout.distrust(None);
        assert!(!trusted(&layout, "old"));
    }

    #[tokio::test]
    async fn a_second_start_has_every_input_compared_by_content() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a");
        fs::write(&path, "x").expect("a file");
        let layout = || StagedInputs {
            files: [("a".into(), staged("x", &path))].into(),
            ..StagedInputs::default()
        };
        // The clock may not have ticked since; then nothing is proved at the first start either.
        let inputs = Inputs::new(layout(), dir.path());
        inputs.about_to_start(dir.path(), true).await;
        inputs.about_to_start(dir.path(), true).await;
        assert_eq!(inputs.into_staged().files[Path::new("a")].stamp, None);
    }

    #[tokio::test]
    async fn a_large_input_that_was_just_staged_is_trusted_after_the_next_tick() {
        let dir = tempfile::tempdir().expect("a directory");
        if !tells_all(dir.path()) {
            return;
        }
        let path = dir.path().join("a");
        fs::write(&path, vec![0; 5 << 20]).expect("a file");
        let layout = StagedInputs {
            files: [("a".into(), staged("", &path))].into(),
            ..StagedInputs::default()
        };
        let inputs = Inputs::new(layout, dir.path());
        inputs.about_to_start(dir.path(), false).await;
        assert!(inputs.into_staged().files[Path::new("a")].stamp.is_some());
    }

    #[test]
    fn a_status_is_the_same_by_whichever_call() {
        let here = tempfile::NamedTempFile::new().expect("a file");
        let (one, other) = (
            fs::metadata(here.path()).expect("a status"),
            rustix::fs::stat(here.path()).expect("a status"),
        );
        assert_eq!(Stamp::of(&one), Stamp::of_stat(&other));
    }

    #[test]
    fn only_file_systems_that_tell_of_every_change_are_trusted() {
        assert!(is_telling(0xef53) && is_telling(0x794c_7630));
        // tmpfs tells nothing of what is written through a memory map; NFS is another machine's clock and cache.
        assert!(!is_telling(0x0102_1994) && !is_telling(0x6969));
    }

    #[test]
    fn directories_are_those_staged_and_the_parents_of_files() {
        let layout = StagedInputs {
            files: [("a/b/c".into(), at((0, 0), 0))].into(),
            links: [("l/x".into(), "y".to_owned())].into(),
            dirs: [PathBuf::from("e/f")].into(),
        };
        let dirs: Vec<_> = layout.all_dirs().into_iter().map(|dir| dir.display().to_string()).collect();
        assert_eq!(dirs, ["a", "a/b", "e", "e/f", "l"]);
    }

    #[test]
    fn a_file_that_an_earlier_version_staged_is_read_and_compared_by_content() {
        let stored = r#"{"sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","size":1,"modified":{"secs_since_epoch":1,"nanos_since_epoch":2}}"#;
        let staged: StagedFile = serde_json::from_str(stored).expect("a staged file");
        assert_eq!((staged.mode, staged.stamp), (None, None));
        let dir = tempfile::tempdir().expect("a directory");
        assert!(!staged.is_untouched(&rustix::fs::stat(dir.path()).expect("a status")));
    }
}
