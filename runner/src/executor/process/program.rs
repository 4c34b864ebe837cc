//! Which program a command is, and why it cannot be run.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::{
    fs::{Access, access},
    io::Errno,
};

use crate::executor::{
    Error,
    missing::{self, HERE},
};

/// Finds programs on a search path, each once.
pub(super) struct Programs {
    path: OsString,
    found: Mutex<HashMap<String, Arc<Path>>>,
}

impl Programs {
    /// Looks along `path`, directories separated by `:`.
    pub(super) fn on(path: OsString) -> Self {
        Self {
            path,
            found: Mutex::default(),
        }
    }

    /// Where it looks.
    pub(super) fn path(&self) -> &OsStr {
        &self.path
    }

    /// A program by its name, without a `/`.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Path>> {
        if let Some(found) = self.found.lock().get(name) {
            return Some(Arc::clone(found));
        }
        let found: Arc<Path> = std::env::split_paths(&self.path)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(name))
            .find(|file| is_executable(file))?
            .into();
        self.found.lock().insert(name.to_owned(), Arc::clone(&found));
        Some(found)
    }

    /// The names of all files on the search path.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        std::env::split_paths(&self.path)
            .filter(|directory| directory.is_absolute())
            .filter_map(|directory| std::fs::read_dir(directory).ok())
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
    }

    /// Forgets where a program was: it is not there any more.
    pub(super) fn forget(&self, file: &Path) {
        self.found.lock().retain(|_, found| **found != *file);
    }

    /// The program that `name` means in `directory`, as a shell there would take it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, [`Error::Unrunnable`] if it cannot be executed.
    pub(super) fn resolve(&self, name: &str, directory: &Path) -> Result<PathBuf, Error> {
        if !name.contains('/') {
            return match self.find(name) {
                Some(file) => Ok(file.to_path_buf()),
                None => Err(missing::not_on_path(name, HERE)),
            };
        }
        let file = directory.join(name);
        match access(&file, Access::EXEC_OK) {
            // Root may `execute` a directory.
            Ok(()) if file.is_dir() => Err(missing::refused(name, &file, HERE, Errno::ACCESS)),
            Ok(()) => Ok(file),
            Err(errno) => Err(missing::refused(name, &file, HERE, errno)),
        }
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        && access(file, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs() -> Programs {
        Programs::on("/nonexistent:/usr/bin:/bin".into())
    }

    #[test]
    fn a_name_is_looked_up_on_the_path() {
        let sh = programs().resolve("sh", Path::new("/")).unwrap();
        assert!(sh.ends_with("bin/sh"), "{sh:?}");
    }

    #[test]
    fn a_path_is_taken_from_the_work_directory() {
        assert_eq!(programs().resolve("./sh", Path::new("/bin")).unwrap(), Path::new("/bin/./sh"));
    }

    #[test]
    fn a_program_that_cannot_be_run_is_reported_with_advice() {
        let sentence = |name: &str| programs().resolve(name, Path::new("/etc")).unwrap_err().to_string();
        assert!(sentence("no-such-program").contains("PATH"));
        assert!(sentence("/no/such").contains("does not exist"));
        assert!(sentence("./no-such").contains("work directory"));
        assert!(sentence("./passwd").contains("chmod +x"));
    }
}
