//! What a plan takes along besides the words of the command line: directories, modules, and what the user wishes.

use std::{
    fs::{self, File, Metadata},
    path::{Path, PathBuf},
};

use bus::spec::tree::Link;
use rustix::process::geteuid;

use super::{
    draft::Sending,
    gather::{Choice, Gathered, below, globs},
    input::{mode, parsed, sent_mode, unreadable},
    job_path::{Look, Place, look, place},
    planner::Planner,
};
use crate::{
    failure::usage,
    paths::{normalized, relative},
    run::args::files::FileArgs,
};

/// Refuses two files at one path: one would be lost.
fn same(path: &str, there: &Path, source: &Path) -> anyhow::Result<()> {
    let is_same =
        there == source || fs::canonicalize(there).is_ok_and(|there| fs::canonicalize(source).is_ok_and(|source| there == source));
    if is_same {
        return Ok(());
    }
    let shown = path.escape_debug();
    Err(usage(format!(
        "{} and {} are both to stand at `{shown}`; give one of them another path, as with --input {}=other/{shown}",
        there.display(),
        source.display(),
        source.display()
    )))
}

impl Planner<'_> {
    /// Has a file sent along to a path, unless something goes there already.
    pub(crate) fn add(&mut self, path: &str, source: PathBuf, meta: &Metadata) -> anyhow::Result<()> {
        if let Some(there) = self.sent.get(path) {
            // What the user gave another path is meant to stand there instead.
            let is_replaced = !self.aliasing && self.aliases.values().any(|alias| Path::new(path).starts_with(alias));
            return if is_replaced { Ok(()) } else { same(path, there, &source) };
        }
        self.sent.insert(path.to_owned(), source.clone());
        self.taken.inside(path);
        self.draft.files.push(Sending {
            path: path.to_owned(),
            source,
            mode: sent_mode(mode(meta), geteuid().is_root()),
            size: meta.len(),
        });
        Ok(())
    }

    /// Has what was found in a directory sent along, below a path there.
    pub(crate) fn add_all(&mut self, below: &str, found: Gathered) -> anyhow::Result<()> {
        let joined = |path: String| if below.is_empty() { path } else { format!("{below}/{path}") };
        for (path, source) in found.files {
            let meta = fs::metadata(&source).map_err(|error| unreadable(&source, &error))?;
            File::open(&source).map_err(|error| unreadable(&source, &error))?;
            self.add(&joined(path), source, &meta)?;
        }
        for (path, target) in found.links {
            let path = joined(path);
            if !self.sent.contains_key(&path) {
                self.sent.insert(path.clone(), self.cwd.join(&path));
                self.draft.links.push((path, target));
            }
        }
        let empty = found.dirs.into_iter().map(joined).collect::<Vec<_>>();
        for dir in empty {
            if !self.sent.contains_key(&dir) {
                self.sent.insert(dir.clone(), PathBuf::from(&dir));
                self.draft.dirs.push(dir);
            }
        }
        Ok(())
    }

    /// Has a link to a file that stays inside sent along as a link, with what it leads to. Says whether that is done.
    pub(crate) fn send_link(&mut self, path: &str, word: &str) -> anyhow::Result<bool> {
        let at = self.cwd.join(word);
        let Some(target) = fs::read_link(&at).ok().and_then(|target| target.to_str().map(ToOwned::to_owned)) else {
            return Ok(false);
        };
        // Under another name, or from elsewhere, it would lead to something else.
        if !matches!(place(self.cwd, &self.ground.top, word), Ok(Place::Inside { path: own, .. }) if own == path && !own.is_empty()) {
            return Ok(false);
        }
        if path.starts_with("..") {
            return Ok(false);
        }
        let link = Link {
            path: parsed(path)?,
            target,
        };
        let leads_to = link.leads_to().filter(|to| {
            let here = fs::canonicalize(self.cwd.join(to));
            !to.is_empty() && here.is_ok_and(|here| fs::canonicalize(&at).is_ok_and(|there| here == there))
        });
        let Some(to) = leads_to else { return Ok(false) };
        let Look::File(meta) = look(self.cwd, &to) else { return Ok(false) };
        self.send(&to, &meta)?;
        if !self.sent.contains_key(path) {
            self.sent.insert(path.to_owned(), at);
            self.draft.links.push((path.to_owned(), link.target));
        }
        Ok(true)
    }

    /// What a job is to call something that is not here, in a directory that is: it may be about to make it. Nothing for what is no such
    /// path, or leads elsewhere.
    pub(crate) fn place_of_new(&mut self, name: &str) -> Option<String> {
        if !name.contains('/') {
            return None;
        }
        let path = Path::new(name);
        let (parent, file) = (path.parent()?, path.file_name()?.to_str()?);
        if !self.cwd.join(parent).is_dir() {
            return None;
        }
        let Ok(Place::Inside { path: parent, plain }) = place(self.cwd, &self.ground.top, parent.to_str()?) else {
            return None;
        };
        let slash = if name.ends_with('/') { "/" } else { "" };
        let called = if parent.is_empty() {
            format!("{file}{slash}")
        } else {
            self.leads_out(&parent);
            format!("{parent}/{file}{slash}")
        };
        if parent.starts_with("..") {
            self.above.push(called.clone());
        }
        if !parent.is_empty() {
            self.parents.insert(parent);
        }
        Some(if plain { name.to_owned() } else { called })
    }

    /// Makes room for what the job may make: directories of here in which nothing goes along.
    pub(crate) fn room(&mut self) -> anyhow::Result<()> {
        for dir in std::mem::take(&mut self.parents) {
            if self.sent.contains_key(&dir) {
                continue;
            }
            let below = format!("{dir}/");
            if !self.sent.keys().any(|path| *path == dir || path.starts_with(&below)) {
                self.draft.dirs.push(dir.clone());
                self.sent.insert(dir.clone(), PathBuf::from(dir));
            }
        }
        Ok(())
    }

    /// What the user wants to stand elsewhere.
    pub(crate) fn aliases(&mut self) -> anyhow::Result<()> {
        self.aliasing = true;
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
        self.aliasing = false;
        Ok(())
    }

    /// What `--workdir` and `--include` name.
    pub(crate) fn add_extras(&mut self) -> anyhow::Result<()> {
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
            self.include(text)?;
        }
        Ok(())
    }

    /// A file, a directory, or what a glob names. The user says so, wherever it is; it keeps its place from here.
    fn include(&mut self, text: &str) -> anyhow::Result<()> {
        // Of what is here its name is meant, whatever a glob would make of it.
        let own = self.cwd.to_str().and_then(|cwd| text.strip_prefix(cwd)?.strip_prefix('/'));
        let text = own.unwrap_or(text).trim_end_matches('/');
        let text = text.strip_prefix("./").unwrap_or(text);
        let leads_out = text.starts_with('/') || text.split('/').any(|part| part == "..");
        let looked = look(self.cwd, text);
        let path = if leads_out {
            self.path_above(text)
                .filter(|_| !matches!(looked, Look::Nothing))
                .ok_or_else(|| leads_out_of_all(text))?
        } else {
            text.to_owned()
        };
        if path.starts_with("..") {
            self.above.push(path.clone());
        }
        match looked {
            Look::File(meta) => {
                let source = self.cwd.join(text);
                File::open(&source).map_err(|error| unreadable(&source, &error))?;
                self.add(&path, source, &meta)
            }
            Look::Directory => {
                let choice = Choice {
                    exclude: &self.exclude,
                    as_git: false,
                    only: None,
                };
                let found = below(&self.cwd.join(text), choice)?;
                if found.is_empty() {
                    self.parents.insert(path.clone());
                }
                let path = if path == "." { "" } else { &path };
                self.add_all(path, found)
            }
            _ => self.include_matching(text),
        }
    }

    fn include_matching(&mut self, text: &str) -> anyhow::Result<()> {
        let only = globs("--include", &[text.to_owned()], false)?;
        let choice = Choice {
            exclude: &self.exclude,
            as_git: false,
            only: Some(&only),
        };
        let found = below(self.cwd, choice)?;
        if found.files.is_empty() && found.links.is_empty() {
            return Err(usage(format!(
                "--include `{text}` matches no file here; it is a file, a directory or a glob from the current directory, such as 'conf/**/*.yaml'"
            )));
        }
        self.add_all("", found)
    }

    /// The path from here of something above the current directory, where the job's directory may stand for what holds both: neither the
    /// user's home nor the root of all.
    fn path_above(&self, text: &str) -> Option<String> {
        let real = normalized(&self.ground.cwd.join(text))?;
        let path = relative(&self.ground.cwd, &real)?;
        let climbs = path.split('/').take_while(|part| *part == "..").count();
        let root = self.ground.cwd.ancestors().nth(climbs)?;
        let home = std::env::home_dir().and_then(|home| home.canonicalize().ok());
        let is_too_high = root.parent().is_none() || home.is_some_and(|home| home.starts_with(root));
        (!is_too_high && !path.is_empty()).then_some(path)
    }
}

fn leads_out_of_all(text: &str) -> anyhow::Error {
    usage(format!(
        "--include `{text}` is not there, or leads out of what a job's directory can stand for (the home directory and `/` are never sent); \
         send it to another path with --input {text}=NAME, or run from a directory above it"
    ))
}
