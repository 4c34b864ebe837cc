//! What a job removed of what it was given is removed here, if nobody changed it since.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    Bringer, OWN_DIR, Report,
    journal::{Deed, absolute},
    look::{Thing, look},
    sent::Given,
};
use crate::client::{ensure_inside, target};

/// What became of a path that the job removed.
enum Gone {
    /// It is removed here.
    Removed(PathBuf),
    /// It was not here, or not sent.
    Nothing,
    /// It was changed here since.
    Changed(PathBuf),
}

impl Bringer<'_> {
    /// Removes here what the job removed. Where an output could not be saved, nothing goes: it may be the same content under its new name.
    pub(super) fn remove_all(&self, report: &mut Report) {
        if self.deleted.is_empty() {
            return;
        }
        let dirs = self.whither.sent.all_dirs();
        if !self.whither.removes || !report.is_whole() {
            let is_here = |path: &str| self.whither.into.join(path).symlink_metadata().is_ok();
            let files = self.deleted.iter().filter(|gone| !dirs.contains(gone.there.as_str()));
            report.left += files.filter(|gone| is_here(gone.what.as_str())).count();
            return;
        }
        // What is in a directory goes before it.
        for gone in self.deleted.iter().rev() {
            match self.remove(gone.what.as_str(), &gone.there, &dirs) {
                Ok(Gone::Removed(path)) => report.removed.push(path.display().to_string()),
                Ok(Gone::Nothing) => {}
                Ok(Gone::Changed(path)) => report.changed.push(path.display().to_string()),
                Err(error) => report.changed.push(format!("{} ({error:#})", gone.what)),
            }
        }
        report.removed.reverse();
        report.changed.reverse();
    }

    /// Removes what the job removed below a directory, and the directory if nothing is left in it: it made something else of that.
    pub(super) fn remove_below(&self, there: &str) {
        if !self.whither.removes {
            return;
        }
        let dirs = self.whither.sent.all_dirs();
        let is_below = |path: &str| path == there || path.strip_prefix(there).is_some_and(|rest| rest.starts_with('/'));
        for gone in self.deleted.iter().rev().filter(|gone| is_below(&gone.there)) {
            // What stays is in the way, and said to be.
            let _ = self.remove(gone.what.as_str(), &gone.there, &dirs);
        }
    }

    fn remove(&self, path: &str, there: &str, dirs: &HashSet<&str>) -> anyhow::Result<Gone> {
        let into = self.whither.into;
        let at = target(into, path)?;
        if path.split('/').next() == Some(OWN_DIR) || !at.parent().is_some_and(|dir| ensure_inside(into, dir).is_ok()) {
            return Ok(Gone::Nothing);
        }
        if let Some(given) = self.whither.sent.get(there) {
            return match look(&at)? {
                Thing::Leaf(content) if content == given.identity() => {
                    self.remove_leaf(&at, path, given)?;
                    Ok(Gone::Removed(at))
                }
                Thing::Leaf(_) => Ok(Gone::Changed(at)),
                Thing::Nothing | Thing::Directory | Thing::Special => Ok(Gone::Nothing),
            };
        }
        if dirs.contains(there) && at.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let is_empty = fs::read_dir(&at)?.next().is_none();
            if is_empty {
                self.journal.note(&[Deed::RemovedDirectory {
                    base: absolute(into),
                    path: path.to_owned(),
                }]);
                // Something came into it meanwhile: it stays.
                let _ = fs::remove_dir(&at);
            }
        }
        Ok(Gone::Nothing)
    }

    /// Removes a file or link that is as it was sent; notes before how it is had again.
    pub(super) fn remove_leaf(&self, at: &Path, path: &str, given: &Given) -> io::Result<()> {
        let (base, path) = (absolute(self.whither.into), path.to_owned());
        let mode = fs::symlink_metadata(at)?.permissions().mode() & 0o777;
        self.journal.note(&[match given {
            Given::File { sha256, size, .. } => Deed::Removed {
                base,
                path,
                sha256: *sha256,
                size: *size,
                mode,
            },
            Given::Link(target) => Deed::RemovedLink {
                base,
                path,
                target: target.clone(),
            },
        }]);
        fs::remove_file(at)
    }
}
