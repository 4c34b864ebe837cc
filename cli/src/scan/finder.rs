//! From mentions to files: what is here, belongs to the project, and fits the bounds.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, Metadata},
    path::{Path, PathBuf},
};

use globset::GlobSet;

use super::{
    code::{How, Mention},
    found::{Bounds, Found, Why},
    git,
    ground::{Ground, normalized, relative},
    is_source, parallel,
    pattern::{self, Listings},
    secret::has_secret_content,
    value::{Base, Part, Value},
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

/// Whether a directory or file of this name is never meant by naming what it stands in.
pub(crate) fn is_passed_over(path: &Path, is_dir: bool) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_ours = name.starts_with(".rgrid-") && name.ends_with(".part");
    PASSED_OVER.contains(&name) || is_ours || (is_dir && path.join("pyvenv.cfg").is_file())
}

/// Whether something is what git, Mercurial or Subversion keep for themselves.
pub(crate) fn is_repositorys(path: &Path) -> bool {
    let mut parts = path.components().filter_map(|part| part.as_os_str().to_str());
    parts.any(|part| matches!(part, ".git" | ".hg" | ".svn"))
}

/// What stands at a path; behind a linked directory, `..` leads elsewhere than its words say.
fn look(path: PathBuf, dir: &Path, text: &str) -> Option<(PathBuf, Metadata)> {
    if let Ok(meta) = fs::metadata(&path) {
        return Some((path, meta));
    }
    let real = text.contains("/..").then(|| dir.join(text).canonicalize().ok()).flatten()?;
    let meta = fs::metadata(&real).ok()?;
    Some((real, meta))
}

/// `x.toml` of a value of which only that is known, below an unknown directory.
fn behind_any(value: &Value) -> Option<&str> {
    match value.parts.as_slice() {
        [Part::Any, Part::Text(text)] => text.strip_prefix('/').filter(|rest| !rest.is_empty()),
        _ => None,
    }
}

pub(crate) struct Finder<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) exclude: &'a GlobSet,
    pub(crate) bounds: Bounds,
    pub(crate) found: Found,
    /// What was looked for already, and whether it is here.
    looked: HashMap<(usize, Value, u8), bool>,
    /// The directories that relative names were meant from, numbered.
    bases: HashMap<Vec<PathBuf>, usize>,
    pub(crate) noted: BTreeSet<PathBuf>,
    /// Where directories really are.
    real_dirs: HashMap<PathBuf, Option<PathBuf>>,
    /// Directories that were taken along already, with the endings that were meant.
    taken: HashSet<(PathBuf, String, bool)>,
    listings: Listings,
    /// Files whose content was looked at already, and whether it is secret.
    secrets: HashMap<PathBuf, bool>,
}

impl<'a> Finder<'a> {
    pub(crate) fn new(ground: &'a Ground, exclude: &'a GlobSet, bounds: Bounds) -> Self {
        Self {
            ground,
            exclude,
            bounds,
            found: Found::default(),
            looked: HashMap::new(),
            bases: HashMap::new(),
            noted: BTreeSet::new(),
            real_dirs: HashMap::new(),
            taken: HashSet::new(),
            listings: Listings::default(),
            secrets: HashMap::new(),
        }
    }

    /// A path as the user would write it.
    pub(crate) fn shown(&self, path: &Path) -> String {
        relative(&self.ground.cwd, path).unwrap_or_else(|| path.display().to_string())
    }

    /// Finds what a file mentions. `bases` are the directories that a relative name may be meant from. Says which files are new.
    pub(crate) fn mention(&mut self, mention: &Mention, by: &Path, bases: &[PathBuf]) -> Vec<PathBuf> {
        self.mentions(std::slice::from_ref(mention), by, bases)
    }

    /// Finds all that a file mentions.
    pub(crate) fn mentions(&mut self, mentions: &[Mention], by: &Path, bases: &[PathBuf]) -> Vec<PathBuf> {
        let next = self.bases.len();
        let place = *self.bases.entry(bases.to_vec()).or_insert(next);
        let mut new = Vec::new();
        // The last group of mentions, and whether any of it is here.
        let mut last = (0, false);
        for mention in mentions {
            if mention.group != last.0 {
                last = (mention.group, false);
            }
            if !(mention.stands_in && last.1) {
                last.1 |= self.look_for(mention, by, (place, bases), &mut new);
            }
        }
        new
    }

