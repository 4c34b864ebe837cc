//! Extra inputs of a plan: `--include`, `--workdir`, `--input`, links and empty directories.

use std::{
    fs::{self, File, Metadata},
    path::{Path, PathBuf},
};

use bus::spec::tree::Link;
use rustix::process::geteuid;

use super::{
    draft::DraftFile,
    gather::{Choice, Gathered, below, globs},
    input::{mode, parsed, sent_mode, unreadable},
    job_path::{JobPath, PathKind, job_path, path_kind},
    planner::Planner,
};
use crate::{
    failure::usage,
    paths::{normalized, relative},
    run::args::files::FileArgs,
};

/// Rejects two different files with the same path in the job's directory.
fn same(path: &str, there: &Path, source: &Path) -> anyhow::Result<()> {
    let is_same =
        there == source || fs::canonicalize(there).is_ok_and(|there| fs::canonicalize(source).is_ok_and(|source| there == source));
    if is_same {
        return Ok(());
    }
    let shown = path.escape_debug();
    Err(usage(format!(
        "{} and {} have the same path `{shown}` in the job's directory; give one of them another path, for instance with --input {}=other/{shown}",
        there.display(),
        source.display(),
        source.display()
    )))
}

impl Planner<'_> {
    /// Adds a file at a path, unless the path is already in use.
    pub(crate) fn add(&mut self, path: &str, source: PathBuf, meta: &Metadata) -> anyhow::Result<()> {
        if let Some(there) = self.sent.get(path) {
            // What the user gave another path is meant to stand there instead.
            let is_replaced = !self.aliasing && self.aliases.values().any(|alias| Path::new(path).starts_with(alias));
            return if is_replaced { Ok(()) } else { same(path, there, &source) };
        }
        self.sent.insert(path.to_owned(), source.clone());
        self.used_paths.inside(path);
        self.draft.files.push(DraftFile {
            path: path.to_owned(),
            source,
            mode: sent_mode(mode(meta), geteuid().is_root()),
            size: meta.len(),
        });
        Ok(())
    }

    /// Adds the content of a directory, below a path in the job's directory.
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
        if !matches!(job_path(self.cwd, &self.scope.top, word), Ok(JobPath::Inside { path: own, .. }) if own == path && !own.is_empty()) {
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
        let PathKind::File(meta) = path_kind(self.cwd, &to) else {
            return Ok(false);
        };
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
        let Ok(JobPath::Inside { path: parent, plain }) = job_path(self.cwd, &self.scope.top, parent.to_str()?) else {
            return None;
        };
        let slash = if name.ends_with('/') { "/" } else { "" };
        let called = if parent.is_empty() {
            format!("{file}{slash}")
        } else {
            self.note_link_target(&parent);
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
        for pair in self.options.files.map_or(&[][..], |files: &FileArgs| &files.input) {
            let (source, alias) = (&pair.key, pair.value.trim_start_matches("./").trim_end_matches('/'));
            parsed(alias)?;
            self.used_paths.inside(alias);
            self.aliases.insert(source.clone(), alias.to_owned());
            match path_kind(self.cwd, source) {
                PathKind::File(meta) => drop(self.send(source, &meta)?),
                PathKind::Directory => drop(self.add_argument_dir(source)?),
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
        let Some(files) = self.options.files else { return Ok(()) };
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
        let note_link_target = text.starts_with('/') || text.split('/').any(|part| part == "..");
        let looked = path_kind(self.cwd, text);
        let path = if note_link_target {
            self.path_above(text)
                .filter(|_| !matches!(looked, PathKind::Nothing))
                .ok_or_else(|| leads_out_of_all(text))?
        } else {
            text.to_owned()
        };
        if path.starts_with("..") {
            self.above.push(path.clone());
        }
        match looked {
            PathKind::File(meta) => {
                let source = self.cwd.join(text);
                File::open(&source).map_err(|error| unreadable(&source, &error))?;
                self.add(&path, source, &meta)
            }
            PathKind::Directory => {
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
        let real = normalized(&self.scope.cwd.join(text))?;
        let path = relative(&self.scope.cwd, &real)?;
        let climbs = path.split('/').take_while(|part| *part == "..").count();
        let root = self.scope.cwd.ancestors().nth(climbs)?;
        let home = std::env::home_dir().and_then(|home| home.canonicalize().ok());
        let is_too_high = root.parent().is_none() || home.is_some_and(|home| home.starts_with(root));
        (!is_too_high && !path.is_empty()).then_some(path)
    }
}

fn leads_out_of_all(text: &str) -> anyhow::Error {
    usage(format!(
        "--include `{text}` does not exist, or is outside of what a job's directory can hold (the home directory and `/` are never sent); send it to another path with --input {text}=NAME, or run from a directory above it"
    ))
}
