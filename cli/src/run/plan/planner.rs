//! Builds a plan: resolves the script and its arguments to paths in the job's directory.

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
    job_path::{JobPath, PathKind, UsedPaths, job_path, path_kind},
    options::PlanOptions,
    original_path::OriginalPath,
    runtime::{RuntimeChoice, choose_runtime},
    shebang::ShebangOptions,
};
use crate::{failure::usage, run::scan::ScanScope};

/// How many bytes of a script are read to determine its runtime.
const HEAD: u64 = 256;

/// The state while a plan is built.
pub(crate) struct Planner<'a> {
    pub(crate) cwd: &'a Path,
    pub(crate) scope: ScanScope,
    pub(crate) options: &'a PlanOptions<'a>,
    pub(crate) exclude: GlobSet,
    pub(crate) used_paths: UsedPaths,
    /// The paths in use, with their source.
    pub(crate) sent: HashMap<String, PathBuf>,
    /// Aliases from `--input`: the path in the job's directory, by the local path.
    pub(crate) aliases: HashMap<String, String>,
    /// Whether that is being sent now.
    pub(crate) aliasing: bool,
    pub(crate) draft: Draft,
    /// Directories of here that arguments name something in that is not here: the job may make it there.
    pub(crate) parents: BTreeSet<String>,
    pub(crate) original_paths: Vec<OriginalPath>,
    /// What the command line names above the current directory, from there.
    pub(crate) above: Vec<String>,
    /// Variables that the script's first line sets.
    pub(crate) env: BTreeMap<String, String>,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(cwd: &'a Path, script: &str, runs: &[Vec<&str>], options: &'a PlanOptions<'a>) -> anyhow::Result<Self> {
        // Of a program, the script may be among its words: `python3 s.py`.
        let words = runs.first().map_or(&[][..], Vec::as_slice);
        let script = if options.program {
            words
                .iter()
                .copied()
                .find(|word| crate::run::scan::is_source(Path::new(word)) && cwd.join(word).is_file())
        } else {
            Some(script)
        };
        let scope = ScanScope::of(cwd, script.map(Path::new), std::env::home_dir().as_deref()).map_err(|error| {
            usage(format!(
                "cannot look at the current directory: {error}; change to one that can be read"
            ))
        })?;
        Ok(Self {
            cwd,
            scope,
            options,
            exclude: globs("--exclude", options.files.map_or(&[][..], |files| &files.exclude), true)?,
            used_paths: UsedPaths::default(),
            sent: HashMap::new(),
            aliases: HashMap::new(),
            aliasing: false,
            draft: Draft::default(),
            parents: BTreeSet::new(),
            original_paths: Vec::new(),
            above: Vec::new(),
            env: BTreeMap::new(),
        })
    }

    /// Adds the files that these words name, and returns the words that the job uses.
    pub(crate) fn arguments(&mut self, words: &[&str]) -> anyhow::Result<Vec<String>> {
        words.iter().map(|word| self.argument(word)).collect()
    }

    /// The members' own commands and inputs, for a batch whose commands begin with `command`.
    ///
    /// Empty directories are shared by all members: a separate tree for each member would cost more.
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

    /// Takes the draft of one member; its paths are free again for the next member.
    fn take_member(&mut self) -> Draft {
        let draft = self.draft.take();
        for path in draft.paths() {
            self.sent.remove(path);
        }
        draft
    }
}

