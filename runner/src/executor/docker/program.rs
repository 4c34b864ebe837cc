//! Why a container's program could not be executed, in the words that a plain process's failure has.

use std::path::PathBuf;

use rustix::io::Errno;

use super::image::Image;
use crate::executor::{Error, Launch, missing};

/// What a container was to execute.
#[derive(Debug, Clone, Default)]
pub(super) struct Program {
    /// The command's first word, or the interpreter's.
    name: String,
    /// The runtime that the interpreter is of.
    runtime: Option<String>,
    /// The image, as it is called in a sentence.
    place: String,
    work_dir: PathBuf,
}

impl Program {
    pub(super) fn of(launch: &Launch, image: &Image, interpreter: Option<&String>) -> Self {
        Self {
            name: interpreter.or(launch.command.first()).cloned().unwrap_or_default(),
            runtime: launch.runtime.as_ref().map(ToString::to_string),
            place: format!("image `{}`", image.name),
            work_dir: launch.directory(),
        }
    }

    /// What the daemon's or the init process's words on this program mean.
    pub(super) fn refused(&self, said: &str) -> Error {
        self.error(errno(said))
    }

    fn error(&self, errno: Errno) -> Error {
        let Self { name, place, work_dir, .. } = self;
        if let Some(runtime) = &self.runtime
            && errno == Errno::NOENT
        {
            return missing::no_interpreter(name, runtime, place);
        }
        if !name.contains('/') {
            return match errno {
                Errno::NOENT => missing::not_on_path(name, place),
                errno => missing::refused(name, &work_dir.join(name), place, errno),
            };
        }
        let file = work_dir.join(name);
        // What is there and does not exist all the same names an interpreter that does not.
        if errno == Errno::NOENT && !name.starts_with('/') && file.exists() {
            return missing::not_started(&file, work_dir, place, errno);
        }
        match errno {
            Errno::TOOBIG => missing::not_started(&file, work_dir, place, errno),
            errno => missing::refused(name, &file, place, errno),
        }
    }
}

/// The error number that a sentence ends with, as far as programs meet it.
fn errno(said: &str) -> Errno {
    let said = said.to_ascii_lowercase();
    let known = [
        ("no such file or directory", Errno::NOENT),
        ("executable file not found", Errno::NOENT),
        ("permission denied", Errno::ACCESS),
        ("not a directory", Errno::NOTDIR),
        ("argument list too long", Errno::TOOBIG),
        ("too many levels of symbolic links", Errno::LOOP),
    ];
    known
        .into_iter()
        .find_map(|(words, errno)| said.contains(words).then_some(errno))
        .unwrap_or(Errno::NOEXEC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_init_process_and_of_the_daemon_mean_the_same() {
        let program = Program {
            name: "nope".to_owned(),
            place: "image `x`".to_owned(),
            ..Program::default()
        };
        for said in [
            "[FATAL tini (7)] exec nope failed: No such file or directory\n",
            "OCI runtime create failed: exec: \"nope\": executable file not found in $PATH: unknown",
        ] {
            let error = program.refused(said);
            assert!(
                matches!(&error, Error::NotFound(said) if said.contains("`nope` was not found on the PATH of image `x`")),
                "{error}"
            );
        }
        let denied = Program {
            name: "/etc/passwd".to_owned(),
            ..program
        }
        .refused("[FATAL tini (7)] exec /etc/passwd failed: Permission denied");
        assert!(matches!(denied, Error::Unrunnable(_)), "{denied}");
    }
}
