//! Why a program cannot be run: the same sentence and the same exit code (127 or 126, as a shell's) by every executor.

use std::{ffi::OsStr, io::Read as _, os::unix::ffi::OsStrExt as _, path::Path};

use rustix::io::Errno;

use super::Error;

/// How the place is called that a plain process runs in.
pub(super) const HERE: &str = "this worker";

/// A program that is named without a `/`, and is not there.
pub(super) fn not_on_path(name: &str, place: &str) -> Error {
    Error::NotFound(format!(
        "`{name}` was not found on the PATH of {place}: install it there, or, if it is a file that you submit, name it `./{name}`"
    ))
}

/// A runtime's interpreter that is not there.
pub(super) fn no_interpreter(program: &str, runtime: &str, place: &str) -> Error {
    let otherwise = if place == HERE {
        "run the job with Docker (`--executor docker`)"
    } else {
        "name another image (`--image`)"
    };
    Error::NotFound(format!(
        "{place} has no `{program}`, which runtime `{runtime}` needs: install it there, {otherwise}, or choose another runtime"
    ))
}

/// A program that is named by its path, which is this file, and cannot be executed.
pub(super) fn refused(name: &str, file: &Path, place: &str, errno: Errno) -> Error {
    match errno {
        Errno::NOENT if name.starts_with('/') => Error::NotFound(format!(
            "`{name}` does not exist on {place}: install it there, or submit it with the job"
        )),
        Errno::NOENT => Error::NotFound(format!("`{name}` is not in the job's work directory: submit it with the job")),
        Errno::NOTDIR => Error::NotFound(format!("`{name}` leads through a file that is not a directory")),
        Errno::ACCESS | Errno::PERM if file.is_dir() => Error::Unrunnable(format!("`{name}` is a directory, not a program")),
        Errno::ACCESS | Errno::PERM => Error::Unrunnable(format!(
            "`{name}` is not executable: `chmod +x {name}` before you submit it, or name its runtime"
        )),
        errno => Error::Unrunnable(format!("`{name}` cannot be executed: {errno}")),
    }
}

/// Why a command that looked right could not be started after all. `program` is where it is on this machine.
pub(super) fn not_started(program: &Path, work_dir: &Path, place: &str, errno: Errno) -> Error {
    let name = program.strip_prefix(work_dir).unwrap_or(program).display();
    match errno {
        Errno::NOENT if !work_dir.is_dir() => Error::Broken(format!("the work directory {} is gone", work_dir.display())),
        Errno::NOENT | Errno::NOTDIR => Error::NotFound(match shebang(program) {
            Some(interpreter) => {
                format!(
                    "`{name}` is run by `{interpreter}`, as its first line says, and {place} does not have that: install it there, or choose another runtime"
                )
            }
            None => format!("`{name}` cannot be started: its loader or a library is not on {place}"),
        }),
        Errno::ACCESS | Errno::PERM => Error::Unrunnable(format!("`{name}` may not be executed on {place}")),
        Errno::NOEXEC => Error::Unrunnable(format!("`{name}` is neither a program for this machine nor a script")),
        Errno::TOOBIG => Error::Unrunnable(
            "the command's arguments and environment are longer than the kernel takes: hand them over in a file".to_owned(),
        ),
        Errno::INVAL => Error::Unrunnable("an argument or an environment variable contains a NUL character".to_owned()),
        errno => Error::Broken(format!("the worker could not start a process: {errno}")),
    }
}

/// The interpreter that a script's first line names.
fn shebang(script: &Path) -> Option<String> {
    let head = head(script)?;
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    Some(OsStr::from_bytes(line).to_string_lossy().trim().to_owned())
}

/// Whether a file is a script without a first line that says by what it is run. Shells run such a one by `sh`.
pub(super) fn is_plain_script(file: &Path) -> bool {
    let Some(head) = head(file) else { return false };
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    !head.starts_with(b"#!") && !head.starts_with(b"\x7fELF") && !line.contains(&0)
}

fn head(file: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    std::fs::File::open(file).ok()?.take(256).read_to_end(&mut head).ok()?;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_and_what_cannot_be_executed_are_told_apart() {
        let refused = |name: &str, errno| refused(name, Path::new("/etc"), "image `x`", errno);
        assert!(matches!(not_on_path("x", HERE), Error::NotFound(_)));
        assert!(matches!(refused("/no/such", Errno::NOENT), Error::NotFound(_)));
        assert!(matches!(refused("./x", Errno::NOENT), Error::NotFound(_)));
        assert!(matches!(refused("./x/y", Errno::NOTDIR), Error::NotFound(_)));
        assert!(matches!(refused("./x", Errno::ACCESS), Error::Unrunnable(said) if said.contains("directory")));
    }

    #[test]
    fn a_script_without_a_first_line_is_told_from_programs_and_other_scripts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        for (content, plain) in [
            (&b"echo hi\n"[..], true),
            (b"", true),
            (b"#!/bin/sh\necho hi\n", false),
            (b"\x7fELF\x02", false),
            (b"\x00\x01\x02", false),
        ] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(is_plain_script(&file), plain, "{content:?}");
        }
        assert!(!is_plain_script(&dir.path().join("absent")));
    }
}
