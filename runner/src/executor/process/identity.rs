//! What packages are installed for on this machine: by the interpreter's own word, asked once in a while.

use std::{
    collections::HashMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bus::spec::dependencies::Kind;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use crate::executor::{Error, Identity};

/// How long an answer is believed: an interpreter that is upgraded in its place is another one.
const BELIEVED: Duration = Duration::from_secs(60);

/// Version, binary interface, platform and C library, which decide what a wheel may hold.
const PYTHON: &str = "import json, platform, sys, sysconfig\n\
    config = sysconfig.get_config_var\n\
    print(json.dumps({'text': ' '.join(map(str, ('python', sys.implementation.name, sys.version.split()[0], config('SOABI'), \
    sysconfig.get_platform(), *platform.libc_ver()))), 'executable': getattr(sys, '_base_executable', None) or sys.executable}))";
const NODE: &str = "if (process.report) process.report.excludeNetwork = true;\n\
    const header = process.report ? process.report.getReport().header : {};\n\
    console.log(JSON.stringify({text: ['node', process.version, process.versions.modules, process.platform, process.arch, \
    header.glibcVersionRuntime || 'other'].join(' '), executable: process.execPath}))";

#[derive(Debug, Deserialize)]
struct Says {
    text: String,
    executable: PathBuf,
}

/// The identity that each interpreter reported, and when.
type KnownIdentities = HashMap<(PathBuf, Kind), (Identity, Instant)>;

/// The identities of the interpreters that were asked.
#[derive(Debug, Default)]
pub(super) struct Identities(Mutex<KnownIdentities>);

impl Identities {
    /// What an interpreter, with these arguments before the script, says that it is.
    ///
    /// # Errors
    /// [`Error::Unrunnable`] if it is not one of that kind.
    pub(super) async fn of(&self, file: &Path, arguments: &[String], path: &OsStr, kind: Kind) -> Result<Identity, Error> {
        let name = (file.to_owned(), kind);
        if let Some((identity, at)) = self.0.lock().get(&name)
            && at.elapsed() < BELIEVED
        {
            return Ok(identity.clone());
        }
        let mut command = Command::new(file);
        let question = match kind {
            Kind::Pip => ["-c", PYTHON],
            Kind::Npm => ["-e", NODE],
        };
        command
            .args(arguments)
            .args(question)
            .env_clear()
            .env("PATH", path)
            .stdin(Stdio::null());
        let answer = spawn_blocking(move || command.output()).await;
        let answer = answer.map_err(|error| Error::Broken(error.to_string()))?;
        let says = answer.ok().and_then(|answer| serde_json::from_slice::<Says>(&answer.stdout).ok());
        let Some(Says { text, executable }) = says else {
            return Err(Error::Unrunnable(format!(
                "`{}` does not say which {} it is, and no packages can be installed for it: choose a runtime that is one, or leave them out \
                 (--no-requirements)",
                file.display(),
                match kind {
                    Kind::Pip => "Python",
                    Kind::Npm => "Node",
                }
            )));
        };
        let identity = Identity {
            text,
            executable: Some(executable),
        };
        self.0.lock().insert(name, (identity.clone(), Instant::now()));
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interpreter_tells_what_it_is_and_anything_else_is_refused() {
        let (identities, path) = (Identities::default(), std::env::var_os("PATH").unwrap_or_default());
        let python = std::env::split_paths(&path)
            .map(|dir| dir.join("python3"))
            .find(|file| file.is_file());
        let identity = identities
            .of(&python.unwrap(), &["-X".to_owned(), "utf8".to_owned()], &path, Kind::Pip)
            .await
            .unwrap();
        assert!(identity.text.starts_with("python cpython 3."), "{}", identity.text);
        assert!(identity.executable.unwrap().is_absolute());
        let error = identities.of(Path::new("/bin/sh"), &[], &path, Kind::Pip).await.unwrap_err();
        assert!(error.to_string().contains("--no-requirements"), "{error}");
    }
}