impl Planner<'_> {
    /// Reserves the paths of what a word names: local files, or whole directories from elsewhere.
    pub(crate) fn reserve(&mut self, word: &str, here: bool) {
        for name in named(word) {
            if self.is_excluded(name) {
                continue;
            }
            match (path_kind(self.cwd, name), job_path(self.cwd, &self.scope.top, name)) {
                (PathKind::File(_) | PathKind::Directory, Ok(JobPath::Inside { path, .. })) if here => drop(self.used_paths.inside(&path)),
                (PathKind::Directory, Ok(JobPath::Outside { real, name: called })) if !here && !self.aliases.contains_key(name) => {
                    self.used_paths.outside(self.cwd, &real, &called);
                }
                (_, _) => {}
            }
        }
    }

    pub(crate) fn is_excluded(&self, name: &str) -> bool {
        self.options.no_input.iter().any(|path| path == name)
    }

    /// Adds the script. Returns the beginning of the command, and the runtime.
    pub(crate) fn script(&mut self, word: &str) -> anyhow::Result<(Vec<String>, Option<String>)> {
        let shown = word.escape_debug();
        let meta = match path_kind(self.cwd, word) {
            PathKind::File(meta) => meta,
            PathKind::Directory => return Err(usage(format!("`{shown}` is a directory, not a script; name a file in it"))),
            PathKind::Pipe => {
                return Err(usage(format!(
                    "`{shown}` is a pipe, which cannot be sent; save the script in a file first"
                )));
            }
            PathKind::Closed(error) => return Err(usage(format!("cannot read the script {shown}: {}", cause(&error)))),
            PathKind::Nothing if word.starts_with('-') && word.len() > 1 => {
                return Err(usage(format!(
                    "rgrid run has no option `{shown}`, and there is no such script; see `rgrid run --help`"
                )));
            }
            PathKind::Nothing => {
                return Err(usage(format!(
                    "there is no script `{shown}`; check its path (use --program to run a program that is installed on the worker)"
                )));
            }
        };
        let head = self
            .head(word)
            .map_err(|error| usage(format!("cannot read the script {shown}: {}", cause(&error))))?;
        let told = match self.options.runtime {
            Some(runtime) => RuntimeChoice::Runtime(runtime.to_owned(), ShebangOptions::default()),
            None => choose_runtime(Path::new(word), &head, mode(&meta) & 0o111 != 0, &self.options.runtimes),
        };
        let (runtime, mut command) = match told {
            // Who may not execute it runs it by its interpreter's name, to which the first line is a comment.
            RuntimeChoice::Runtime(runtime, _) if mode(&meta) & 0o111 == 0 => (Some(runtime), Vec::new()),
            RuntimeChoice::Runtime(runtime, own) => {
                if let Some(wrong) = own.wrong {
                    return Err(usage(format!(
                        "{shown}, line 1 {wrong}; remove that, or ignore the line with --runtime {runtime}"
                    )));
                }
                self.env.extend(own.env);
                (Some(runtime), own.options)
            }
            RuntimeChoice::Itself => (None, Vec::new()),
            RuntimeChoice::Nothing => {
                let executable = mode(&meta) & 0o111 != 0;
                let otherwise = if executable {
                    "begin it with a line such as #!/bin/sh"
                } else {
                    "make it executable"
                };
                return Err(usage(format!(
                    "cannot determine the runtime of `{shown}`; name it, for instance with --runtime python, or {otherwise}"
                )));
            }
        };
        let (path, mut name) = self.resolve_path(word)?;
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
            match path_kind(self.cwd, name) {
                PathKind::Nothing => {}
                PathKind::File(meta) => {
                    self.head(name).map_err(|error| {
                        usage(format!(
                            "cannot read {shown}: {}; make it readable, or leave it out with --no-input {shown}",
                            cause(&error)
                        ))
                    })?;
                    let prefix = &word[..word.len() - name.len()];
                    return Ok(format!("{prefix}{}", self.send(name, &meta)?));
                }
                PathKind::Directory => {
                    let prefix = &word[..word.len() - name.len()];
                    return Ok(format!("{prefix}{}", self.add_argument_dir(name)?));
                }
                PathKind::Pipe => {
                    return Err(usage(format!(
                        "`{shown}` is a pipe, whose content cannot be sent; save it in a file first, or pipe it to rgrid and let the script read standard input"
                    )));
                }
                PathKind::Closed(error) => {
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

    /// The first bytes of a file; fails if the file cannot be read.
    fn head(&self, word: &str) -> std::io::Result<Vec<u8>> {
        let mut head = Vec::new();
        File::open(self.cwd.join(word))?.take(HEAD).read_to_end(&mut head)?;
        Ok(head)
    }

    /// Adds a file, and returns the word that the job uses for it.
    pub(crate) fn send(&mut self, word: &str, meta: &Metadata) -> anyhow::Result<String> {
        let (path, called) = self.resolve_path(word)?;
        if !self.send_link(&path, word)? {
            self.add(&path, self.cwd.join(word), meta)?;
        }
        Ok(called)
    }

    /// Adds a whole directory, and returns the word that the job uses for it.
    pub(crate) fn add_argument_dir(&mut self, word: &str) -> anyhow::Result<String> {
        let (path, called) = self.resolve_path(word)?;
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

    /// The path of a local file in the job's directory (empty: the directory itself), and the word that the job uses for it.
    fn resolve_path(&mut self, word: &str) -> anyhow::Result<(String, String)> {
        if let Some(alias) = self.aliases.get(word).cloned() {
            self.note_original_path(&alias, &self.cwd.join(word));
            return Ok((alias.clone(), alias));
        }
        let shown = word.escape_debug();
        Ok(
            match job_path(self.cwd, &self.scope.top, word).map_err(|error| usage(format!("cannot send {shown}: {}", cause(&error))))? {
                // Above the current directory, within its project: it keeps its place from here.
                JobPath::Inside { path, .. } if path.starts_with("..") => {
                    self.above.push(path.clone());
                    let slash = if word.ends_with('/') { "/" } else { "" };
                    (path.clone(), format!("{path}{slash}"))
                }
                JobPath::Inside { path, plain } if plain => {
                    self.note_link_target(&path);
                    (path, word.to_owned())
                }
                JobPath::Inside { path, .. } if path.is_empty() => (path, ".".to_owned()),
                JobPath::Inside { path, .. } => (path.clone(), path),
                JobPath::Outside { real, name } => {
                    let path = self.used_paths.outside(self.cwd, &real, &name);
                    self.note_original_path(&path, &real);
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
    pub(crate) fn note_original_path(&mut self, path: &str, at: &Path) {
        let meta = fs::symlink_metadata(at).ok().filter(|meta| !meta.is_symlink());
        if let (Some(meta), Ok(real)) = (meta, at.canonicalize()) {
            self.note(path, real, meta.is_dir());
        }
    }

    /// Notes where something of the current directory really is, if a link in its path leads out: the user's own link, and named.
    pub(crate) fn note_link_target(&mut self, path: &str) {
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
        let home = OriginalPath {
            path: path.to_owned(),
            real,
            is_dir,
        };
        if !self.original_paths.contains(&home) {
            self.original_paths.push(home);
        }
    }
}
