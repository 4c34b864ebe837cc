//! Clearing a path of the runner's own.

use std::{fs, io, path::Path};

use tracing::warn;

use super::{Stop, remove};

/// Removes a directory of the runner so that the runner can create it again. A directory that cannot be removed is renamed.
///
/// # Errors
/// If the directory can be neither removed nor renamed.
pub(crate) fn clear(path: &Path) -> io::Result<()> {
    match remove(path, &Stop::default()) {
        Ok(()) => Ok(()),
        Err(error) => {
            let aside = path.with_extension(format!("left-{}", uuid::Uuid::now_v7().simple()));
            warn!("{error}; {} is moved to {}", path.display(), aside.display());
            fs::rename(path, aside)
        }
    }
}
