//! Taking away what nobody sees any more.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tracing::warn;
use walkdir::WalkDir;

/// Removes whatever is there, read-only directories too. Another may be removing the same: what is gone is gone.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.is_dir() {
        return unless_gone(fs::remove_file(path));
    }
    for entry in WalkDir::new(path) {
        match entry.map_err(io::Error::from) {
            Ok(entry) if entry.file_type().is_dir() => {
                unless_gone(fs::set_permissions(entry.path(), Permissions::from_mode(0o755)))?;
            }
            other => unless_gone(other.map(drop))?,
        }
    }
    unless_gone(fs::remove_dir_all(path))
}

fn unless_gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Removes what nobody sees any more, and lets nobody wait for that. What cannot be removed goes at the next start.
pub(super) fn remove_behind(path: PathBuf) {
    let remove = move || {
        if let Err(error) = remove(&path) {
            warn!("cannot remove {}: {error}", path.display());
        }
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(remove)),
        Err(_) => remove(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_who_remove_the_same_both_succeed() -> io::Result<()> {
        for _ in 0..50 {
            let dir = tempfile::tempdir()?;
            let path = dir.path().join("new-gone");
            for number in 0..40 {
                let inner = path.join(format!("{number}/deep"));
                fs::create_dir_all(&inner)?;
                fs::write(inner.join("file"), "x")?;
                fs::set_permissions(&inner, Permissions::from_mode(0o555))?;
            }
            let removed = std::thread::scope(|scope| {
                let both = [scope.spawn(|| remove(&path)), scope.spawn(|| remove(&path))];
                both.map(|one| one.join().expect("it does not panic"))
            });
            assert!(removed.iter().all(Result::is_ok), "{removed:?}");
            assert!(!path.exists());
        }
        Ok(())
    }
}
