use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Command,
};

use super::*;

/// A mount of a scratch directory, until it is dropped.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// Shows one scratch directory at another; nothing where this process may not mount.
    pub(crate) fn bind(from: &Path, to: &Path) -> Option<Self> {
        let mounted = Command::new("mount").arg("--bind").args([from, to]).output();
        mounted.is_ok_and(|done| done.status.success()).then(|| Self(to.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

/// Nests so many directories in each other.
fn nest(top: &Path, depth: usize) {
    fs::create_dir_all(top).expect("a directory");
    let mut dir = openat(CWD, top, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("a directory");
    for _ in 0..depth {
        rustix::fs::mkdirat(&dir, "d", Mode::RWXU).expect("a directory");
        dir = openat(&dir, "d", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("a directory");
    }
}

#[test]
fn thirty_thousand_nested_directories_are_removed_with_few_open_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let top = dir.path().join("top");
    nest(&top, 30_000);
    nest(&top.join("beside"), 200);
    // As small a stack as the runtime's own threads never have, and what is open is counted while it is removed.
    let open = || fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let before = open();
    let most = std::thread::scope(|scope| {
        let removing = std::thread::Builder::new()
            .stack_size(64 << 10)
            .spawn_scoped(scope, || remove(&top, &Stop::default()))
            .expect("a thread");
        let mut most = 0;
        while !removing.is_finished() {
            most = most.max(open());
            // Counting takes the lock that opening takes.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        removing.join().expect("it does not panic").expect("it is removed");
        most
    });
    assert!(!top.exists());
    // Other tests open files too.
    assert!(most < before + DEPTH + 200, "{most} open files, {before} before");
}

#[test]
fn nothing_is_removed_while_something_is_mounted_below() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, top) = (dir.path().join("data"), dir.path().join("a top/x"));
    fs::create_dir_all(top.join("work/mnt")).expect("a directory");
    fs::write(top.join("work/made"), "").expect("a file");
    fs::create_dir(&data).expect("a directory");
    fs::write(data.join("precious"), "data").expect("a file");
    let Some(mounted) = Mounted::bind(&data, &top.join("work/mnt")) else {
        return;
    };
    let kept = remove(&top, &Stop::default());
    assert!(
        matches!(&kept, Err(Error::Mounted(point)) if point.ends_with("work/mnt")),
        "{kept:?}"
    );
    assert!(top.join("work/made").exists() && data.join("precious").exists());
    // Nor does the walk itself enter it, should it be mounted after the look.
    let mut removal = Removal {
        top: &top,
        stop: &Stop::default(),
        first: None,
    };
    let parent = openat(CWD, top.parent().expect("a parent"), OFlags::PATH, Mode::empty()).expect("a directory");
    removal.pass(&parent, OsStr::new("x")).expect("it is not stopped");
    assert!(
        matches!(&removal.first, Some(Error::Mounted(point)) if point.ends_with("work/mnt")),
        "{:?}",
        removal.first
    );
    assert!(data.join("precious").exists() && !top.join("work/made").exists());
    drop(mounted);
    remove(&top, &Stop::default()).expect("nothing is mounted any more");
    assert!(!top.exists() && data.join("precious").exists());
}

#[test]
fn links_are_removed_and_not_followed_and_read_only_directories_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let (outside, top) = (dir.path().join("outside"), dir.path().join("top"));
    fs::create_dir_all(top.join("sealed/deep")).expect("a directory");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("x"), "").expect("a file");
    fs::write(top.join("sealed/deep/x"), "").expect("a file");
    symlink(&outside, top.join("link")).expect("a link");
    for (path, mode) in [("sealed/deep", 0o000), ("sealed", 0o555)] {
        fs::set_permissions(top.join(path), Permissions::from_mode(mode)).expect("rights");
    }
    remove(&top, &Stop::default()).expect("it is removed");
    assert!(!top.exists() && outside.join("x").exists());
    let link = dir.path().join("link");
    symlink(&outside, &link).expect("a link");
    remove(&link, &Stop::default()).expect("it is removed");
    assert!(fs::symlink_metadata(&link).is_err() && outside.join("x").exists());
    remove(&dir.path().join("none/at/all"), &Stop::default()).expect("what is gone is gone");
}

#[test]
fn a_stopped_removal_reports_that_it_was_stopped() {
    let dir = tempfile::tempdir().expect("a directory");
    let stop = Stop::default();
    drop(stop.guard());
    let top = dir.path().join("top");
    nest(&top, 3);
    assert!(matches!(remove(&top, &stop), Err(Error::Stopped)));
    assert!(top.exists());
}
