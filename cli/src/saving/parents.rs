//! The directories that an output needs: checked, and made.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use client::{ensure_inside, target};

use super::{
    OWN_DIR, Saver,
    decide::SaveMode,
    path_kind::{PathKind, path_kind},
};

impl Saver<'_> {
    /// The path of an output here.
    pub(super) fn place_of(&self, path: &str) -> anyhow::Result<PathBuf> {
        ensure!(path.split('/').next() != Some(OWN_DIR), "`{OWN_DIR}` is rgrid's own directory");
        target(self.target.into, path)
    }

    /// As [`Self::way_to`], once for all files of a directory: no link of the job's is made before they are saved.
    pub(super) fn create_parents_once(&self, path: &str, there: &str) -> anyhow::Result<PathBuf> {
        let at = self.place_of(path)?;
        if self.checked_dirs.lock().contains(parent(&at)) {
            return Ok(at);
        }
        let at = self.create_parents(path, there)?;
        self.checked_dirs.lock().insert(parent(&at).to_owned());
        Ok(at)
    }

    /// Makes the way to an output: its directories. What was sent as a file or link and is a directory now goes.
    pub(super) fn create_parents(&self, path: &str, there: &str) -> anyhow::Result<PathBuf> {
        let into = self.target.into;
        let at = self.place_of(path)?;
        self.check_repository(path, there)?;
        for (end, _) in path.match_indices('/') {
            let above = there
                .len()
                .checked_sub(path.len() - end)
                .and_then(|end| there.get(..end))
                .unwrap_or_default();
            self.remove_replaced_input(&into.join(&path[..end]), &path[..end], above)?;
        }
        let dir = parent(&at);
        ensure_inside(into, dir)?;
        fs::create_dir_all(dir).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                anyhow::anyhow!("a file exists where the directory {} is needed", dir.display())
            }
            _ => anyhow::Error::new(error).context(format!("cannot make the directory {}", dir.display())),
        })?;
        Ok(at)
    }

    /// Refuses to save in a git repository that is here and was not sent: what stands in it runs when the user calls git.
    fn check_repository(&self, path: &str, there: &str) -> anyhow::Result<()> {
        let Some(at) = format!("/{path}").find("/.git/") else {
            return Ok(());
        };
        let end = at + ".git".len();
        let dir = self.target.into.join(&path[..end]);
        let head = there.get(..there.len() - (path.len() - end)).map(|dir| format!("{dir}/HEAD"));
        let was_sent = head.is_some_and(|head| self.target.sent.get(&head).is_some());
        let was_here = *self
            .repositories
            .lock()
            .entry(dir)
            .or_insert_with_key(|dir| fs::symlink_metadata(dir).is_ok());
        ensure!(was_sent || !was_here, "it belongs to a local git repository that was not sent");
        Ok(())
    }

    /// Removes what stands where a directory is due, if it was sent to this job and is as it was sent.
    fn remove_replaced_input(&self, at: &Path, path: &str, there: &str) -> anyhow::Result<()> {
        if !matches!(self.target.mode, SaveMode::AsRun { .. }) || fs::symlink_metadata(at).is_ok_and(|meta| meta.is_dir()) {
            return Ok(());
        }
        if let Some(given) = self.target.sent.get(there)
            && path_kind(at)? == PathKind::Leaf(given.identity())
        {
            self.remove_leaf(at, path, given).context("cannot replace a file by a directory")?;
        }
        Ok(())
    }
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
