//! Laying an attempt's files out: a private directory, its work directory, and in it what the job names.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use bus::{
    files::{self, Files},
    ids::{Attempt, Digest, JobId},
    spec::InputFile,
};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::patience::patiently;

/// Files that are fetched at once.
const AT_ONCE: usize = 8;

/// Why an attempt's files could not be laid out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The worker's disk.
    #[error("cannot lay out the job's files in {path}: {source}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The store.
    #[error("cannot fetch the input {path}: {}", chain(source))]
    Fetch {
        /// The input.
        path: String,
        /// What happened.
        source: files::Error,
    },
}

/// An error with everything that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

/// What a file was when it was laid out, to tell whether the command changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Laid {
    /// Its content.
    pub(crate) sha256: Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// When it was last written.
    pub(crate) modified: Option<SystemTime>,
}

/// An attempt's private directory. It is removed with everything in it when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    /// The command's current directory.
    pub(crate) work: PathBuf,
    /// Its `TMPDIR` and `HOME`.
    pub(crate) scratch: PathBuf,
    /// What was laid into the work directory.
    pub(crate) laid: HashMap<PathBuf, Laid>,
}

impl Place {
    /// Makes the directories of an attempt below `base`.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub(crate) fn make(base: &Path, job: JobId, attempt: Attempt) -> Result<Self, Error> {
        let root = base.join(format!("{job}-{attempt}"));
        let disk = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Disk { path, source }
        };
        if let Err(error) = std::fs::create_dir(&root) {
            // Only an attempt that was fenced can have left it: its session is over.
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(disk(&root)(error));
            }
            std::fs::remove_dir_all(&root)
                .and_then(|()| std::fs::create_dir(&root))
                .map_err(disk(&root))?;
        }
        let place = Self {
            work: root.join("work"),
            scratch: root.join("tmp"),
            root,
            laid: HashMap::new(),
        };
        std::fs::create_dir(&place.work).map_err(disk(&place.work))?;
        std::fs::create_dir(&place.scratch).map_err(disk(&place.scratch))?;
        Ok(place)
    }

    /// The directory for what is not the command's: its spooled log.
    #[must_use]
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Fetches the inputs into the work directory, each verified against its hash.
    ///
    /// # Errors
    /// If the store lacks one, or the disk does not take it.
    pub(crate) async fn lay(&mut self, files: &Files, inputs: &[InputFile]) -> Result<(), Error> {
        if inputs.is_empty() {
            return Ok(());
        }
        let work = &self.work;
        let fetched = futures::stream::iter(inputs.iter().cloned().map(|input| async move {
            let relative = PathBuf::from(input.path.as_str());
            let path = work.join(&relative);
            let disk = |source| Error::Disk {
                path: path.clone(),
                source,
            };
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(disk)?;
            }
            patiently("fetch an input", || files.get_file(&input.sha256, &path, input.executable))
                .await
                .map_err(|source| Error::Fetch {
                    path: input.path.to_string(),
                    source,
                })?;
            let modified = std::fs::metadata(&path).map_err(disk)?.modified().ok();
            Ok((
                relative,
                Laid {
                    sha256: input.sha256,
                    size: input.size,
                    modified,
                },
            ))
        }))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
        self.laid.extend(fetched);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // An empty attempt (the common case where many are short) is three calls; the walk is for the others.
        let emptied = std::fs::remove_dir(&self.work)
            .and_then(|()| std::fs::remove_dir(&self.scratch))
            .and_then(|()| std::fs::remove_dir(&self.root));
        if emptied.is_err() {
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}
