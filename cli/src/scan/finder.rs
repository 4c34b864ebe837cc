//! From mentions to files: what is here, belongs to the project, and fits the bounds.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt, fs,
    path::{Path, PathBuf},
};

use globset::GlobSet;

use super::{
    code::{How, Mention},
    git,
    ground::{Ground, normalized, relative},
    pattern,
    secret::is_secret,
    value::{Base, Value},
};

/// The most mentions of one run that are looked for.
const MOST_MENTIONS: usize = 100_000;
/// Directories that hold what others made: no script means them by naming what they stand in.
const PASSED_OVER: [&str; 16] = [
    ".git",
    ".hg",
    ".svn",
    ".rgrid",
    "__pycache__",
    "node_modules",
    ".venv",
    ".tox",
    ".nox",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".ipynb_checkpoints",
    ".DS_Store",
    ".direnv",
    ".terraform",
];
/// What a program keeps its state in, by the name that it is given.
const STATE_ENDINGS: [&str; 8] = ["", ".db", ".dat", ".dir", ".bak", ".pag", ".sqlite3", ".pkl"];
/// What `SQLite` keeps beside a database.
const BESIDE_DATABASE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// How much is sent without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// Why a file goes along.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// This file names it.
    Named(String),
    /// This file imports it.
    Imported(String),
    /// It stands in this directory, which is meant as a whole.
    In(String),
    /// It matches this pattern.
    Matches(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(by) => write!(f, "named in {by}"),
            Self::Imported(by) => write!(f, "imported by {by}"),
            Self::In(dir) => write!(f, "in {dir}"),
            Self::Matches(pattern) => write!(f, "as {pattern}"),
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Files, by where they are, and why each goes along.
    pub(crate) files: BTreeMap<PathBuf, Why>,
    /// Directories that are to be there, with nothing in them.
    pub(crate) dirs: BTreeSet<PathBuf>,
    /// What the user should know before the job runs.
    pub(crate) notes: Vec<String>,
    /// Why the current directory, which is meant as a whole, was not sent.
    pub(crate) too_large: Option<String>,
    bytes: u64,
}

/// Whether a directory or file of this name is never meant by naming what it stands in.
pub(super) fn is_passed_over(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    PASSED_OVER.contains(&name) || name.ends_with(".part") && name.starts_with(".rgrid-") || path.join("pyvenv.cfg").is_file()
}

