//! Files and directories that were found are taken into the result, as far as they are allowed and fit the bounds.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    finder::Finder,
    found::{Bounds, IncludeReason},
    git, is_source, parallel,
    secret::has_secret_content,
    skipped::{is_repository_metadata, is_skipped},
};

/// What `SQLite` keeps beside a database.
const BESIDE_DATABASE: [&str; 3] = ["-wal", "-shm", "-journal"];

impl Finder<'_> {
    /// Whether something may be sent: it is within the project, by its path and by where its links lead.
    pub(crate) fn is_allowed(&mut self, path: &Path) -> bool {
        self.scope.holds(path) && self.real(path).is_some_and(|real| self.scope.holds(&real))
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
        let within = path.strip_prefix(&self.scope.cwd).or_else(|_| path.strip_prefix(&self.scope.top));
        within.is_ok_and(|path| {
            path.ancestors()
                .any(|part| !part.as_os_str().is_empty() && self.exclude.is_match(part))
        })
    }

    /// Whether something is a repository's own, or lies in the user's home where only what is named exactly, and not hidden, is meant.
    fn is_private(&self, path: &Path, why: &IncludeReason) -> bool {
        if is_repository_metadata(path) {
            return true;
        }
        let is_exact = matches!(why, IncludeReason::Named(_) | IncludeReason::Imported(_));
        let home = self.scope.home.as_deref().unwrap_or(Path::new("/"));
        let below = path.strip_prefix(home).unwrap_or(path);
        let is_hidden = below.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."));
        self.scope.is_private(path) && (!is_exact || is_hidden)
    }

    /// Takes a file along. Says whether it is here and was dealt with.
    pub(crate) fn file(&mut self, path: &Path, why: &IncludeReason, by: &Path, new: &mut Vec<PathBuf>) -> bool {
        if self.found.files.contains_key(path) {
            return true;
        }
        if self.is_excluded(path) {
            return true;
        }
        let real = self.real(path).filter(|real| self.scope.holds(path) && self.scope.holds(real));
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
    pub(crate) fn files(&mut self, paths: &[PathBuf], why: &IncludeReason, by: &Path, new: &mut Vec<PathBuf>) {
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
        let is_around = self.scope.is_around(dir);
        if (is_around && !is_listed) || is_skipped(dir, true) || self.is_excluded(dir) {
            return;
        }
        if !self.is_allowed(dir) {
            return self.note_outside(dir, by);
        }
        if self.scope.is_private(&dir.join("x")) || is_repository_metadata(dir) {
            return self.note_home(dir, by);
        }
        let shown = match self.shown(dir) {
            shown if shown.is_empty() => "the current directory".to_owned(),
            shown => format!("{shown}/"),
        };
        self.whole(dir, is_around, &IncludeReason::In(shown), by, new);
    }

    /// Takes all of a directory along, once.
    pub(crate) fn whole(&mut self, dir: &Path, as_git: bool, why: &IncludeReason, by: &Path, new: &mut Vec<PathBuf>) {
        if self.taken.insert((dir.to_owned(), String::new(), as_git)) {
            self.all_of(dir, as_git, why, |_| true, by, new);
        }
    }

    /// The source below a directory: what a package without a mark of its own is made of.
    pub(crate) fn sources(&mut self, dir: &Path, endings: &[&str], why: &IncludeReason, by: &Path, new: &mut Vec<PathBuf>) {
        let is_source = |path: &Path| path.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known));
        let is_meant = self.is_allowed(dir) && !is_skipped(dir, true);
        if is_meant && self.taken.insert((dir.to_owned(), endings.join(" "), false)) {
            self.all_of(dir, false, why, is_source, by, new);
        }
    }

    /// Takes what is below a directory along, all of it or, where it does not fit the bounds, nothing.
    fn all_of(
        &mut self,
        dir: &Path,
        as_git: bool,
        why: &IncludeReason,
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
            if dir == self.scope.cwd {
                let Bounds { files, bytes: most } = self.bounds;
                self.found.too_large = Some(format!(
                    "it has {more}{count} ({}), and the scan adds at most {files} files and {}; name the needed files with --include, leave out others with --exclude, raise the limits with --scan-files and --scan-bytes, or send the whole directory with --workdir",
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
