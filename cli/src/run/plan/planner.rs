//! A plan in the making: where the script and its arguments stand in the job's directory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File, Metadata},
    io::Read as _,
    path::{Path, PathBuf},
};

use globset::GlobSet;

use super::{
    draft::Draft,
    gather::{Choice, below, globs},
    input::{cause, mode, named},
    job_path::{Look, Place, Taken, look, place},
    original_path::Home,
    runtime::{Told, tell},
    shebang::Own,
    wishes::Wishes,
};
use crate::{failure::usage, run::scan::Ground};

/// How much of a script is read to learn what runs it.
const HEAD: u64 = 256;

/// A plan in the making.
pub(crate) struct Planner<'a> {
    pub(crate) cwd: &'a Path,
    pub(crate) ground: Ground,
    pub(crate) wishes: &'a Wishes<'a>,
    pub(crate) exclude: GlobSet,
    pub(crate) taken: Taken,
    /// The paths that something goes to already, and what that is.
    pub(crate) sent: HashMap<String, PathBuf>,
    /// What is to be called otherwise there, by what it is called here.
    pub(crate) aliases: HashMap<String, String>,
    /// Whether that is being sent now.
    pub(crate) aliasing: bool,
    pub(crate) draft: Draft,
    /// Directories of here that arguments name something in that is not here: the job may make it there.
    pub(crate) parents: BTreeSet<String>,
    pub(crate) homes: Vec<Home>,
    /// What the command line names above the current directory, from there.
    pub(crate) above: Vec<String>,
    /// Variables that the script's first line sets.
    pub(crate) env: BTreeMap<String, String>,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(cwd: &'a Path, script: &str, runs: &[Vec<&str>], wishes: &'a Wishes<'a>) -> anyhow::Result<Self> {
        // Of a program, the script may be among its words: `python3 s.py`.
        let words = runs.first().map_or(&[][..], Vec::as_slice);
        let script = if wishes.program {
            words
                .iter()
                .copied()
                .find(|word| crate::run::scan::is_source(Path::new(word)) && cwd.join(word).is_file())
        } else {
            Some(script)
        };
        let ground = Ground::of(cwd, script.map(Path::new), std::env::home_dir().as_deref()).map_err(|error| {
            usage(format!(
                "cannot look at the current directory: {error}; change to one that can be read"
            ))
        })?;
        Ok(Self {
            cwd,
            ground,
            wishes,
            exclude: globs("--exclude", wishes.files.map_or(&[][..], |files| &files.exclude), true)?,
            taken: Taken::default(),
            sent: HashMap::new(),
            aliases: HashMap::new(),
            aliasing: false,
            draft: Draft::default(),
            parents: BTreeSet::new(),
            homes: Vec::new(),
            above: Vec::new(),
            env: BTreeMap::new(),
        })
    }

    /// Has what these words name sent along, and says what the job is to call each.
    pub(crate) fn arguments(&mut self, words: &[&str]) -> anyhow::Result<Vec<String>> {
        words.iter().map(|word| self.argument(word)).collect()
    }

    /// What is each run's own, of several whose commands begin so.
    ///
    /// Directories without files in them are made for all: a list of its own for each member would cost more.
    pub(crate) fn members(
        &mut self,
        command: &[String],
        runs: &[Vec<&str>],
        shared: &mut Draft,
    ) -> anyhow::Result<Vec<(Vec<String>, Draft)>> {
        let members = runs.iter().map(|words| {
            let own = self.arguments(&words[1..])?;
            self.room()?;
            shared.dirs.append(&mut self.draft.dirs);
            Ok((command.iter().cloned().chain(own).collect(), self.take_member()))
        });
        members.collect()
    }

    /// What was planned for one run of several; its paths are free again for the next.
    fn take_member(&mut self) -> Draft {
        let draft = self.draft.take();
        for path in draft.paths() {
            self.sent.remove(path);
        }
        draft
    }
}

