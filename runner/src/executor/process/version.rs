//! Which version an interpreter is: by its own word, asked once.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use bus::spec::{pep440::Specifiers, runtime::RuntimeRef};
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::{
    inventory::{bare, siblings},
    program::Programs,
};
use crate::executor::{Error, Fitting};

/// The versions of interpreters that were asked. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Versions(Arc<Mutex<HashMap<PathBuf, Option<String>>>>);

impl Versions {
    /// The interpreter of a runtime of the version that is asked for: one that has it in its name (`python3.12`), or the runtime's own
    /// `program` where it says that it is.
    ///
    /// # Errors
    /// [`Error::Unrunnable`] if there is none, with what there is.
    pub(super) async fn find(&self, programs: &Programs, program: &str, runtime: &RuntimeRef) -> Result<PathBuf, Error> {
        let bare = bare(program);
        let version = runtime.version.as_deref().unwrap_or_default();
        let (mut there, mut asked) = (Vec::new(), Vec::new());
        for name in [format!("{bare}{version}"), program.to_owned()] {
            let Ok(file) = programs.resolve(&name, Path::new("/")) else {
                continue;
            };
            if asked.contains(&file) {
                continue;
            }
            let has = self.of(programs, &file).await;
            if has.as_deref().is_some_and(|has| runtime.is_met_by(has)) {
                return Ok(file);
            }
            there.push(format!(
                "`{name}` is {}",
                has.as_deref().unwrap_or("of a version that it does not tell")
            ));
            asked.push(file);
        }
        let there = if there.is_empty() {
            format!("it has no `{program}` at all")
        } else {
            there.join(", ")
        };
        Err(Error::Unrunnable(format!(
            "this worker has no runtime `{runtime}`: {there}; install `{bare}{version}` on the worker, run the job with Docker (`--executor docker`), or ask for \
             another version"
        )))
    }

    /// The versions of a program that are there, its own first. One that does not tell its version is `?`.
    pub(super) async fn all(&self, programs: &Programs, program: &str) -> Vec<String> {
        let others = if program.contains('/') {
            Vec::new()
        } else {
            siblings(programs.names(), program).into_iter().collect()
        };
        let mut versions = Vec::new();
        for name in std::iter::once(program.to_owned()).chain(others) {
            let Ok(file) = programs.resolve(&name, Path::new("/")) else {
                continue;
            };
            let version = self.of(programs, &file).await.unwrap_or_else(|| "?".to_owned());
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        // A stand-in for what is not there says nothing.
        if versions.len() > 1 {
            versions.retain(|version| version != "?");
        }
        if let Some(others) = versions.get_mut(1..) {
            others.sort_by_key(|version| std::cmp::Reverse(parts(version)));
        }
        versions
    }

    /// The interpreter of a runtime whose version fits: the runtime's own, else the newest of those that are named by their version.
    ///
    /// # Errors
    /// [`Error::Unrunnable`] if none fits, with those that are there.
    pub(super) async fn fitting(
        &self,
        programs: &Programs,
        program: &str,
        runtime: &RuntimeRef,
        python: &Specifiers,
    ) -> Result<Fitting, Error> {
        let mut names = vec![program.to_owned()];
        if runtime.version.is_some() {
            names = vec![self.find(programs, program, runtime).await?.to_string_lossy().into_owned()];
        } else if !program.contains('/') {
            let mut others: Vec<String> = siblings(programs.names(), program).into_iter().collect();
            others.sort_by_key(|name| std::cmp::Reverse(parts(&name[bare(program).len()..])));
            names.extend(others);
        }
        let mut there = Vec::new();
        for (place, name) in names.iter().enumerate() {
            let Ok(file) = programs.resolve(name, Path::new("/")) else {
                continue;
            };
            let Some(version) = self.of(programs, &file).await else { continue };
            let suffix = name.strip_prefix(bare(program)).unwrap_or_default();
            match python.is_met_by(&version) {
                true if place == 0 => return Ok(Fitting::Usual),
                true if !suffix.is_empty() => {
                    return Ok(Fitting::Other(RuntimeRef {
                        version: Some(suffix.to_owned()),
                        ..runtime.clone()
                    }));
                }
                _ if there.contains(&version) => {}
                _ => there.push(version),
            }
        }
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        Err(Error::Unrunnable(format!(
            "the job needs Python {python} (requires-python), and for runtime `{runtime}` this worker has {there}: install one that fits on the worker, choose \
             another with --runtime python:VERSION, or run the job with Docker (`--executor docker`)"
        )))
    }

    /// What a program says of itself; nothing where it cannot, as a version manager's stand-in for a version that it does not have.
    async fn of(&self, programs: &Programs, file: &Path) -> Option<String> {
        if let Some(known) = self.0.lock().get(file) {
            return known.clone();
        }
        let mut asked = Command::new(file);
        asked.arg("--version").env_clear().env("PATH", programs.path()).stdin(Stdio::null());
        let says = spawn_blocking(move || asked.output()).await;
        let says = says.ok().and_then(Result::ok)?;
        let version = says
            .status
            .success()
            .then(|| number(&String::from_utf8_lossy(&says.stdout)).or_else(|| number(&String::from_utf8_lossy(&says.stderr))))
            .flatten();
        self.0.lock().insert(file.to_owned(), version.clone());
        version
    }
}

/// A version as numbers, to be sorted by.
fn parts(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// The first word that is a version: `Python 3.11.7`, `v20.20.2`, `GNU bash, version 5.2.15(1)-release`, `(v5.36.0)`.
fn number(says: &str) -> Option<String> {
    says.split_whitespace().find_map(|word| {
        let word = word.trim_start_matches(['(', 'v']);
        let end = word.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(word.len());
        let version = word[..end].trim_end_matches('.');
        (version.contains('.') && version.starts_with(|c: char| c.is_ascii_digit())).then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_understood() {
        for (says, expected) in [
            ("Python 3.11.7\n", "3.11.7"),
            ("v20.20.2\n", "20.20.2"),
            ("GNU bash, version 5.2.15(1)-release (x86_64-pc-linux-gnu)", "5.2.15"),
            ("\nThis is perl 5, version 36, subversion 0 (v5.36.0) built for", "5.36.0"),
            ("ruby 3.1.2p20 (2022-04-12 revision 4491bb740a)", "3.1.2"),
            ("Rscript (R) version 4.2.2 (2022-10-31)", "4.2.2"),
        ] {
            assert_eq!(number(says).as_deref(), Some(expected), "{says}");
        }
        assert_eq!(number("no version"), None);
    }
}
