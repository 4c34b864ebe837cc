//! Removes local files that the job removed from its inputs, if they have not changed since.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use bus::{ids::Digest, spec::RelPath};
use client::{ensure_inside, target};

use super::{
    OWN_DIR, OutputFile, Report, Saver,
    journal::{JournalEntry, absolute},
    path_kind::{PathKind, path_kind},
    sent::SentInput,
    shown,
};

/// What happened to a path that the job removed.
enum RemoveOutcome {
    /// It is removed here.
    Removed(PathBuf),
    /// It was not here, or not sent.
    Nothing,
    /// It stays here, for this reason.
    Stays(&'static str),
}

/// What identifies the file that a link leads to.
fn led(at: &Path) -> Option<Digest> {
    let real = at.is_symlink().then(|| at.canonicalize().ok()).flatten()?;
    match path_kind(&real).ok()? {
        PathKind::Leaf(content) => Some(content),
        PathKind::Nothing | PathKind::Directory | PathKind::Special => None,
    }
}

impl Saver<'_> {
    /// Removes here what the job removed. Where an output could not be saved, nothing goes: it may be the same content under its new name.
    pub(crate) fn remove_all(&self, report: &mut Report) {
        if self.deleted.is_empty() {
            return;
        }
        let dirs = self.target.sent.all_dirs();
        if !self.target.removes || !report.is_whole() {
            let is_here = |path: &str| self.target.into.join(path).symlink_metadata().is_ok();
            let files = self.deleted.iter().filter(|gone| !dirs.contains(gone.there.as_str()));
            report.left += files.filter(|gone| is_here(gone.what.as_str())).count();
            return;
        }
        let of = |gone: &OutputFile<RelPath>| shown(&self.target.into.join(gone.what.as_str()));
        // What is in a directory goes before it.
        for gone in self.deleted.iter().rev() {
            match self.remove(gone.what.as_str(), &gone.there, &dirs) {
                Ok(RemoveOutcome::Removed(path)) => report.removed.push(shown(&path)),
                Ok(RemoveOutcome::Nothing) => {}
                Ok(RemoveOutcome::Stays(why)) => report.stays.push(format!("{} ({why})", of(gone))),
                Err(error) => report.stays.push(format!("{} ({error:#})", of(gone))),
            }
        }
        report.removed.reverse();
        report.stays.reverse();
    }

    /// Removes what the job removed below a directory, and the directory if nothing is left in it: it made something else of that.
    pub(crate) fn remove_below(&self, there: &str) {
        if !self.target.removes {
            return;
        }
        let dirs = self.target.sent.all_dirs();
        let is_below = |path: &str| path == there || path.strip_prefix(there).is_some_and(|rest| rest.starts_with('/'));
        for gone in self.deleted.iter().rev().filter(|gone| is_below(&gone.there)) {
            // What stays is in the way, and said to be.
            let _ = self.remove(gone.what.as_str(), &gone.there, &dirs);
        }
    }

    fn remove(&self, path: &str, there: &str, dirs: &HashSet<&str>) -> anyhow::Result<RemoveOutcome> {
        let into = self.target.into;
        let at = target(into, path)?;
        if path.split('/').next() == Some(OWN_DIR) {
            return Ok(RemoveOutcome::Stays("`.rgrid` is rgrid's own directory"));
        }
        if at.parent().is_none_or(|dir| ensure_inside(into, dir).is_err()) {
            return Ok(RemoveOutcome::Stays("it lies behind a link that leads out of the directory"));
        }
        if let Some(given) = self.target.sent.get(there) {
            return match path_kind(&at)? {
                PathKind::Leaf(content) if content == given.identity() => {
                    self.remove_leaf(&at, path, given)?;
                    Ok(RemoveOutcome::Removed(at))
                }
                // A link of the user's own stood for a file: it is the link that a script removes by that name.
                PathKind::Leaf(_) if led(&at) == Some(given.identity()) => {
                    let target = fs::read_link(&at)?.to_string_lossy().into_owned();
                    self.remove_leaf(&at, path, &SentInput::Link(target))?;
                    Ok(RemoveOutcome::Removed(at))
                }
                PathKind::Leaf(_) => Ok(RemoveOutcome::Stays("it has changed since it was sent")),
                PathKind::Nothing | PathKind::Directory | PathKind::Special => Ok(RemoveOutcome::Nothing),
            };
        }
        if dirs.contains(there) && at.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let is_empty = fs::read_dir(&at)?.next().is_none();
            if is_empty {
                self.journal.note(&[JournalEntry::RemovedDirectory {
                    base: absolute(into),
                    path: path.to_owned(),
                }]);
                // Something came into it meanwhile: it stays.
                let _ = fs::remove_dir(&at);
            }
        }
        Ok(RemoveOutcome::Nothing)
    }

    /// Removes a file or link that is as it was sent; notes before how it is had again.
    pub(crate) fn remove_leaf(&self, at: &Path, path: &str, given: &SentInput) -> io::Result<()> {
        let (base, path) = (absolute(self.target.into), path.to_owned());
        let mode = fs::symlink_metadata(at)?.permissions().mode() & 0o777;
        self.journal.note(&[match given {
            SentInput::File { sha256, size, .. } => JournalEntry::Removed {
                base,
                path,
                sha256: *sha256,
                size: *size,
                mode,
            },
            SentInput::Link(target) => JournalEntry::RemovedLink {
                base,
                path,
                target: target.clone(),
            },
        }]);
        fs::remove_file(at)
    }
}