    /// Looks for what is mentioned. Says whether it is here.
    fn look_for(&mut self, mention: &Mention, by: &Path, (place, bases): (usize, &[PathBuf]), new: &mut Vec<PathBuf>) -> bool {
        let kind = match mention.how {
            How::Read => 0,
            How::Write => 1,
            How::List => 2,
            How::Glob => 3,
            How::State => 4,
            How::Define(_) => 5,
        } + if mention.is_weak { 8 } else { 0 };
        let key = (place, mention.value.clone(), kind);
        if let Some(is_here) = self.looked.get(&key) {
            return *is_here;
        }
        if self.looked.len() >= MOST_MENTIONS {
            return false;
        }
        let dirs: Vec<PathBuf> = match &mention.value.base {
            Base::At(dir) => vec![dir.clone()],
            Base::Current => vec![self.ground.cwd.clone()],
            Base::Free => bases.to_vec(),
        };
        let is_here = if mention.how == How::Write {
            self.written(&mention.value, &dirs);
            false
        } else {
            self.search(mention, by, &dirs, new)
        };
        self.looked.insert(key, is_here);
        is_here
    }

    fn search(&mut self, mention: &Mention, by: &Path, dirs: &[PathBuf], new: &mut Vec<PathBuf>) -> bool {
        let mut is_here = false;
        if let Some(text) = mention.value.known() {
            for dir in dirs {
                is_here |= self.exact(dir, text, mention, by, new);
            }
        }
        if let Some(rest) = behind_any(&mention.value) {
            // An unknown directory: wherever the program looks, and above, where it may look for a mark of its project.
            let above = self
                .ground
                .cwd
                .ancestors()
                .skip(1)
                .take_while(|dir| dir.starts_with(&self.ground.top));
            let places: Vec<PathBuf> = dirs.iter().cloned().chain(above.map(Path::to_owned)).collect();
            for dir in places {
                is_here |= self.exact(&dir, rest, mention, by, new);
            }
        }
        if !is_here && let Some(pattern) = pattern::of(&mention.value).filter(|pattern| !mention.is_weak || pattern.contains('/')) {
            for dir in dirs {
                self.matching(dir, &pattern, mention, by, new);
            }
        }
        is_here
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
            let Some((path, meta)) = look(path, dir, text) else { continue };
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
        if self.ground.is_private(&path) {
            return;
        }
        let (files, dirs) = pattern::matches(&mut self.listings, dir, pattern, &self.ground.top);
        // A bare `*` may match what is not meant; what it matches is named by nobody.
        let files: Vec<PathBuf> = files.iter().filter_map(|file| normalized(file)).collect();
        self.files(&files, &Why::Matches(pattern.to_owned()), by, new);
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
            Some(Part::Text(text)) if value.known().is_some() => text.as_str(),
            Some(Part::Text(text)) => text.rsplit_once('/').map_or("", |(dir, _)| dir),
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
    fn is_allowed(&mut self, path: &Path) -> bool {
        self.ground.holds(path) && self.real(path).is_some_and(|real| self.ground.holds(&real))
    }

    /// Where something really is. Directories are asked for once: a project has many files in few.
    fn real(&mut self, path: &Path) -> Option<PathBuf> {
        if path.is_symlink() {
            return path.canonicalize().ok();
        }
        let (parent, name) = (path.parent()?, path.file_name()?);
        if !self.real_dirs.contains_key(parent) {
            self.real_dirs.insert(parent.to_owned(), parent.canonicalize().ok());
        }
        self.real_dirs.get(parent)?.as_ref().map(|real| real.join(name))
    }

    /// Whether what a file holds looks like a secret.
    pub(crate) fn holds_secret(&mut self, path: &Path) -> bool {
        if let Some(is_secret) = self.secrets.get(path) {
            return *is_secret;
        }
        has_secret_content(path)
    }

    fn is_excluded(&self, path: &Path) -> bool {
        let within = path.strip_prefix(&self.ground.cwd).or_else(|_| path.strip_prefix(&self.ground.top));
        within.is_ok_and(|path| {
            path.ancestors()
                .any(|part| !part.as_os_str().is_empty() && self.exclude.is_match(part))
        })
    }

    /// Whether something is a repository's own, or lies in the user's home where only what is named exactly, and not hidden, is meant.
    fn is_private(&self, path: &Path, why: &Why) -> bool {
        if is_repositorys(path) {
            return true;
        }
        let is_exact = matches!(why, Why::Named(_) | Why::Imported(_));
        let home = self.ground.home.as_deref().unwrap_or(Path::new("/"));
        let below = path.strip_prefix(home).unwrap_or(path);
        let is_hidden = below.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."));
        self.ground.is_private(path) && (!is_exact || is_hidden)
    }

    /// Takes a file along. Says whether it is here and was dealt with.
    pub(crate) fn file(&mut self, path: &Path, why: &Why, by: &Path, new: &mut Vec<PathBuf>) -> bool {
        if self.found.files.contains_key(path) {
            return true;
        }
        if self.is_excluded(path) {
            return true;
        }
        let real = self.real(path).filter(|real| self.ground.holds(path) && self.ground.holds(real));
        let Some(real) = real else {
            self.note_outside(path, by);
            return true;
        };
        let Ok(meta) = fs::metadata(path) else { return false };
        if self.is_private(path, why) || self.is_private(&real, why) {
            self.note_home(path, by);
            return true;
        }
        if self.held_back(path, &real, by) {
            return true;
        }
        if self.found.files.len() >= self.bounds.files || self.found.bytes.saturating_add(meta.len()) > self.bounds.bytes {
            self.note_bound(path, &format!("of {}", crate::output::size(meta.len())), by);
            return true;
        }
        self.found.bytes += meta.len();
        self.found.files.insert(path.to_owned(), why.clone());
        new.push(path.to_owned());
        let endings = if is_source(path) { &[][..] } else { &BESIDE_DATABASE };
        for ending in endings {
            let mut beside = path.as_os_str().to_owned();
            beside.push(ending);
            let beside = PathBuf::from(beside);
            if beside.is_file() {
                self.file(&beside, why, by, new);
            }
        }
        true
    }

    /// Takes many files along.
    fn files(&mut self, paths: &[PathBuf], why: &Why, by: &Path, new: &mut Vec<PathBuf>) {
        let most = self.bounds.files.saturating_sub(self.found.files.len());
        let unknown = |path: &&PathBuf| !self.found.files.contains_key(*path) && !self.secrets.contains_key(*path);
        let unknown: Vec<PathBuf> = paths.iter().filter(unknown).take(most).cloned().collect();
        let unknown: Vec<PathBuf> = unknown.into_iter().filter(|path| self.is_allowed(path)).collect();
        let secrets = parallel::map(&unknown, |path| has_secret_content(path));
        self.secrets.extend(unknown.into_iter().zip(secrets));
        for path in paths {
            self.file(path, why, by, new);
        }
    }

    /// Takes all of a directory along. One that holds the current directory is meant only if it is listed, and then as git sees it.
    pub(crate) fn directory(&mut self, dir: &Path, is_listed: bool, by: &Path, new: &mut Vec<PathBuf>) {
        let is_around = self.ground.is_around(dir);
        if (is_around && !is_listed) || is_passed_over(dir, true) || self.is_excluded(dir) {
            return;
        }
        if !self.is_allowed(dir) {
            return self.note_outside(dir, by);
        }
        if self.ground.is_private(&dir.join("x")) || is_repositorys(dir) {
            return self.note_home(dir, by);
        }
        let shown = match self.shown(dir) {
            shown if shown.is_empty() => "the current directory".to_owned(),
            shown => format!("{shown}/"),
        };
        self.whole(dir, is_around, &Why::In(shown), by, new);
    }

    /// Takes all of a directory along, once.
    pub(crate) fn whole(&mut self, dir: &Path, as_git: bool, why: &Why, by: &Path, new: &mut Vec<PathBuf>) {
        if self.taken.insert((dir.to_owned(), String::new(), as_git)) {
            self.all_of(dir, as_git, why, |_| true, by, new);
        }
    }

    /// The source below a directory: what a package without a mark of its own is made of.
    pub(crate) fn sources(&mut self, dir: &Path, endings: &[&str], why: &Why, by: &Path, new: &mut Vec<PathBuf>) {
        let is_source = |path: &Path| path.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known));
        let is_meant = self.is_allowed(dir) && !is_passed_over(dir, true);
        if is_meant && self.taken.insert((dir.to_owned(), endings.join(" "), false)) {
            self.all_of(dir, false, why, is_source, by, new);
        }
    }

    /// Takes what is below a directory along, all of it or, where it does not fit the bounds, nothing.
    fn all_of(&mut self, dir: &Path, as_git: bool, why: &Why, is_meant: impl Fn(&Path) -> bool, by: &Path, new: &mut Vec<PathBuf>) {
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
        // A link that leads out is another's business, not a stranger's script's.
        let meant: Vec<PathBuf> = meant
            .into_iter()
            .filter(|path| !self.found.files.contains_key(path) && self.is_allowed(path))
            .collect();
        self.files(&meant, why, &named, new);
        for empty in found.empty {
            self.room(&empty);
        }
        if is_empty {
            self.room(dir);
        }
    }
}
