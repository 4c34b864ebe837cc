//! From mentions to files: what is here, belongs to the project, and fits the bounds.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, Metadata},
    path::{Path, PathBuf},
};

use globset::GlobSet;

use super::{
    found::{Bounds, Found, IncludeReason},
    mention::{Mention, MentionKind},
    pattern::{self, Listings},
    scope::ScanScope,
    value::{Base, Part, Value},
};
use crate::paths::{normalized, relative};

/// The most mentions of one run that are looked for.
const MOST_MENTIONS: usize = 100_000;
/// What a program keeps its state in, by the name that it is given.
const STATE_ENDINGS: [&str; 8] = ["", ".db", ".dat", ".dir", ".bak", ".pag", ".sqlite3", ".pkl"];
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
    pub(crate) scope: &'a ScanScope,
    pub(crate) exclude: &'a GlobSet,
    pub(crate) bounds: Bounds,
    pub(crate) found: Found,
    /// What was looked for already, and whether it is here.
    looked: HashMap<(usize, Value, u8), bool>,
    /// The directories that relative names were meant from, numbered.
    bases: HashMap<Vec<PathBuf>, usize>,
    pub(crate) noted: BTreeSet<PathBuf>,
    /// Where directories really are.
    pub(crate) real_dirs: HashMap<PathBuf, Option<PathBuf>>,
    /// Directories that were taken along already, with the endings that were meant.
    pub(crate) taken: HashSet<(PathBuf, String, bool)>,
    listings: Listings,
    /// Files whose content was looked at already, and whether it is secret.
    pub(crate) secrets: HashMap<PathBuf, bool>,
}

impl<'a> Finder<'a> {
    pub(crate) fn new(scope: &'a ScanScope, exclude: &'a GlobSet, bounds: Bounds) -> Self {
        Self {
            scope,
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
        relative(&self.scope.cwd, path).unwrap_or_else(|| path.display().to_string())
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
            MentionKind::Read => 0,
            MentionKind::Write => 1,
            MentionKind::List => 2,
            MentionKind::Glob => 3,
            MentionKind::State => 4,
            MentionKind::Define(_) => 5,
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
            Base::Current => vec![self.scope.cwd.clone()],
            Base::Free => bases.to_vec(),
        };
        let is_here = if mention.how == MentionKind::Write {
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
                .scope
                .cwd
                .ancestors()
                .skip(1)
                .take_while(|dir| dir.starts_with(&self.scope.top));
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
        if is_odd || (text.is_empty() && mention.how != MentionKind::List && mention.value.base == Base::Free) {
            return false;
        }
        let looks_like_path = text.contains('/') || text.contains('.');
        if mention.is_weak && !looks_like_path {
            return false;
        }
        let endings = if mention.how == MentionKind::State {
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
                is_here |= self.file(&path, &IncludeReason::Named(self.shown(by)), by, new);
            } else if meta.is_dir() {
                is_here = true;
                let is_listed = mention.how == MentionKind::List;
                if !mention.is_weak || (text.contains('/') && !text.contains(' ')) {
                    self.directory(&path, is_listed, by, new);
                }
            }
        }
        is_here
    }

    fn matching(&mut self, dir: &Path, pattern: &str, mention: &Mention, by: &Path, new: &mut Vec<PathBuf>) {
        let Some(path) = normalized(&dir.join("x")) else { return };
        if !self.scope.holds(path.parent().unwrap_or(&path)) {
            return;
        }
        if self.scope.is_private(&path) {
            return;
        }
        let (files, dirs) = pattern::matches(&mut self.listings, dir, pattern, &self.scope.top);
        // A bare `*` may match what is not meant; what it matches is named by nobody.
        let files: Vec<PathBuf> = files.iter().filter_map(|file| normalized(file)).collect();
        self.files(&files, &IncludeReason::Matches(pattern.to_owned()), by, new);
        let is_bare = pattern.rsplit('/').next() == Some("*");
        for dir in dirs.into_iter().filter_map(|dir| normalized(&dir)) {
            if is_bare && mention.how == MentionKind::Glob {
                self.room(&dir);
            } else if !self.scope.is_around(&dir) {
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

    pub(crate) fn room(&mut self, dir: &Path) {
        if self.is_allowed(dir) && !self.scope.is_around(dir) && dir.starts_with(&self.scope.top) {
            self.found.dirs.insert(dir.to_owned());
        }
    }
}
