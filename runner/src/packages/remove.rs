//! Taking away what nobody sees any more.

use std::{
    io,
    path::{Path, PathBuf},
};

use tracing::warn;

use crate::beneath::{self, Stop};

/// Removes whatever is there, read-only directories too. Another may be removing the same: what is gone is gone.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    beneath::remove(path, &Stop::default()).map_err(io::Error::other)
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
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;

    #[test]
    fn two_concurrent_removals_both_succeed() -> io::Result<()> {
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