pub(super) struct Finder<'a> {
    pub(super) ground: &'a Ground,
    pub(super) exclude: &'a GlobSet,
    pub(super) bounds: Bounds,
    pub(super) found: Found,
    looked: HashSet<(Vec<PathBuf>, Value, u8)>,
    noted: BTreeSet<PathBuf>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(ground: &'a Ground, exclude: &'a GlobSet, bounds: Bounds) -> Self {
        Self {
            ground,
            exclude,
            bounds,
            found: Found::default(),
            looked: HashSet::new(),
            noted: BTreeSet::new(),
        }
    }

    /// A path as the user would write it.
    pub(super) fn shown(&self, path: &Path) -> String {
        relative(&self.ground.cwd, path).unwrap_or_else(|| path.display().to_string())
    }

    /// Finds what a file mentions. `bases` are the directories that a relative name may be meant from. Says which files are new.
    pub(super) fn mention(&mut self, mention: &Mention, by: &Path, bases: &[PathBuf]) -> Vec<PathBuf> {
        let kind = match mention.how {
            How::Read => 0,
            How::Write => 1,
            How::List => 2,
            How::Glob => 3,
            How::State => 4,
            How::Define(_) => 5,
        } + if mention.is_weak { 8 } else { 0 };
        if self.looked.len() >= MOST_MENTIONS || !self.looked.insert((bases.to_vec(), mention.value.clone(), kind)) {
            return Vec::new();
        }
        let dirs: Vec<PathBuf> = match &mention.value.base {
            Base::At(dir) => vec![dir.clone()],
            Base::Current => vec![self.ground.cwd.clone()],
            Base::Free => bases.to_vec(),
        };
        if mention.how == How::Write {
            self.written(&mention.value, &dirs);
            return Vec::new();
        }
        let mut new = Vec::new();
        let mut is_here = false;
        if let Some(text) = mention.value.known() {
            for dir in &dirs {
                is_here |= self.exact(dir, text, mention, by, &mut new);
            }
        }
        if !is_here && let Some(pattern) = pattern::of(&mention.value).filter(|pattern| !mention.is_weak || pattern.contains('/')) {
            for dir in &dirs {
                self.matching(dir, &pattern, mention, by, &mut new);
            }
        }
        new
    }

    /// A name that is known whole.
    fn exact(&mut self, dir: &Path, text: &str, mention: &Mention, by: &Path, new: &mut Vec<PathBuf>) -> bool {
        let text = if mention.value.base == Base::Free {
            text
        } else {
            text.trim_start_matches('/')
        };
        // SQLite's URIs.
        let text = text.strip_prefix("file:").map_or(text, |uri| uri.split('?').next().unwrap_or(uri));
        let is_odd = text.len() > 1024
            || text.starts_with(['/', '~']) && mention.value.base == Base::Free
            || text.contains(|c: char| c.is_control());
        if is_odd || (text.is_empty() && mention.how != How::List && mention.value.base == Base::Free) {
            return false;
        }
        let looks_like_path = text.contains('/') || text.contains('.');
        if mention.is_weak && !looks_like_path {
            return false;
        }
        let endings = if mention.how == How::State {
            &STATE_ENDINGS[..]
        } else {
            &STATE_ENDINGS[..1]
        };
        let mut is_here = false;
        for ending in endings {
            let Some(path) = normalized(&dir.join(format!("{text}{ending}"))) else {
                continue;
            };
            let Ok(meta) = fs::metadata(&path) else { continue };
            if meta.is_file() {
                is_here |= self.file(&path, &Why::Named(self.shown(by)), by, new);
            } else if meta.is_dir() {
                is_here = true;
                let is_listed = mention.how == How::List;
                if !mention.is_weak || (text.contains('/') && !text.contains(' ')) {
                    self.directory(&path, is_listed, by, new);
                }
            }
        }
        is_here
    }

    fn matching(&mut self, dir: &Path, pattern: &str, mention: &Mention, by: &Path, new: &mut Vec<PathBuf>) {
        let Some(path) = normalized(&dir.join("x")) else { return };
        if !self.ground.holds(path.parent().unwrap_or(&path)) {
            return;
        }
        let deep = pattern.contains("**");
        if deep && self.ground.is_home && dir == self.ground.cwd {
            return;
        }
        let (files, dirs) = pattern::matches(dir, pattern);
        for file in files {
            // A bare `*` may match what is not meant; what it matches is named by nobody.
            let Some(file) = normalized(&file) else { continue };
            self.file(&file, &Why::Matches(pattern.to_owned()), by, new);
        }
        let is_bare = pattern.rsplit('/').next() == Some("*");
        for dir in dirs.into_iter().filter_map(|dir| normalized(&dir)) {
            if is_bare && mention.how == How::Glob {
                self.room(&dir);
            } else if !self.ground.is_around(&dir) {
                self.directory(&dir, false, by, new);
            }
        }
    }

    /// What is written anew is not sent, but its directory must be there.
    fn written(&mut self, value: &Value, dirs: &[PathBuf]) {
        // Of a name that is known in part, the directory that it begins with.
        let text = match value.parts.first() {
            Some(super::value::Part::Text(text)) if value.known().is_some() => text.as_str(),
            Some(super::value::Part::Text(text)) => text.rsplit_once('/').map_or("", |(dir, _)| dir),
            _ => "",
        };
        let text = if value.base == Base::Free {
            text
        } else {
            text.trim_start_matches('/')
        };
        for dir in dirs {
            let Some(path) = normalized(&dir.join(text)) else { continue };
            let at = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
            if let Some(at) = at.filter(|at| at.is_dir()) {
                self.room(at);
            }
        }
    }

    fn room(&mut self, dir: &Path) {
        if self.is_allowed(dir) && !self.ground.is_around(dir) && dir.starts_with(&self.ground.top) {
            self.found.dirs.insert(dir.to_owned());
        }
    }

    /// Whether something may be sent: it is within the project, by its path and by where its links lead.
    fn is_allowed(&self, path: &Path) -> bool {
        self.ground.holds(path) && path.canonicalize().is_ok_and(|real| self.ground.holds(&real))
    }

    fn is_excluded(&self, path: &Path) -> bool {
        let within = path.strip_prefix(&self.ground.cwd).or_else(|_| path.strip_prefix(&self.ground.top));
        within.is_ok_and(|path| {
            path.ancestors()
                .any(|part| !part.as_os_str().is_empty() && self.exclude.is_match(part))
        })
    }

    /// Takes a file along. Says whether it is here and was dealt with.
    pub(super) fn file(&mut self, path: &Path, why: &Why, by: &Path, new: &mut Vec<PathBuf>) -> bool {
        if self.found.files.contains_key(path) {
            return true;
        }
        if self.is_excluded(path) {
            return true;
        }
        if !self.is_allowed(path) {
            self.note_outside(path, by);
            return true;
        }
        let Ok(meta) = fs::metadata(path) else { return false };
        if self.held_back(path, by) {
            return true;
        }
        if self.found.files.len() >= self.bounds.files || self.found.bytes.saturating_add(meta.len()) > self.bounds.bytes {
            self.note_bound(path, &format!("of {}", crate::output::size(meta.len())), by);
            return true;
        }
        self.found.bytes += meta.len();
        self.found.files.insert(path.to_owned(), why.clone());
        new.push(path.to_owned());
        for ending in BESIDE_DATABASE {
            let mut beside = path.as_os_str().to_owned();
            beside.push(ending);
            let beside = PathBuf::from(beside);
            if beside.is_file() {
                self.file(&beside, why, by, new);
            }
        }
        true
    }

    /// Names what looks like a secret, which is not sent.
    fn held_back(&mut self, path: &Path, by: &Path) -> bool {
        let is_source = super::is_source(path);
        if !is_secret(path, is_source) {
            return false;
        }
        if self.noted.insert(path.to_owned()) {
            let shown = self.shown(path);
            let quoted = shell_words::quote(&shown);
            let by = self.shown(by);
            self.found.notes.push(format!(
                "{shown}, which {by} names, looks like a secret and was not sent; --include {quoted} sends it, --exclude {quoted} leaves it without this line"
            ));
        }
        true
    }

    fn note_outside(&mut self, path: &Path, by: &Path) {
        // What no words of the script could reach by a relative path is none of its business, and ours neither.
        if !self.noted.insert(path.to_owned()) {
            return;
        }
        let (shown, by) = (self.shown(path), self.shown(by));
        let what = if self.ground.holds(path) {
            "is a link that leads out of the project"
        } else {
            "lies outside of the project"
        };
        self.found.notes.push(format!(
            "{shown}, which {by} names, {what} and was not sent; --include {} sends it",
            shell_words::quote(&shown)
        ));
    }

    fn note_bound(&mut self, path: &Path, what: &str, by: &Path) {
        if self.noted.insert(path.to_owned()) {
            let (shown, by) = (self.shown(path), self.shown(by));
            let Bounds { files, bytes } = self.bounds;
            self.found.notes.push(format!(
                "{shown} ({what}), which {by} names, was not sent: more than {files} files or {} would go along; --include {} sends it all the same, --scan-files and --scan-bytes raise the bounds",
                crate::output::size(bytes),
                shell_words::quote(&shown)
            ));
        }
    }

    /// Takes all of a directory along. One that holds the current directory is meant only if it is listed, and then as git sees it.
    pub(super) fn directory(&mut self, dir: &Path, is_listed: bool, by: &Path, new: &mut Vec<PathBuf>) {
        let is_around = self.ground.is_around(dir);
        if (is_around && !is_listed) || is_passed_over(dir) || self.is_excluded(dir) {
            return;
        }
        if !self.is_allowed(dir) {
            return self.note_outside(dir, by);
        }
        if self.ground.is_home && dir.starts_with(&self.ground.cwd) {
            if self.noted.insert(dir.to_owned()) {
                let (shown, by) = (self.shown(dir), self.shown(by));
                let shown = if shown.is_empty() { ".".to_owned() } else { shown };
                self.found.notes.push(format!(
                    "{shown}, which {by} names, is a directory of your home and was not sent as a whole; --include {} sends it, or run from a directory of the project's own",
                    shell_words::quote(&shown)
                ));
            }
            return;
        }
        let shown = match self.shown(dir) {
            shown if shown.is_empty() => "the current directory".to_owned(),
            shown => format!("{shown}/"),
        };
        self.all_of(dir, is_around, &Why::In(shown), |_| true, by, new);
    }

    /// The source below a directory: what a package without a mark of its own is made of.
    pub(super) fn sources(&mut self, dir: &Path, endings: &[&str], why: &Why, by: &Path, new: &mut Vec<PathBuf>) {
        let is_source = |path: &Path| path.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known));
        if self.is_allowed(dir) && !is_passed_over(dir) {
            self.all_of(dir, false, why, is_source, by, new);
        }
    }

    /// Takes what is below a directory along, all of it or, where it does not fit the bounds, nothing.
    pub(super) fn all_of(
        &mut self,
        dir: &Path,
        as_git: bool,
        why: &Why,
        is_meant: impl Fn(&Path) -> bool,
        by: &Path,
        new: &mut Vec<PathBuf>,
    ) {
        let most = self.bounds.files.saturating_sub(self.found.files.len());
        let found = git::below(dir, as_git, most);
        let meant: Vec<PathBuf> = found
            .files
            .into_iter()
            .filter(|path| is_meant(path) && !self.is_excluded(path))
            .collect();
        let size_of = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
        let bytes: u64 = meant.iter().filter(|path| !self.found.files.contains_key(*path)).map(size_of).sum();
        if meant.len() > most || self.found.bytes.saturating_add(bytes) > self.bounds.bytes {
            let more = if meant.len() > most { "more than " } else { "" };
            let count = crate::output::counted(meant.len().min(most.max(1)), "file");
            if dir == self.ground.cwd {
                let Bounds { files, bytes: most } = self.bounds;
                self.found.too_large = Some(format!(
                    "it holds {more}{count} ({}), and at most {files} files and {} are sent unasked; name what is needed with --include, leave out the rest with --exclude, \
                     raise the bounds with --scan-files and --scan-bytes, or send all of it with --workdir",
                    crate::output::size(bytes),
                    crate::output::size(most)
                ));
            }
            return self.note_bound(dir, &format!("{more}{count}, {}", crate::output::size(bytes)), by);
        }
        let named = by.to_owned();
        let is_empty = meant.is_empty();
        for path in meant {
            // A link that leads out is another's business, not a stranger's script's.
            if self.is_allowed(&path) {
                self.file(&path, why, &named, new);
            }
        }
        for empty in found.empty {
            self.room(&empty);
        }
        if is_empty {
            self.room(dir);
        }
    }
}