impl Planner<'_> {
    /// Takes the paths of what a word names: of what lies here, or of whole directories from elsewhere.
    pub(crate) fn reserve(&mut self, word: &str, here: bool) {
        for name in named(word) {
            if self.is_excluded(name) {
                continue;
            }
            match (look(self.cwd, name), place(self.cwd, &self.ground.top, name)) {
                (Look::File(_) | Look::Directory, Ok(Place::Inside { path, .. })) if here => drop(self.taken.inside(&path)),
                (Look::Directory, Ok(Place::Outside { real, name: called })) if !here && !self.aliases.contains_key(name) => {
                    self.taken.outside(self.cwd, &real, &called);
                }
                (_, _) => {}
            }
        }
    }

    pub(crate) fn is_excluded(&self, name: &str) -> bool {
        self.wishes.no_input.iter().any(|path| path == name)
    }

    /// Has the script sent along; says how its runtime is to be called with it, and which that is.
    pub(crate) fn script(&mut self, word: &str) -> anyhow::Result<(Vec<String>, Option<String>)> {
        let shown = word.escape_debug();
        let meta = match look(self.cwd, word) {
            Look::File(meta) => meta,
            Look::Directory => return Err(usage(format!("`{shown}` is a directory, not a script; name a file in it"))),
            Look::Pipe => {
                return Err(usage(format!(
                    "`{shown}` is a pipe, which cannot be sent; save the script in a file first"
                )));
            }
            Look::Closed(error) => return Err(usage(format!("cannot read the script {shown}: {}", cause(&error)))),
            Look::Nothing if word.starts_with('-') && word.len() > 1 => {
                return Err(usage(format!(
                    "rgrid run has no option `{shown}`, and there is no such script; see `rgrid run --help`"
                )));
            }
            Look::Nothing => {
                return Err(usage(format!(
                    "there is no script `{shown}`; check its path (a program that is on the worker already is run with --program)"
                )));
            }
        };
        let head = self
            .head(word)
            .map_err(|error| usage(format!("cannot read the script {shown}: {}", cause(&error))))?;
        let told = match self.wishes.runtime {
            Some(runtime) => Told::Runtime(runtime.to_owned(), Own::default()),
            None => tell(Path::new(word), &head, mode(&meta) & 0o111 != 0, &self.wishes.runtimes),
        };
        let (runtime, mut command) = match told {
            // Who may not execute it runs it by its interpreter's name, to which the first line is a comment.
            Told::Runtime(runtime, _) if mode(&meta) & 0o111 == 0 => (Some(runtime), Vec::new()),
            Told::Runtime(runtime, own) => {
                if let Some(wrong) = own.wrong {
                    return Err(usage(format!(
                        "{shown}, line 1 {wrong}; take that out, or name the runtime, which leaves the line out: --runtime {runtime}"
                    )));
                }
                self.env.extend(own.env);
                (Some(runtime), own.options)
            }
            Told::Itself => (None, Vec::new()),
            Told::Nothing => {
                let executable = mode(&meta) & 0o111 != 0;
                let otherwise = if executable {
                    "begin it with a line such as #!/bin/sh"
                } else {
                    "make it executable"
                };
                return Err(usage(format!(
                    "cannot tell what runs `{shown}`; name it, for instance with --runtime python, or {otherwise}"
                )));
            }
        };
        let (path, mut name) = self.settle(word)?;
        self.add(&path, self.cwd.join(word), &meta)?;
        // Neither an interpreter nor the search in PATH may take the script's name for something else.
        if name.starts_with('-') || (runtime.is_none() && !name.contains('/')) {
            name.insert_str(0, "./");
        }
        command.push(name);
        Ok((command, runtime))
    }

    fn argument(&mut self, word: &str) -> anyhow::Result<String> {
        for name in named(word) {
            let shown = name.escape_debug();
            if self.is_excluded(name) {
                return Ok(word.to_owned());
            }
            match look(self.cwd, name) {
                Look::Nothing => {}
                Look::File(meta) => {
                    self.head(name).map_err(|error| {
                        usage(format!(
                            "cannot read {shown}: {}; make it readable, or leave it out with --no-input {shown}",
                            cause(&error)
                        ))
                    })?;
                    let prefix = &word[..word.len() - name.len()];
                    return Ok(format!("{prefix}{}", self.send(name, &meta)?));
                }
                Look::Directory => {
                    let prefix = &word[..word.len() - name.len()];
                    return Ok(format!("{prefix}{}", self.send_dir(name)?));
                }
                Look::Pipe => {
                    return Err(usage(format!(
                        "`{shown}` is a pipe, whose content cannot be sent along; save it in a file first, or pipe it in and let the script read standard input"
                    )));
                }
                Look::Closed(error) => {
                    return Err(usage(format!(
                        "cannot read {shown}: {}; make it readable, or leave it out with --no-input {shown}",
                        cause(&error)
                    )));
                }
            }
        }
        for name in named(word) {
            if let Some(called) = self.place_of_new(name) {
                let prefix = &word[..word.len() - name.len()];
                return Ok(format!("{prefix}{called}"));
            }
        }
        Ok(word.to_owned())
    }

    /// How a file begins; also shows that it can be read.
    fn head(&self, word: &str) -> std::io::Result<Vec<u8>> {
        let mut head = Vec::new();
        File::open(self.cwd.join(word))?.take(HEAD).read_to_end(&mut head)?;
        Ok(head)
    }

    /// Has a file sent along, and says what the job is to call it.
    pub(crate) fn send(&mut self, word: &str, meta: &Metadata) -> anyhow::Result<String> {
        let (path, called) = self.settle(word)?;
        if !self.send_link(&path, word)? {
            self.add(&path, self.cwd.join(word), meta)?;
        }
        Ok(called)
    }

    /// Has all of a directory sent along, and says what the job is to call it.
    pub(crate) fn send_dir(&mut self, word: &str) -> anyhow::Result<String> {
        let (path, called) = self.settle(word)?;
        let choice = Choice {
            exclude: &self.exclude,
            as_git: false,
            only: None,
        };
        let found = below(&self.cwd.join(word), choice)?;
        if found.is_empty() && !path.is_empty() {
            self.parents.insert(path.clone());
        }
        self.add_all(&path, found)?;
        Ok(called)
    }

    /// Where something that is here will be there (nothing: the work directory itself), and what the job is to call it.
    fn settle(&mut self, word: &str) -> anyhow::Result<(String, String)> {
        if let Some(alias) = self.aliases.get(word).cloned() {
            self.has_home(&alias, &self.cwd.join(word));
            return Ok((alias.clone(), alias));
        }
        let shown = word.escape_debug();
        Ok(
            match place(self.cwd, &self.ground.top, word).map_err(|error| usage(format!("cannot send {shown}: {}", cause(&error))))? {
                // Above the current directory, within its project: it keeps its place from here.
                Place::Inside { path, .. } if path.starts_with("..") => {
                    self.above.push(path.clone());
                    let slash = if word.ends_with('/') { "/" } else { "" };
                    (path.clone(), format!("{path}{slash}"))
                }
                Place::Inside { path, plain } if plain => {
                    self.leads_out(&path);
                    (path, word.to_owned())
                }
                Place::Inside { path, .. } if path.is_empty() => (path, ".".to_owned()),
                Place::Inside { path, .. } => (path.clone(), path),
                Place::Outside { real, name } => {
                    let path = self.taken.outside(self.cwd, &real, &name);
                    self.has_home(&path, &real);
                    // As it was written: with a `/` at its end, more may be put behind it.
                    let slash = if word.ends_with('/') { "/" } else { "" };
                    (path.clone(), format!("{path}{slash}"))
                }
            },
        )
    }
}

impl Planner<'_> {
    /// Notes where something is here that stands at another path there. Not of a link: what is written there would be written to
    /// whatever it leads to, and who laid it need not be who named it.
    pub(crate) fn has_home(&mut self, path: &str, at: &Path) {
        let meta = fs::symlink_metadata(at).ok().filter(|meta| !meta.is_symlink());
        if let (Some(meta), Ok(real)) = (meta, at.canonicalize()) {
            self.note(path, real, meta.is_dir());
        }
    }

    /// Notes where something of the current directory really is, if a link in its path leads out: the user's own link, and named.
    pub(crate) fn leads_out(&mut self, path: &str) {
        let at = self.cwd.join(path);
        let (Ok(cwd), Ok(real)) = (self.cwd.canonicalize(), at.canonicalize()) else {
            return;
        };
        if !real.starts_with(cwd) {
            let is_dir = real.is_dir();
            self.note(path, real, is_dir);
        }
    }

    fn note(&mut self, path: &str, real: PathBuf, is_dir: bool) {
        let home = Home {
            path: path.to_owned(),
            real,
            is_dir,
        };
        if !self.homes.contains(&home) {
            self.homes.push(home);
        }
    }
}
