//! What a plan takes along besides the words of the command line: directories, modules, and what the user wishes.

use std::{
    fs::{self, File, Metadata},
    path::PathBuf,
};

use bus::tree::Link;

use super::{
    files::FileArgs,
    gather::{Choice, Gathered, below, globs},
    imports,
    place::{Look, look},
    plan::{Input, Planner, is_executable, parsed, unreadable},
};
use crate::failure::usage;

impl Planner<'_> {
    /// Has a file sent along to a path, unless something goes there already.
    pub(super) fn add(&mut self, path: &str, source: PathBuf, meta: &Metadata) -> anyhow::Result<()> {
        if !self.sent.insert(path.to_owned()) {
            return Ok(());
        }
        self.taken.inside(path);
        self.inputs.push(Input {
            path: parsed(path)?,
            source,
            executable: is_executable(meta),
            size: meta.len(),
        });
        Ok(())
    }

    /// Has what was found in a directory sent along, below a path there.
    pub(super) fn add_all(&mut self, below: &str, found: Gathered) -> anyhow::Result<()> {
        let joined = |path: String| if below.is_empty() { path } else { format!("{below}/{path}") };
        for (path, source) in found.files {
            let meta = fs::metadata(&source).map_err(|error| unreadable(&source, &error))?;
            File::open(&source).map_err(|error| unreadable(&source, &error))?;
            self.add(&joined(path), source, &meta)?;
        }
        for (path, target) in found.links {
            let path = joined(path);
            if self.sent.insert(path.clone()) {
                self.links.push(Link {
                    path: parsed(&path)?,
                    target,
                });
            }
        }
        let empty = found.dirs.into_iter().map(joined).collect::<Vec<_>>();
        for dir in empty {
            if self.sent.insert(dir.clone()) {
                self.dirs.push(parsed(&dir)?);
            }
        }
        Ok(())
    }

    /// What the user wants to stand elsewhere.
    pub(super) fn aliases(&mut self) -> anyhow::Result<()> {
        for pair in self.wishes.files.map_or(&[][..], |files: &FileArgs| &files.input) {
            let (source, alias) = (&pair.key, pair.value.trim_start_matches("./").trim_end_matches('/'));
            parsed(alias)?;
            self.taken.inside(alias);
            self.aliases.insert(source.clone(), alias.to_owned());
            match look(self.cwd, source) {
                Look::File(meta) => drop(self.send(source, &meta)?),
                Look::Directory => drop(self.send_dir(source)?),
                _ => {
                    return Err(usage(format!(
                        "--input {source}={alias}: there is no file or directory `{source}` that can be read; check its path"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The modules that a Python script imports from beside it.
    pub(super) fn imports(&mut self, script: &str, runtime: Option<&str>, called: &str) -> anyhow::Result<()> {
        let wanted = self.wishes.files.is_some_and(|files| !files.no_imports);
        let is_python = runtime.is_some_and(|runtime| runtime == "python" || runtime.starts_with("python:"));
        if !wanted || !is_python {
            return Ok(());
        }
        let called = called.trim_start_matches("./");
        let dir = called.rsplit_once('/').map_or("", |(dir, _)| dir);
        let files = imports::beside(&self.cwd.join(script), &self.exclude)?;
        let found = Gathered {
            files,
            ..Gathered::default()
        };
        self.add_all(dir, found)
    }

    /// What `--workdir` and `--include` name.
    pub(super) fn besides(&mut self) -> anyhow::Result<()> {
        let Some(files) = self.wishes.files else { return Ok(()) };
        if files.workdir {
            let choice = Choice {
                exclude: &self.exclude,
                as_git: true,
                only: None,
            };
            let found = below(self.cwd, choice)?;
            self.add_all("", found)?;
        }
        for text in &files.include {
            let only = globs("--include", std::slice::from_ref(text), false)?;
            let choice = Choice {
                exclude: &self.exclude,
                as_git: false,
                only: Some(&only),
            };
            let found = below(self.cwd, choice)?;
            if found.files.is_empty() && found.links.is_empty() {
                return Err(usage(format!(
                    "--include `{text}` matches no file here; it is a glob from the current directory, such as 'conf/**/*.yaml'"
                )));
            }
            self.add_all("", found)?;
        }
        Ok(())
    }
}
