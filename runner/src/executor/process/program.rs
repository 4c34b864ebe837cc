//! Which program a command is, and why it cannot be run.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::{
    fs::{Access, access},
    io::Errno,
};

use crate::executor::Error;

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
    /// [`Error::Unrunnable`] if there is none, or it cannot be executed.
    pub(super) fn resolve(&self, name: &str, directory: &Path) -> Result<PathBuf, Error> {
        if !name.contains('/') {
            return match self.find(name) {
                Some(file) => Ok(file.to_path_buf()),
                None => Err(not_on_path(name)),
            };
        }
        let file = directory.join(name);
        match access(&file, Access::EXEC_OK) {
            Ok(()) => Ok(file),
            Err(errno) => Err(refused(name, &file, errno)),
        }
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        && access(file, Access::EXEC_OK).is_ok()
}

fn not_on_path(name: &str) -> Error {
    Error::Unrunnable(format!(
        "`{name}` was not found on this worker's PATH: install it there, or, if it is a file that you submit, name it `./{name}`"
    ))
}

fn refused(name: &str, file: &Path, errno: Errno) -> Error {
    let sentence = match errno {
        Errno::NOENT | Errno::NOTDIR if name.starts_with('/') => {
            format!("`{name}` does not exist on this worker: install it there, or submit it with the job")
        }
        Errno::NOENT | Errno::NOTDIR => format!("`{name}` is not in the job's work directory: submit it with the job"),
        Errno::ACCESS | Errno::PERM if file.is_dir() => format!("`{name}` is a directory, not a program"),
        Errno::ACCESS | Errno::PERM => format!("`{name}` is not executable: `chmod +x {name}` before you submit it, or name its runtime"),
        errno => format!("`{name}` cannot be executed: {errno}"),
    };
    Error::Unrunnable(sentence)
}

/// Why a command that looked right could not be started after all.
pub(super) fn not_started(program: &Path, work_dir: &Path, errno: i32) -> Error {
    let name = program.strip_prefix(work_dir).unwrap_or(program).display();
    let sentence = match Errno::from_raw_os_error(errno) {
        Errno::NOENT if !work_dir.is_dir() => return Error::Broken(format!("the work directory {} is gone", work_dir.display())),
        Errno::NOENT | Errno::NOTDIR => match shebang(program) {
            Some(interpreter) => {
                format!("`{name}` wants to be run by `{interpreter}` (its first line says so), which this worker does not have")
            }
            None => format!("`{name}` cannot be started: its loader or a library is not on this worker"),
        },
        Errno::ACCESS | Errno::PERM => format!("`{name}` may not be executed on this worker"),
        Errno::NOEXEC => {
            format!("`{name}` is no program for this machine, and no script: its first line must start with `#!`, or name a runtime")
        }
        Errno::TOOBIG => "the command's arguments and environment are longer than the kernel takes: hand them over in a file".to_owned(),
        Errno::INVAL => "an argument or an environment variable contains a NUL character".to_owned(),
        errno => return Error::Broken(format!("the worker could not start a process: {errno}")),
    };
    Error::Unrunnable(sentence)
}

/// The interpreter that a script's first line names.
fn shebang(script: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut head = Vec::new();
    std::fs::File::open(script).ok()?.take(256).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = OsStr::from_bytes(line).to_string_lossy();
    Some(line.trim().to_owned())
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
    fn what_cannot_be_run_is_said_with_what_to_do() {
        let sentence = |name: &str| programs().resolve(name, Path::new("/etc")).unwrap_err().to_string();
        assert!(sentence("no-such-program").contains("PATH"));
        assert!(sentence("/no/such").contains("does not exist"));
        assert!(sentence("./no-such").contains("work directory"));
        assert!(sentence("./passwd").contains("chmod +x"));
    }
}
